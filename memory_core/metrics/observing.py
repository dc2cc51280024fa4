"""Observers: who is told of every operation as it begins and ends, such as a tracer."""

from __future__ import annotations

from typing import Any, Protocol

from attrs import frozen

from memory_core.values import Value

__all__ = ["Call", "Observer", "Scope"]


@frozen(kw_only=True, eq=False, repr=False)
class Call(Value):
    """An operation of a memory, as it begins.

    Attributes:
        operation: its name, as in the metrics.
        kind: the kind of the records.
        args: what the caller gave. It is the user's content: an observer must be asked before it shows it.
        backend: the scheme of the store's URL.
        location: the place of the store, without secrets.
        namespace: the namespace of the memory.
    """

    operation: str
    kind: str
    args: tuple[Any, ...]
    backend: str
    location: str
    namespace: str


class Scope(Protocol):
    """An operation that an observer follows."""

    def end(self, error: BaseException | None, seconds: float) -> None:
        """It has ended; must not raise.

        Args:
            error: what it raised, if it did.
            seconds: how long it took.
        """
        ...


class Observer(Protocol):
    """Follows the operations of every memory of this process that has metrics; see ``REGISTRY.observer``."""

    def begin(self, call: Call) -> Scope:
        """An operation begins. Runs in the caller's task, and must not raise."""
        ...
