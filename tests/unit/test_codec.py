import json
import math
import pickle
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar
from uuid import UUID
from zlib import crc32

import msgspec
import pytest
from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_core.codec import Codec
from memory_core.codec.compression import CompressionConfig, DictionaryMissingError
from memory_core.codec.json_objects import record_from_json, record_to_json
from memory_core.errors import (
    CodecError,
    ConfigurationError,
    InvalidValueError,
    RecordTooLargeError,
    SchemaVersionError,
)
from memory_core.records import (
    CORE_RECORD_TYPES,
    Episode,
    ExecutionStep,
    FrozenDict,
    Index,
    Limits,
    Record,
    RecordTypes,
    Step,
    new_id,
)
from memory_core.storage import WriteBatch
from memory_core.testing.data.kinds import KIT_RECORD_TYPES, Specimen
from memory_core.testing.data.samples import (
    episode,
    every_kind,
    full_episode,
    large_episode,
    specimens,
)
from tests.unit.record_strategies import records

TYPES = RecordTypes(KIT_RECORD_TYPES)
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def codec(**options):
    return Codec(TYPES, Limits(), CompressionConfig(**options))


@RELAXED
@given(record=records, threshold=st.sampled_from([0, 256, 10**9]))
def test_every_record_comes_back_equal(record, threshold):
    tested = codec(threshold=threshold)
    found = tested.decode(record.kind, tested.encode(record), record.id)
    assert found == record
    assert type(found) is type(record)
    assert hash(found) == hash(record)
    assert found.index_values() == record.index_values()


@RELAXED
@given(record=records)
def test_every_record_comes_back_equal_from_json(record):
    text = msgspec.json.encode(record_to_json(record))
    assert record_from_json(TYPES, json.loads(text)) == record
    assert record_from_json(TYPES, msgspec.json.decode(text)) == record


@frozen(kw_only=True)
class Reading(Record):
    kind: ClassVar[str] = "reading"
    value: float = 0.0
    highest: float | None = None


@pytest.mark.parametrize("number", [math.inf, -math.inf, 1e308])
def test_a_number_without_a_form_in_json_comes_back(number):
    record = Reading(value=number, highest=number)
    text = msgspec.json.encode(record_to_json(record))
    assert record_from_json(RecordTypes([Reading]), json.loads(text)) == record


def test_microseconds_are_kept():
    record = full_episode(1)
    assert record.start_time.microsecond == 123457
    tested = codec()
    found = tested.decode("episode", tested.encode(record), record.id)
    assert found.start_time == record.start_time
    assert found.steps[0].timestamp.microsecond == 123457


def test_decoded_records_cannot_be_changed():
    tested = codec()
    record = full_episode(1)
    found = tested.decode("episode", tested.encode(record), record.id)
    for mapping in (found.metadata, found.steps[0].parameters, found.steps[0].metadata):
        assert type(mapping) is FrozenDict
        with pytest.raises(TypeError):
            mapping["x"] = "y"
    inner = found.steps[0].parameters["cmd"]
    with pytest.raises(TypeError):
        inner.append("x")
    output = found.steps[0].result.output
    with pytest.raises(TypeError):
        output["lines"][0] = "x"
    with pytest.raises(AttributeError):
        found.task_description = "x"


def damaged(data, place):
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


@pytest.mark.parametrize("record", every_kind(), ids=lambda record: type(record).__name__)
@pytest.mark.parametrize("threshold", [0, 10**9], ids=["compressed", "plain"])
def test_any_changed_byte_is_found_and_names_the_record(record, threshold):
    tested = codec(threshold=threshold)
    data = tested.encode(record)
    for place in range(len(data)):
        with pytest.raises(CodecError) as caught:
            tested.decode(record.kind, damaged(data, place), record.id)
        assert (caught.value.kind, caught.value.record_id) == (record.kind, record.id)


def test_any_truncation_is_found():
    record = full_episode(1)
    tested = codec()
    data = tested.encode(record)
    for end in range(len(data)):
        with pytest.raises(CodecError) as caught:
            tested.decode("episode", data[:end], record.id)
        assert caught.value.record_id == record.id


@RELAXED
@given(data=st.binary(max_size=200))
def test_foreign_bytes_are_refused(data):
    with pytest.raises(CodecError):
        codec().decode("episode", data, new_id())


