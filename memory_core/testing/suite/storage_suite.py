"""``StorageSuite``: the executable specification of a backend."""

from __future__ import annotations

from memory_core.storage import missing_members, undelivered
from memory_core.testing.data.kinds import kit_context
from memory_core.testing.suite.batch_tests import BatchTests
from memory_core.testing.suite.closing_tests import ClosingTests
from memory_core.testing.suite.concurrency_tests import CancellationTests, ConcurrencyTests
from memory_core.testing.suite.declaration_tests import DeclarationTests
from memory_core.testing.suite.durability_tests import DurabilityTests
from memory_core.testing.suite.expectation_tests import ExpectationTests
from memory_core.testing.suite.feed_tests import FeedTests
from memory_core.testing.suite.following_tests import FollowingTests
from memory_core.testing.suite.handle_tests import HandleTests
from memory_core.testing.suite.harness import Harness
from memory_core.testing.suite.integrity_tests import IntegrityTests
from memory_core.testing.suite.interruption_tests import InterruptionTests
from memory_core.testing.suite.location_tests import LocationTests
from memory_core.testing.suite.lock_tests import LockTests
from memory_core.testing.suite.loop_tests import LoopTests
from memory_core.testing.suite.lost_answer_tests import LostAnswerTests
from memory_core.testing.suite.parts_tests import PartsTests
from memory_core.testing.suite.process_tests import ProcessTests
from memory_core.testing.suite.query_tests import QueryTests
from memory_core.testing.suite.read_only_tests import ReadOnlyTests
from memory_core.testing.suite.record_tests import RecordTests
from memory_core.testing.suite.stateful import StatefulTests

__all__ = ["MemberTests", "StorageSuite"]


class MemberTests(Harness):
    """A backend has the members of ``Storage``; without them no other test says anything."""

    async def test_every_member_is_there(self, location: str) -> None:
        store = await self.open(location, context=kit_context())
        missing = missing_members(store)
        declared = None if "capabilities" in missing else undelivered(store)
        if "aclose" not in missing:
            await store.aclose()
        assert not missing, f"{type(store).__name__} lacks {', '.join(missing)}"
        assert declared is None, f"{type(store).__name__} declares {declared}"


class StorageSuite(
    RecordTests,
    BatchTests,
    ExpectationTests,
    IntegrityTests,
    QueryTests,
    PartsTests,
    FeedTests,
    FollowingTests,
    HandleTests,
    DurabilityTests,
    LocationTests,
    ReadOnlyTests,
    DeclarationTests,
    ConcurrencyTests,
    CancellationTests,
    ClosingTests,
    LockTests,
    InterruptionTests,
    LoopTests,
    LostAnswerTests,
    ProcessTests,
    StatefulTests,
    MemberTests,  # the last base class: pytest runs its test first
):
    """Everything a backend must do.

    A backend's test file is a subclass that says how to open it::

        class TestMyStorage(StorageSuite):
            capabilities = frozenset({Capability.DURABLE, Capability.CHEAP_POSITION})

            @classmethod
            async def open(cls, location, *, context, change_feed_limit=None):
                config = MyConfig(change_feed_limit=change_feed_limit or 100_000)
                return await MyStorage.open(location, config=config, context=context)
    """
