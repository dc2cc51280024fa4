"""Planning a group of batches over a database: the rules run on a throw-away model of what they look at.

A backend on a database commits in three steps, all in one transaction of its own::

    plan = working_set.plan(group, loader, position)   # load what the rules look at, and apply them
    for difference in plan.differences: ...            # write what has changed
    for effect in plan.effects: ...                    # number each change in the feed

The loader answers two questions. By id, it loads the records that a batch puts, deletes, expects or refers
to. By the values of indexes, it finds the holders of unique values, the edges that leave a node, and the
records that refer to one that is deleted. It is asked for all that can be foreseen at once, and again for
what only turns out while the rules run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast
from uuid import UUID

from attrs import define, evolve, field

from memory_core.backend.model import (
    Effect,
    Model,
    Plan,
    Prepared,
    QueuedBatch,
    Referrer,
    Stored,
)
from memory_core.coalesce import own_error
from memory_core.codec import Codec
from memory_core.errors import MemoryCoreError
from memory_core.records import Acyclic, Limits, OnDelete, Record, RecordTypes, Scalar
from memory_core.storage import Delete, Position, WriteBatch

__all__ = ["AsyncLoader", "Loader", "WorkingSet", "lookups"]

_Place: TypeAlias = tuple[str, str, UUID]
"""Namespace, kind and id."""
_Lookup: TypeAlias = tuple[str, str, tuple[str, ...]]
"""Namespace, kind and names of indexes."""
_Key: TypeAlias = tuple[Scalar, ...]


def lookups(cls: type[Record]) -> tuple[tuple[str, ...], ...]:
    """The fields of a kind whose values ``Loader.holders`` is asked for: those of its unique values, the
    sources of its edges, and its references. A backend keeps an index of each.
    """
    references = [(reference.field,) for reference in cls.references]
    rules = [
        (rule.source,) if isinstance(rule, Acyclic) else rule.fields for rule in cls.constraints
    ]
    return tuple(dict.fromkeys(references + rules))


class Loader(Protocol):
    """Reads a store inside the write's transaction."""

    def records(
        self, namespace: str, kind: str, ids: Sequence[UUID]
    ) -> Mapping[UUID, Record | Exception | None]:
        """Records by id.

        Returns:
            For each id the record, or the ``CodecError`` of one that is damaged; missing ones are ``None``
            or left out.
        """
        ...

    def holders(
        self, namespace: str, kind: str, fields: tuple[str, ...], keys: Sequence[tuple[Scalar, ...]]
    ) -> Iterable[UUID]:
        """The ids of the records whose index values are one of these.

        Args:
            namespace: the namespace.
            kind: the kind.
            fields: names of indexes, one of ``lookups``.
            keys: their values, as in ``Record.index_values``; none of them is ``None``.
        """
        ...

    def ids(self, namespace: str, kind: str) -> Iterable[UUID]:
        """The ids of all records of a kind; only asked where a namespace is wiped."""
        ...


class AsyncLoader(Protocol):
    """As ``Loader``, with coroutines."""

    async def records(
        self, namespace: str, kind: str, ids: Sequence[UUID]
    ) -> Mapping[UUID, Record | Exception | None]:
        """Records by id."""
        ...

    async def holders(
        self, namespace: str, kind: str, fields: tuple[str, ...], keys: Sequence[tuple[Scalar, ...]]
    ) -> Iterable[UUID]:
        """The ids of the records whose index values are one of these."""
        ...

    async def ids(self, namespace: str, kind: str) -> Iterable[UUID]:
        """The ids of all records of a kind."""
        ...


