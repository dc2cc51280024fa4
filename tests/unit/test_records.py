import copy
import pickle
import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import ClassVar
from uuid import UUID
from zlib import crc32

import attrs
import msgspec
import pytest
from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_core.codec import Codec
from memory_core.codec.compression import CompressionConfig
from memory_core.errors import ConfigurationError, InvalidValueError, RecordTooLargeError
from memory_core.records import (
    CORE_RECORD_TYPES,
    Acyclic,
    Complexity,
    Episode,
    ExecutionStep,
    FrozenDict,
    FrozenList,
    Heuristic,
    Index,
    Limits,
    Outcome,
    OutcomeStatus,
    Pattern,
    Record,
    RecordTypes,
    Reference,
    Relationship,
    RelationshipType,
    ResultStatus,
    RewardScore,
    Step,
    StepResult,
    TaskContext,
    TaskType,
    ToolSequence,
    Unique,
    new_id,
)
from memory_core.testing.data.kinds import KIT_RECORD_TYPES, Specimen
from memory_core.testing.data.samples import EPOCH, edge, episode, every_kind, full_episode
from tests.unit.record_strategies import episodes, json_values, records

NAIVE = datetime(2025, 1, 1)  # noqa: DTZ001  # naive on purpose
ONE, OTHER = new_id(), new_id()


# Wrong values are rejected, with the field's name and what was expected


@pytest.mark.parametrize(
    ("make", "field", "expected"),
    [
        (lambda: Episode(task_description=""), "task_description", "not empty"),
        (lambda: Episode(task_description=" \n"), "task_description", "not empty"),
        (lambda: Episode(task_description=None), "task_description", "a string"),
        (lambda: Episode(task_description="\ud800"), "task_description", "surrogates"),
        (lambda: episode(1, task_type="cooking"), "task_type", "'debugging'"),
        (lambda: episode(1, start_time=NAIVE), "start_time", "naive"),
        (lambda: episode(1, start_time="2025-01-01"), "start_time", "a datetime"),
        (lambda: episode(1, end_time=EPOCH - timedelta(days=1)), "end_time", "before"),
        (lambda: episode(1, id="x"), "id", "a UUID"),
        (lambda: episode(1, id=5), "id", "a UUID"),
        (lambda: episode(1, tags="abc"), "tags", "list or tuple of strings"),
        (lambda: episode(1, tags=["a", 1]), "tags", "a string"),
        (lambda: episode(1, tags={"a": 1}), "tags", "list or tuple"),
        (lambda: episode(1, metadata={"a": 1}), "metadata", "a string"),
        (lambda: episode(1, metadata=[("a", "b")]), "metadata", "a mapping"),
        (lambda: episode(1, pattern_ids=["x"]), "pattern_ids", "a UUID"),
        (lambda: episode(1, context="web"), "context", "TaskContext"),
        (lambda: episode(1, outcome="success"), "outcome", "Outcome"),
        (lambda: episode(1, steps=["x"]), "steps", "ExecutionStep"),
        (lambda: TaskContext(complexity="huge"), "context.complexity", "'moderate'"),
        (lambda: ExecutionStep(number=0, tool="x"), "step.number", "at least 1"),
        (lambda: ExecutionStep(number=True, tool="x"), "step.number", "a 64-bit integer"),
        (lambda: ExecutionStep(number=1, tool=""), "step.tool", "not empty"),
        (lambda: ExecutionStep(number=1, tool="x", latency_ms=-1), "step.latency_ms", "at least 0"),
        (
            lambda: ExecutionStep(number=1, tool="x", latency_ms=float("inf")),
            "step.latency_ms",
            "finite",
        ),
        (lambda: ExecutionStep(number=1, tool="x", parameters=[1]), "step.parameters", "object"),
        (
            lambda: ExecutionStep(number=1, tool="x", parameters={"a": {1}}),
            "step.parameters",
            "a JSON value",
        ),
        (
            lambda: ExecutionStep(number=1, tool="x", parameters={1: "a"}),
            "step.parameters",
            "string keys",
        ),
        (
            lambda: ExecutionStep(number=1, tool="x", parameters={"a": float("nan")}),
            "step.parameters",
            "finite",
        ),
        (
            lambda: ExecutionStep(number=1, tool="x", parameters={"a": 2**64}),
            "step.parameters",
            "64 bits",
        ),
        (lambda: StepResult(status="error"), "result.message", "text for an error"),
        (lambda: StepResult(status="timeout", output=1), "result.output", "None"),
        (lambda: StepResult.success(object()), "result.output", "a JSON value"),
        (lambda: Outcome(status="success"), "outcome.verdict", "text for success"),
        (lambda: Outcome(status="failure", verdict="x"), "outcome.reason", "text for failure"),
        (
            lambda: Outcome(status="failure", reason="x", signals=["y"]),
            "outcome.signals",
            "no such field",
        ),
        (lambda: RewardScore(total=float("nan")), "reward.total", "finite"),
        (lambda: RewardScore(total="1"), "reward.total", "number"),
        (lambda: Heuristic(condition="a", action="b", confidence=1.1), "confidence", "0 to 1"),
        (Pattern, "pattern", "ToolSequence"),
        (lambda: ToolSequence(tools="ab"), "tools", "list or tuple"),
        (
            lambda: ToolSequence(tools=(), avg_latency=timedelta(-1)),
            "avg_latency",
            "not negative",
        ),
        (lambda: edge(1, 1, 2, priority=11), "priority", "1 to 10"),
        (lambda: edge(1, 1, 2, weight=-0.1), "weight", "0 to 1"),
        (lambda: edge(1, 1, 2, "likes"), "relationship_type", "'depends_on'"),
        (lambda: edge(1, 1, 1), "to_episode_id", "an episode other than"),
        (lambda: Step(episode_id=ONE, step="x"), "step", "ExecutionStep"),
    ],
)
def test_wrong_values_are_rejected(make, field, expected):
    with pytest.raises(InvalidValueError) as caught:
        make()
    assert caught.value.field == field
    assert expected in caught.value.expected
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(f"{field}: expected ")


