from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_core.errors import QueryError
from memory_core.query import (
    AllOf,
    AnyOf,
    Between,
    Page,
    Query,
    all_of,
    any_of,
    at_least,
    at_most,
    between,
    greater_than,
    less_than,
    sort_key,
)
from memory_core.records import (
    DecisionPoint,
    Episode,
    Index,
    OutcomeStatus,
    Pattern,
    Record,
    RecordTypes,
    Relationship,
    Step,
    TaskType,
    ToolSequence,
)
from memory_core.testing.data.kinds import Color, Specimen
from memory_core.testing.data.samples import EPOCH, full_episode, specimens
from memory_core.testing.data.strategies import queries

MICROSECONDS = int(EPOCH.timestamp()) * 10**6 + EPOCH.microsecond


def condition(**given):
    (found,) = Query(Specimen).where(**given).conditions
    return found


# What conditions become


def test_values_become_scalars():
    assert condition(name="x") == AnyOf("name", ("x",))
    assert condition(name=None) == AnyOf("name", (None,))
    assert condition(flag=True) == AnyOf("flag", (1,))
    assert condition(amount=5) == AnyOf("amount", (5,))
    assert condition(ratio=5) == AnyOf("ratio", (5.0,))
    assert condition(owner=UUID(int=1)) == AnyOf("owner", (UUID(int=1).bytes,))
    assert condition(owner=str(UUID(int=1))) == AnyOf("owner", (UUID(int=1).bytes,))
    assert condition(color=Color.RED) == condition(color="red") == AnyOf("color", ("red",))
    assert condition(seen_at=EPOCH) == AnyOf("seen_at", (MICROSECONDS,))
    elsewhere = EPOCH.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert condition(seen_at=elsewhere) == condition(seen_at=EPOCH)
    assert condition(labels="x") == AnyOf("labels", ("x",))
    assert condition(labels=all_of("b", "a", "b")) == AllOf("labels", ("a", "b"))
    assert condition(amount=any_of(3, None, 1, 3)) == AnyOf("amount", (None, 1, 3))
    assert condition(amount=any_of()) == AnyOf("amount", ())


def test_ranges():
    assert condition(amount=between(1, 5)) == Between("amount", 1, 5)
    assert condition(amount=at_least(1)) == Between("amount", 1, None)
    assert condition(amount=at_most(5)) == Between("amount", None, 5)
    assert condition(amount=greater_than(1)) == Between("amount", 1, None, include_lower=False)
    assert condition(amount=less_than(5)) == Between("amount", None, 5, include_upper=False)


def test_a_mapping_is_key_value_pairs():
    query = Query(Episode).where(metadata={"run": "42", "a": "b=c"})
    assert query.conditions == (AllOf("metadata", ("a=b=c", "run=42")),)
    assert query.matches(full_episode(1).index_values()) is False
    assert Query(Episode).where(metadata={"run": "42"}).matches(full_episode(1).index_values())


def test_microseconds_count():
    tick = timedelta(microseconds=1)
    assert condition(seen_at=EPOCH) != condition(seen_at=EPOCH + tick)
    inside = condition(seen_at=between(EPOCH, EPOCH + tick))
    assert (inside.lower, inside.upper) == (MICROSECONDS, MICROSECONDS + 1)


# What is refused


def test_an_unknown_index_lists_those_there_are():
    with pytest.raises(QueryError) as caught:
        Query(Step).where(tools="x")
    assert (
        str(caught.value) == "step has no index 'tools'; indexed: episode_id, number, run_id, tool"
    )
    with pytest.raises(QueryError, match="indexed: "):
        Query(Episode).order_by("steps")


