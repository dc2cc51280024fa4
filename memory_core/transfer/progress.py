"""How far a transfer is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from attrs import frozen

__all__ = ["OnProgress", "Progress", "ignore_progress"]


@frozen
class Progress:
    """How far a transfer is.

    Attributes:
        done: records handled so far.
        total: how many there were when it began; ``done`` may pass it where records are added. 0 where
            nobody knows.
    """

    done: int
    total: int


OnProgress: TypeAlias = Callable[[Progress], None]
"""Called now and then, on the event loop's thread."""


def ignore_progress(_: Progress) -> None:
    """For when nobody is looking."""