def test_steps_must_be_in_order():
    steps = [ExecutionStep(number=number, tool="x") for number in (1, 2, 2)]
    with pytest.raises(InvalidValueError, match="ascending"):
        episode(1, steps=steps)
    with pytest.raises(InvalidValueError, match="ascending"):
        episode(1, steps=reversed(steps[:2]))


def test_json_that_is_nested_too_deeply_is_rejected():
    deep = value = {}
    for _ in range(70):
        value["x"] = {}
        value = value["x"]
    with pytest.raises(InvalidValueError, match="64 deep"):
        ExecutionStep(number=1, tool="x", parameters=deep)


def test_a_long_value_is_shortened_only_in_the_message():
    with pytest.raises(InvalidValueError) as caught:
        episode(1, task_type="x" * 10_000)
    assert len(str(caught.value)) < 400
    assert caught.value.value == "x" * 10_000


# Values are normalised


def test_enums_by_value():
    assert episode(1, task_type="debugging").task_type is TaskType.DEBUGGING
    assert TaskContext(complexity="simple").complexity is Complexity.SIMPLE
    assert edge(1, 1, 2, "follows").relationship_type is RelationshipType.FOLLOWS
    assert StepResult(status="timeout").status is ResultStatus.TIMEOUT
    assert Outcome(status="failure", reason="x").status is OutcomeStatus.FAILURE


def test_times_are_kept_in_utc_with_microseconds():
    elsewhere = datetime(2025, 6, 1, 12, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=-7)))
    found = episode(1, start_time=elsewhere)
    assert found.start_time == elsewhere
    assert found.start_time.tzinfo is UTC
    assert found.start_time.microsecond == 999_999


