import pytest
import pytest_asyncio

from memory_core.storage import StorageContext
from memory_core.testing.data.kinds import kit_context
from memory_storage_lmdb.config import LmdbConfig
from memory_storage_lmdb.engine import directory
from memory_storage_lmdb.storage import LmdbStorage
from memory_storage_lmdb.write import writing


@pytest.fixture
def location(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def small_map(monkeypatch):
    """Maps begin with 1 MiB."""
    monkeypatch.setattr(directory, "_MAP_SIZE", 2**20)


@pytest.fixture(autouse=True)
def no_idling(monkeypatch):
    """Index entries stay pending until the test has them written."""
    monkeypatch.setattr(writing, "_IDLE_SECONDS", 1_000.0)


@pytest_asyncio.fixture
async def opens(location):
    """Opens the store of the test; what it opened is closed at the end."""
    opened = []

    async def open_one(*, at=None, namespace="default", types=None, **options):
        context = kit_context(namespace)
        if types is not None:
            context = StorageContext(namespace=namespace, record_types=types)
        storage = await LmdbStorage.open(
            at or location, config=LmdbConfig(**options), context=context
        )
        opened.append(storage)
        return storage

    yield open_one
    for storage in reversed(opened):
        await storage.aclose()
