"""Episodes: a task, its steps and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, ClassVar, Protocol
from uuid import UUID

from attrs import evolve, field, fields, frozen

from memory_core.errors import InvalidValueError
from memory_core.records import words
from memory_core.records.base import Index, Record, Text, new_id
from memory_core.records.declare import (
    NOT_EMPTY,
    checked,
    instance,
    notes,
    to_integer,
    to_json_object,
    to_json_value,
    to_number,
    to_optional_integer,
    to_optional_text,
    to_optional_time,
    to_string_map,
    to_text,
    to_texts,
    to_time,
    to_uuid,
    to_uuids,
    within,
)
from memory_core.records.fields import a_member, instances, now
from memory_core.records.frozen import EMPTY, FrozenDict, freeze, freeze_mapping
from memory_core.values import Value

__all__ = [
    "Checkpoint",
    "Complexity",
    "Episode",
    "ExecutionStep",
    "Outcome",
    "OutcomeStatus",
    "Reflection",
    "ResultStatus",
    "RewardScore",
    "SalientFeatures",
    "StepResult",
    "TaskContext",
    "TaskType",
]


class TaskType(StrEnum):
    """The type of an episode's task."""

    CODE_GENERATION = "code_generation"
    DEBUGGING = "debugging"
    REFACTORING = "refactoring"
    TESTING = "testing"
    ANALYSIS = "analysis"
    DOCUMENTATION = "documentation"
    OTHER = "other"


class Complexity(StrEnum):
    """How hard a task was."""

    SIMPLE = "simple"
    MODERATE = "moderate"
    COMPLEX = "complex"


class OutcomeStatus(StrEnum):
    """How an episode ended."""

    SUCCESS = "success"
    PARTIAL_SUCCESS = "partial_success"
    FAILURE = "failure"
    ABSTAINED = "abstained"