def test_ids_are_ordered_by_creation():
    made = [new_id() for _ in range(1_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {made_id.version for made_id in made} == {7}
    assert episode(1, id=str(ONE)).id == ONE


def test_an_episode_starts_now_or_at_an_earlier_end():
    before = datetime.now(UTC)
    running = Episode(task_description="x")
    ended = Episode(task_description="x", end_time=datetime.now(UTC))
    assert before <= running.start_time <= datetime.now(UTC)
    assert before <= ended.start_time <= ended.end_time
    assert Episode(task_description="x", end_time=EPOCH).start_time == EPOCH
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert Episode(task_description="x", end_time=tomorrow).start_time < tomorrow
    assert evolve(running, task_description="y").start_time == running.start_time


def test_an_episode_with_end_and_outcome_is_complete():
    assert not episode(1).is_complete
    assert not episode(1, end_time=EPOCH + timedelta(days=1)).is_complete
    assert not episode(1, outcome=Outcome.failure("x")).is_complete
    assert full_episode(1).is_complete


def test_with_steps_keeps_known_steps():
    own = [ExecutionStep(number=number, tool="own") for number in (2, 4)]
    more = [ExecutionStep(number=number, tool="more") for number in (5, 2, 1)]
    merged = episode(1, steps=own).with_steps(more)
    assert [(step.number, step.tool) for step in merged.steps] == [
        (1, "more"),
        (2, "own"),
        (4, "own"),
        (5, "more"),
    ]


# Records cannot be changed


def test_records_are_immutable():
    given = {"list": [1, {"deep": [2]}]}
    step = ExecutionStep(number=1, tool="x", parameters=given)
    given["list"].append(3)
    given["list"][1]["deep"].append(4)
    assert step.parameters == {"list": [1, {"deep": [2]}]}
    tags = ["a"]
    record = episode(1, tags=tags, steps=[step])
    tags.append("b")
    assert record.tags == ("a",)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        record.tags = ()
    for change in (
        lambda: step.parameters.update(x=1),
        lambda: step.parameters.__setitem__("x", 1),
        lambda: step.parameters.pop("list"),
        lambda: step.parameters["list"].append(1),
        step.parameters["list"][1]["deep"].clear,
        lambda: step.parameters["list"].__iadd__([1]),
        step.parameters["list"].sort,
        lambda: step.parameters.__ior__({"x": 1}),
        lambda: step.parameters.setdefault("x", 1),
        lambda: step.parameters.__delitem__("list"),
        lambda: step.parameters["list"].__setitem__(0, 5),
        lambda: step.parameters["list"].__imul__(2),
    ):
        with pytest.raises(TypeError, match="immutable"):
            change()
    assert step.parameters == {"list": [1, {"deep": [2]}]}


def mutators(cls):
    """Methods that the frozen class has from its base and that change it."""
    base = cls.__mro__[1]
    harmless = {
        "__init__", "__new__", "__init_subclass__", "__class_getitem__", "__setattr__",
        "__delattr__", "__reduce__", "__reduce_ex__",
    }  # fmt: skip
    return {
        name
        for name in dir(base)
        if name not in harmless and name not in dir(tuple) and name not in dir(frozenset)
        and name not in {"copy", "fromkeys", "get", "items", "keys", "values", "__reversed__"}
        and name not in {"__or__", "__ror__"}
    }  # fmt: skip


@pytest.mark.parametrize("cls", [FrozenDict, FrozenList])
def test_every_mutator_is_rejected(cls):
    assert {
        name for name in mutators(cls) if getattr(cls, name) is getattr(cls.__mro__[1], name)
    } == set()


@given(value=json_values)
def test_frozen_json_is_equal_hashable_and_copies_to_itself(value):
    record = Relationship(
        from_episode_id=ONE,
        to_episode_id=OTHER,
        relationship_type="follows",
        custom_fields={"v": value},
    )
    assert record.custom_fields == {"v": value}
    assert hash(record) == hash(evolve(record))
    assert copy.deepcopy(record) == record
    assert pickle.loads(pickle.dumps(record)) == record
    assert type(pickle.loads(pickle.dumps(record)).custom_fields) is FrozenDict


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(record=records)
def test_records_are_values(record):
    assert evolve(record) == record
    assert hash(evolve(record)) == hash(record)
    assert record != evolve(record, id=new_id())


# Index values


def test_scalars_of_an_episode():
    record = full_episode(1)
    values = record.index_values()
    assert list(values) == [index.name for index in Episode.indexes]
    assert values["start_time"] == round(EPOCH.timestamp() * 10**6) + 1_000_001
    assert values["task_type"] == "debugging"
    assert type(values["task_type"]) is str
    assert values["domain"] == "web"
    assert values["outcome"] == "abstained"
    assert values["reward"] == 0.1 + 0.2
    assert values["tags"] == ("http", "tag", "ταγ")
    assert values["tools"] == ("edit", "shell", "wait")
    assert "run=42" in values["metadata"]
    assert values["pattern_ids"] == (record.pattern_ids[0].bytes,)


def test_a_missing_object_on_the_path_gives_none():
    values = episode(1).index_values()
    for name in ("end_time", "outcome", "reward", "language"):
        assert values[name] is None
    assert values["tools"] == values["metadata"] == values["pattern_ids"] == ()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(record=episodes())
def test_many_valued_scalars_are_distinct_and_sorted(record):
    for value in record.index_values().values():
        if isinstance(value, tuple):
            assert list(value) == sorted(set(value))


@given(
    st.datetimes(
        datetime(1, 1, 3),  # noqa: DTZ001  # the time zone is drawn
        datetime(9999, 12, 29),  # noqa: DTZ001  # as above
        timezones=st.timezones(),
    ),
    st.timedeltas(timedelta(microseconds=1), timedelta(microseconds=5)),
)
def test_times_are_ordered_to_the_microsecond(moment, later):
    index = Specimen.index("seen_at")
    scalar, utc = index.scalar(moment), moment.astimezone(UTC)
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=scalar) == utc
    assert index.scalar(utc + later) - scalar == later // timedelta(microseconds=1)


def test_negative_zero_is_zero():
    index = Specimen.index("ratio")
    assert str(index.scalar(-0.0)) == "0.0"


def test_u0000_is_rejected_only_in_indexed_text():
    assert full_episode(1).task_description.endswith("\0")
    full_episode(1).index_values()
    for bad in (episode(1, tags=("a\0",)), episode(1, metadata={"a": "\0"})):
        with pytest.raises(InvalidValueError, match=r"U\+0000"):
            bad.index_values()


# Limits


def test_limits_name_the_record_and_the_setting():
    limits = Limits(max_index_bytes=10, max_index_values=3, max_steps=2, max_batch_operations=1)
    cases = {
        "max_index_bytes": episode(1, context=TaskContext(domain="ééééé!")),
        "max_index_values": episode(1, tags=("a", "b", "c", "d")),
    }
    for name, record in cases.items():
        with pytest.raises(RecordTooLargeError) as caught:
            limits.check_values(record, record.index_values())
        assert caught.value.limit_name == name
        assert str(record.id) in str(caught.value)
        assert caught.value.size == getattr(limits, name) + 1
    fine = episode(1, context=TaskContext(domain="ééééé"), tags=("a", "b", "x" * 1_000))
    limits.check_values(fine, fine.index_values())
    limits.check_steps(fine, 2)
    with pytest.raises(RecordTooLargeError):
        limits.check_steps(fine, 3)
    with pytest.raises(RecordTooLargeError):
        limits.check_batch(2)


@pytest.mark.parametrize("options", [{"max_index_bytes": 401}, {"max_steps": 0}])
def test_limits_have_bounds(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Limits(**options)


# Declarations


def test_kinds_come_after_the_kinds_they_refer_to():
    kinds = RecordTypes(reversed(KIT_RECORD_TYPES)).kinds
    for cls in KIT_RECORD_TYPES:
        for reference in cls.references:
            assert kinds.index(reference.kind) <= kinds.index(cls.kind)


def test_every_class_is_known():
    types = RecordTypes(CORE_RECORD_TYPES)
    assert set(types.kinds) == {
        "episode", "run", "step", "pattern", "heuristic", "relationship", "recall", "feedback",
    }  # fmt: skip
    assert types.cls("pattern") is Pattern
    assert types.variants("pattern")["tool_sequence"] is ToolSequence
    assert "episode" in types
    assert "specimen" not in types
    assert "specimen" in types.extended([Specimen])
    with pytest.raises(ConfigurationError, match="known: episode"):
        types.cls("specimen")
    referrers = {(cls.kind, reference.field) for cls, reference in types.referrers("episode")}
    assert referrers == {
        ("run", "episode_id"),
        ("step", "episode_id"),
        ("relationship", "from_episode_id"),
        ("relationship", "to_episode_id"),
    }


def declared(**variables):
    """A record class with these declarations."""
    base = {"kind": "thing", "__annotations__": {"other": UUID | None}, "other": None}
    return frozen(type("Thing", (Record,), {**base, **variables}), kw_only=True)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"kind": "Thing"}, "lower-case"),
        ({"kind": "a-b"}, "identifier"),
        ({"kind": ""}, "identifier"),
        ({"kind": "_hidden"}, "identifier"),
        ({"indexes": (Index("other", UUID), Index("other", UUID))}, "declared twice"),
        ({"indexes": (Index("a b"),)}, "not an identifier"),
        ({"default_order": "other"}, "must be a single-valued index"),
        ({"constraints": (Unique("other"),)}, "must be a single-valued index"),
        (
            {"indexes": (Index("other", UUID, multi=True),), "constraints": (Unique("other"),)},
            "single",
        ),
        ({"constraints": (Acyclic("a", "b", "c", {"d"}),)}, "single-valued"),
        ({"references": (Reference("other", "thing"),)}, "single-valued UUID index"),
        (
            {"indexes": (Index("other"),), "references": (Reference("other", "thing"),)},
            "UUID index",
        ),
        (
            {"indexes": (Index("other", UUID),), "references": (Reference("other", "ghost"),)},
            "unknown kind 'ghost'",
        ),
    ],
)
def test_wrong_declarations_are_rejected(variables, message):
    with pytest.raises(ConfigurationError, match=message):
        RecordTypes([declared(**variables)])