@pytest.mark.parametrize(
    "given",
    [
        {"amount": "5"},
        {"amount": True},
        {"amount": 1.0},
        {"amount": 2**63},
        {"flag": 1},
        {"name": 5},
        {"name": "a\0b"},
        {"ratio": float("nan")},
        {"seen_at": datetime(2025, 1, 1)},  # noqa: DTZ001  # naive on purpose
        {"seen_at": "2025-01-01"},
        {"owner": "x"},
        {"color": "purple"},
        {"labels": None},
        {"labels": any_of("a", None)},
        {"labels": between("a", "b")},
        {"name": all_of("a")},
        {"amount": between(1, "2")},
        {"amount": {"a": 1}},
    ],
    # Not by repr, which holds addresses: processes that share the work must agree on names.
    ids="-".join,
)
def test_wrong_values_are_refused(given):
    with pytest.raises(QueryError):
        Query(Specimen).where(**given)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"metadata": {"a": 1}}, "condition on metadata: expected a string, got 1"),
        ({"metadata": {1: "a"}}, "condition on metadata: expected a string, got 1"),
        (
            {"metadata": "nokey"},
            "condition on metadata: expected a pair, 'key=value' or {'key': 'value'}, got 'nokey'",
        ),
        (
            {"metadata": any_of("a=1", "b")},
            "condition on metadata: expected a pair, 'key=value' or {'key': 'value'}, got 'b'",
        ),
        (
            {"tags": ["a", "b"]},
            "condition on tags: expected a string, got ['a', 'b']; use any_of or all_of",
        ),
        (
            {"domain": ("a", "b")},
            "condition on domain: expected a string, got ('a', 'b'); use any_of",
        ),
        (
            {"reward": between(2, 1)},
            "condition on reward: between(2, 1) is empty: its lower bound is the greater one",
        ),
    ],
    ids=repr,
)
def test_a_wrong_value_says_how_it_is_written(wanted, said):
    with pytest.raises(QueryError) as caught:
        Query(Episode).where(**wanted)
    assert str(caught.value) == said


def test_pairs_are_written_as_text_or_as_a_mapping():
    written = Query(Episode).where(metadata={"run": "42", "host": "a=b"})
    assert written == Query(Episode).where(metadata=all_of("run=42", "host=a=b"))
    assert written != Query(Episode).where(metadata="run=42")


def test_another_sign_for_descending_says_the_right_one():
    with pytest.raises(QueryError) as caught:
        Query(Episode).order_by("-start_time")
    assert str(caught.value) == (
        "episode has no index '-start_time'; for the largest first: "
        "order_by('start_time', descending=True)"
    )


@pytest.mark.parametrize(
    ("condition", "written"),
    [
        (any_of("a", "b"), "any_of('a', 'b')"),
        (any_of(), "any_of()"),
        (all_of("a"), "all_of('a')"),
        (between(1, None), "between(1, None)"),
        (at_least(1), "at_least(1)"),
        (at_most(1), "at_most(1)"),
        (greater_than(1), "greater_than(1)"),
        (less_than(0.5), "less_than(0.5)"),
    ],
    ids=repr,
)
def test_a_condition_is_shown_as_it_is_written(condition, written):
    assert repr(condition) == written


def test_a_page_is_a_sequence_of_its_records():
    records = tuple(specimens(5))
    page = Page(records, "cursor")
    assert (page[0], page[-1], page[1:3]) == (records[0], records[-1], records[1:3])
    assert (len(page), list(page), records[2] in page) == (5, list(records), True)
    with pytest.raises(IndexError):
        page[5]


def test_an_enum_says_what_is_valid():
    with pytest.raises(QueryError, match="'debugging'"):
        Query(Episode).where(task_type="cooking")


@pytest.mark.parametrize("count", [0, -1, 10_001, True, "5", 1.0])
def test_limits_are_bounded(count):
    with pytest.raises(QueryError):
        Query(Episode).limit(count)


@pytest.mark.parametrize("cls", [Record, str, "episode", None, Episode(task_description="x")])
def test_only_of_record_classes(cls):
    with pytest.raises(QueryError):
        Query(cls)


def test_no_order_by_many_values():
    with pytest.raises(QueryError, match="many values"):
        Query(Episode).order_by("tags")


# Queries are values


def test_nothing_changes_a_query():
    query = Query(Episode)
    query.where(task_type="debugging").order_by("reward").limit(5)
    assert query == Query(Episode)
    assert query.conditions == ()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        query.page_size = 5


def test_the_order_of_conditions_does_not_matter():
    one = Query(Episode).where(domain="web", task_type=TaskType.DEBUGGING, tags=any_of("a", "b"))
    other = Query(Episode).where(tags=any_of("b", "a", "b")).where(task_type="debugging")
    other = other.where(domain="web", tags=any_of("a", "b"))
    assert one == other
    assert hash(one) == hash(other)
    assert one.canonical() == other.canonical()


