import json
import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from memory_core import Episode, Query, open_memory
from memory_core.cli.app import build
from memory_core.errors import CodecError, ConfigurationError, StorageUnavailableError
from memory_core.plugins import PluginRegistry
from memory_core.records import Relationship
from memory_core.testing.data.kinds import Specimen, kit_context
from memory_core.testing.data.samples import edge, episode, sample_id
from memory_core.testing.suite.harness import put, remove, stored
from memory_storage_jsonl.repair import repair
from memory_storage_jsonl.storage import JsonlStorage

TYPES = kit_context().record_types


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.jsonl"


async def opened(path: Path) -> JsonlStorage:
    return await JsonlStorage.open(str(path), context=kit_context())


def change(path: Path, number: int, old: bytes, new: bytes) -> None:
    """Change a line, by its number from 1."""
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[number - 1].count(old) == 1
    lines[number - 1] = lines[number - 1].replace(old, new)
    path.write_bytes(b"".join(lines))


async def five_episodes(path: Path) -> None:
    """Lines: the header; 2 and 3 with a commit; 5, 6 and 7 with a commit; 9, a deletion, with a commit."""
    store = await opened(path)
    await put(store, episode(1), episode(2))
    await put(store, episode(3), edge(1, 1, 3), episode(4))
    await remove(store, Episode, episode(2).id)
    await put(store.scoped("other"), episode(5))
    await store.aclose()


async def test_a_whole_store_is_left_as_it_is(path):
    await five_episodes(path)
    before = path.read_bytes()
    found = repair(path, TYPES, write=True)
    assert (found.is_damaged, found.dropped, found.unchecked, found.copy) == (False, [], [], None)
    assert (found.commits, found.records) == (4, 5)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


async def test_lines_that_can_be_read_are_kept_and_the_others_named(path):
    await five_episodes(path)
    change(path, 7, b'"record":{', b'"record":')
    damaged = path.read_bytes()
    with pytest.raises(CodecError, match="memory jsonl repair"):
        await opened(path)
    found = repair(path, TYPES)
    assert (found.is_damaged, found.commits, found.records) == (True, 3, 4)
    assert found.unchecked == [5, 6]
    [dropped] = found.dropped
    assert (dropped.line, dropped.content) == (7, damaged.splitlines(keepends=True)[6])
    assert path.read_bytes() == damaged
    written = repair(path, TYPES, write=True)
    assert written.copy is not None
    assert written.copy.read_bytes() == damaged
    assert stat.S_IMODE(written.copy.stat().st_mode) == 0o600
    store = await opened(path)
    assert await stored(store, episode(1), episode(3), edge(1, 1, 3))
    assert await store.get(Episode, [episode(2).id, episode(4).id]) == [None, None]
    assert await stored(store.scoped("other"), episode(5))
    await put(store, episode(4))
    await store.aclose()
    assert repair(path, TYPES).is_damaged is False


async def test_what_knew_the_damaged_store_starts_over(path):
    await five_episodes(path)
    store = await opened(path)
    before = await store.stats()
    await store.aclose()
    change(path, 7, b'"record":{', b'"record":')
    repair(path, TYPES, write=True)
    store = await opened(path)
    after = await store.stats()
    assert after.store_id != before.store_id
    assert after.position == before.position
    assert (await store.changes(before.position - 1)).trimmed
    receipt = await put(store, episode(9))
    assert receipt.position == before.position + 1
    await store.aclose()


async def test_records_that_break_a_rule_without_what_is_lost_are_dropped(path):
    await five_episodes(path)
    change(path, 5, b'"record":{', b'"record":')
    found = repair(path, TYPES, write=True)
    assert [item.line for item in found.dropped] == [5, 0]
    assert str(edge(1, 1, 3).id) in found.dropped[1].content.decode()
    assert str(episode(3).id) in found.dropped[1].reason
    store = await opened(path)
    assert await store.count(Query(Relationship)) == 0
    assert await stored(store, episode(1), episode(4))
    await store.aclose()


async def test_of_records_with_one_unique_value_the_last_stays(path):
    store = await opened(path)
    first, last = (Specimen(id=sample_id("specimen", n), code="same") for n in range(2))
    await put(store, first)
    # What frees the value is lost.
    await put(store, first.replace(code="other"))
    await put(store, last)
    await store.aclose()
    change(path, 4, b'"record":{', b'"record":')
    found = repair(path, TYPES, write=True)
    assert len(found.dropped) == 2
    store = await opened(path)
    assert await store.get(Specimen, [first.id, last.id]) == [None, last]
    await store.aclose()


async def test_an_interrupted_commit_at_the_end_is_no_damage(path):
    await five_episodes(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"put":"default","record":{"ki')
    found = repair(path, TYPES, write=True)
    assert (found.is_damaged, found.copy, found.records) == (False, None, 5)
    [dropped] = found.dropped
    assert (dropped.line, "never acknowledged" in dropped.reason) == (13, True)


async def test_a_lost_commit_line_loses_no_record(path):
    await five_episodes(path)
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[3]
    path.write_bytes(b"".join(lines))
    found = repair(path, TYPES, write=True)
    assert (found.unchecked, found.dropped, found.records) == ([2, 3], [], 5)


async def test_an_open_store_is_not_repaired(path):
    await five_episodes(path)
    store = await opened(path)
    for write in (False, True):
        with pytest.raises(StorageUnavailableError):
            repair(path, TYPES, write=write)
    await store.aclose()


async def test_a_store_of_several_names_is_not_replaced_under_one_of_them(path):
    await five_episodes(path)
    change(path, 7, b'"record":{', b'"record":')
    os.link(path, path.with_name("other.jsonl"))
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="hard links"):
        repair(path, TYPES, write=True)
    assert path.read_bytes() == before


def command(url: str, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(
        build(PluginRegistry()), ["--url", url, "jsonl", "repair", *arguments]
    )
    assert result.exit_code == code, result.output
    return result.stdout


async def test_the_command_says_what_it_drops_and_writes_only_when_told(path, tmp_path):
    async with open_memory(f"jsonl:{path}") as memory:
        await memory.put(episode(1), episode(2))
        await memory.put(episode(3))
    url = f"jsonl:{path}"
    assert "opens as it is" in command(url)
    change(path, 3, b'"record":{', b'"record":')
    before = path.read_bytes()
    said = command(url, code=1)
    assert "2 records can be kept" in said
    assert "lines 2" in said
    assert "dropped: line 3: " in said
    found = json.loads(command(url, "--json", code=1))
    assert (found["is_damaged"], found["records"], found["unchecked_lines"]) == (True, 2, [2])
    assert [item["line"] for item in found["dropped"]] == [3]
    assert found["copy"] is None
    assert path.read_bytes() == before
    written = json.loads(command(url, "--json", "--yes"))
    assert Path(written["copy"]).read_bytes() == before
    async with open_memory(url, read_only=True) as memory:
        assert await memory.count(Query(Episode)) == 2
    command(f"turso:{tmp_path}/other.db", code=2)
