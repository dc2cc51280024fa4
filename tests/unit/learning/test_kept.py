"""Learning goes on where an earlier process ended, and equals a full run."""

import asyncio
import hashlib
import os
import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_core import Episode, WrapperFactory, hookimpl, open_memory
from memory_core.following import Bookmark
from memory_core.inmemory import InMemoryStorage
from memory_core.learning import tally_of
from memory_core.learning.kept import read_facts
from memory_core.learning.learned import LearnedFacts
from memory_core.learning.learner import Learner
from memory_core.plugins import PluginRegistry
from memory_core.records import CORE_RECORD_TYPES, RecordTypes
from memory_core.storage import WriteBatch
from tests.unit.learning.test_learning import BUILTIN, EPISODES, IDS, LOST, episode, several

FILE = "learned.facts"


def file_of(store):
    return store.with_name(f"{store.name}.search") / "default" / FILE


def registry_with(plugin):
    registry = PluginRegistry()
    registry.register(plugin, name="mine")
    return registry


async def learned_at(url, **options):
    """What one process learns, and how many episodes it reads for that."""
    async with open_memory(url, **options) as memory:
        learning = await memory.learn(min_support=2)
        [learner] = memory._learners.get()._learners.values()
        return learning, learner.follower.counters["changed"]


@pytest.fixture(params=["lmdb", "turso"])
async def store(request, tmp_path):
    async with open_memory(f"{request.param}:{tmp_path / 'store'}") as memory:
        await memory.store_episodes_batch(
            [*several(20, "look ask book"), *several(20, "look guess book", LOST)]
        )
    return f"{request.param}:{tmp_path / 'store'}"


async def test_the_next_process_reads_only_what_has_changed(store, tmp_path):
    first, read = await learned_at(store)
    assert (first.episodes, read) == (40, 40)
    assert (await learned_at(store))[1] == 0
    async with open_memory(store) as memory:
        await memory.store_episodes_batch(several(3, "look ask book"))
    second, read = await learned_at(store)
    assert (second.episodes, read) == (43, 3)
    file_of(tmp_path / "store").unlink()
    again, read = await learned_at(store)
    assert (again.episodes, again.written, again.removed, read) == (43, 0, 0, 43)


async def test_a_file_that_is_damaged_or_of_other_extractors_is_not_used(store, tmp_path):
    await learned_at(store)
    file = file_of(tmp_path / "store")
    assert file.stat().st_mode & 0o777 == 0o600
    content = file.read_bytes()
    for damaged in (b"", content[:-1], content[:100], content[:50] + b"\xff" + content[51:]):
        file.write_bytes(damaged)
        assert (await learned_at(store))[1] == 40
        assert (await learned_at(store))[1] == 0

    class Tools:
        name = "tools"

        def facts(self, episode):
            return [(tool,) for tool in episode.tools]

        def findings(self, counts):
            return ()

    class Plugin:
        @hookimpl
        def memory_extractors(self):
            return (Tools(),)

    assert (await learned_at(store, registry=registry_with(Plugin())))[1] == 40
    assert (await learned_at(store))[1] == 40


async def test_a_deleted_episode_leaves_the_file(store, tmp_path):
    async with open_memory(store) as memory:
        secret = episode("look tell_nobody book")
        await memory.store_episode(secret)
        await memory.learn()
        assert b"tell_nobody" in file_of(tmp_path / "store").read_bytes()
        await memory.delete_episode(secret.id)
        await memory.learn()
        assert b"tell_nobody" not in file_of(tmp_path / "store").read_bytes()
        await memory.remove_search_index()
        assert not file_of(tmp_path / "store").exists()


async def test_what_a_killed_process_left_is_removed(store, tmp_path):
    await learned_at(store)
    left = file_of(tmp_path / "store").with_name(f"{FILE}.4711")
    left.write_bytes(b"tell_nobody")
    # Nothing has changed, so nothing is written.
    assert (await learned_at(store))[1] == 0
    assert not left.exists()
    async with open_memory(store) as memory:
        await memory.learn()
        left.write_bytes(b"tell_nobody")
        await memory.store_episodes_batch(several(20, "look ask book"))
        await memory.learn()
        assert not left.exists()


async def test_a_file_that_cannot_be_written_is_written_by_the_next_call(store, tmp_path, caplog):
    file = file_of(tmp_path / "store")
    async with open_memory(store) as memory:
        secret = episode("look tell_nobody book")
        await memory.store_episode(secret)
        await memory.learn()
        aside = file.rename(tmp_path / "aside")
        file.mkdir()
        await memory.delete_episode(secret.id)
        await memory.learn()
        assert "is not kept" in caplog.text
        assert [one.name for one in file.parent.glob(f"{FILE}*")] == [FILE]
        file.rmdir()
        aside.rename(file)
        assert b"tell_nobody" in file.read_bytes()
        await memory.learn()
        assert b"tell_nobody" not in file.read_bytes()


async def test_what_is_not_a_file_or_too_large_is_not_read(store, tmp_path):
    await learned_at(store)
    file = file_of(tmp_path / "store")
    with file.open("r+b") as growing:
        growing.truncate(200 * 2**30)
    assert (await learned_at(store))[1] == 40
    assert (await learned_at(store))[1] == 0
    file.unlink()
    os.mkfifo(file)
    assert (await asyncio.wait_for(learned_at(store), 20))[1] == 40
    assert (await learned_at(store))[1] == 0