def test_an_index_has_a_known_type():
    with pytest.raises(ConfigurationError, match="must be one of"):
        Index("x", dict)


def test_two_classes_cannot_claim_a_kind():
    with pytest.raises(ConfigurationError, match="both claim kind 'thing'"):
        RecordTypes([declared(), declared()])
    with pytest.raises(ConfigurationError, match="both claim kind 'episode'"):
        RecordTypes([*CORE_RECORD_TYPES, declared(kind="episode")])


def test_references_must_not_form_a_cycle():
    indexes = (Index("other", UUID),)
    one = declared(kind="one", indexes=indexes, references=(Reference("other", "two"),))
    two = declared(kind="two", indexes=indexes, references=(Reference("other", "one"),))
    with pytest.raises(ConfigurationError, match="form a cycle among: one, two"):
        RecordTypes([one, two])


def test_a_class_may_be_named_twice():
    assert RecordTypes([Episode, Episode]).kinds == ("episode",)


def test_an_older_version_without_an_upcast_is_rejected():
    @frozen(kw_only=True)
    class Newer(Record):
        kind: ClassVar[str] = "newer"
        schema_version: ClassVar[int] = 3

    with pytest.raises(ConfigurationError, match="from schema version 1 to 3"):
        Newer.upcast({}, 1)