class ResultStatus(StrEnum):
    """How a step ended."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"


_set = object.__setattr__  # records are frozen
_FROZEN: type = FrozenDict
_PLAIN = frozenset({dict, list})
_a_task_type = a_member("task_type", TaskType)
_a_complexity = a_member("context.complexity", Complexity)
_an_outcome_status = a_member("outcome.status", OutcomeStatus)
_a_result_status = a_member("result.status", ResultStatus)


# Functions, because type checkers read from them what a field accepts: see ``declare``.
def _task_type(value: TaskType | str) -> TaskType:
    return _a_task_type(value)


def _complexity(value: Complexity | str) -> Complexity:
    return _a_complexity(value)


def _outcome_status(value: OutcomeStatus | str) -> OutcomeStatus:
    return _an_outcome_status(value)


def _result_status(value: ResultStatus | str) -> ResultStatus:
    return _a_result_status(value)


def _setters(cls: type[Any]) -> list[Callable[[Any, object], None]]:
    return [getattr(cls, attribute.name).__set__ for attribute in fields(cls)]


@frozen(kw_only=True, field_transformer=checked("context."), eq=False, repr=False)
class TaskContext(Value):
    """Where a task took place."""

    domain: str = field(default="", converter=to_text)
    language: str | None = field(default=None, converter=to_optional_text)
    framework: str | None = field(default=None, converter=to_optional_text)
    complexity: Complexity = field(default=Complexity.MODERATE, converter=_complexity)
    tags: tuple[str, ...] = field(default=(), converter=to_texts)


@frozen(kw_only=True, field_transformer=checked("result."), eq=False, repr=False)
class StepResult(Value):
    """How a step ended. Make it with ``success(output)``, ``error(message)`` or ``timeout()``.

    Attributes:
        status: which of the three.
        output: any JSON value; only a success has one.
        message: what went wrong; only an error has one.
    """

    status: ResultStatus = field(converter=_result_status)
    output: Any = field(  # pyright: ignore[reportUnknownVariableType]  # any JSON value
        default=None, converter=to_json_value, metadata=notes(limit="only of a success")
    )
    message: str | None = field(
        default=None,
        converter=to_optional_text,
        metadata=notes(limit="of an error, and only of an error"),
    )

    def __attrs_post_init__(self) -> None:
        if self.output is not None:
            _set(self, "output", freeze(self.output))
        if self.output is not None and self.status is not ResultStatus.SUCCESS:
            raise InvalidValueError(
                "result.output", f"None for a result of {self.status}", self.output
            )
        if (self.message is not None) != (self.status is ResultStatus.ERROR):
            raise InvalidValueError(
                "result.message", "text for an error, and None otherwise", self.message
            )

    # The slot of ``output``: see ``ExecutionStep``.
    _stored_output: ClassVar[Any]

    def _look_at_output(self) -> Any:
        value: object = self._stored_output
        if type(value) in _PLAIN:
            value = freeze(value)
            _put_output(self, value)
        return value

    @classmethod
    def success(cls, output: Any = None) -> StepResult:
        """The result of a step that succeeded; ``output`` is any JSON value."""
        return cls(status=ResultStatus.SUCCESS, output=output)

    @classmethod
    def error(cls, message: str) -> StepResult:
        """The result of a step that failed."""
        return cls(status=ResultStatus.ERROR, message=message)

    @classmethod
    def timeout(cls) -> StepResult:
        """The result of a step that did not end in time."""
        return cls(status=ResultStatus.TIMEOUT)


@frozen(kw_only=True, field_transformer=checked("step."), eq=False, repr=False)
class ExecutionStep(Value):
    """One tool call or observation.

    Attributes:
        number: its position in the episode, from 1.
        latency_ms: how long it took, in milliseconds.
    """

    number: int = field(converter=to_integer, metadata=within(1))
    timestamp: datetime = field(factory=now, converter=to_time)
    tool: str = field(converter=to_text, metadata=NOT_EMPTY)
    action: str = field(default="", converter=to_text)
    parameters: dict[str, Any] = field(default=EMPTY, converter=to_json_object)
    result: StepResult | None = field(default=None, metadata=instance(StepResult, optional=True))
    latency_ms: float = field(default=0.0, converter=to_number, metadata=within(0))
    tokens_used: int | None = field(default=None, converter=to_optional_integer, metadata=within(0))
    metadata: dict[str, str] = field(default=EMPTY, converter=to_string_map)

    def __attrs_post_init__(self) -> None:
        # Decoding bypasses the converters; a cached record must be frozen all the same.
        if type(self.parameters) is not FrozenDict:
            _set(self, "parameters", freeze_mapping(self.parameters))
        if type(self.metadata) is not FrozenDict:
            _set(self, "metadata", freeze_mapping(self.metadata))

    # The slots of ``parameters`` and ``metadata``. Those of a stored step are frozen when they are first
    # looked at. Two threads may both do that; what they get is equal.
    _stored_parameters: ClassVar[dict[str, Any]]
    _stored_metadata: ClassVar[dict[str, str]]

    def _look_at_parameters(self) -> dict[str, Any]:
        value = self._stored_parameters
        return value if type(value) is _FROZEN else _frozen(self, _put_parameters, value)

    def _look_at_metadata(self) -> dict[str, str]:
        value = self._stored_metadata
        return value if type(value) is _FROZEN else _frozen(self, _put_metadata, value)


def _frozen(
    step: ExecutionStep, put: Callable[[Any, object], None], plain: dict[str, Any]
) -> dict[str, Any]:
    value = freeze_mapping(plain)
    put(step, value)
    return value


class _StoredResult(StepResult):
    __slots__ = ()
    __attrs_post_init__ = None  # pyright: ignore[reportAssignmentType]  # see as_steps


class StoredStep(ExecutionStep):
    """A step as msgspec decodes it, before ``as_steps`` makes it an ``ExecutionStep``."""

    __slots__ = ()
    __attrs_post_init__ = None  # pyright: ignore[reportAssignmentType]  # see as_steps

    result: _StoredResult | None  # pyright: ignore[reportIncompatibleVariableOverride]  # see as_steps


_put_status, _put_output, _put_message = _setters(StepResult)
(
    _put_number, _put_timestamp, _put_tool, _put_action, _put_parameters, _put_result, _put_latency_ms,
    _put_tokens_used, _put_metadata,
) = _setters(ExecutionStep)  # fmt: skip


# Freezing the mappings of stored steps would take as long as decoding them, and the garbage collector does
# not look at plain mappings of texts and numbers.
for _cls, _stored, _name, _doc in (
    (ExecutionStep, StoredStep, "parameters", "What the tool was called with; immutable."),
    (ExecutionStep, StoredStep, "metadata", "What else is known of the step; immutable."),
    (StepResult, _StoredResult, "output", "Any JSON value; immutable."),
):
    _slot = vars(_cls)[_name]
    setattr(_cls, f"_stored_{_name}", _slot)
    _look_at = getattr(_cls, f"_look_at_{_name}")
    setattr(_cls, _name, property(_look_at, _slot.__set__, doc=_doc))
    setattr(_stored, _name, _slot)


def as_steps(stored: Iterable[StoredStep]) -> None:
    """Make decoded steps what they are.

    msgspec would call Python code for each step and for each result, which takes twice the time of decoding.

    Raises:
        InvalidValueError: a result has what its status does not have.
    """
    for step in stored:
        result = step.result
        if result is not None:
            _set(result, "__class__", StepResult)
            # A success may have any output; its only other field is checked here.
            if result.message is not None or result.status is not ResultStatus.SUCCESS:
                result.__attrs_post_init__()
        _set(step, "__class__", ExecutionStep)


def result_of_checked(
    status: ResultStatus, output: object = None, message: str | None = None
) -> StepResult:
    """A result of values that were checked and frozen before; takes a fifth of the constructor's time."""
    result = object.__new__(StepResult)
    _put_status(result, status)
    _put_output(result, output)
    _put_message(result, message)
    return result


