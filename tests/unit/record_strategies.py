"""Any record of the core's kinds, with any values that it accepts."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from memory_core.records import (
    Checkpoint,
    Complexity,
    ContextPattern,
    DecisionPoint,
    Effectiveness,
    Episode,
    ErrorRecovery,
    Evidence,
    ExecutionStep,
    Heuristic,
    Outcome,
    OutcomeStats,
    Reflection,
    Relationship,
    RelationshipType,
    RewardScore,
    SalientFeatures,
    Step,
    StepResult,
    TaskContext,
    TaskType,
    ToolSequence,
)

ids = st.uuids()
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# What is indexed must do without U+0000.
indexed = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
filled = text.map(lambda value: f"x{value}")
counts = st.integers(0, 2**63 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
shares = st.floats(0, 1)
times = st.datetimes(
    datetime(1, 1, 3),  # noqa: DTZ001  # the time zone is drawn
    datetime(9999, 12, 29),  # noqa: DTZ001  # as above
    timezones=st.timezones() | st.just(UTC),
)
json_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | numbers | text
json_values = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(text, json_values, max_size=3)
string_maps = st.dictionaries(indexed, indexed, max_size=3)


def maybe(values):
    return st.none() | values


def several(values):
    return st.lists(values, max_size=3)


contexts = st.builds(
    TaskContext,
    domain=indexed,
    language=maybe(indexed),
    framework=maybe(indexed),
    complexity=st.sampled_from(Complexity),
    tags=several(indexed),
)
results = (
    json_values.map(StepResult.success) | text.map(StepResult.error) | st.builds(StepResult.timeout)
)


def steps(number):
    return st.builds(
        ExecutionStep,
        number=number,
        timestamp=times,
        tool=indexed.map(lambda value: f"x{value}"),
        action=text,
        parameters=json_objects,
        result=maybe(results),
        latency_ms=st.floats(0, 1e12),
        tokens_used=maybe(counts),
        metadata=string_maps,
    )


outcomes = st.one_of(
    st.builds(Outcome.success, text, several(text)),
    st.builds(Outcome.partial_success, text, several(text), several(text)),
    st.builds(Outcome.failure, text, maybe(text)),
    st.builds(Outcome.abstained, text, maybe(counts), several(text)),
)
rewards = st.builds(RewardScore, total=numbers, base=numbers, efficiency=numbers)
reflections = st.builds(
    Reflection, successes=several(text), improvements=several(text), generated_at=times
)
features = st.builds(SalientFeatures, critical_decisions=several(text), key_insights=several(text))
checkpoints = st.builds(Checkpoint, id=ids, created_at=times, step_number=counts, note=maybe(text))


@st.composite
def episodes(draw):
    start = draw(times)
    later = draw(maybe(st.timedeltas(timedelta(0), timedelta(days=1))))
    places = sorted(draw(st.sets(st.integers(1, 1_000), max_size=3)))
    return Episode(
        id=draw(ids),
        task_description=draw(filled),
        task_type=draw(st.sampled_from(TaskType)),
        context=draw(contexts),
        start_time=start,
        end_time=None if later is None else start.astimezone(UTC) + later,
        steps=[draw(steps(st.just(place))) for place in places],
        outcome=draw(maybe(outcomes)),
        reward=draw(maybe(rewards)),
        reflection=draw(maybe(reflections)),
        pattern_ids=draw(several(ids)),
        heuristic_ids=draw(several(ids)),
        applied_patterns=draw(several(ids)),
        applied_heuristics=draw(several(ids)),
        salient_features=draw(maybe(features)),
        tags=draw(several(indexed)),
        metadata=draw(string_maps),
        checkpoints=draw(several(checkpoints)),
    )


common = {
    "id": ids,
    "context": contexts,
    "success_rate": shares,
    "effectiveness": st.builds(
        Effectiveness, times_applied=counts, avg_reward_delta=numbers, last_used=maybe(times)
    ),
    "created_at": times,
}
patterns = st.one_of(
    st.builds(
        ToolSequence,
        tools=several(indexed),
        avg_latency=st.timedeltas(timedelta(0), timedelta(days=400)),
        occurrence_count=counts,
        **common,
    ),
    st.builds(
        DecisionPoint,
        condition=filled,
        action=filled,
        outcome_stats=st.builds(OutcomeStats, successes=counts, failures=counts),
        **common,
    ),
    st.builds(
        ErrorRecovery,
        error_type=indexed.map(lambda value: f"x{value}"),
        recovery_steps=several(text),
        **common,
    ),
    st.builds(
        ContextPattern,
        context_features=several(text),
        recommended_approach=filled,
        evidence=several(ids),
        **common,
    ),
)
heuristics = st.builds(
    Heuristic,
    domain=indexed,
    language=st.none() | indexed,
    tags=several(indexed),
    id=ids,
    condition=filled,
    action=filled,
    confidence=shares,
    evidence=st.builds(Evidence, episode_ids=several(ids), success_rate=shares, sample_size=counts),
    created_at=times,
    updated_at=times,
)


@st.composite
def relationships(draw):
    source, target = draw(st.lists(ids, min_size=2, max_size=2, unique=True))
    return Relationship(
        id=draw(ids),
        from_episode_id=source,
        to_episode_id=target,
        relationship_type=draw(st.sampled_from(RelationshipType)),
        reason=draw(maybe(text)),
        created_by=draw(maybe(text)),
        priority=draw(maybe(st.integers(1, 10))),
        weight=draw(maybe(shares)),
        custom_fields=draw(json_objects),
        created_at=draw(times),
    )


records = st.one_of(
    episodes(),
    # As many as one batch can put together.
    st.builds(Step, id=ids, episode_id=ids, step=steps(st.integers(1, 10**5 - 3))),
    patterns,
    heuristics,
    relationships(),
)
