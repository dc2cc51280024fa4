"""Checks of what users pass to ``Memory``, which makes them once: an id may be text, a kind must match."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

import attrs

from memory_core.errors import InvalidValueError, QueryError
from memory_core.query import Query
from memory_core.records import Episode, ExecutionStep, Outcome, Record, TaskContext
from memory_core.records.fields import a_uuid, an_instance, an_integer, optional, uuids
from memory_core.storage import Put, WriteBatch

if TYPE_CHECKING:
    from memory_core.learning import Recall

__all__ = [
    "COMPLETION",
    "a_batch",
    "a_bound",
    "a_function",
    "a_kind",
    "a_limit",
    "a_position",
    "a_query",
    "a_recall",
    "a_recall_limit",
    "a_step",
    "an_episode_or_none",
    "an_id",
    "an_outcome",
    "changes_of",
    "ids",
    "new_episode",
    "puts_of",
    "query_of",
    "records_of",
    "used_of",
]

R = TypeVar("R", bound=Record)
Function = TypeVar("Function", bound=Callable[..., Any])

COMPLETION = frozenset(
    {
        "end_time", "reward", "reflection", "salient_features", "tags", "metadata",
        "pattern_ids", "heuristic_ids", "applied_patterns", "applied_heuristics",
    }
)  # fmt: skip
"""The fields of an episode that may change when it is completed."""

an_id = a_uuid("id")
ids = uuids("ids")
an_outcome = an_instance("outcome", Outcome)
a_position = an_integer("since", 0)
a_limit = an_integer("limit", 1, 1_000_000)
a_bound = optional(an_integer("up_to", 1))
a_recall_limit = an_integer("limit", 1, 100)
_recall_id = a_uuid("recall")
_used = uuids("used")
_OF_A_CONTEXT = frozenset(attribute.name for attribute in attrs.fields(TaskContext)) - {"tags"}


def a_batch(batch: object) -> WriteBatch:
    """The batch, if it is one.

    Raises:
        InvalidValueError: otherwise.
    """
    if not isinstance(batch, WriteBatch):
        raise InvalidValueError("batch", "a WriteBatch", batch)
    return batch


def a_function(change: Function) -> Function:
    """The function, if it is one.

    Raises:
        InvalidValueError: otherwise.
    """
    if not callable(change):
        raise InvalidValueError("change", "a function of the stored record", change)
    return change


def new_episode(given: dict[str, Any]) -> Episode:
    """An episode with these fields.

    Raises:
        TypeError: it has no such field; says where one of its context belongs.
    """
    if misplaced := sorted(_OF_A_CONTEXT.intersection(given)):
        options = ", ".join(f"{name}=…" for name in misplaced)
        message = f"an episode has no {misplaced[0]}: write context=TaskContext({options})"
        raise TypeError(message)
    return Episode(**given)


def used_of(used: Any) -> tuple[UUID, ...]:
    """The ids of recalled items, or ids themselves.

    Raises:
        InvalidValueError: it is neither.
    """
    if isinstance(used, str | bytes) or not isinstance(used, Iterable):
        return _used(used)
    return _used([getattr(item, "id", item) for item in cast("Iterable[Any]", used)])


def a_recall(recall: Any) -> Recall | UUID:
    """The recall, or its id.

    Raises:
        InvalidValueError: it is neither.
    """
    from memory_core.learning import Recall

    return recall if isinstance(recall, Recall) else _recall_id(recall)


def a_kind(kind: type[R]) -> type[R]:
    """The class, if it is a record's.

    Raises:
        InvalidValueError: otherwise.
    """
    if not (isinstance(kind, type) and issubclass(kind, Record)):  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
        raise InvalidValueError("kind", "a record class such as Episode", kind)
    return kind


def an_episode_or_none(episode: object) -> None:
    """Check what an episode is started with.

    Raises:
        InvalidValueError: it is neither an episode nor ``None``.
    """
    if not (episode is None or isinstance(episode, Episode)):
        expected = "an Episode, or fields such as task_description='…'"
        raise InvalidValueError("episode", expected, episode)


def a_query(query: Query[R]) -> Query[R]:
    """The query, if it is one.

    Raises:
        QueryError: otherwise.
    """
    if not isinstance(query, Query):  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
        raise QueryError(f"expected a Query, got {query!r}")
    return query


def a_step(step: object) -> ExecutionStep:
    """The step, if it is one.

    Raises:
        InvalidValueError: otherwise.
    """
    if not isinstance(step, ExecutionStep):
        raise InvalidValueError("step", "an ExecutionStep", step)
    return step


def records_of(cls: type[R], records: Iterable[R]) -> tuple[R, ...]:
    """The records, if all are of a class.

    Raises:
        InvalidValueError: otherwise.
    """
    if isinstance(records, Record):
        raise InvalidValueError(f"{cls.kind}s", f"several records of kind {cls.kind}", records)
    checked = tuple(records)
    for record in checked:
        if not isinstance(record, cls):  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
            raise InvalidValueError(cls.kind, f"a record of kind {cls.kind}", record)
    return checked


def changes_of(
    cls: type[Record], names: Container[str], changes: Mapping[str, object]
) -> dict[str, Any]:
    """The changes that are not ``None``, as the fields of a class take them.

    They are converted once, as an iterator among them could not be read again.

    Args:
        cls: the class.
        names: the fields that may change.
        changes: new values by field.

    Raises:
        InvalidValueError: when a value does not fit its field.
        TypeError: when another field is named.
    """
    fields = cast("Mapping[str, Any]", attrs.fields_dict(cls))
    if unknown := [name for name in changes if name not in names]:
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}")
    return {
        name: fields[name].converter(value) for name, value in changes.items() if value is not None
    }


def puts_of(cls: type[R], records: Iterable[R]) -> WriteBatch:
    """A batch that puts records, all of a class. Raises like ``records_of``."""
    return WriteBatch(tuple(map(Put, records_of(cls, records))))


def query_of(cls: type[R], query: Query[R] | None) -> Query[R]:
    """The query, or one for all records of a class.

    Raises:
        QueryError: when it is for another kind.
    """
    if query is None:
        return Query(cls)
    if not isinstance(query, Query) or query.kind != cls.kind:  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
        raise QueryError(f"expected a Query({cls.__name__}), got {query!r}")
    return query
