"""The progress of a transfer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from attrs import frozen

__all__ = ["OnProgress", "Progress", "ignore_progress"]


@frozen
class Progress:
    """The progress of a transfer.

    Attributes:
        done: records handled so far.
        total: the number of records when it began; ``done`` may exceed it if records are added. 0 if it
            is unknown.
    """

    done: int
    total: int


OnProgress: TypeAlias = Callable[[Progress], None]
"""Called from time to time, on the event loop's thread."""


def ignore_progress(_: Progress) -> None:
    """Ignores the progress."""
