"""A store in memory whose commits are planned on a working set, as those of a backend on a database are."""

from collections.abc import Sequence
from uuid import UUID

from memory_core.backend import Model, QueuedBatch, WorkingSet
from memory_core.inmemory import InMemoryStorage
from memory_core.storage import CommitResult, WriteBatch


class ModelLoader:
    """Loads from a model, and notes each call."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.calls: list[tuple[str, ...]] = []
        self.damaged: dict[UUID, Exception] = {}

    def records(self, namespace, kind, ids):
        self.calls.append(("records", kind, *map(str, ids)))
        assert len(set(ids)) == len(ids) > 0
        found = {one: self.model.get(namespace, kind, one) for one in ids}
        there = {one: stored.record for one, stored in found.items() if stored is not None}
        return there | {one: self.damaged[one] for one in ids if one in self.damaged}

    def holders(self, namespace, kind, fields, keys):
        self.calls.append(("holders", kind, *fields))
        assert len(set(keys)) == len(keys) > 0
        assert all(None not in key for key in keys)
        return [
            stored.record.id
            for name, stored in self.model.entries()
            if (name, stored.record.kind) == (namespace, kind)
            and tuple(stored.values[field] for field in fields) in keys
        ]

    def ids(self, namespace, kind):
        self.calls.append(("ids", kind))
        return [
            stored.record.id
            for name, stored in self.model.entries()
            if (name, stored.record.kind) == (namespace, kind)
        ]


class PlannedStorage(InMemoryStorage):
    """As ``inmemory:``, but every commit is loaded, planned and written."""

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        shared = self._writable()
        shared.counters["commits"] += 1
        shared.counters["batches"] += len(batches)
        results = self._write(QueuedBatch.of(self._namespace, batches))
        shared.counters["batches_refused"] += sum(isinstance(one, Exception) for one in results)
        self._turn -= 16
        if self._turn <= 0:
            await self._give_way()
        return results

    async def wipe(self):
        self._writable()
        (receipt,) = self._write([QueuedBatch(self._namespace, None)])
        return receipt.position

    def _write(self, group):
        model, feed = self._shared.model, self._shared.feed
        planner = WorkingSet(model.types, model._codec.limits)
        plan = planner.plan(group, ModelLoader(model), feed.position)
        model.replay(plan.differences)
        self._record(plan.effects)
        return plan.results