def step_of_checked(values: tuple[Any, ...]) -> ExecutionStep:
    """A step of the values of its fields, in their order; as ``result_of_checked``."""
    number, timestamp, tool, action, parameters, result, latency_ms, tokens_used, metadata = values
    step = object.__new__(ExecutionStep)
    _put_number(step, number)
    _put_timestamp(step, timestamp)
    _put_tool(step, tool)
    _put_action(step, action)
    _put_parameters(step, parameters)
    _put_result(step, result)
    _put_latency_ms(step, latency_ms)
    _put_tokens_used(step, tokens_used)
    _put_metadata(step, metadata)
    return step


@frozen(kw_only=True, field_transformer=checked("outcome."), eq=False, repr=False)
class Outcome(Value):
    """How an episode ended. Make it with ``success``, ``partial_success``, ``failure`` or ``abstained``.

    Fields that do not apply to the status keep their defaults.
    """

    status: OutcomeStatus = field(converter=_outcome_status)
    verdict: str | None = field(
        default=None,
        converter=to_optional_text,
        metadata=notes(limit="required for a success or partial success, and only for these"),
    )
    artifacts: tuple[str, ...] = field(
        default=(), converter=to_texts, metadata=notes(limit="only of a success")
    )
    completed: tuple[str, ...] = field(
        default=(), converter=to_texts, metadata=notes(limit="only of a partial success")
    )
    failed: tuple[str, ...] = field(
        default=(), converter=to_texts, metadata=notes(limit="only of a partial success")
    )
    reason: str | None = field(
        default=None,
        converter=to_optional_text,
        metadata=notes(limit="required for a failure or abstention, and only for these"),
    )
    error_details: str | None = field(
        default=None, converter=to_optional_text, metadata=notes(limit="only of a failure")
    )
    stopped_at_step: int | None = field(
        default=None,
        converter=to_optional_integer,
        metadata={**within(0), **notes(limit="only of an abstention")},
    )
    signals: tuple[str, ...] = field(
        default=(), converter=to_texts, metadata=notes(limit="only of an abstention")
    )

    def __attrs_post_init__(self) -> None:
        required, allowed = _OUTCOME_FIELDS[self.status]
        if getattr(self, required) is None:
            raise InvalidValueError(f"outcome.{required}", f"text for {self.status}", None)
        for name in _OUTCOME_OPTIONS:
            if name not in allowed and getattr(self, name):
                raise InvalidValueError(
                    f"outcome.{name}",
                    f"no value, as {self.status} has no such field",
                    getattr(self, name),
                )

    @classmethod
    def success(cls, verdict: str, artifacts: Iterable[str] = ()) -> Outcome:
        """The outcome of a task that succeeded."""
        return cls(status=OutcomeStatus.SUCCESS, verdict=verdict, artifacts=tuple(artifacts))

    @classmethod
    def partial_success(
        cls, verdict: str, completed: Iterable[str] = (), failed: Iterable[str] = ()
    ) -> Outcome:
        """The outcome of a task that partly succeeded."""
        return cls(
            status=OutcomeStatus.PARTIAL_SUCCESS,
            verdict=verdict,
            completed=tuple(completed),
            failed=tuple(failed),
        )

    @classmethod
    def failure(cls, reason: str, error_details: str | None = None) -> Outcome:
        """The outcome of a task that failed."""
        return cls(status=OutcomeStatus.FAILURE, reason=reason, error_details=error_details)

    @classmethod
    def abstained(
        cls, reason: str, stopped_at_step: int | None = None, signals: Iterable[str] = ()
    ) -> Outcome:
        """The outcome of a task that the agent chose not to continue."""
        return cls(
            status=OutcomeStatus.ABSTAINED,
            reason=reason,
            stopped_at_step=stopped_at_step,
            signals=tuple(signals),
        )


