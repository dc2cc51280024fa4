"""A state machine that runs the same operations on a backend and on the reference, and compares the
answers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from memory_core.errors import ConflictError
from memory_core.inmemory import InMemoryStorage
from memory_core.query import Query
from memory_core.records import Record
from memory_core.storage import (
    Capability,
    ChangeOperation,
    CommitResult,
    Position,
    Receipt,
    Storage,
    SupportsNamespaces,
    WriteBatch,
)
from memory_core.testing.data.kinds import KIT_RECORD_TYPES, kit_context
from memory_core.testing.data.strategies import (
    QueryPlan,
    batches,
    known_ids,
    queries,
    record_classes,
)
from memory_core.testing.suite.harness import Harness, drain, follow, whole

__all__ = ["EXAMPLES_VARIABLE", "StatefulTests", "state_machine"]

T = TypeVar("T")

EXAMPLES_VARIABLE = "MEMORY_CORE_KIT_EXAMPLES"
"""Environment variable: how many runs of the state machine, instead of the suite's ``examples``."""

_NAMESPACES = st.sampled_from(["default", "default", "agent-7", "agent-70"])


class StatefulTests(Harness):
    """The backend against the reference."""

    def test_behaves_like_the_reference(self) -> None:
        examples = int(os.environ.get(EXAMPLES_VARIABLE, self.examples))
        run_state_machine_as_test(
            state_machine(self),
            settings=settings(
                max_examples=examples,
                stateful_step_count=30,
                deadline=None,
                database=None,
                phases=[Phase.explicit, Phase.generate, Phase.shrink],
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            ),
        )