def test_different_queries_are_different():
    base = Query(Episode)
    different = [
        base,
        base.where(domain="a"),
        base.where(domain="A"),
        base.where(domain="a "),
        base.where(language="a"),
        base.where(domain=None),
        base.where(domain=any_of()),
        base.where(domain="None"),
        base.where(tags="a"),
        base.where(tags=all_of("a")),
        base.where(tags=any_of("a", "b")),
        base.where(tags=any_of("a,b")),
        base.where(tags=all_of("a", "b")),
        base.where(tags="a").where(tags="b"),
        base.where(reward=1.0),
        base.where(reward=at_least(1.0)),
        base.where(reward=greater_than(1.0)),
        base.where(reward=at_most(1.0)),
        base.limit(5),
        base.order_by("id"),
        base.order_by("id", descending=True),
        base.order_by("start_time"),
        base.order_by("end_time", descending=True),
        base.after(base.cursor(1, UUID(int=1))),
        base.after(base.cursor(1, UUID(int=2))),
        base.after(base.cursor(2, UUID(int=1))),
        Query(Specimen),
        Query(Pattern),
        Query(ToolSequence),
        Query(DecisionPoint),
        Query(Pattern).where(pattern_type="tool_sequence"),
    ]
    assert len({query.canonical() for query in different}) == len(different)


@settings(deadline=None)
@given(one=queries(), other=queries())
def test_canonical_bytes_are_equal_for_equal_queries_only(one, other):
    assert (one.query.canonical() == other.query.canonical()) == (one.query == other.query)


def test_a_variant_finds_only_itself():
    assert Query(ToolSequence).conditions == (AnyOf("pattern_type", ("tool_sequence",)),)
    narrowed = Query(ToolSequence).where(domain="web")
    assert AnyOf("pattern_type", ("tool_sequence",)) in narrowed.conditions
    assert Query(Pattern).conditions == ()


def test_default_orders():
    assert (Query(Episode).order, Query(Episode).descending) == ("start_time", True)
    assert Query(Relationship).order == "created_at"
    assert Query(Step).order == "number"


# What matches


def brute_force(found, value):
    """What a condition means, said in another way."""
    values = value if isinstance(value, tuple) else (value,)
    if isinstance(found, AnyOf):
        return len(set(values) & set(found.values)) > 0
    if isinstance(found, AllOf):
        return set(found.values) <= set(values)
    if value is None:
        return False
    low = (
        found.lower is None or value > found.lower or (found.include_lower and value == found.lower)
    )
    high = (
        found.upper is None or value < found.upper or (found.include_upper and value == found.upper)
    )
    return low and high


@settings(deadline=None, max_examples=300)
@given(plan=queries())
def test_matching(plan):
    for record in specimens(60) if plan.query.kind == "specimen" else []:
        values = record.index_values()
        expected = all(brute_force(found, values[found.index]) for found in plan.query.conditions)
        assert plan.query.matches(values) is expected


def test_bounds_are_part_of_a_range_unless_it_says_otherwise():
    values = Specimen(amount=5).index_values()
    for inside in (at_most(5), at_least(5), between(5, 5)):
        assert Query(Specimen).where(amount=inside).matches(values)
    for outside in (less_than(5), greater_than(5)):
        assert not Query(Specimen).where(amount=outside).matches(values)


def test_none_is_in_no_range_but_can_be_asked_for():
    empty = Specimen().index_values()
    for wanted in (between(None, None), at_least(0), at_most(0)):
        assert not Query(Specimen).where(amount=wanted).matches(empty)
    assert Query(Specimen).where(amount=None).matches(empty)
    assert Query(Specimen).where(amount=any_of(1, None)).matches(empty)


def test_an_outcome_can_be_asked_for_by_member():
    assert (
        Query(Episode)
        .where(outcome=OutcomeStatus.ABSTAINED)
        .matches(full_episode(1).index_values())
    )


# Order and cursors


def test_none_comes_first():
    values = [3, None, -5, 0]
    assert sorted(values, key=sort_key) == [None, -5, 0, 3]


