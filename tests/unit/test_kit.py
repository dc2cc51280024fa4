"""The kit finds what it is there to find."""

import asyncio
import re
import subprocess
import sys

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from memory_core.storage import Capability, Storage, SupportsBackup, SupportsNamespaces
from memory_core.testing import CacheSuite, StorageSuite, assert_forwards_everything, only_if
from memory_core.testing.checks.crash import crash
from memory_core.testing.checks.forking import ForkServer, Worker
from memory_core.testing.suite.stateful import state_machine
from tests.unit import broken_backends
from tests.unit.cache.plain import DictCache

pytestmark = pytest.mark.slow

MEMBERS = sorted(
    name
    for protocol in (Storage, SupportsNamespaces, SupportsBackup)
    for name in vars(protocol)
    if not name.startswith("_")
)


class Forwarding:
    """Forwards everything, by its names."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def scoped(self, namespace):
        return type(self)(self._inner.scoped(namespace))


async def test_a_forwarding_wrapper_passes():
    await assert_forwards_everything(Forwarding)


async def test_a_wrapper_that_takes_time_to_make_passes():
    async def wrap(storage):
        return Forwarding(storage)

    await assert_forwards_everything(wrap)


@pytest.mark.parametrize("name", MEMBERS)
async def test_a_member_that_is_not_forwarded_is_named(name):
    async def nothing(*_):
        return []

    def plain(*_):
        return None

    asynchronous = name not in {"capabilities", "namespace", "position", "scoped"}
    member = nothing if asynchronous else plain
    if name in {"capabilities", "namespace"}:
        member = property(plain)
    broken = type("Broken", (Forwarding,), {name: member})
    with pytest.raises((AssertionError, AttributeError)):
        await assert_forwards_everything(broken)


@pytest.mark.parametrize("suite", [broken_backends.Forgetful, broken_backends.Miscounting])
def test_the_state_machine_finds_what_differs(suite):
    options = settings(
        max_examples=30,
        stateful_step_count=30,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        print_blob=False,
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(state_machine(suite()), settings=options)


@pytest.mark.parametrize(
    ("suite", "message"), [("Lazy", r"not \[True"), ("Tearing", r"is torn|not \[True")]
)
async def test_crashes_find_what_is_lost_and_what_is_torn(suite, message, tmp_path):
    spec = f"tests.unit.broken_backends:{suite}"
    with ForkServer(spec) as server, pytest.raises(AssertionError, match=re.compile(message)):
        await crash(server, spec, str(tmp_path / "store"), 60)


async def test_crashes_find_nothing_in_a_good_backend(tmp_path):
    spec = "tests.conformance.test_lmdb:TestLmdbStorage"
    with ForkServer(spec) as server:
        report = await crash(server, spec, str(tmp_path / "store"), 12)
    assert report.kills == 12
    assert report.acknowledged > 0


def test_a_child_that_fails_says_so(tmp_path):
    with ForkServer() as server:
        worker = server.start(
            "memory_core.testing.checks.crash:write_until_killed", "", "nonsense:", 1
        )
        assert list(worker.lines()) == []
        assert worker.status == 1 << 8


def test_a_child_that_has_ended_by_itself_may_be_killed():
    """The word of its end may be on its way still. No process has such a number."""
    Worker(2**30).kill()


def test_what_does_not_apply_is_left_out():
    class Small(StorageSuite):
        capabilities = frozenset({Capability.CHEAP_POSITION})

        @only_if(lambda suite: suite.coalesces_reads)
        def test_never(self):
            """Not for this one."""

        @only_if(lambda suite: not suite.coalesces_reads)
        def test_always(self):
            """For this one."""

    assert Small.test_never is None
    assert Small.test_always is not None
    assert Small.test_backup is None
    assert Small.test_a_corrupt_record_is_named is None
    assert Small.test_position_follows_commits is not None
    assert Small.test_position_is_not_guessed is None
    # Of the mixins themselves nothing is taken.
    assert StorageSuite.test_backup is not None


def test_a_derived_suite_may_declare_more():
    class Small(StorageSuite):
        capabilities = frozenset()

    class Larger(Small):
        capabilities = frozenset({Capability.CHEAP_POSITION})
        test_position_follows_commits = None

    assert Small.test_what_another_process_committed_is_seen is None
    assert Small.test_position_is_not_guessed is not None
    assert Larger.test_position_is_not_guessed is None
    # What a suite drops by itself stays dropped.
    assert Larger.test_position_follows_commits is None

    class Largest(Small):
        capabilities = frozenset(Capability)

    assert Largest.test_position_follows_commits is not None
    assert Largest.test_backup is StorageSuite.test_backup


STUB = """
from memory_core.testing import StorageSuite


