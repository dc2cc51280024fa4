"""The semantics of a store, without persistence: the state that a sequence of batches leads to.

``Model`` holds the records of all namespaces and applies batches with every rule of the SPI:
references, cascades, unique values, acyclic groups, all or nothing. Together with ``ChangeFeed``, which
numbers the changes, it is nearly all of ``InMemoryStorage``, the reference of the conformance kit; a
backend that keeps a log can replay it into the two, and ``WorkingSet`` plans a group on a model that
has only the records which the group concerns. All are synchronous and never wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias, TypeVar, cast
from uuid import UUID

from attrs import evolve, field, frozen

from memory_core.backend.rules import RuleCheck
from memory_core.codec import Codec, EncodedPut
from memory_core.codec.compression import CompressionConfig
from memory_core.errors import (
    ConflictError,
    CycleError,
    DuplicateError,
    InvalidValueError,
    MemoryCoreError,
    ReferenceNotFoundError,
    ReferenceRestrictedError,
)
from memory_core.query import AnyOf, Page, Query
from memory_core.records import (
    Acyclic,
    IndexValues,
    Limits,
    OnDelete,
    Record,
    RecordTypes,
    Scalar,
    Unique,
)
from memory_core.storage import (
    ChangeOperation,
    CommitResult,
    Delete,
    Expect,
    ExpectAbsent,
    NamespaceInfo,
    Position,
    Put,
    Receipt,
    WriteBatch,
)
from memory_core.values import Value

__all__ = [
    "Effect",
    "Model",
    "Plan",
    "Prepared",
    "QueuedBatch",
    "Referrer",
    "Stored",
    "select_page",
]

R = TypeVar("R", bound=Record)
T = TypeVar("T")


@frozen(eq=False, repr=False)
class Stored(Value):
    """A record that has passed the codec's checks.

    Attributes:
        record: the record.
        values: its index values.
        size: the size of its encoding in bytes.
        body: its encoding, where the model was given a codec.
    """

    record: Record
    values: IndexValues
    size: int
    body: bytes | None = None


Prepared: TypeAlias = Stored | Delete | Expect | ExpectAbsent


@frozen(eq=False, repr=False)
class Effect(Value):
    """The effect of one step of a batch on one record: enough to undo and redo it.

    Attributes:
        namespace: its namespace.
        kind: its kind.
        id: its id.
        before: the record before, or ``None``.
        after: the record afterwards, or ``None``.
        unreadable: there was a record before, but it is damaged, so that its index values are not known.
    """

    namespace: str
    kind: str
    id: UUID
    before: Stored | None
    after: Stored | None
    unreadable: bool = False

    @property
    def operation(self) -> ChangeOperation:
        """The corresponding change of the feed."""
        return ChangeOperation.DELETE if self.after is None else ChangeOperation.PUT


@frozen(eq=False, repr=False)
class QueuedBatch(Value):
    """A batch that waits to be written; ``batch`` is ``None`` for wiping the namespace."""

    namespace: str
    batch: WriteBatch | None

    @classmethod
    def of(cls, namespace: str, batches: Iterable[WriteBatch]) -> list[QueuedBatch]:
        """The batches of one call of ``commit``.

        Raises:
            InvalidValueError: one of them is not a ``WriteBatch``.
        """
        for batch in batches:
            if not isinstance(batch, WriteBatch):  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
                raise InvalidValueError("batches", "WriteBatch objects", batch)
        return [cls(namespace, batch) for batch in batches]

    @property
    def weight(self) -> int:
        """What it weighs in a group of ``GroupCommit``."""
        return 1 if self.batch is None else 1 + len(self.batch)


@frozen(eq=False, repr=False)
class Plan(Value):
    """What a group of batches does to a store.

    Attributes:
        results: the result of each batch, in order.
        effects: the changes of the accepted batches, in order, cascades and references set to null
            among them. The first has the position after the one that the plan began with.
    """

    results: list[CommitResult]
    effects: list[Effect]

    @property
    def differences(self) -> list[Effect]:
        """One effect for each record that the group changes: its state before and after all of it."""
        net: dict[tuple[str, str, UUID], Effect] = {}
        for step in self.effects:
            effect = step
            key = effect.namespace, effect.kind, effect.id
            first = net.get(key)
            if first is not None:
                effect = evolve(effect, before=first.before, unreadable=first.unreadable)
            net[key] = effect
        return [one for one in net.values() if one.before is not one.after or one.unreadable]


@frozen(eq=False, repr=False)
class Referrer(Value):
    """A reference to a kind: which records hold it, and what becomes of them."""

    kind: str
    field: str
    on_delete: OnDelete


_Ids: TypeAlias = dict[Scalar, dict[UUID, None]]
"""Ids by index value, each an ordered set."""


@frozen(eq=False, repr=False)
class _NamespaceRecords(Value):
    """The records of one namespace, and the ids by the index values that references need."""

    records: dict[str, dict[UUID, Stored]] = field(factory=dict[str, dict[UUID, Stored]])
    holders: dict[tuple[str, str], _Ids] = field(factory=dict[tuple[str, str], _Ids])
    taken: dict[tuple[str, tuple[str, ...]], dict[tuple[Any, ...], UUID]] = field(
        factory=dict[tuple[str, tuple[str, ...]], dict[tuple[Any, ...], UUID]]
    )


class Model:
    """The records of a store.

    Args:
        types: the kinds it knows.
        limits: the limits that records must keep.
        codec: encodes the records, whose ``body`` is then kept.
    """

    def __init__(self, types: RecordTypes, limits: Limits, codec: Codec | None = None) -> None:
        self.types = types
        self.size_bytes = 0
        self._codec = codec or Codec(types, limits, CompressionConfig(enabled=False))
        self._keeps_bodies = codec is not None
        self._spaces: dict[str, _NamespaceRecords] = {}
        self._nothing = _NamespaceRecords()
        classes = {kind: types.cls(kind) for kind in types.kinds}
        self._referrers = {
            kind: [
                Referrer(cls.kind, reference.field, reference.on_delete)
                for cls, reference in types.referrers(kind)
            ]
            for kind in classes
        }
        self._unique = {
            kind: [rule.fields for rule in cls.constraints if isinstance(rule, Unique)]
            for kind, cls in classes.items()
        }
        self._acyclic = {
            kind: [rule for rule in cls.constraints if isinstance(rule, Acyclic)]
            for kind, cls in classes.items()
        }
        # The indexes that are looked up by value: references to a record, and the edges that leave a node.
        self._held = {
            kind: {ref.field for ref in cls.references}
            | {rule.source for rule in self._acyclic[kind]}
            for kind, cls in classes.items()
        }

    def prepare(self, batch: WriteBatch) -> list[Prepared]:
        """Run the checks of a batch that need no stored records. Raises like ``Codec.prepare``."""
        operations = self._codec.prepare(batch)
        return [
            self._stored(given.record, encoded)
            if isinstance(given, Put) and isinstance(encoded, EncodedPut)
            else cast("Delete | Expect | ExpectAbsent", given)
            for given, encoded in zip(batch.operations, operations, strict=True)
        ]

    def store(self, record: Record) -> Stored:
        """Check one record. Raises like ``Codec.prepare``."""
        return self._stored(record, self._codec.encode_put(record))

    def plan(self, group: Iterable[QueuedBatch], position: Position) -> Plan:
        """Try the batches of a group, one after the other; the model stays as it was.

        Args:
            group: the batches.
            position: the number of the newest change before the group.
        """
        results: list[CommitResult] = []
        effects: list[Effect] = []
        try:
            for item in group:
                try:
                    effects += self._try(item)
                except MemoryCoreError as error:
                    results.append(error)
                    continue
                ids = item.batch.ids if item.batch else ()
                results.append(Receipt(position + len(effects), ids))
        finally:
            self.revert(effects)
        return Plan(results, effects)

    def _try(self, item: QueuedBatch) -> list[Effect]:
        if item.batch is None:
            return self.wipe(item.namespace)
        return self.apply(item.namespace, self.prepare(item.batch))

    def _stored(self, record: Record, encoded: EncodedPut) -> Stored:
        body = encoded.body if self._keeps_bodies else None
        return Stored(record, encoded.values, len(encoded.body), body)

    def apply(self, namespace: str, operations: Iterable[Prepared]) -> list[Effect]:
        """Apply a batch, in order, all or nothing.

        Raises:
            StorageError: it was rejected; nothing has changed.
        """
        effects: list[Effect] = []
        try:
            for operation in operations:
                if isinstance(operation, Stored):
                    self._put(namespace, operation, effects)
                elif isinstance(operation, Delete):
                    self._delete(namespace, operation, effects)
                else:
                    self._check_expected(namespace, operation)
        except BaseException:
            self.revert(effects)
            raise
        return effects

    def wipe(self, namespace: str) -> list[Effect]:
        """Delete every record of a namespace, referring ones first."""
        effects: list[Effect] = []
        space = self._space(namespace)
        for kind in reversed(self.types.kinds):
            deletions = reversed(list(space.records.get(kind, ())))
            effects += [self._set(namespace, kind, record_id, None) for record_id in deletions]
        return effects

    def revert(self, effects: Sequence[Effect]) -> None:
        """Undo what ``apply`` or ``wipe`` just did."""
        for effect in reversed(effects):
            self._set(effect.namespace, effect.kind, effect.id, effect.before)

    def replay(self, effects: Iterable[Effect]) -> None:
        """Redo effects that were checked before: the inverse of ``revert``."""
        for effect in effects:
            self._set(effect.namespace, effect.kind, effect.id, effect.after)

    def get(self, namespace: str, kind: str, record_id: UUID) -> Stored | None:
        """The record."""
        return self._space(namespace).records.get(kind, {}).get(record_id)

    def page(self, namespace: str, query: Query[R]) -> Page[R]:
        """Answer a query."""
        rows = (
            (stored.record.id, stored.values, stored) for stored in self._matching(namespace, query)
        )
        kept, cursor = select_page(query, rows)
        return Page(tuple(cast("R", stored.record) for stored in kept), cursor)

    def count(self, namespace: str, query: Query[Any], up_to: int | None = None) -> int:
        """How many records fulfil the query's conditions; at most ``up_to``, where counting ends."""
        return sum(1 for _ in islice(self._matching(namespace, query), up_to))

    def counts(self, namespace: str) -> dict[str, int]:
        """How many records of each kind a namespace has."""
        records = self._space(namespace).records
        return {kind: len(records.get(kind, ())) for kind in self.types.kinds}

    def check_rules(self, where: str) -> None:
        """Check every record against the rules of its kind: after ``replay``, which checks nothing.

        Args:
            where: the store, for the error.

        Raises:
            ConfigurationError: records break a rule, which was not declared when they were put.
        """
        check = RuleCheck(self.types)
        for namespace, stored in self.entries():
            record = stored.record
            check.add(namespace, record.kind, record.id, stored.values)
            self._take(self._space(namespace), record.kind, record.id, stored)
        check.check(where)

    def namespaces(self) -> list[NamespaceInfo]:
        """The namespaces that hold records, by name."""
        found = ((name, self.counts(name)) for name in sorted(self._spaces))
        return [NamespaceInfo(name, counts) for name, counts in found if any(counts.values())]

    def entries(self) -> Iterator[tuple[str, Stored]]:
        """Every record with its namespace, referred-to kinds first within each namespace."""
        for name, space in self._spaces.items():
            for kind in self.types.kinds:
                for stored in space.records.get(kind, {}).values():
                    yield name, stored

    def _put(self, namespace: str, stored: Stored, effects: list[Effect]) -> None:
        record = stored.record
        self._check_references(namespace, stored)
        self._check_unique(namespace, stored)
        for rule in self._acyclic[record.kind]:
            self._check_acyclic(namespace, stored, rule)
        effects.append(self._set(namespace, record.kind, record.id, stored))

    def _check_expected(self, namespace: str, expected: Expect | ExpectAbsent) -> None:
        stored = self.get(namespace, expected.kind, expected.id)
        found = None if stored is None else stored.record
        if found != expected.record:
            raise ConflictError(expected.kind, expected.id, found)

    def _check_references(self, namespace: str, stored: Stored) -> None:
        kind, record_id = stored.record.kind, stored.record.id
        for reference in self.types.cls(kind).references:
            value = stored.values[reference.field]
            if value is None:
                continue
            target = UUID(bytes=cast("bytes", value))
            to_itself = (reference.kind, target) == (kind, record_id)
            if not to_itself and not self._exists(namespace, reference.kind, target):
                raise ReferenceNotFoundError(kind, reference.field, reference.kind, target)

    def _check_unique(self, namespace: str, stored: Stored) -> None:
        kind = stored.record.kind
        for fields in self._unique[kind]:
            key = tuple(stored.values[name] for name in fields)
            if None in key:
                continue
            holder = self._holder(namespace, kind, fields, key)
            if holder is not None and holder != stored.record.id:
                raise DuplicateError(kind, fields)

    def _check_acyclic(self, namespace: str, stored: Stored, rule: Acyclic) -> None:
        """Reject an edge whose source can be reached from its target (depth-first search)."""
        source, target, group = (
            stored.values[name] for name in (rule.source, rule.target, rule.group)
        )
        if group not in rule.groups or source is None or target is None:
            return
        kind = stored.record.kind
        seen: set[Any] = set()
        waiting: list[Any] = [target]
        while waiting:
            node = waiting.pop()
            if node == source:
                ends = (UUID(bytes=cast("bytes", end)) for end in (source, target))
                raise CycleError(kind, *ends, group=str(group))
            if node is None or node in seen:
                continue
            seen.add(node)
            leaving = self._leaving(namespace, kind, rule, node, group)
            # The edge that is being replaced no longer counts.
            waiting += [
                edge.values[rule.target] for edge in leaving if edge.record.id != stored.record.id
            ]

    def _delete(self, namespace: str, delete: Delete, effects: list[Effect]) -> None:
        if not self._exists(namespace, delete.kind, delete.id):
            return
        deletions = self._cascade(namespace, delete)
        for kind, record_id in deletions:
            for referrer, holder in self._referring(namespace, kind, record_id):
                if (referrer.kind, holder) in deletions or referrer.on_delete is OnDelete.CASCADE:
                    continue
                if referrer.on_delete is OnDelete.RESTRICT:
                    raise ReferenceRestrictedError(kind, record_id, referrer.kind, referrer.field)
                current = cast("Stored", self.get(namespace, referrer.kind, holder)).record
                freed = self.store(evolve(current, **{referrer.field: None}))
                effects.append(self._set(namespace, referrer.kind, holder, freed))
        for kind, record_id in reversed(deletions):
            effects.append(self._set(namespace, kind, record_id, None))

    def _cascade(self, namespace: str, delete: Delete) -> dict[tuple[str, UUID], None]:
        """A record and all that cascades from it."""
        deletions: dict[tuple[str, UUID], None] = {}
        waiting = [(delete.kind, delete.id)]
        while waiting:
            key = waiting.pop()
            if key in deletions:
                continue
            deletions[key] = None
            waiting += [
                (referrer.kind, holder)
                for referrer, holder in self._referring(namespace, *key)
                if referrer.on_delete is OnDelete.CASCADE
            ]
        return deletions

    def _referring(
        self, namespace: str, kind: str, record_id: UUID
    ) -> Iterator[tuple[Referrer, UUID]]:
        for referrer in self._referrers[kind]:
            for holder in self._holders(namespace, referrer.kind, referrer.field, record_id.bytes):
                yield referrer, holder

    def _exists(self, namespace: str, kind: str, record_id: UUID) -> bool:
        return self.get(namespace, kind, record_id) is not None

    def _leaving(
        self, namespace: str, kind: str, rule: Acyclic, node: Scalar, group: Any
    ) -> list[Stored]:
        """The edges of a group that leave a node."""
        space = self._space(namespace)
        edges = space.records.get(kind, {})
        leaving = space.holders.get((kind, rule.source), {}).get(node, ())
        found = [edges[edge_id] for edge_id in leaving]
        return [edge for edge in found if edge.values[rule.group] == group]

    def _holders(self, namespace: str, kind: str, field: str, value: Scalar) -> list[UUID]:
        """The records that refer to another."""
        return list(self._space(namespace).holders.get((kind, field), {}).get(value, ()))

    def _holder(
        self, namespace: str, kind: str, fields: tuple[str, ...], key: tuple[Any, ...]
    ) -> UUID | None:
        """The record that has unique values."""
        return self._space(namespace).taken.get((kind, fields), {}).get(key)

    def _matching(self, namespace: str, query: Query[Any]) -> Iterator[Stored]:
        self.types.cls(query.kind)
        space = self._space(namespace)
        records = space.records.get(query.kind, {})
        candidates: Iterable[UUID] = records
        for condition in query.conditions:
            values = condition.values if isinstance(condition, AnyOf) else (None,)
            if condition.index in self._held[query.kind] and None not in values:
                held = space.holders.get((query.kind, condition.index), {})
                candidates = [record_id for value in values for record_id in held.get(value, ())]
                break
        for record_id in candidates:
            stored = records[record_id]
            if query.matches(stored.values):
                yield stored

    def _space(self, namespace: str) -> _NamespaceRecords:
        # Reading a namespace does not create it: reads change nothing, so another thread may iterate.
        return self._spaces.get(namespace, self._nothing)

    def _set(self, namespace: str, kind: str, record_id: UUID, after: Stored | None) -> Effect:
        """The only place where anything changes, so that undoing means setting the previous state."""
        space = self._spaces.setdefault(namespace, _NamespaceRecords())
        records = space.records.setdefault(kind, {})
        before = records.get(record_id)
        if before is not None:
            self._unlist(space, kind, record_id, before)
        if after is None:
            records.pop(record_id, None)
        else:
            records[record_id] = after
            self._list(space, kind, record_id, after)
        return Effect(namespace, kind, record_id, before, after)

    def _list(self, space: _NamespaceRecords, kind: str, record_id: UUID, stored: Stored) -> None:
        self.size_bytes += stored.size
        for name in self._held[kind]:
            value = cast("Scalar", stored.values[name])
            if value is not None:
                held = space.holders.setdefault((kind, name), {})
                held.setdefault(value, {})[record_id] = None
        self._take(space, kind, record_id, stored)

    def _take(self, space: _NamespaceRecords, kind: str, record_id: UUID, stored: Stored) -> None:
        for fields in self._unique[kind]:
            key = tuple(stored.values[name] for name in fields)
            if None not in key:
                space.taken.setdefault((kind, fields), {})[key] = record_id

    def _unlist(self, space: _NamespaceRecords, kind: str, record_id: UUID, stored: Stored) -> None:
        self.size_bytes -= stored.size
        for name in self._held[kind]:
            value = cast("Scalar", stored.values[name])
            if value is not None:
                held = space.holders[kind, name]
                del held[value][record_id]
                if not held[value]:
                    del held[value]
        for fields in self._unique[kind]:
            key = tuple(stored.values[name] for name in fields)
            taken = space.taken.get((kind, fields), {})
            # While a log is replayed that is older than the rule, another record may have taken it.
            if taken.get(key) == record_id:
                del taken[key]


def select_page(
    query: Query[Any], rows: Iterable[tuple[UUID, IndexValues, T]]
) -> tuple[list[T], str | None]:
    """The page of a query among rows that fulfil its conditions, and the cursor of the next one.

    It looks at every row: for a backend whose engine has no index that gives the query's order.

    Args:
        query: the query.
        rows: id, index values, and what to return for each that is on the page.
    """
    found = [
        (query.page_key(values, record_id), record_id, values, row)
        for record_id, values, row in rows
        if query.is_past_start(values, record_id)
    ]
    found.sort(key=lambda item: item[0], reverse=query.descending)
    kept = found[: query.page_size]
    cursor = None
    if len(found) > len(kept):
        _, last, values, _ = kept[-1]
        value = cast("Scalar", values[query.order]) if query.order else None
        cursor = query.cursor(value, last)
    return [row for _, _, _, row in kept], cursor