def test_text_is_ordered_by_code_point():
    made = ["b", "B", "ä", "\uffff", "\U00010000", "", "a"]
    in_order = sorted(made, key=sort_key)
    assert in_order == ["", "B", "a", "b", "ä", "\uffff", "\U00010000"]
    assert in_order == sorted(made, key=str.encode)


@settings(deadline=None)
@given(plan=queries(), number=st.integers(0, 59))
def test_a_cursor_divides_the_records_in_two(plan, number):
    query = plan.query
    if query.kind != "specimen":
        query = Query(Specimen).order_by("name", descending=query.descending)
    made = specimens(60)
    made.sort(
        key=lambda record: query.page_key(record.index_values(), record.id),
        reverse=query.descending,
    )
    edge = made[number]
    value = edge.index_values()[query.order] if query.order else None
    after = query.after(query.cursor(value, edge.id))
    past = [record for record in made if after.is_past_start(record.index_values(), record.id)]
    assert past == made[number + 1 :]


SCALARS = {
    "name": st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    "color": st.sampled_from(["red", "green"]),
    "amount": st.integers(-(2**63), 2**63 - 1),
    "flag": st.integers(0, 1),
    "seen_at": st.integers(-(2**62), 2**62),
    "ratio": st.floats(allow_nan=False),
    "owner": st.binary(min_size=16, max_size=16),
}


@settings(deadline=None)
@given(data=st.data(), index=st.sampled_from(sorted(SCALARS)))
def test_cursors_come_back(data, index):
    query = Query(Specimen).order_by(index)
    value = data.draw(st.none() | SCALARS[index])
    cursor = query.cursor(value, UUID(int=7))
    assert cursor.isascii()
    start = query.after(cursor).start
    assert (start.value, start.id) == (value, UUID(int=7))
    by_id = Query(Specimen).order_by("id")
    assert by_id.after(by_id.cursor(None, UUID(int=7))).start.id == UUID(int=7)


@settings(deadline=None)
@given(
    index=st.sampled_from([*sorted(SCALARS), "id"]),
    value=st.sampled_from([[], [1], {"a": 1}, True, 2**63, "x", 1, 1.5, b"x"]),
)
def test_a_forged_cursor_is_refused(index, value):
    """Cursors come back through the hands of clients: what is in them reaches no engine unchecked."""
    query = Query(Specimen).order_by(index)
    expected = {"name": str, "color": str, "ratio": float, "owner": bytes, "id": type(None)}
    fits = type(value) is expected.get(index, int) and value != 2**63
    cursor = query.cursor(value, UUID(int=7))
    if fits:
        assert query.after(cursor).start.value == value
    else:
        with pytest.raises(QueryError):
            query.after(cursor)


@settings(deadline=None)
@given(one=queries(), other=queries())
def test_cursors_of_other_queries_are_refused(one, other):
    cursor = one.query.cursor(None, UUID(int=7))
    same = attrs.evolve(one.query, page_size=1) == attrs.evolve(other.query, page_size=1)
    if same:
        assert other.query.after(cursor).start is not None
    else:
        with pytest.raises(QueryError):
            other.query.after(cursor)


@settings(deadline=None)
@given(garbage=st.text(max_size=80) | st.binary(max_size=60).map(lambda data: data.hex()))
def test_garbage_is_no_cursor(garbage):
    with pytest.raises(QueryError):
        Query(Episode).after(garbage)


def test_no_cursor_starts_from_the_beginning():
    query = Query(Episode).limit(3)
    assert query.after(query.cursor(1, UUID(int=1))).after(None) == query


def test_the_page_size_may_change_on_the_way():
    cursor = Query(Episode).limit(3).cursor(1, UUID(int=1))
    assert Query(Episode).limit(50).after(cursor).start is not None


def test_the_newest_second_of_the_calendar():
    far = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert condition(seen_at=far).values[0] < 2**63


def test_an_index_may_have_any_name_that_is_an_identifier():
    @attrs.frozen(kw_only=True)
    class Selfish(Record):
        kind = "selfish"
        indexes = (Index("self", str, path="own"),)
        own: str = ""

    RecordTypes([Selfish])
    query = Query(Selfish).where(self="me")
    assert [condition.index for condition in query.conditions] == ["self"]