@RELAXED
@given(value=st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_pickles_are_never_loaded(value):
    with pytest.raises(CodecError):
        codec().decode("episode", pickle.dumps(value), new_id())


def reseal(body, version=1, flags=0, form=1):
    """An envelope with a right checksum around any body."""
    head = struct.pack(">BBH", form, flags, version)
    return head + struct.pack(">I", crc32(body, crc32(head))) + body


@RELAXED
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["id", "task_description", "steps", "tags", "outcome", "metadata"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    ).map(msgspec.msgpack.encode)
    | st.binary(max_size=50),
    flags=st.integers(0, 3),
)
def test_a_right_checksum_does_not_make_a_record(body, flags):
    with pytest.raises(CodecError):
        codec().decode("episode", reseal(body, flags=flags), new_id())


def test_another_records_bytes_are_refused():
    tested = codec()
    with pytest.raises(CodecError, match=str(episode(1).id)):
        tested.decode("episode", tested.encode(episode(1)), episode(2).id)


@pytest.mark.parametrize("record", every_kind(), ids=lambda record: type(record).__name__)
@pytest.mark.parametrize("threshold", [0, 10**9], ids=["compressed", "plain"])
def test_an_envelope_holds_what_it_was_made_of_and_nothing_else(record, threshold):
    tested = codec(threshold=threshold)
    data = tested.encode(record)
    # A record of a class that compares itself, or whose envelope names the class, is decoded and compared.
    quick = type(record).__eq__ is Record.__eq__ and not data[1] & 2
    same = tested.decode(record.kind, data, record.id)
    assert tested.holds(data, same) == quick
    assert not tested.holds(data, record.replace(id=new_id()))
    assert not any(tested.holds(data, other) for other in every_kind() if other != record)
    for place in range(len(data)):
        assert not tested.holds(damaged(data, place), record)
        assert not tested.holds(data[:place], record)


def test_another_kinds_bytes_are_refused():
    tested = codec()
    record = specimens(1)[0]
    with pytest.raises(CodecError):
        tested.decode("episode", tested.encode(record), record.id)


def test_an_unknown_format_is_refused():
    body = msgspec.msgpack.encode(None)
    with pytest.raises(CodecError, match="format 9"):
        codec().decode("episode", reseal(body, form=9), new_id())


@pytest.mark.parametrize("flags", [4, 7, 128])
def test_flags_of_a_newer_version_are_refused_by_that_name(flags):
    body = msgspec.msgpack.encode(None)
    with pytest.raises(SchemaVersionError, match=f"envelope flags {flags}; this version"):
        codec().decode("episode", reseal(body, flags=flags), new_id())


def test_a_record_over_the_limits_of_now_is_read():
    record = episode(1, task_description="x" * 100_000)
    stored = codec().encode(record)
    tested = Codec(TYPES, Limits(max_record_bytes=1_000))
    assert tested.decode("episode", stored, record.id) == record
    with pytest.raises(RecordTooLargeError):
        tested.encode(record)


def test_deep_nesting_is_refused_not_fatal():
    body = b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(CodecError):
        codec().decode("episode", reseal(body), new_id())


def test_deep_nesting_where_anything_may_be_names_the_record():
    tested = codec(enabled=False)
    step = ExecutionStep(number=1, tool="bash", parameters={"deep": None})
    record = episode(1, steps=(step,))
    body = tested.encode(record)[8:]
    assert body.count(b"\xa4deep\xc0") == 1
    deep = body.replace(b"\xa4deep\xc0", b"\xa4deep" + b"\x91" * 100_000 + b"\xc0")
    with pytest.raises(CodecError, match=str(record.id)) as caught:
        _ = tested.decode("episode", reseal(deep), record.id).steps
    assert isinstance(caught.value.__cause__, RecursionError)


# Versions


@frozen(kw_only=True)
class NoteOne(Record):
    kind: ClassVar[str] = "note"
    text: str = ""


@frozen(kw_only=True)
class NoteTwo(Record):
    kind: ClassVar[str] = "note"
    schema_version: ClassVar[int] = 2
    words: tuple[str, ...] = ()

    @classmethod
    def upcast(cls, body, version):
        assert version == 1
        return {"id": body["id"], "words": body["text"].split()}


def of(cls):
    return Codec(RecordTypes([cls]), Limits(), CompressionConfig(threshold=0))


def test_older_versions_are_brought_up():
    old = NoteOne(text="a b")
    found = of(NoteTwo).decode("note", of(NoteOne).encode(old), old.id)
    assert found == NoteTwo(id=old.id, words=("a", "b"))
    assert record_from_json(RecordTypes([NoteTwo]), record_to_json(old)) == found


def test_newer_versions_are_refused():
    new = NoteTwo(words=("a",))
    with pytest.raises(SchemaVersionError) as caught:
        of(NoteOne).decode("note", of(NoteTwo).encode(new), new.id)
    assert (caught.value.found, caught.value.supported) == (2, 1)


def test_newer_json_is_refused():
    with pytest.raises(SchemaVersionError):
        record_from_json(RecordTypes([NoteOne]), record_to_json(NoteTwo()))


