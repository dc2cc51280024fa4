"""Parts of a memory that are made when they are first used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

__all__ = ["OnDemand"]


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