class WorkingSet:
    """Plans groups of batches over a store.

    Args:
        types: the kinds that the store knows.
        limits: the limits that records must keep.
        codec: encodes what is put; ``Stored.body`` of what a plan puts is then the encoding.
    """

    def __init__(self, types: RecordTypes, limits: Limits, codec: Codec | None = None) -> None:
        self._rules = types, limits, codec

    def plan(self, group: Sequence[QueuedBatch], loader: Loader, position: Position) -> Plan:
        """What a group does to the store, by all rules of the SPI.

        A damaged record can be replaced and deleted; ``Effect.unreadable`` then says that its entries have to
        be searched for. A batch that needs its content is rejected with its error.

        Args:
            group: the batches, in order.
            loader: reads the store; what it raises is not caught.
            position: the number of the store's newest change.
        """
        planning = _Planning(*self._rules, group, position)
        for request in planning.requests():
            request.answer = getattr(loader, request.method)(*request.arguments)
        return planning.result

    async def plan_async(
        self, group: Sequence[QueuedBatch], loader: AsyncLoader, position: Position
    ) -> Plan:
        """As ``plan``, with a loader whose methods are coroutines."""
        planning = _Planning(*self._rules, group, position)
        for request in planning.requests():
            request.answer = await getattr(loader, request.method)(*request.arguments)
        return planning.result


@define(eq=False, repr=False)
class _Request:
    """A call of the loader, and its answer."""

    method: str
    arguments: tuple[Any, ...]
    answer: Any = None


@define(eq=False, repr=False)
class _Lacking:
    """What the rules asked for and is not loaded yet."""

    kinds: dict[tuple[str, str], None] = field(factory=dict[tuple[str, str], None])
    holders: dict[_Lookup, dict[_Key, None]] = field(factory=dict[_Lookup, dict[_Key, None]])
    records: dict[tuple[str, str], dict[UUID, None]] = field(
        factory=dict[tuple[str, str], dict[UUID, None]]
    )

    def __bool__(self) -> bool:
        return bool(self.kinds or self.holders or self.records)