def test_a_failing_upcast_names_the_record():
    data = reseal(msgspec.msgpack.encode({"id": str(new_id())}))
    record_id = new_id()
    with pytest.raises(CodecError, match="upcast from version 1 failed") as caught:
        of(NoteTwo).decode("note", data, record_id)
    assert caught.value.record_id == record_id


# A plugin's types that msgspec cannot tell apart


@frozen
class Circle:
    radius: float


@frozen
class Square:
    side: float


@frozen(kw_only=True)
class Drawing(Record):
    kind: ClassVar[str] = "drawing"
    indexes: ClassVar[tuple[Index, ...]] = (Index("name"),)
    name: str = ""
    shape: Circle | Square | None = None
    others: tuple[Circle | Square, ...] = ()


def test_unions_of_classes_work():
    tested = of(Drawing)
    record = Drawing(name="x", shape=Square(2.0), others=(Circle(1.0), Square(3.0)))
    assert tested.decode("drawing", tested.encode(record), record.id) == record
    data = tested.encode(record)
    for place in range(len(data)):
        with pytest.raises(CodecError):
            tested.decode("drawing", damaged(data, place), record.id)


# What is refused


def test_a_class_that_was_not_declared_is_refused_though_its_kind_is_known():
    @frozen(kw_only=True)
    class Other(Episode):
        """Not a record type of the store."""

    with pytest.raises(ConfigurationError, match="Other is not a record type of this store"):
        Codec(TYPES, Limits()).encode_put(Other(task_description="other"))


def test_unknown_kinds_are_refused():
    tested = codec()
    with pytest.raises(ConfigurationError, match="specimen"):
        tested.encode(NoteOne())
    with pytest.raises(ConfigurationError, match="unknown record kind 'note'"):
        tested.prepare(WriteBatch().delete("note", new_id()))


def test_preparing_checks_limits_and_indexes():
    tested = Codec(TYPES, Limits(max_record_bytes=5_000, max_batch_operations=2))
    with pytest.raises(RecordTooLargeError) as caught:
        tested.prepare(WriteBatch().put(episode(1, metadata={"x": "y" * 5_000})))
    assert caught.value.limit_name == "max_record_bytes"
    assert str(episode(1).id) in str(caught.value)
    with pytest.raises(RecordTooLargeError):
        tested.prepare(WriteBatch().put(episode(1), episode(2), episode(3)))
    with pytest.raises(InvalidValueError, match="name"):
        tested.prepare(WriteBatch().put(Specimen(name="a\0b")))


def test_a_compressible_record_is_measured_before_compression():
    tested = Codec(TYPES, Limits(max_record_bytes=100_000))
    with pytest.raises(RecordTooLargeError):
        tested.encode(episode(1, metadata={"x": "y" * 100_000}))


def test_index_values_are_in_the_order_of_their_declaration():
    encoded = codec().encode_put(full_episode(1))
    assert list(encoded.values) == [index.name for index in Episode.indexes]
    assert encoded.values["tools"] == ("edit", "shell", "wait")


# Several threads, dictionaries


def test_used_from_several_threads():
    tested = codec(threshold=0)
    made = [large_episode(number, 2_000) for number in range(40)]
    barrier = threading.Barrier(4)

    def work(_):
        barrier.wait()
        return [tested.decode("episode", tested.encode(record), record.id) for record in made]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [made] * 4


def test_a_dictionary_of_another_process_is_asked_for():
    writer, reader = codec(dictionary_samples=32), codec()
    made = [large_episode(number, 3_000) for number in range(64)]
    for record in made:
        writer.encode(record)
    dictionary = writer.compressor.train("episode")
    writer.compressor.add("episode", dictionary)
    data = writer.encode(made[0])
    with pytest.raises(DictionaryMissingError) as caught:
        reader.decode("episode", data, made[0].id)
    assert caught.value.dictionary_id == reader.compressor.add("episode", dictionary)
    assert reader.decode("episode", data, made[0].id) == made[0]


# JSON


def test_json_is_plain():
    value = record_to_json(full_episode(1))
    assert json.loads(json.dumps(value)) == value
    assert value["kind"] == "episode"
    assert "variant" not in value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": None}, "no kind"),
        ({"start_time": "2025-01-01T00:00:00"}, "timezone-aware"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"task_type": "cooking"}, "task_type.*cooking"),
        ({"surprise": 1}, "surprise"),
        ({"tags": "abc"}, "tags"),
        ({"steps": [{"number": 0, "tool": "x"}]}, "number"),
        ({"variant": "x"}, "unknown variant"),
        ({"schema_version": "one"}, "'one' is not a number"),
        ({"steps": "abc"}, "steps.*array"),
    ],
)
def test_wrong_json_says_what_is_wrong(change, message):
    with pytest.raises(CodecError, match=message):
        record_from_json(TYPES, record_to_json(episode(1)) | change)