class Stub:
    namespace = "default"

    async def get(self, kind, ids):
        return [None for _ in ids]


class TestStub(StorageSuite):
    capabilities = frozenset()

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        return Stub()
"""


def test_a_backend_that_lacks_members_hears_which_and_nothing_else(tmp_path):
    (tmp_path / "test_stub.py").write_text(STUB)
    options = ("-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "--tb=short")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_stub.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    # Tests failed; pytest itself did not.
    assert done.returncode == 1, done.stdout + done.stderr
    lacks = (
        "Stub lacks capabilities, commit, query, count, position, changes, scoped, stats, aclose"
    )
    first, *_ = re.findall(r"^FAILED .*::(\w+)", done.stdout, re.MULTILINE)
    assert first == "test_every_member_is_there"
    assert done.stdout.count(lacks) > 50
    assert "AttributeError" not in done.stdout


class PlainSuite(CacheSuite):
    holds = "objects"
    exact_statistics = False
    expires = False

    def create(self):
        return DictCache()


def test_the_older_name_of_a_property_is_accepted_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="exact_statistics"):
        suite = type("Older", (CacheSuite,), {"exact_figures": False})
    assert suite.exact_statistics is False


class StaleCache(DictCache):
    """Keeps what was deleted."""

    async def delete_many(self, keys, cause="invalidated"):
        """Forgets nothing."""


class StaleSuite(PlainSuite):
    # What is found need not be made small, and the search ends with it: that it may be long, and is the
    # same each time, leaves nothing to chance.
    search = settings(
        PlainSuite.search,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        max_examples=1_000,
        derandomize=True,
        database=None,
    )

    def create(self):
        return StaleCache()


def test_the_cache_suite_finds_what_is_stale():
    PlainSuite().test_never_returns_what_it_should_not()
    with pytest.raises(AssertionError, match="is stale"):
        StaleSuite().test_never_returns_what_it_should_not()


class SharedSuite(CacheSuite):
    holds = "bytes"
    in_process = False


class SpoiltByCancelling(DictCache):
    """A client whose connection is of no use once a read was cancelled."""

    spoilt = False

    async def get_many(self, keys):
        if self.spoilt:
            return [None] * len(keys)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.spoilt = True
            raise
        return await super().get_many(keys)


async def test_the_cache_suite_finds_a_client_that_a_cancelled_read_spoils():
    check = SharedSuite().test_a_cancelled_call_spoils_no_later_one
    await check(DictCache("bytes"), "get")
    with pytest.raises(AssertionError, match="cancelled after"):
        await check(SpoiltByCancelling("bytes"), "get")


def test_a_worker_says_that_it_has_started_before_anything_else():
    """Anyone who reads what it says knows it only from then on."""
    code = (
        "from memory_core.testing import forking; forking._run(lambda emit: emit('something'), [])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = said.stdout.splitlines()
    assert first.startswith("started ")
    assert second.startswith("said ")


REMOVING = """
from memory_core.inmemory import InMemoryStorage
from memory_core.testing import StorageSuite

left = set()


class TestRemoving(StorageSuite):
    capabilities = InMemoryStorage().capabilities
    examples = 2

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        assert location in left
        return InMemoryStorage(context)

    def make_location(self, directory):
        left.add(str(directory))
        return str(directory)

    def remove_location(self, location):
        left.remove(location)


def test_nothing_is_left():
    assert not left
"""


def test_every_location_is_removed_after_its_test(tmp_path):
    (tmp_path / "test_removing.py").write_text(REMOVING)
    chosen = "test_stats or behaves_like or test_unique or nothing_is_left"
    command = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "asyncio_mode=auto",
        "-k",
        chosen,
    ]
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
