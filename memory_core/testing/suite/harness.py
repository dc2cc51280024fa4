"""The suites' common base: how a backend tells the kit to open it, and helpers for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar
from uuid import UUID

import pytest
import pytest_asyncio

from memory_core.errors import MemoryCoreError
from memory_core.query import Query
from memory_core.records import Limits, Record
from memory_core.storage import (
    Capability,
    Change,
    Position,
    Receipt,
    Storage,
    StorageContext,
    StorageStats,
    WriteBatch,
    missing_members,
)
from memory_core.testing.data.kinds import kit_context

__all__ = [
    "Harness",
    "Opener",
    "Test",
    "accepted",
    "drain",
    "figure",
    "follow",
    "leave_out",
    "needs",
    "only_if",
    "overrides",
    "put",
    "refused",
    "rejected",
    "remove",
    "statistic",
    "stored",
    "whole",
]

R = TypeVar("R", bound=Record)
E = TypeVar("E", bound=MemoryCoreError)
Test = TypeVar("Test", bound=Callable[..., Any])
_CONDITION = "_memory_core_only_if"


class Opener(Protocol):
    """Opens the store under test; the kit closes the handle when the test ends."""

    def __call__(
        self,
        *,
        namespace: str = "default",
        limits: Limits | None = None,
        change_feed_limit: int | None = None,
        create: bool = True,
        read_only: bool = False,
    ) -> Awaitable[Storage]:
        """A handle."""
        ...


class Harness:
    """The declarations of a backend's test class.

    Of its methods, ``open`` and ``interrupt`` are coroutines; the others are plain functions that may be
    called while an event loop runs, so a driver for asyncio needs a thread of its own in them. A test that
    an engine cannot pass by its nature is left out by setting its name to ``None`` in the class, with a
    comment that says why.

    Attributes:
        capabilities: what the backend declares; tests of others are left out.
        coalesces_commits: concurrent ``commit`` calls share a durable commit, which the statistics
            ``groups`` and ``batches`` show.
        coalesces_reads: concurrent ``get`` calls share a fetch, which the statistics ``get_calls`` and
            ``get_fetches`` show.
        trains_dictionaries: bodies are compressed with trained dictionaries, which the statistics
            ``with_dictionary`` and ``dictionaries`` show.
        shares_positions: all namespaces are one store, with one identity, one count of positions and
            one change feed that is trimmed for all.
        replaces_files: opening a store puts new files in the place of earlier ones, whose permissions these
            cannot keep.
        has_files: locations are paths of files or folders, not addresses of servers.
        lock_files: how the names of files end that have no data (locks, an engine's own log): a process that
            only reads may write them, and no test damages them.
        checks_when_opened: opening a store reads all of it, and fails where a record is damaged.
        commits_with: what a request to the server contains that commits; see ``server_of``.
        linearizable: a read sees every write that was acknowledged, in any process, before it began.
        still_counters: counters that ordinary work does not move (retries, growths of a map); the
            backend's own tests move them.
        examples: the number of runs of the state machine.
        kills: the number of writing processes that are killed.
        lock_timeout: how many seconds a store that ``open`` opens waits for a lock of another process. The
            default suits loaded machines; the tests of ``lock`` set it to a second.
    """

    capabilities: ClassVar[frozenset[Capability]]
    coalesces_commits: ClassVar[bool] = False
    coalesces_reads: ClassVar[bool] = False
    trains_dictionaries: ClassVar[bool] = False
    shares_positions: ClassVar[bool] = True
    checks_when_opened: ClassVar[bool] = False
    replaces_files: ClassVar[bool] = False
    has_files: ClassVar[bool] = True
    lock_files: ClassVar[tuple[str, ...]] = ()
    commits_with: ClassVar[bytes] = b"COMMIT"
    linearizable: ClassVar[bool] = True
    still_counters: ClassVar[frozenset[str]] = frozenset()
    examples: ClassVar[int] = 20
    kills: ClassVar[int] = 8
    lock_timeout: ClassVar[float] = 60.0

    @classmethod
    async def open(
        cls, location: str, *, context: StorageContext, change_feed_limit: int | None = None
    ) -> Storage:
        """Open the store at a location, creating it where there is none.

        Args:
            location: what ``make_location`` returned.
            context: to be given to the backend.
            change_feed_limit: how many changes to keep in the feed; ``None`` leaves the default.
        """
        raise NotImplementedError

    def make_location(self, directory: Path) -> str:
        """A location for a new store; by default a path in an empty directory."""
        return str(directory / "store")

    @classmethod
    def url_of(cls, location: str) -> str:
        """The URL by which ``open_memory`` opens a store, where the plugin is installed. Without an
        implementation the test of the URL is left out.
        """
        raise NotImplementedError

    @classmethod
    def server_of(cls, location: str) -> tuple[str, int]:
        """The host and the port of a store's server, which are in the location as ``host:port``. The kit
        opens the store through a relay, which breaks connections as they commit. Without an implementation
        these tests are left out.
        """
        raise NotImplementedError

    @classmethod
    def corrupt(cls, location: str, kind: str, record_id: UUID) -> None:
        """Damage the stored bytes of one record of the ``default`` namespace, behind the closed
        store's back. Without an implementation the tests of corrupt records are left out.
        """
        raise NotImplementedError

    @classmethod
    def lock(cls, location: str) -> AbstractContextManager[object]:
        """Hold the lock that a writer of the store takes. The kit enters it in another process, which it
        kills. Without an implementation the tests of locked stores are left out.
        """
        raise NotImplementedError

    @classmethod
    async def interrupt(cls, location: str) -> None:
        """Interrupt the server of a store while calls are in flight, such as by killing it, and start it
        again. Without an implementation the tests of interrupted servers are left out.
        """
        raise NotImplementedError

    @classmethod
    def make_newer(cls, location: str) -> None:
        """Give a closed store a version of its format that only a later release knows. Without an
        implementation the test of newer stores is left out.
        """
        raise NotImplementedError

    @classmethod
    def declares(cls, *capabilities: Capability) -> bool:
        """Whether the backend declares all of these."""
        return cls.capabilities.issuperset(capabilities)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "capabilities"):
            leave_out(cls)

    def remove_location(self, location: str) -> None:
        """Remove what a test has left at a location, after its handles are closed: a database of a server.
        By default nothing, as pytest removes the directory.
        """

    @pytest.fixture
    def location(self, tmp_path: Path) -> Iterator[str]:
        """The location of this test's store."""
        location = self.make_location(tmp_path)
        yield location
        self.remove_location(location)

    @pytest_asyncio.fixture
    async def opener(self, location: str) -> AsyncIterator[Opener]:
        """Opens handles on this test's store."""
        opened: list[Storage] = []

        async def opens(
            *,
            namespace: str = "default",
            limits: Limits | None = None,
            change_feed_limit: int | None = None,
            create: bool = True,
            read_only: bool = False,
        ) -> Storage:
            context = kit_context(namespace, limits, create=create, read_only=read_only)
            storage = await self.open(
                location, context=context, change_feed_limit=change_feed_limit
            )
            opened.append(whole(storage))
            return storage

        yield opens
        for storage in reversed(opened):
            await storage.aclose()

    @pytest_asyncio.fixture
    async def store(self, opener: Opener) -> Storage:
        """An empty store."""
        return await opener()


def leave_out(suite: type) -> None:
    """Remove the tests whose conditions a suite does not fulfil.

    A suite derived from another one may fulfil conditions that its base does not.
    """
    for name in dir(suite):
        if name in vars(suite):
            defined = vars(suite)[name]
        else:
            found = (vars(base).get(name) for base in suite.__mro__)
            defined = next((test for test in found if test is not None), None)
        condition = getattr(defined, _CONDITION, None)
        if condition is not None:
            # What is not callable is not collected: nothing is skipped, it does not apply.
            setattr(suite, name, defined if condition(suite) else None)


def only_if(condition: Callable[[Any], bool]) -> Callable[[Test], Test]:
    """A test that applies only to suites (classes) which fulfil a condition."""

    def mark(test: Test) -> Test:
        setattr(test, _CONDITION, condition)
        return test

    return mark


def overrides(suite: Any, name: str) -> bool:
    """Whether a suite implements an optional method of ``Harness``."""
    return getattr(suite, name).__func__ is not getattr(Harness, name).__func__


def needs(*capabilities: Capability) -> Callable[[Test], Test]:
    """A test that applies only to backends with these capabilities."""
    return only_if(lambda suite: suite.declares(*capabilities))


def whole(storage: Storage) -> Storage:
    """Check that the storage has every member. Otherwise its tests would fail one by one and leave
    tasks behind whose errors nobody sees.
    """
    if missing := missing_members(storage):
        pytest.fail(f"{type(storage).__name__} lacks {', '.join(missing)}", pytrace=False)
    return storage


async def put(store: Storage, *records: Record) -> Receipt:
    """Put records in one batch, which must be accepted."""
    return await accepted(store, WriteBatch().put(*records))


async def remove(store: Storage, kind: type[Record], *ids: UUID) -> Receipt:
    """Delete records in one batch, which must be accepted."""
    return await accepted(store, WriteBatch().delete(kind, *ids))


async def accepted(store: Storage, batch: WriteBatch) -> Receipt:
    """Commit a batch, which must be accepted."""
    results = await store.commit([batch])
    assert len(results) == 1
    assert isinstance(results[0], Receipt), f"rejected: {results[0]!r}"
    return results[0]


async def rejected(store: Storage, batch: WriteBatch, error: type[E]) -> E:
    """Commit a batch, which must be rejected with this error."""
    results = await store.commit([batch])
    assert len(results) == 1
    assert isinstance(results[0], error), f"expected {error.__name__}, got {results[0]!r}"
    return results[0]


refused = rejected  # its earlier name


async def stored(store: Storage, *records: Record) -> bool:
    """Whether all of these records are stored, as they are."""
    return all([await store.get(type(record), [record.id]) == [record] for record in records])


async def drain(store: Storage, query: Query[R]) -> list[R]:
    """Every record of a query, page by page; fails where a page repeats a record, so that it ends."""
    found: dict[UUID, R] = {}
    page = await store.query(query)
    while True:
        repeated = [record.id for record in page.records if record.id in found]
        assert not repeated, f"on two pages: {repeated}"
        found |= {record.id: record for record in page.records}
        if page.next_cursor is None:
            return list(found.values())
        assert len(page) == query.page_size, "only the last page may be short"
        page = await store.query(query.after(page.next_cursor))
        assert page.records, "a cursor led to an empty page"


async def follow(
    store: Storage, since: Position, limit: int = 1_000
) -> tuple[list[Change], Position]:
    """Every change after a position, and the position they reach."""
    found: list[Change] = []
    while True:
        page = await store.changes(since, limit)
        assert not page.trimmed, "the feed was trimmed"
        assert len(page.changes) <= limit
        found += page.changes
        if page.position == since:
            return found, since
        assert page.position > since
        since = page.position


def statistic(stats: StorageStats, name: str) -> int | float:
    """A statistic by name, from the counters or any section."""
    for section in (stats.counters, *stats.sections.values()):
        if name in section:
            return section[name]
    known: Sequence[str] = [
        *stats.counters,
        *(key for part in stats.sections.values() for key in part),
    ]
    raise AssertionError(f"no statistic {name!r}; there are {', '.join(known)}")


figure = statistic  # its earlier name