class _Planning(Model):
    """A model that has what was loaded so far, and notes what it lacks.

    What a group's operations name is foreseen, and followed over cascades and edges before the first try.
    Where the rules still come across something that is not loaded (a record is put under another, which
    the same batch deletes), the try is void: that, too, is loaded, and the group tried again.
    """

    def __init__(
        self,
        types: RecordTypes,
        limits: Limits,
        codec: Codec | None,
        group: Sequence[QueuedBatch],
        position: Position,
    ) -> None:
        super().__init__(types, limits, codec)
        self.result = Plan([], [])
        self._group, self._position = group, position
        self._prepared: dict[int, list[Prepared] | MemoryCoreError] = {}
        self._lacking = _Lacking()
        # Loaded: records by place, ids by index values, all ids of a kind.
        self._known: set[_Place] = set()
        self._answered: set[tuple[_Lookup, _Key]] = set()
        self._listed: set[tuple[str, str]] = set()
        self._damaged: dict[_Place, Exception] = {}
        self._damaged_holders: dict[tuple[_Lookup, _Key], list[UUID]] = {}
        # Damaged ones that this try has replaced or deleted.
        self._gone: set[_Place] = set()
        # Foreseen: records whose referrers, and nodes whose edges, are needed.
        self._deleted: dict[_Place, None] = {}
        self._reached: dict[tuple[str, str, Acyclic, Scalar, Any], None] = {}
        self._frontier: list[Any] = []

    def requests(self) -> Iterator[_Request]:
        """The calls of the loader, each to be answered; ``result`` is there at their end."""
        for item in self._group:
            self._foresee(item)
        while True:
            while self._lacking or self._frontier:
                yield from self._load()
                self._follow()
            self.result = super().plan(self._group, self._position)
            if not self._lacking:
                return

    # What is foreseen, and how it is loaded

    def _foresee(self, item: QueuedBatch) -> None:
        namespace = item.namespace
        if item.batch is None:
            self._need_all(namespace)
            return
        try:
            operations = self.prepare(item.batch)
        except MemoryCoreError:
            # The batch is rejected with it when it is tried.
            return
        for operation in operations:
            if isinstance(operation, Stored):
                self._foresee_put(namespace, operation)
                continue
            place = namespace, operation.kind, operation.id
            self._need_record(place)
            if isinstance(operation, Delete):
                self._foresee_deletion(place)

    def _foresee_put(self, namespace: str, stored: Stored) -> None:
        record, values = stored.record, stored.values
        kind = record.kind
        self._need_record((namespace, kind, record.id))
        for reference in self.types.cls(kind).references:
            target = values[reference.field]
            if target is not None:
                self._need_record((namespace, reference.kind, UUID(bytes=cast("bytes", target))))
        for fields in self._unique[kind]:
            key = tuple(cast("Scalar", values[name]) for name in fields)
            if None not in key:
                self._need_holders((namespace, kind, fields), key)
        for rule in self._acyclic[kind]:
            group, target = values[rule.group], cast("Scalar", values[rule.target])
            if group in rule.groups:
                self._foresee_edges(namespace, kind, rule, target, group)

    def _foresee_deletion(self, place: _Place) -> None:
        if place in self._deleted:
            return
        self._deleted[place] = None
        namespace, kind, record_id = place
        for referrer in self._referrers[kind]:
            self._need_holders((namespace, referrer.kind, (referrer.field,)), (record_id.bytes,))
        self._frontier.append(place)

    def _foresee_edges(
        self, namespace: str, kind: str, rule: Acyclic, node: Scalar, group: Any
    ) -> None:
        reached = namespace, kind, rule, node, group
        if node is None or reached in self._reached:
            return
        self._reached[reached] = None
        self._need_holders((namespace, kind, (rule.source,)), (node,))
        self._frontier.append(reached)

    def _follow(self) -> None:
        """Foresee what cascades from records, and the edges behind nodes, whose holders are loaded now."""
        frontier, self._frontier = self._frontier, []
        for step in frontier:
            if len(step) == 3:
                namespace, kind, record_id = step
                for referrer in self._referrers[kind]:
                    if referrer.on_delete is not OnDelete.CASCADE:
                        continue
                    for holder in super()._holders(
                        namespace, referrer.kind, referrer.field, record_id.bytes
                    ):
                        self._foresee_deletion((namespace, referrer.kind, holder))
                continue
            namespace, kind, rule, _, group = step
            for edge in super()._leaving(*step):
                target = cast("Scalar", edge.values[rule.target])
                self._foresee_edges(namespace, kind, rule, target, group)

    def _load(self) -> Iterator[_Request]:
        lacking, self._lacking = self._lacking, _Lacking()
        for namespace, kind in lacking.kinds:
            request = _Request("ids", (namespace, kind))
            yield request
            self._listed.add((namespace, kind))
            lacking.records.setdefault((namespace, kind), {}).update(dict.fromkeys(request.answer))
        holders: list[tuple[_Lookup, list[_Key], list[UUID]]] = []
        for lookup, keys in lacking.holders.items():
            request = _Request("holders", (*lookup, list(keys)))
            yield request
            self._answered |= {(lookup, key) for key in keys}
            ids = list(request.answer)
            holders.append((lookup, list(keys), ids))
            lacking.records.setdefault(lookup[:2], {}).update(dict.fromkeys(ids))
        for (namespace, kind), wanted in lacking.records.items():
            ids = [one for one in wanted if (namespace, kind, one) not in self._known]
            if ids:
                request = _Request("records", (namespace, kind, ids))
                yield request
                self._add(namespace, kind, ids, request.answer)
        for lookup, keys, ids in holders:
            if any((*lookup[:2], one) in self._damaged for one in ids):
                yield from self._blame(lookup, keys)

    def _blame(self, lookup: _Lookup, keys: Sequence[_Key]) -> Iterator[_Request]:
        """Ask again for one key after the other, to learn which of them have damaged holders."""
        for key in keys:
            request = _Request("holders", (*lookup, [key]))
            yield request
            self._damaged_holders[lookup, key] = [
                one for one in request.answer if (*lookup[:2], one) in self._damaged
            ]

    def _add(
        self,
        namespace: str,
        kind: str,
        ids: Sequence[UUID],
        found: Mapping[UUID, Record | Exception | None],
    ) -> None:
        for record_id in ids:
            place, record = (namespace, kind, record_id), found.get(record_id)
            self._known.add(place)
            if isinstance(record, Exception):
                self._damaged[place] = record
            elif record is not None:
                super()._set(*place, Stored(record, record.index_values(), 0))

    def _need_all(self, namespace: str) -> bool:
        lacking = [kind for kind in self.types.kinds if (namespace, kind) not in self._listed]
        self._lacking.kinds.update({(namespace, kind): None for kind in lacking})
        return bool(lacking)

    def _need_record(self, place: _Place) -> None:
        if place not in self._known:
            self._lacking.records.setdefault(place[:2], {})[place[2]] = None

    def _need_holders(self, lookup: _Lookup, key: _Key) -> None:
        if (lookup, key) not in self._answered:
            self._lacking.holders.setdefault(lookup, {})[key] = None

    # What the rules look at

    def prepare(self, batch: WriteBatch) -> list[Prepared]:
        """Run the checks of a batch that need no stored records, once."""
        known = self._prepared.get(id(batch))
        if known is None:
            try:
                known = super().prepare(batch)
            except MemoryCoreError as error:
                known = error
            self._prepared[id(batch)] = known
        if isinstance(known, MemoryCoreError):
            raise known
        return known

    def get(self, namespace: str, kind: str, record_id: UUID) -> Stored | None:
        """The record, where it is loaded."""
        place = namespace, kind, record_id
        self._need_record(place)
        if self._is_damaged(place):
            raise own_error(self._damaged[place])
        return super().get(*place)

    def wipe(self, namespace: str) -> list[Effect]:
        """Delete every record of a namespace."""
        if self._need_all(namespace):
            return []
        damaged = [one for one in self._damaged if one[0] == namespace and self._is_damaged(one)]
        return [self._set(*place, None) for place in damaged] + super().wipe(namespace)

    def revert(self, effects: Sequence[Effect]) -> None:
        """Undo what ``apply`` or ``wipe`` just did."""
        super().revert(effects)
        for effect in effects:
            if effect.unreadable:
                self._gone.discard((effect.namespace, effect.kind, effect.id))

    def _is_damaged(self, place: _Place) -> bool:
        return place in self._damaged and place not in self._gone

    def _exists(self, namespace: str, kind: str, record_id: UUID) -> bool:
        place = namespace, kind, record_id
        self._need_record(place)
        return self._is_damaged(place) or super().get(*place) is not None

    def _leaving(
        self, namespace: str, kind: str, rule: Acyclic, node: Scalar, group: Any
    ) -> list[Stored]:
        self._foresee_edges(namespace, kind, rule, node, group)
        for damaged in self._look_up((namespace, kind, (rule.source,)), (node,)):
            self.get(namespace, kind, damaged)
        return super()._leaving(namespace, kind, rule, node, group)

    def _referring(
        self, namespace: str, kind: str, record_id: UUID
    ) -> Iterator[tuple[Referrer, UUID]]:
        self._foresee_deletion((namespace, kind, record_id))
        return super()._referring(namespace, kind, record_id)

    def _holders(self, namespace: str, kind: str, field: str, value: Scalar) -> list[UUID]:
        damaged = self._look_up((namespace, kind, (field,)), (value,))
        return super()._holders(namespace, kind, field, value) + damaged

    def _holder(
        self, namespace: str, kind: str, fields: tuple[str, ...], key: tuple[Any, ...]
    ) -> UUID | None:
        damaged = self._look_up((namespace, kind, fields), key)
        return damaged[0] if damaged else super()._holder(namespace, kind, fields, key)

    def _look_up(self, lookup: _Lookup, key: _Key) -> list[UUID]:
        """Note what has to be loaded; the damaged records that have these index values."""
        self._need_holders(lookup, key)
        damaged = self._damaged_holders.get((lookup, key), ())
        return [one for one in damaged if self._is_damaged((*lookup[:2], one))]

    def _set(self, namespace: str, kind: str, record_id: UUID, after: Stored | None) -> Effect:
        place = namespace, kind, record_id
        self._need_record(place)
        unreadable = self._is_damaged(place)
        effect = super()._set(*place, after)
        if unreadable:
            self._gone.add(place)
            effect = evolve(effect, unreadable=True)
        return effect