def test_json_of_an_unknown_kind():
    with pytest.raises(ConfigurationError, match="known"):
        record_from_json(RecordTypes(CORE_RECORD_TYPES), record_to_json(specimens(1)[0]))


def test_a_step_has_the_limit_of_its_episode():
    tested = Codec(TYPES, Limits(max_steps=3))
    step = next(record for record in every_kind() if isinstance(record, Step))
    tested.encode(step)
    with pytest.raises(RecordTooLargeError):
        tested.encode(evolve(step, step=evolve(step.step, number=4)))


def logged(number: int, text: str = "x") -> Step:
    step = ExecutionStep(number=number, tool="tool", parameters={"text": text * 9 * number})
    return Step(episode_id=episode(1).id, run_id=new_id(), step=step)


def stored(tested: Codec, steps: list[Step]) -> list[tuple[bytes, bytes]]:
    return [(step.id.bytes, tested.encode(step)) for step in steps]


def together(tested: Codec, found: list[tuple[bytes, bytes]], kind: str = "step"):
    ids, envelopes = [own for own, _ in found], [data for _, data in found]
    decoded = tested.decode_together(kind, ids, envelopes)
    # As a backend may store them: behind bytes of its own.
    starts = [each % 7 for each in range(len(found))]
    behind = [bytes(start) + data for start, data in zip(starts, envelopes, strict=True)]
    assert tested.decode_together(kind, ids, behind, starts) == decoded
    return decoded


@pytest.mark.parametrize("number", [1, 2, 15, 16, 100])
def test_records_that_are_decoded_together_are_those_that_were_encoded(number):
    tested = codec()
    steps = [logged(each + 1) for each in range(number)]
    found = stored(tested, steps)
    assert [tested.decode("step", data, UUID(bytes=own)) for own, data in found] == steps
    assert together(tested, found) == steps


def test_records_that_take_long_are_not_decoded_together():
    tested = codec()
    found = stored(tested, [logged(200)])
    assert together(tested, found * 30) is not None
    assert together(tested, found * 60) is None
    assert together(tested, []) == []


def test_compressed_records_are_decoded_together_with_others():
    tested = codec()
    steps = [logged(number, "long ") for number in (1, 2, 60, 3, 199)]
    found = stored(tested, steps)
    assert {data[1] for _, data in found} == {0, 1}
    assert together(tested, found) == steps
    specimen = specimens(3)
    bodies = [(record.id.bytes, tested.encode(record)) for record in specimen]
    assert together(tested, bodies, "specimen") == specimen


def test_what_one_call_cannot_decode_is_left_to_the_others():
    """Each byte of one record may be wrong: then, alone, it is the error that it always was."""
    tested = codec()
    found = stored(tested, [logged(number) for number in range(1, 5)])
    assert together(tested, found) is not None
    record_id, data = found[2]
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        assert together(tested, [*found[:2], (record_id, changed), found[3]]) is None
    for length in range(len(data)):
        assert together(tested, [*found[:2], (record_id, data[:length]), found[3]]) is None
    assert together(tested, [found[1], (found[0][0], found[1][1])]) is None
    whole = [(record.id.bytes, tested.encode(record)) for record in every_kind(1)]
    kinds = [record.kind for record in every_kind(1)]
    for kind, each in zip(kinds, whole, strict=True):
        found = together(tested, [each, each], kind)
        if kind in ("episode", "pattern"):
            assert found is None, "heads and variants are decoded one by one"


def test_a_missing_dictionary_is_asked_for_by_records_that_are_decoded_together_as_well():
    writer, reader = codec(dictionary_samples=8), codec()
    for number in range(100, 140):
        writer.encode(logged(number, "words that repeat "))
    trained = writer.compressor.train("step")
    writer.compressor.add("step", trained)
    steps = [logged(number, "words that repeat ") for number in range(60, 64)]
    found = stored(writer, steps)
    reader.encode(steps[0])
    assert together(reader, found) is None
    reader.compressor.add("step", trained)
    assert together(reader, found) == steps


def test_short_steps_are_not_compressed():
    tested = codec()
    short, long = (tested.encode(logged(number, "repeat ")) for number in (100, 200))
    assert (short[1], long[1]) == (0, 1)
    assert tested.encode(specimens(1)[0].__class__(name="repeat " * 60))[1] == 1
    assert codec(threshold=10**6).encode(logged(100, "repeat "))[1] == 0