def head_of(content):
    (length,) = struct.unpack_from("<Q", content)
    return msgspec.msgpack.decode(content[8 : 8 + length]), content[8 + length : -16]


def file_with(head, rest):
    encoded = msgspec.msgpack.encode(head)
    content = struct.pack("<Q", len(encoded)) + encoded + rest
    return content + hashlib.blake2b(content, digest_size=16).digest()


UNFIT = {
    "no head": lambda head, rest: (None, rest),
    "position": lambda head, rest: ([*head[:2], -1, *head[3:]], rest),
    "text twice": lambda head, rest: ([*head[:5], [*head[5][:-1], head[5][0]], *head[6:]], rest),
    "fewer texts": lambda head, rest: ([*head[:5], head[5][:2], *head[6:]], rest),
    "large size": lambda head, rest: ([*head[:6], 2**40, head[7]], rest),
    "small size": lambda head, rest: ([*head[:6], 1, head[7]], rest),
    "more keys": lambda head, rest: ([*head[:7], head[7] + 1], rest),
    "many keys": lambda head, rest: ([*head[:7], 2**40], rest),
    "fewer keys": lambda head, rest: ([*head[:7], head[7] - 1], rest),
    "cut": lambda head, rest: (head, rest[:-3]),
    "long key": lambda head, rest: (head, rest[:4] + b"\xff" * 4 + rest[8:]),
    "key twice": lambda head, rest: (head, b"\1\0\0\0" + rest[4:]),
    "key without domain": lambda head, rest: (head, rest[:8] + b"\5" + rest[9:]),
    "unended code": lambda head, rest: (head, rest[:9] + b"\x80" + rest[10:]),
    "number": lambda head, rest: (head, rest[:-4] + b"\xff" * 4),
    "number twice": lambda head, rest: (head, rest[:-4] + rest[-8:-4]),
    "outcome": lambda head, rest: (head, rest.replace(b"\0\0\0\1\0\0\0\0", b"\0\0\0\2\0\0\0\0")),
    "episode twice": lambda head, rest: (head, rest + rest[-121:]),
    "no episode": lambda head, rest: (head, rest[: rest.index(b"\0\0\0\1\0\0\0\0") - 19]),
}  # fmt: skip


@pytest.mark.parametrize("unfit", UNFIT)
def test_content_that_does_not_fit_is_not_used(tmp_path, unfit):
    file = tmp_path / FILE
    facts = LearnedFacts(BUILTIN, file)
    asyncio.run(facts.clear())
    asyncio.run(facts.apply(several(3, "look ask book"), [], Bookmark(5)))
    facts.keep()
    head, rest = head_of(file.read_bytes())
    program = head[1]
    file.write_bytes(file_with(head, rest))
    assert read_facts(file, program) is not None
    changed = UNFIT[unfit](head, rest)
    assert changed != (head, rest)
    file.write_bytes(file_with(*changed))
    assert read_facts(file, program) is None


async def test_a_large_file_is_not_written_for_every_episode(store, tmp_path):
    await learned_at(store)
    before = file_of(tmp_path / "store").stat().st_mtime_ns
    async with open_memory(store) as memory:
        await memory.store_episode(episode("look ask book"))
    assert (await learned_at(store))[1] == 1
    assert file_of(tmp_path / "store").stat().st_mtime_ns == before
    assert (await learned_at(store))[1] == 1


async def test_nothing_is_kept_where_records_are_transformed(store, tmp_path):
    class Wrapper:
        @hookimpl
        def memory_wrapper_factories(self):
            return {"same": WrapperFactory(wrap=lambda storage: storage)}

    await learned_at(store, wrappers=["same"], registry=registry_with(Wrapper()))
    assert not file_of(tmp_path / "store").exists()


@given(
    st.lists(
        EPISODES | EPISODES | st.sampled_from(IDS) | st.just("again"), min_size=10, max_size=40
    )
)
@settings(max_examples=50, deadline=None)
def test_whatever_changes_between_processes_it_equals_a_full_run(tmp_path_factory, changes):
    file = tmp_path_factory.mktemp("kept") / FILE
    types = RecordTypes(CORE_RECORD_TYPES)

    async def findings_of(storage, kept):
        learner = Learner(storage, storage, types, BUILTIN, kept)
        await learner.follower.catch_up()
        facts = learner._facts
        found = {one: tally_of(finding) for one, finding in facts.findings(2).items()}
        facts.keep()
        await learner.aclose()
        return len(facts), found

    async def compared(storage):
        assert await findings_of(storage, file) == await findings_of(storage, None)

    async def run():
        storage = InMemoryStorage()
        for change in [*changes, "again"]:
            batch = WriteBatch()
            if isinstance(change, Episode):
                await storage.commit((batch.put(change),))
            elif change == "again":
                await compared(storage)
            else:
                await storage.commit((batch.delete(Episode, change),))

    asyncio.run(run())


def test_extractors_without_a_file_keep_nothing(tmp_path):
    from memory_core.learning.kept import program_of

    code = "class Odd:\n    name = 'odd'\n"
    made: dict[str, object] = {"__name__": "nowhere"}
    exec(code, made)
    assert program_of([made["Odd"]()]) is None
    assert program_of(PluginRegistry(discover=False).extractors.values()) is not None
