"""Errors cross processes and loggers: each can be pickled and copied, as the code makes it."""

import copy
import importlib
import pickle
import pkgutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from uuid import UUID, uuid4

import attrs
import pytest

import memory_core
import memory_storage_lmdb
import memory_storage_turso
from memory_core import ToolSequence, errors
from memory_core.cli.failures import NothingReadError, WorkFailedError
from memory_core.codec.compression import DictionaryMissingError
from memory_core.memory.opening import _NotOpenError
from memory_storage_turso.engine.driver import StoreSetBackError
from memory_storage_turso.server.node import RequestTooLargeError
from memory_storage_turso.server.resilience import CircuitOpenError, RetryableError
from memory_storage_turso.server.store_guard import DatabaseMissingError, StoreReplacedError

ONE, OTHER = uuid4(), uuid4()
TOOLS = ToolSequence(tools=("ls", "cat"))

#: Each as the code makes it.
MADE: list[errors.MemoryCoreError] = [
    errors.MemoryCoreError("it failed"),
    errors.InvalidValueError("step.latency_ms", "a number of at least 0", -1),
    errors.ConfigurationError("no such backend: 'ldmb'"),
    errors.InvalidOptionError("map_size", "at least 1", 0),
    errors.StoreNotFoundError("lmdb:./mem"),
    errors.StoreNotFoundError("turso:./mem.db", "the folder is missing"),
    errors.NotAStoreError("./notes.db", "a database of another program"),
    errors.UnknownKindError("lmdb:./mem", {"lesson": 3, "note": 1}),
    errors.PluginError("'kv' is claimed by two plugins"),
    errors.QueryError("episode has no index 'colour'"),
    errors.CodecError("checksum does not match"),
    errors.CodecError("checksum does not match", kind="episode", record_id=ONE),
    errors.ImportFormatError("run.jsonl", "not JSON", entry="line 3"),
    errors.UnknownFormatError("notes.txt", "is of no known format: text"),
    errors.EmbedderError("http://localhost:8081/v1 cannot be reached"),
    errors.StorageError("the disk failed"),
    errors.RecordTooLargeError("the steps", 70_000, 65_536, "max_steps_bytes"),
    errors.ReferenceNotFoundError("episode", "parent_id", "episode", ONE),
    errors.ReferenceNotFoundError("episode", "parent_id", "episode", None),
    errors.ReferenceRestrictedError("pattern", ONE, "heuristic", "pattern_id"),
    errors.DuplicateError("pattern", iter(["name", "domain"])),
    errors.CycleError("relationship", ONE, OTHER, "follows"),
    errors.EpisodeCompleteError(ONE, "step 3"),
    errors.ConflictError("pattern", TOOLS.id, TOOLS),
    errors.ConflictError("pattern", ONE, None),
    errors.RecordNotFoundError("pattern", ONE),
    errors.UnsupportedCapabilityError("BACKUP", "jsonl"),
    errors.WrongEventLoopError("opened by another event loop"),
    errors.ReadOnlyError(),
    errors.MigrationNeededError("turso:./mem.db", "the index 'tags' is missing"),
    errors.StorageClosedError("the storage is closed"),
    errors.StorageUnavailableError("the server does not answer"),
    errors.StorageFullError("no space left on device"),
    errors.DeclarationChangedError("lmdb:./mem", "episode"),
    errors.SchemaVersionError("lmdb:./mem", 9, 3),
    errors.SchemaVersionError("jsonl:./mem", 9, 2, what="format"),
    errors.OutcomeUnknownError("no answer came back"),
    WorkFailedError("nothing was found"),
    NothingReadError("nothing could be read: 2 entries were skipped"),
    DictionaryMissingError(7),
    _NotOpenError("memory.get: write `memory = await open_memory(...)`"),
    StoreSetBackError("http://localhost:8080"),
    RequestTooLargeError("http://localhost:8080 accepts no request of this size"),
    CircuitOpenError("http://localhost:8080", 0.5, "no answer"),
    RetryableError("http://localhost:8080 has too many requests"),
    DatabaseMissingError("http://localhost:8080/dev/a", "there is no such database"),
    StoreReplacedError("http://localhost:8080"),
]


def _pickled(error: errors.MemoryCoreError) -> errors.MemoryCoreError:
    return pickle.loads(pickle.dumps(error))


