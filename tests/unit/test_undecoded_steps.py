"""Steps are decoded when they are first looked at, and nothing else tells that they were not there before."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, cast
from uuid import UUID
from zlib import crc32

import attrs
import msgspec
import pytest

from memory_core import (
    CacheConfig,
    Episode,
    Limits,
    Outcome,
    Query,
    Record,
    RecordTypes,
    open_memory,
)
from memory_core.codec import Codec
from memory_core.codec import steps as codec_steps
from memory_core.codec.compression import CompressionConfig
from memory_core.codec.steps import LoggedSteps
from memory_core.errors import CodecError
from memory_core.memory.running import with_steps
from memory_core.records import ExecutionStep, Run, Step, StepResult
from memory_core.records.sizes import size_of
from memory_core.testing.data.samples import full_episode, large_episode
from memory_storage_lmdb.read import reading

CODEC = Codec(RecordTypes([Episode]), Limits())
LAST = ExecutionStep(number=99, tool="last")
LOGGED_CODEC = Codec(RecordTypes([Episode, Step, Run]), Limits())
PLAIN = Codec(RecordTypes([Episode]), Limits(), CompressionConfig(enabled=False))


@attrs.frozen(kw_only=True)
class Holding(Record):
    kind: ClassVar[str] = "holding"
    episode: Episode


def stored(episode: Episode, codec: Codec = CODEC) -> Any:
    """The episode as it comes from a store."""
    return codec.decode("episode", codec.encode(episode), episode.id)


def tools_of(episode: Episode) -> tuple[str, ...]:
    return tuple(step.tool for step in episode.steps)


USES: dict[str, Callable[[Any], object]] = {
    "equality": lambda one: (
        one == full_episode(1),
        full_episode(1) == one,
        one == full_episode(2),
    ),
    "hash": hash,
    "repr": repr,
    "pickle": lambda one: pickle.loads(pickle.dumps(one)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "replace": lambda one: one.replace(tags=("other",)),
    "evolve": lambda one: attrs.evolve(one, metadata={"a": "b"}),
    "asdict": attrs.asdict,
    "with steps": lambda one: one.with_steps([LAST]).steps,
    "texts": lambda one: [text.of(one) for text in Episode.texts],
    "index values": lambda one: one.index_values(),
    "encoding": CODEC.encode,
    "steps": lambda one: one.steps,
    "tools": lambda one: one.tools,
    "number": lambda one: one.step_count,
}


@pytest.mark.parametrize("use", USES)
def test_it_is_as_if_they_had_been_there(use: str) -> None:
    one = stored(full_episode(1))
    assert one.undecoded is not None
    assert USES[use](one) == USES[use](full_episode(1))
    assert one == full_episode(1)


@pytest.mark.parametrize("codec", [CODEC, PLAIN])
def test_they_are_decoded_once_and_then_released(codec: Codec) -> None:
    one = stored(large_episode(1), codec)
    steps = one.steps
    assert steps == large_episode(1).steps
    assert one.undecoded is None
    assert one.steps is steps


def test_the_head_the_number_and_the_tools_decode_no_step() -> None:
    one = stored(large_episode(1))
    assert type(one) is Episode
    assert one.task_description == large_episode(1).task_description
    assert one.is_complete == large_episode(1).is_complete
    assert one.step_count == 25
    assert one.tools == tools_of(large_episode(1))
    assert one.index_values() == large_episode(1).index_values()
    assert [text.of(one) for text in Episode.texts] == [
        text.of(large_episode(1)) for text in Episode.texts
    ]
    assert size_of(one) > 0
    assert one.undecoded is not None


@pytest.mark.parametrize("count", [0, 1, 15, 16, 300])
def test_any_number_of_steps(count: int) -> None:
    steps = [ExecutionStep(number=number, tool=f"tool {number}") for number in range(1, count + 1)]
    one = stored(Episode(task_description="counted", steps=steps))
    assert one.step_count == count
    assert one.tools == tuple(step.tool for step in steps)
    assert one.steps == tuple(steps)
    assert one.step_count == count


def test_many_steps_are_counted_from_four_bytes() -> None:
    raw = msgspec.msgpack.encode([ExecutionStep(number=1, tool="a")] * 70_000)
    assert codec_steps.UndecodedSteps(raw, UUID(int=1)).count == 70_000


def test_it_is_still_immutable() -> None:
    one = stored(full_episode(1))
    for touch in (False, True):
        if touch:
            assert one.steps
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            one.steps = ()
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            del one.steps
        with pytest.raises(AttributeError, match="'Episode' object has no attribute 'step'"):
            attrgetter("step")(one)
        assert not hasattr(one, "__dict__")


@pytest.mark.parametrize(
    "encode", [msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins]
)
def test_msgspec_never_leaves_them_out(encode: Callable[[Any], object]) -> None:
    one = stored(full_episode(1))
    with pytest.raises(TypeError, match="UndecodedSteps"):
        encode([one])
    assert one.steps
    assert encode([one]) == encode([full_episode(1)])


def test_what_steps_hold_is_immutable() -> None:
    step = ExecutionStep(
        number=1,
        tool="a",
        parameters={"a": {"b": [1, {"c": 2}]}, "d": 3},
        result=StepResult.success({"e": [4]}),
        metadata={"f": "g"},
    )
    [found] = stored(Episode(task_description="nested", steps=[step])).steps
    assert found.result is not None
    assert type(found) is ExecutionStep
    assert type(found.result) is StepResult
    inner = found.parameters["a"]
    mappings: list[dict[str, Any]] = [
        found.parameters,
        found.metadata,
        inner,
        inner["b"][1],
        found.result.output,
    ]
    for mapping in mappings:
        with pytest.raises(TypeError, match="immutable"):
            mapping["new"] = 1
    for items in (inner["b"], found.result.output["e"]):
        with pytest.raises(TypeError, match="immutable"):
            items.append(1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        cast("Any", found).parameters = {}
    assert found.parameters is found.parameters
    assert found == step
    assert hash(found) == hash(step)


@pytest.mark.parametrize("look", [False, True])
def test_steps_are_encoded_alike_before_and_after_they_are_looked_at(look: bool) -> None:
    one = stored(large_episode(1))
    if look:
        assert [step.parameters for step in one.steps]
    assert CODEC.serialize(one) == CODEC.serialize(large_episode(1))
    assert msgspec.json.encode(one.steps) == msgspec.json.encode(large_episode(1).steps)


@pytest.mark.parametrize(
    "result",
    [
        {"status": "error", "output": None, "message": None},
        {"status": "success", "output": "text", "message": "and an error"},
        {"status": "timeout", "output": "text", "message": None},
        {"status": "error", "output": {"a": 1}, "message": "wrong"},
    ],
)
def test_a_result_that_does_not_fit_its_status_is_an_error(result: dict[str, Any]) -> None:
    one = Episode(task_description="wrong", steps=[ExecutionStep(number=1, tool="a")])
    body = msgspec.msgpack.decode(CODEC.serialize(one))
    body["steps"][0]["result"] = result
    envelope = CODEC.seal(one, msgspec.msgpack.encode(body), None)
    found = CODEC.decode("episode", envelope, one.id)
    with pytest.raises(CodecError, match=r"result\.") as caught:
        _ = found.steps
    assert caught.value.record_id == one.id


def test_threads_that_look_first_get_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """All have begun to decode before one ends."""
    together = threading.Barrier(4, timeout=30)

    class Waiting:
        def decode(self, raw: bytes) -> Any:
            together.wait()
            return tuple(msgspec.msgpack.decode(raw, type=list[ExecutionStep]))

    one = stored(large_episode(1))
    monkeypatch.setattr(codec_steps, "_STEPS", Waiting())
    found: list[tuple[ExecutionStep, ...]] = []
    threads = [threading.Thread(target=lambda: found.append(one.steps)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(steps is found[0] for steps in found)
    assert one.steps is found[0]


def test_a_record_that_holds_an_episode_is_put_with_its_steps() -> None:
    one = stored(full_episode(1))
    assert one.undecoded is not None
    codec = Codec(RecordTypes([Holding]), Limits())
    holding = Holding(episode=one)
    found = codec.decode("holding", codec.encode(holding), holding.id)
    assert found.episode == full_episode(1)


def test_long_steps_are_decoded_with_the_rest() -> None:
    text = "x" * (codec_steps.LONG // 2)
    short = Episode(task_description="a", steps=[ExecutionStep(number=1, tool="a", action=text)])
    long = short.with_steps([ExecutionStep(number=2, tool="b", action=text)])
    assert stored(short).undecoded is not None
    one = stored(long)
    assert one.undecoded is None
    assert one == long


@pytest.mark.parametrize(("count", "length"), [(4, codec_steps.LONG + 1), (5_000, 20)])
def test_other_threads_run_while_long_steps_are_decoded(
    monkeypatch: pytest.MonkeyPatch, count: int, length: int
) -> None:
    numbers = range(1, count + 1)
    steps = [ExecutionStep(number=each, tool="a", action=f"{each}" * length) for each in numbers]
    one = Episode(task_description="a", steps=steps)
    logged = [Step(episode_id=one.id, step=step) for step in reversed(steps)]
    bodies, ids = [LOGGED_CODEC.encode(each) for each in logged], [each.id.bytes for each in logged]
    data = LOGGED_CODEC.encode(one)
    pauses: list[float] = []
    monkeypatch.setattr(codec_steps, "sleep", pauses.append)
    assert LOGGED_CODEC.decode_long("episode", data, one.id) == one
    assert len(pauses) > 3
    pauses.clear()
    found = LOGGED_CODEC.decode_long_together("step", one.id, ids, bodies)
    assert isinstance(found, LoggedSteps)
    assert len(pauses) > 3
    assert found.undecoded(one.id).steps() == one.steps


def test_records_of_an_older_version_are_decoded_at_once() -> None:
    @attrs.frozen(kw_only=True)
    class Newest(Episode):
        schema_version = 2

        @classmethod
        def upcast(cls, body: dict[str, Any], version: int) -> dict[str, Any]:
            assert version == 1
            return {**body, "task_description": "newest"}

    newest = Codec(RecordTypes([Newest]), Limits())
    one: Any = newest.decode("episode", CODEC.encode(full_episode(1)), full_episode(1).id)
    assert type(one) is Newest
    assert one.undecoded is None
    assert (one.task_description, one.steps) == ("newest", full_episode(1).steps)
    again = newest.decode("episode", newest.encode(one), one.id)
    assert type(again) is Newest
    assert again.undecoded is not None
    assert again == one


def test_damage_of_steps_is_found_when_the_episode_is_read() -> None:
    data = bytearray(PLAIN.encode(large_episode(1)))
    data[data.index(b"parameters")] ^= 1
    with pytest.raises(CodecError, match="checksum"):
        PLAIN.decode("episode", bytes(data), large_episode(1).id)


def test_steps_that_do_not_end_are_found_when_the_episode_is_read() -> None:
    body = PLAIN.serialize(full_episode(1))
    with pytest.raises(CodecError):
        PLAIN.decode("episode", PLAIN.seal(full_episode(1), body[:-5], None), full_episode(1).id)


def test_steps_of_another_form_are_an_error_that_names_the_episode() -> None:
    """The checksum is right: a program wrote what it should not have."""
    data = PLAIN.encode(full_episode(1))
    head, payload = data[:4], data[8:].replace(b"\xa4tool", b"\xa4fool")
    data = head + crc32(payload, crc32(head)).to_bytes(4) + payload
    one: Any = PLAIN.decode("episode", data, full_episode(1).id)
    assert one.task_description == full_episode(1).task_description
    for use in (lambda: one.steps, lambda: one.tools, lambda: hash(one), lambda: one.steps):
        with pytest.raises(CodecError, match=str(one.id)):
            use()


@pytest.mark.parametrize("url", ["lmdb:{}", "turso:{}/memory.db"])
async def test_reads_pages_and_caches_do_not_look_at_steps(url: str, tmp_path: Path) -> None:
    wanted = [large_episode(number) for number in range(5)]
    async with open_memory(url.format(tmp_path), cache="none") as memory:
        await memory.store_episodes_batch(wanted)
        one = await memory.get_episode(wanted[0].id)
        assert one is not None
        assert one.undecoded is not None
        page = await memory.query_episodes(Query(Episode).where(tools=wanted[0].tools[0]))
        assert len(page.records) > 0
        assert all(each.undecoded is not None for each in page.records)
        cached = memory.with_cache(CacheConfig())
        near = await cached.get_episode(wanted[1].id)
        assert near is await cached.get_episode(wanted[1].id)
        assert near.undecoded is not None
        assert near == wanted[1]
        assert near.undecoded is None


async def test_what_is_read_may_be_stored_elsewhere(tmp_path: Path) -> None:
    episode = full_episode(1).replace(outcome=Outcome.success("done"))
    async with open_memory(f"lmdb:{tmp_path}") as one, open_memory("inmemory:") as other:
        await one.store_episode(episode)
        read = await one.get_episode(episode.id)
        assert read is not None
        await other.store_episode(read)
        assert await other.get_episode(episode.id) == episode


async def test_a_long_episode_is_decoded_on_a_thread_before_the_read_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [
        ExecutionStep(number=number, tool="grep", action=f"{number}" * 200)
        for number in range(1, 400)
    ]
    long = Episode(task_description="long", steps=steps)
    threads: list[threading.Thread] = []

    def noting(decode: Callable[..., Any]) -> Callable[..., Any]:
        def decode_body(*arguments: Any) -> Any:
            threads.append(threading.current_thread())
            return decode(*arguments)

        return decode_body

    for name in ("decode_body", "decode_long_body"):
        monkeypatch.setattr(reading, name, noting(getattr(reading, name)))
    async with open_memory(f"lmdb:{tmp_path}", cache="none") as memory:
        await memory.store_episodes_batch([long, full_episode(1)])
        assert await memory.get_episode(full_episode(1).id) is not None
        assert threads.pop() is threading.main_thread()
        read = await memory.get_episode(long.id)
        assert threads.pop() is not threading.main_thread()
        assert read is not None
        assert read.undecoded is None
        assert read == long
        page = await memory.query_episodes(Query(Episode).order_by("start_time"))
        assert {thread is threading.main_thread() for thread in threads} == {True, False}
        assert len(page.records) == 2


@pytest.mark.parametrize("codec", [CODEC, PLAIN])
def test_whether_a_body_takes_long_is_read_from_its_headers(codec: Codec) -> None:
    text = "x" * codec_steps.LONG
    short = ExecutionStep(number=1, tool="a", action=text[1000:])
    long = ExecutionStep(number=1, tool="a", action=text)
    for step, expected in ((short, False), (long, True)):
        data = codec.encode(Episode(task_description="a", steps=[step]))
        assert codec.takes_long(data) is expected
    assert not codec.takes_long(b"")
    assert not codec.takes_long(data[:9])


def logged(number: int, episode: Episode) -> Step:
    step = ExecutionStep(
        number=number,
        timestamp=episode.start_time,
        tool=f"tool {number}",
        action=f"action {number}",
        result=StepResult.error(f"error {number}"),
    )
    return Step(episode_id=episode.id, step=step)


def test_logged_steps_become_those_of_their_episode_without_being_decoded() -> None:
    """In the order of their numbers, in whichever order they were read."""
    episode = full_episode(1).replace(steps=(), end_time=None, outcome=None)
    steps = [logged(number, episode) for number in (3, 1, 20, 2)]
    envelopes = [LOGGED_CODEC.encode(step) for step in steps]
    ids = [step.id.bytes for step in steps]
    found = LOGGED_CODEC.decode_together("step", ids, envelopes)
    assert isinstance(found, LoggedSteps)
    whole = with_steps((episode, found))
    assert (whole.step_count, whole.tools) == (4, ("tool 1", "tool 2", "tool 3", "tool 20"))
    assert episode.steps == ()
    as_one = episode.with_steps(step.step for step in steps)
    assert [text.of(whole) for text in Episode.texts] == [text.of(as_one) for text in Episode.texts]
    assert whole.undecoded is not None
    assert whole == as_one
    assert whole.undecoded is None
    assert (list(found), found[1], len(found)) == (steps, steps[1], 4)


@pytest.mark.parametrize("scheme", ["lmdb:{}", "turso:{}.db", "inmemory:"])
async def test_a_running_episode_is_what_was_logged(scheme: str, tmp_path: Path) -> None:
    """Also where it has steps of its own, and in a list."""
    async with open_memory(scheme.format(tmp_path / "store")) as memory:
        one = full_episode(1).replace(end_time=None, outcome=None)
        other = one.replace(id=full_episode(2).id, steps=())
        for episode in (one, other):
            await memory.start_episode(episode)
            for number in range(50, 60):
                await memory.log_step(episode.id, logged(number, episode).step)
        for episode in (one, other):
            logs = [logged(number, episode).step for number in range(50, 60)]
            expected = episode.with_steps(logs)
            assert await memory.get_episode(episode.id) == expected
            assert expected in (await memory.query_episodes(Query(Episode))).records
