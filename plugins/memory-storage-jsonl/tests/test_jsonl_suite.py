import asyncio
from contextlib import contextmanager
from pathlib import Path

from memory_core.storage import Capability
from memory_core.testing import StorageSuite, kit_context
from memory_storage_jsonl.config import JsonlConfig
from memory_storage_jsonl.frames import VERSION
from memory_storage_jsonl.storage import JsonlStorage


class TestJsonlStorage(StorageSuite):
    capabilities = frozenset(
        {
            Capability.BOUNDED_COUNTS,
            Capability.CHEAP_POSITION,
            Capability.DURABLE,
            Capability.NAMESPACES,
        }
    )
    coalesces_commits = True
    checks_when_opened = True

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        config = JsonlConfig(change_feed_limit=change_feed_limit or 100_000)
        return await JsonlStorage.open(location, config=config, context=context)

    @classmethod
    def url_of(cls, location):
        return f"jsonl:{location}"

    @classmethod
    def corrupt(cls, location, kind, record_id):
        log, mark = Path(location), f'"id":"{record_id}"'.encode()
        lines = log.read_bytes().splitlines(keepends=True)
        (place,) = (at for at, line in enumerate(lines) if mark in line)
        # Still JSON, and still a record.
        lines[place] = lines[place].replace(b'"task_description":"', b'"task_description":"~')
        log.write_bytes(b"".join(lines))

    @classmethod
    @contextmanager
    def lock(cls, location):
        with asyncio.Runner() as runner:
            # The process that has it open holds its lock.
            store = runner.run(cls.open(location, context=kit_context()))
            yield
            runner.run(store.aclose())

    @classmethod
    def make_newer(cls, location):
        log = Path(location)
        before = f'"version":{VERSION}'.encode()
        log.write_bytes(log.read_bytes().replace(before, b'"version":99', 1))
