"""Code of a record may raise any error: its batch is rejected, and no other batch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from attrs import frozen

from memory_core import InMemoryStorage, StorageContext, WriteBatch
from memory_core.errors import StorageError
from memory_core.records import CORE_RECORD_TYPES, Index, Record, RecordTypes
from memory_core.storage import Receipt, Storage
from memory_storage_lmdb.storage import LmdbStorage
from memory_storage_turso import TursoStorage


def _shout(label: Any) -> str:
    if label.text == 5:
        raise ValueError("no text")
    return str(label.text)


@frozen(kw_only=True)
class Label(Record):
    """Its index fails for a value that is not a text."""

    kind: ClassVar[str] = "label"
    text: Any = ""
    indexes: ClassVar[tuple[Index, ...]] = (Index("loud", path=_shout),)


BACKENDS = {"inmemory": InMemoryStorage, "lmdb": LmdbStorage, "turso": TursoStorage}


@pytest.fixture(params=BACKENDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    context = StorageContext(record_types=RecordTypes((*CORE_RECORD_TYPES, Label)))
    location = "" if request.param == "inmemory" else str(tmp_path / "store")
    opened = await BACKENDS[request.param].open(location, context=context)
    yield opened
    await opened.aclose()


@pytest.mark.parametrize("others", [0, 40])
@pytest.mark.parametrize("text", [5, object()], ids=["index", "body"])
async def test_only_the_batch_of_the_record_is_rejected(
    store: Storage, text: object, others: int
) -> None:
    first, last = Label(text="first"), Label(text="last")
    broken = WriteBatch().put(*(Label(text="with it") for _ in range(others)), Label(text=text))
    results = await store.commit([WriteBatch().put(first), broken, WriteBatch().put(last)])
    assert [type(result) for result in results] == [Receipt, StorageError, Receipt]
    assert "could not be encoded" in str(results[1])
    assert await store.get(Label, [first.id, last.id]) == [first, last]