WAYS: list[Callable[[errors.MemoryCoreError], errors.MemoryCoreError]] = [
    _pickled,
    copy.copy,
    copy.deepcopy,
]
every_way = pytest.mark.parametrize("again", WAYS, ids=["pickle", "copy", "deepcopy"])


def _subclasses(cls: type[errors.MemoryCoreError]) -> Iterator[type[errors.MemoryCoreError]]:
    yield cls
    for one in cls.__subclasses__():
        yield from _subclasses(one)


def test_every_class_of_errors_is_listed_here() -> None:
    packages = (memory_core, memory_storage_lmdb, memory_storage_turso)
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    names = tuple(package.__name__ for package in packages)
    classes = {
        cls for cls in _subclasses(errors.MemoryCoreError) if cls.__module__.startswith(names)
    }
    assert classes == {type(error) for error in MADE}


@every_way
@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_a_copy_of_an_error_says_the_same(
    error: errors.MemoryCoreError, again: Callable[[errors.MemoryCoreError], errors.MemoryCoreError]
) -> None:
    made = again(error)
    assert made is not error
    assert type(made) is type(error)
    assert str(made) == str(error)
    assert made.args == error.args
    assert vars(made) == vars(error)
    assert (made.applied, made.retryable) == (error.applied, error.retryable)


@every_way
def test_a_copy_keeps_notes_and_what_was_set_later(
    again: Callable[[errors.MemoryCoreError], errors.MemoryCoreError],
) -> None:
    error = errors.DuplicateError("pattern", ["name"])
    error.applied = None
    error.retryable = True
    error.add_note("in batch 3")
    made = again(error)
    assert made.__notes__ == ["in batch 3"]
    assert (made.applied, made.retryable) == (None, True)


class OfAPluginError(errors.DuplicateError):
    """A plugin's error with arguments of its own, and nothing about pickling."""

    def __init__(self, table: str, *, shard: int) -> None:
        super().__init__("pattern", [table])
        self.shard = shard


class SlottedError(errors.StorageUnavailableError):
    """A plugin's error with a slot."""

    __slots__ = ("shard",)

    def __init__(self, shard: int, reason: str) -> None:
        super().__init__(f"{shard}: {reason}")
        self.shard = shard


@attrs.frozen(slots=False)
class FrozenError(errors.StorageUnavailableError):
    """A plugin's error that cannot be changed."""

    shard: int


class OfTheSystemError(errors.StorageUnavailableError, ConnectionError):
    """A plugin's error that is one of the system's, too."""


@every_way
@pytest.mark.parametrize(
    "error", [OfAPluginError("names", shard=3), SlottedError(3, "down"), FrozenError(3)], ids=str
)
def test_errors_of_plugins_need_no_code_for_it(
    error: errors.MemoryCoreError, again: Callable[[errors.MemoryCoreError], errors.MemoryCoreError]
) -> None:
    made = again(error)
    assert type(made) is type(error)
    assert (str(made), made.shard, vars(made)) == (str(error), 3, vars(error))


@every_way
def test_an_error_that_is_one_of_the_system_keeps_its_number(
    again: Callable[[errors.MemoryCoreError], errors.MemoryCoreError],
) -> None:
    made = again(OfTheSystemError(111, "refused", "mem.sock"))
    assert type(made) is OfTheSystemError
    assert (made.errno, made.strerror, made.filename) == (111, "refused", "mem.sock")


class FailsToLoad:
    """It can be pickled, and not be loaded."""

    def __reduce__(self) -> tuple[type[UUID], tuple[str]]:
        return UUID, ("not an id",)

    def __repr__(self) -> str:
        return "FailsToLoad()"


@pytest.mark.parametrize(
    "value", [threading.Lock(), lambda: None, FailsToLoad()], ids=["lock", "lambda", "fails"]
)
def test_a_value_that_cannot_be_pickled_arrives_as_its_repr(value: object) -> None:
    error = errors.InvalidValueError("title", "text", value)
    made = _pickled(error)
    assert str(made) == str(error)
    assert made.value == repr(value)
    assert copy.copy(error).value is value


def _raises(number: int) -> None:
    raise MADE[number]


def test_errors_cross_a_pool_of_processes() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for number, error in enumerate(MADE):
            raised = pool.submit(_raises, number).exception()
            assert type(raised) is type(error)
            # The ids differ: each process imports this module for itself.
            assert len(str(raised)) == len(str(error))