_OUTCOME_OPTIONS = (
    "verdict", "artifacts", "completed", "failed", "reason", "error_details", "stopped_at_step", "signals",
)  # fmt: skip
_OUTCOME_FIELDS: dict[OutcomeStatus, tuple[str, frozenset[str]]] = {
    OutcomeStatus.SUCCESS: ("verdict", frozenset({"verdict", "artifacts"})),
    OutcomeStatus.PARTIAL_SUCCESS: ("verdict", frozenset({"verdict", "completed", "failed"})),
    OutcomeStatus.FAILURE: ("reason", frozenset({"reason", "error_details"})),
    OutcomeStatus.ABSTAINED: ("reason", frozenset({"reason", "stopped_at_step", "signals"})),
}


@frozen(kw_only=True, field_transformer=checked("reward."), eq=False, repr=False)
class RewardScore(Value):
    """How good the outcome was: a total and the components it was computed from."""

    total: float = field(converter=to_number)
    base: float = field(default=0.0, converter=to_number)
    efficiency: float = field(default=1.0, converter=to_number)
    complexity_bonus: float = field(default=1.0, converter=to_number)
    quality_multiplier: float = field(default=1.0, converter=to_number)
    learning_bonus: float = field(default=0.0, converter=to_number)


@frozen(kw_only=True, field_transformer=checked("reflection."), eq=False, repr=False)
class Reflection(Value):
    """What the agent concluded from the episode."""

    successes: tuple[str, ...] = field(default=(), converter=to_texts)
    improvements: tuple[str, ...] = field(default=(), converter=to_texts)
    insights: tuple[str, ...] = field(default=(), converter=to_texts)
    generated_at: datetime = field(factory=now, converter=to_time)


@frozen(kw_only=True, field_transformer=checked(), eq=False, repr=False)
class SalientFeatures(Value):
    """What is worth remembering of the episode."""

    critical_decisions: tuple[str, ...] = field(default=(), converter=to_texts)
    tool_combinations: tuple[str, ...] = field(default=(), converter=to_texts)
    error_recovery_patterns: tuple[str, ...] = field(default=(), converter=to_texts)
    key_insights: tuple[str, ...] = field(default=(), converter=to_texts)


@frozen(kw_only=True, field_transformer=checked("checkpoint."), eq=False, repr=False)
class Checkpoint(Value):
    """A point in a running episode to which the agent can return."""

    id: UUID = field(factory=new_id, converter=to_uuid)
    created_at: datetime = field(factory=now, converter=to_time)
    step_number: int = field(converter=to_integer, metadata=within(0))
    reason: str = field(default="", converter=to_text)
    note: str | None = field(default=None, converter=to_optional_text)


def _tags(record: Any) -> set[str]:
    return {*record.tags, *record.context.tags}


# Recognised by identity: the default depends on ``end_time``.
_LEFT_OUT = datetime.min.replace(tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)


def _metadata_pairs(record: Any) -> list[str]:
    return [f"{key}={value}" for key, value in record.metadata.items()]


