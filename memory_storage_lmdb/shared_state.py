"""One environment for each store and process, however often it is opened."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from attrs import define, field

from memory_core.errors import ConfigurationError
from memory_storage_lmdb.config import LmdbConfig
from memory_storage_lmdb.engine.environment import Environment
from memory_storage_lmdb.engine.thread import JobThread
from memory_storage_lmdb.store.catalog import Catalog

__all__ = ["Shared", "acquire", "release"]


@define(eq=False)
class Shared:
    """An environment with its catalog and its writer thread, and how many use them."""

    environment: Environment
    catalog: Catalog
    writer: JobThread
    users: int = 0
    opened: bool = False

    def open(self, then: Callable[[], None]) -> None:
        """Open the environment, unless it is open, and go on; on the writer thread."""
        if not self.opened:
            self.environment.open()
            try:
                self.catalog.open()
            except BaseException:
                self.environment.close()
                raise
            self.opened = True
        then()


@define(eq=False)
class _Registry:
    """The environments of this process by real path."""

    shared: dict[str, Shared] = field(factory=dict[str, Shared])
    lock: threading.Lock = field(factory=threading.Lock)


_registry = _Registry()


def acquire(location: str, config: LmdbConfig) -> Shared:
    """The environment of a path, to be released by whoever asked for it.

    Raises:
        ConfigurationError: this process has it open with other options.
    """
    path = os.path.realpath(location)
    with _registry.lock:
        found = _registry.shared.get(path)
        if found is None:
            environment = Environment(path, config)
            writer = JobThread(f"memory-core lmdb writer {Path(path).name}")
            found = _registry.shared[path] = Shared(environment, Catalog(environment), writer)
        known, given = _environment_options(found.environment.config), _environment_options(config)
        if known != given:
            raise ConfigurationError(f"{path}: open in this process with {known}, not {given}")
        found.users += 1
        return found


async def release(shared: Shared) -> None:
    """Give an environment back; the last user closes it."""
    if shared.environment.forked:
        # After a fork there is no thread, and nothing to close that is not the parent's.
        return
    if await shared.writer.run(lambda: _close_unused(shared)):
        await shared.writer.end()


def _close_unused(shared: Shared) -> bool:
    # Under the lock, so that nobody opens it again before it is closed.
    with _registry.lock:
        shared.users -= 1
        if shared.users:
            return False
        _registry.shared.pop(shared.environment.path, None)
        shared.environment.close()
        return True


def _environment_options(config: LmdbConfig) -> dict[str, object]:
    names = ("durability", "map_size", "max_map_size", "max_readers", "max_dbs")
    return {name: getattr(config, name) for name in names}


def _before_fork() -> None:
    # No environment is opened or closed, and all are at rest, while the process is copied.
    _registry.lock.acquire()
    for shared in _registry.shared.values():
        shared.environment.before_fork()


def _after_fork_in_parent() -> None:
    for shared in _registry.shared.values():
        shared.environment.after_fork(in_child=False)
    _registry.lock.release()


def _after_fork_in_child() -> None:
    """Neither the map nor a lock nor the thread of the parent may be used."""
    for shared in _registry.shared.values():
        shared.environment.after_fork(in_child=True)
    _registry.shared = {}
    _registry.lock.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