class _Machine(RuleBasedStateMachine):
    """Two stores that must never differ."""

    suite: Harness

    def __init__(self) -> None:
        super().__init__()
        self._exits = ExitStack()
        directory = self._exits.enter_context(TemporaryDirectory())
        self._location = self.suite.make_location(Path(directory))
        self._exits.callback(self.suite.remove_location, self._location)
        # The stores' background tasks live as long as their loop.
        self._runner = self._exits.enter_context(asyncio.Runner())
        self._reference = InMemoryStorage(kit_context())
        self._store = self._open()
        self._exits.callback(lambda: self._run(self._store.aclose()))
        self._followed: Position = 0
        self._alive: set[tuple[str, Any]] = set()
        # By namespace and id: records that were read, some of which have changed since.
        self._read: dict[tuple[str, UUID], Record | None] = {}

    @rule(namespace=_NAMESPACES, given=st.lists(batches(), min_size=1, max_size=4))
    def commit(self, namespace: str, given: list[WriteBatch]) -> None:
        results = self._run(self._store.scoped(namespace).commit(given))
        expected = self._run(self._reference.scoped(namespace).commit(given))
        _compare(given, results, expected)

    @rule(namespace=_NAMESPACES, given=st.lists(batches(), min_size=2, max_size=4))
    def commit_concurrently(self, namespace: str, given: list[WriteBatch]) -> None:
        handle = self._store.scoped(namespace)

        async def all_at_once() -> list[list[CommitResult]]:
            return await asyncio.gather(*(handle.commit([batch]) for batch in given))

        results = [result for (result,) in self._run(all_at_once())]
        # Concurrent commits have no promised order: their positions tell the actual one.
        accepted = [
            (result.position, batch)
            for result, batch in zip(results, given, strict=True)
            if isinstance(result, Receipt)
        ]
        accepted.sort(key=itemgetter(0))
        reference = self._reference.scoped(namespace)
        for _, together in groupby(accepted, key=itemgetter(0)):
            # A batch that changed nothing shares the position of the one before it.
            waiting: list[WriteBatch] = [batch for _, batch in together]
            while waiting:
                results = self._run(reference.commit(waiting))
                rejected: list[WriteBatch] = [
                    batch
                    for batch, result in zip(waiting, results, strict=True)
                    if not isinstance(result, Receipt)
                ]
                assert len(rejected) < len(waiting), f"accepted in spite of {results}"
                waiting = rejected

    @rule(
        namespace=_NAMESPACES,
        cls=st.sampled_from(record_classes),
        picks=st.lists(st.integers(0, 5), max_size=8),
    )
    def get(self, namespace: str, cls: type[Record], picks: list[int]) -> None:
        ids = [known_ids(cls)[pick] for pick in picks]
        found = self._run(self._store.scoped(namespace).get(cls, ids))
        assert found == self._run(self._reference.scoped(namespace).get(cls, ids))
        self._read |= {(namespace, key): one for key, one in zip(ids, found, strict=True)}

    @rule(
        namespace=_NAMESPACES,
        picks=st.lists(
            st.tuples(st.sampled_from(record_classes), st.integers(0, 5), st.booleans()),
            min_size=1,
            max_size=3,
        ),
        given=st.lists(batches(), min_size=1, max_size=3),
    )
    def commit_what_was_read(
        self,
        namespace: str,
        picks: list[tuple[type[Record], int, bool]],
        given: list[WriteBatch],
    ) -> None:
        """Batches that expect records as they are, or as they were when they were read."""
        expecting = WriteBatch()
        for cls, pick, again in picks:
            key = namespace, known_ids(cls)[pick]
            if again or key not in self._read:
                self.get(namespace, cls, [pick])
            record = self._read[key]
            expecting = (
                expecting.expect_absent(cls, key[1]) if record is None else expecting.expect(record)
            )
        self.commit(
            namespace, [WriteBatch(expecting.operations + batch.operations) for batch in given]
        )
        for cls, pick, _ in picks:
            self.get(namespace, cls, [pick])

    @rule(namespace=_NAMESPACES, plan=queries())
    def query(self, namespace: str, plan: QueryPlan) -> None:
        query = plan.query.limit(plan.page_size)
        store, reference = self._store.scoped(namespace), self._reference.scoped(namespace)
        assert self._run(drain(store, query)) == self._run(drain(reference, query))
        assert self._run(store.count(query)) == self._run(reference.count(query))

    @rule(limit=st.sampled_from([1, 3, 1_000]))
    def follow(self, limit: int) -> None:
        changes, self._followed = self._run(follow(self._store, self._followed, limit))
        for change in changes:
            key = (change.kind, change.id)
            if change.operation is ChangeOperation.PUT:
                self._alive.add(key)
            else:
                self._alive.discard(key)
        expected = {
            (cls.kind, record.id)
            for cls in KIT_RECORD_TYPES
            for record in self._run(drain(self._reference, Query(cls)))
        }
        assert self._alive == expected, "the feed leads to other records than the store has"

    @precondition(lambda self: self.suite.declares(Capability.NAMESPACES))
    @rule(namespace=st.sampled_from(["agent-7", "agent-70"]))
    def wipe(self, namespace: str) -> None:
        for root in (self._store, self._reference):
            handle = root.scoped(namespace)
            assert isinstance(handle, SupportsNamespaces)
            self._run(handle.wipe())

    @precondition(lambda self: self.suite.declares(Capability.NAMESPACES))
    @rule()
    def list_namespaces(self) -> None:
        listed = [self._run(_listing(root)) for root in (self._store, self._reference)]
        assert listed[0] == listed[1]

    @precondition(lambda self: self.suite.declares(Capability.DURABLE))
    @rule()
    def reopen(self) -> None:
        self._run(self._store.aclose())
        self._store = self._open()

    def teardown(self) -> None:
        try:
            for namespace in ("default", "agent-7", "agent-70"):
                store, reference = self._store.scoped(namespace), self._reference.scoped(namespace)
                for cls in KIT_RECORD_TYPES:
                    query = Query(cls).order_by("id").limit(1_000)
                    assert self._run(drain(store, query)) == self._run(drain(reference, query))
        finally:
            self._exits.close()

    def _open(self) -> Storage:
        return whole(self._run(self.suite.open(self._location, context=kit_context())))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


def state_machine(suite: Harness) -> type[RuleBasedStateMachine]:
    """The machine for one backend."""
    return type(f"{type(suite).__name__}Machine", (_Machine,), {"suite": suite})


def _compare(
    given: Sequence[WriteBatch], results: Sequence[CommitResult], expected: Sequence[CommitResult]
) -> None:
    assert len(results) == len(given)
    for batch, result, wanted in zip(given, results, expected, strict=True):
        if isinstance(wanted, Receipt):
            assert isinstance(result, Receipt), f"{batch}: rejected with {result!r}"
            assert result.ids == wanted.ids
        else:
            # A batch may break several rules; which of them is named first is the backend's choice.
            assert not isinstance(result, Receipt), f"{batch}: accepted in spite of {wanted!r}"
            if isinstance(result, ConflictError) and isinstance(wanted, ConflictError):
                assert (result.record_id, result.stored) == (wanted.record_id, wanted.stored)


async def _listing(store: Storage) -> list[tuple[str, dict[str, int]]]:
    assert isinstance(store, SupportsNamespaces)
    return [
        (info.name, {kind: count for kind, count in sorted(info.records.items()) if count})
        for info in await store.namespaces()
    ]