def _said(episode: Any) -> Iterable[Any]:
    """Of each step at least the action, the parameters and the result; does not decode the rest."""
    undecoded = episode.undecoded
    return episode.steps if undecoded is None else undecoded.said()


_some_steps = instances("steps", ExecutionStep)
_some_checkpoints = instances("checkpoints", Checkpoint)


def _checkpoints(value: Iterable[Checkpoint]) -> tuple[Checkpoint, ...]:
    return _some_checkpoints(value)


def _numbered(value: Iterable[ExecutionStep]) -> tuple[ExecutionStep, ...]:
    steps = _some_steps(value)
    last = 0
    for step in steps:
        if step.number <= last:
            raise InvalidValueError(
                "steps", "steps in ascending order of their numbers", step.number
            )
        last = step.number
    return steps


class Undecoded(Protocol):
    """Steps as they are stored. Each call may raise ``CodecError``."""

    @property
    def count(self) -> int:
        """The number of steps."""
        ...

    @property
    def size(self) -> int:
        """The bytes that they take, decoded as well as stored."""
        ...

    def tools(self) -> tuple[str, ...]:
        """The tool of each step."""
        ...

    def said(self) -> Sequence[Any]:
        """Of each step an object with its action, parameters and result alone, plain JSON values."""
        ...

    def steps(self) -> tuple[ExecutionStep, ...]:
        """The decoded steps, one object for all calls."""
        ...


