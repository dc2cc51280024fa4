"""Parts of a memory that are made when they are first used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from memory_core.errors import ConfigurationError
from memory_core.plugins import PluginRegistry

if TYPE_CHECKING:
    from memory_core.learning import RecallConfig
    from memory_core.memory.learning import Learners
    from memory_core.memory.recalling import Recalls
    from memory_core.memory.searching import Searches

__all__ = ["OnDemand", "learners_of", "recalls_of", "searches_in_memory"]


class _Closable(Protocol):
    async def aclose(self) -> None: ...


T = TypeVar("T", bound=_Closable)


class OnDemand(Generic[T]):
    """Something that is made at its first use, and closed if it was made.

    Args:
        make: makes it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: T | None = None

    @property
    def made(self) -> T | None:
        """It, if it was made."""
        return self._made

    def get(self) -> T:
        """It, made at the first call."""
        if self._made is None:
            self._made = self._make()
        return self._made

    async def aclose(self) -> None:
        """Close it. Idempotent, as its own ``aclose`` is."""
        if self._made is not None:
            await self._made.aclose()


def searches_in_memory(registry: PluginRegistry | None) -> Searches:
    """Searches whose indexes are in memory; without a registry, with all installed plugins."""
    from memory_core.memory.searching import Searches

    return Searches(registry or PluginRegistry())


def recalls_of(config: RecallConfig | None) -> Recalls:
    """Recalls with this configuration, or the default one."""
    from memory_core.learning import RecallConfig
    from memory_core.memory.recalling import Recalls

    return Recalls(config or RecallConfig())


def learners_of(registry: PluginRegistry | None, search: OnDemand[Searches]) -> Learners:
    """Learners with the extractors of a registry, or of all installed plugins.

    What they keep on disk is beside the search indexes, and only where these may be there.
    """
    from memory_core.memory.learning import Learners

    def folder_of(namespace: str) -> Path | None:
        try:
            return search.get().folder_of(namespace)
        except ConfigurationError:
            # Searches cannot be made, so nothing says whether words may be written to disk.
            return None

    return Learners(registry or PluginRegistry(), folder_of)