# Replacing


@pytest.mark.parametrize("record", every_kind(1), ids=lambda record: type(record).__name__)
def test_replace_gives_another_record_with_other_values(record):
    changed = record.replace(id=str(ONE))
    assert changed == evolve(record, id=ONE)
    assert record.id != ONE
    assert record.__replace__(id=ONE) == changed
    assert record.replace() == record


def test_replaced_values_are_checked():
    before = episode(1)
    with pytest.raises(InvalidValueError, match="task_type"):
        before.replace(task_type="cooking")
    with pytest.raises(TypeError, match="tsk"):
        before.replace(tsk="x")
    assert before.replace(tags=["a"], task_type="testing").tags == ("a",)


@pytest.mark.skipif(not hasattr(copy, "replace"), reason="copy.replace came with Python 3.13")
def test_copy_replace():
    assert copy.replace(episode(1), tags=("a",)).tags == ("a",)


# Heuristics


def test_heuristics_of_the_first_schema_version_are_read_with_defaults():
    rule = Heuristic(condition="a", action="b", confidence=0.5)
    codec = Codec(RecordTypes([Heuristic]), Limits(), CompressionConfig(dictionary=False))
    body = msgspec.msgpack.decode(codec.serialize(rule))
    for name in ("domain", "language", "tags"):
        del body[name]
    first = msgspec.msgpack.encode(body)
    head = struct.pack(">BBH", 1, 0, 1)
    stored = head + struct.pack(">I", crc32(first, crc32(head))) + first
    assert codec.decode("heuristic", stored, rule.id) == rule
    assert (rule.domain, rule.language, rule.tags) == ("", None, ())


def test_heuristics_of_an_unknown_schema_version_are_rejected():
    with pytest.raises(ConfigurationError, match="from schema version 0 to 2"):
        Heuristic.upcast({}, 0)


@pytest.mark.parametrize("version", [-1, 2**16, 20260101])
def test_a_version_that_no_envelope_has_room_for_is_refused(version):
    dated = type("Dated", (Record,), {"kind": "dated", "schema_version": version})
    with pytest.raises(ConfigurationError, match="Dated: schema_version must be from 0 to 65535"):
        RecordTypes([dated])