@frozen(kw_only=True, field_transformer=checked(), eq=False, repr=False)
class Episode(Record):
    """A task, its steps and its outcome. It is complete when it has an ``end_time`` and an ``outcome``.

    Without a ``start_time`` it starts now, or at its ``end_time`` if that is earlier. The steps of an episode
    that comes from a store are decoded when they are first looked at.
    """

    kind: ClassVar[str] = "episode"
    default_order: ClassVar[str] = "start_time"

    task_description: str = field(converter=to_text, metadata=NOT_EMPTY)
    task_type: TaskType = field(default=TaskType.OTHER, converter=_task_type)
    context: TaskContext = field(factory=TaskContext, metadata=instance(TaskContext))
    start_time: datetime = field(
        default=_LEFT_OUT,
        converter=to_time,
        metadata=notes(default="now, or `end_time` if that is earlier"),
    )
    end_time: datetime | None = field(
        default=None, converter=to_optional_time, metadata=notes(limit="not before `start_time`")
    )
    steps: tuple[ExecutionStep, ...] = field(
        default=(), converter=_numbered, metadata=notes(limit="in ascending order of `number`")
    )
    outcome: Outcome | None = field(default=None, metadata=instance(Outcome, optional=True))
    reward: RewardScore | None = field(default=None, metadata=instance(RewardScore, optional=True))
    reflection: Reflection | None = field(
        default=None, metadata=instance(Reflection, optional=True)
    )
    pattern_ids: tuple[UUID, ...] = field(default=(), converter=to_uuids)
    heuristic_ids: tuple[UUID, ...] = field(default=(), converter=to_uuids)
    applied_patterns: tuple[UUID, ...] = field(default=(), converter=to_uuids)
    applied_heuristics: tuple[UUID, ...] = field(default=(), converter=to_uuids)
    salient_features: SalientFeatures | None = field(
        default=None, metadata=instance(SalientFeatures, optional=True)
    )
    tags: tuple[str, ...] = field(default=(), converter=to_texts)
    metadata: dict[str, str] = field(default=EMPTY, converter=to_string_map)
    checkpoints: tuple[Checkpoint, ...] = field(default=(), converter=_checkpoints)

    indexes: ClassVar[tuple[Index, ...]] = (
        Index("start_time", datetime),
        Index("end_time", datetime),
        Index("task_type", TaskType),
        Index("domain", path="context.domain"),
        Index("language", path="context.language"),
        Index("framework", path="context.framework"),
        Index("complexity", Complexity, path="context.complexity"),
        Index("outcome", OutcomeStatus, path="outcome.status"),
        Index("reward", float, path="reward.total"),
        Index("tags", path=_tags, multi=True),
        Index("tools", path=lambda episode: episode.tools, multi=True),
        Index("metadata", path=_metadata_pairs, multi=True, pairs=True),
        Index("pattern_ids", UUID, multi=True),
        Index("heuristic_ids", UUID, multi=True),
        Index("applied_patterns", UUID, multi=True),
        Index("applied_heuristics", UUID, multi=True),
    )

    texts: ClassVar[tuple[Text, ...]] = (
        Text("description", path="task_description", weight=2.0),
        Text("outcome", path=words.of_outcome),
        Text("reflection", path=words.of_reflection),
        Text("insights", path=words.of_insights),
        Text("tags", path=lambda episode: sorted(_tags(episode))),
        Text("tools", path=lambda episode: dict.fromkeys(episode.tools)),
        Text("steps", path=lambda episode: words.of_steps(_said(episode))),
    )

    def __attrs_post_init__(self) -> None:
        if type(self.metadata) is not FrozenDict:
            _set(self, "metadata", freeze_mapping(self.metadata))
        if self.start_time is _LEFT_OUT:
            _set(self, "start_time", min(now(), self.end_time or _LATEST))
        if self.end_time is not None and self.end_time < self.start_time:
            raise InvalidValueError(
                "end_time", f"a time not before start_time ({self.start_time})", self.end_time
            )

    # The slot of ``steps``. msgspec reads slots itself: it encodes or rejects what is there, and would leave
    # out one that is empty.
    _stored_steps: ClassVar[Any]

    def _look_at_steps(self) -> Any:
        stored: Any = self._stored_steps
        if isinstance(stored, tuple):  # which it stays, whatever another thread does
            return self._stored_steps
        steps = stored.steps()
        _put_steps(self, steps)
        return steps

    @property
    def undecoded(self) -> Undecoded | None:
        """The steps as they are stored, if they were not looked at yet."""
        steps: Any = self._stored_steps
        return None if type(steps) is tuple else steps

    @property
    def step_count(self) -> int:
        """The number of steps; does not decode them."""
        undecoded = self.undecoded
        return len(self.steps) if undecoded is None else undecoded.count

    @property
    def tools(self) -> tuple[str, ...]:
        """The tool of each step; does not decode the rest of them."""
        undecoded = self.undecoded
        if undecoded is None:
            return tuple([step.tool for step in self.steps])  # a generator takes longer
        return undecoded.tools()

    @property
    def is_complete(self) -> bool:
        """Whether it has an ``end_time`` and an ``outcome``."""
        return self.end_time is not None and self.outcome is not None

    def with_steps(self, steps: Iterable[ExecutionStep]) -> Episode:
        """This episode with more steps, in the order of their numbers; its own steps win over new ones."""
        known = {step.number: step for step in steps}
        if self.steps:
            known |= {step.number: step for step in self.steps}
        ordered = _numbered(known[number] for number in sorted(known))
        if type(self) is not Episode:
            return evolve(self, steps=ordered)
        whole = _head_of(self)
        _put_steps(whole, ordered)
        return whole

    def with_undecoded(self, steps: Undecoded) -> Episode:
        """This episode, which has no steps, with those that are decoded when they are first looked at."""
        if type(self) is not Episode:
            return evolve(self, steps=steps.steps())
        whole = _head_of(self)
        _put_steps(whole, steps)
        return whole


EPISODE_STEPS: Any = vars(Episode)["steps"]
"""The slot of the steps, decoded or not; ``Episode.steps`` is a property over it."""
_put_steps = EPISODE_STEPS.__set__
setattr(Episode, "_stored_steps", EPISODE_STEPS)  # noqa: B010  # pyright knows no such slot
_look_at_steps = vars(Episode)["_look_at_steps"]
setattr(Episode, "steps", property(_look_at_steps, _put_steps, doc="What was done; immutable."))  # noqa: B010  # as above
_NAMES = [attribute.name for attribute in fields(Episode) if attribute.name != "steps"]
_head = attrgetter(*_NAMES)
_PUT_HEAD = [getattr(Episode, name).__set__ for name in _NAMES]


def _head_of(episode: Episode) -> Episode:
    """A new episode with all fields but the steps; all of them were checked before."""
    whole = object.__new__(Episode)
    for put, value in zip(_PUT_HEAD, _head(episode), strict=True):
        put(whole, value)
    return whole
