"""The learning of an open memory: one learner a namespace, made when it is first used."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from memory_core.cache import CachedStorage
from memory_core.errors import StorageClosedError
from memory_core.learning.calculating import Calculation, calculate
from memory_core.learning.learner import Learner, Learning
from memory_core.plugins import PluginRegistry
from memory_core.storage import Storage

__all__ = ["Learners"]

_MOST = 16
_FILE = "learned.facts"


class Learners:
    """The learners of a store's namespaces, shared by all memories on it. Those of the 16 namespaces that
    were learned from last are kept, so that only what has changed since is read again.

    Args:
        registry: where extractors and kinds are found.
        folder_of: the folder of a namespace's derived data; ``None`` for memory.
    """

    def __init__(
        self, registry: PluginRegistry, folder_of: Callable[[str], Path | None] = lambda _: None
    ) -> None:
        self._registry = registry
        self._folder_of = folder_of
        self._extractors = tuple(registry.extractors.values())
        self._learners: OrderedDict[str, Learner] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def learn(self, storage: Storage, min_support: int) -> Learning:
        """See ``Memory.learn``."""
        if self._closed:
            raise StorageClosedError("the memory is closed")
        namespace = storage.namespace
        learner = self._learners.get(namespace)
        if learner is None:
            behind = storage.behind if isinstance(storage, CachedStorage) else storage
            types = self._registry.record_types
            folder = self._folder_of(namespace)
            file = None if folder is None else folder / _FILE
            learner = Learner(storage, behind, types, self._extractors, file)
            self._learners[namespace] = learner
        self._learners.move_to_end(namespace)
        try:
            return await learner.learn(min_support)
        finally:
            self._close_unused()

    async def calculate(self, storage: Storage) -> Calculation:
        """See ``Memory.calculate``."""
        if self._closed:
            raise StorageClosedError("the memory is closed")
        return await calculate(storage, tuple(self._registry.calculators.values()))

    async def aclose(self) -> None:
        """Stop learning. Idempotent."""
        self._closed = True
        while self._learners:
            _, learner = self._learners.popitem()
            await learner.aclose()
        if self._closing:
            await asyncio.wait(self._closing)

    def _close_unused(self) -> None:
        for namespace, learner in list(self._learners.items()):
            if len(self._learners) <= _MOST:
                return
            if not learner.is_busy:
                del self._learners[namespace]
                task = asyncio.create_task(learner.aclose(), name="memory-core learner")
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
