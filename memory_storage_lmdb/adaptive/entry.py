"""Resident entries, and their cost beyond their values."""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from attrs import define, field

if TYPE_CHECKING:
    from memory_core.cache import CacheKey

__all__ = ["Entry", "Heat", "key_size", "overhead"]


class Heat(IntEnum):
    """How often an entry was read in the last window."""

    PINNED = 0
    """Its time to live is fixed, so it is not reviewed."""
    COLD = 1
    WARM = 2
    HOT = 3


@define(eq=False, weakref_slot=False)
class Entry:
    """A resident entry. A hit increments ``hits`` and reads ``due``; all else happens off that path.

    Attributes:
        key: its key.
        value: what is kept.
        charge: bytes it counts for, its own overhead included.
        hits: the number of reads since it was inserted.
        due: when it must be examined next, on the cache's clock: at its expiry or a review.
        watched: whether its next read must be told to the shadows.
        fingerprint: for the eviction policy, with the next six: see ``Evictable``.
        stored: for its lifetime: when its value came in.
        ttl: seconds from then until it expires.
        mark: ``hits`` at the last review.
        previous: hits between the two last reviews; ``-1`` before the first.
        heat: the outcome of the last review.
        earlier: its neighbour in its bucket of the expiry wheel; ``None`` when it is not scheduled.
        later: the other one.
    """

    key: CacheKey
    value: Any
    charge: int
    hits: int = 0
    due: float = 0.0
    watched: bool = False
    fingerprint: int = field(init=False)
    spent: int = 0
    counted: int = 0
    counted_at: float = 0.0
    in_main: bool = False
    older: Entry = field(init=False, repr=False)
    newer: Entry = field(init=False, repr=False)
    stored: float = 0.0
    ttl: float = 0.0
    mark: int = 0
    previous: int = -1
    heat: Heat = Heat.WARM
    earlier: Entry | None = field(default=None, repr=False)
    later: Entry | None = field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        """Hash the key once."""
        self.fingerprint = hash(self.key)


_COLLECTED = 16  # the garbage collector's header, which sys.getsizeof of a type does not know
_NUMBERS = 6 * sys.getsizeof(1.0)  # times, the hash, and the counters once they outgrow shared ints
_FIXED = Entry.__basicsize__ + _COLLECTED + _NUMBERS
_TUPLE = sys.getsizeof(("", "", b"")) + _COLLECTED
_UUID = sys.getsizeof(UUID(int=1 << 127)) + sys.getsizeof(1 << 127)


def key_size(key: CacheKey) -> int:
    """The bytes that a key takes; its namespace and kind are shared with other keys."""
    last = key[2]
    return _TUPLE + (sys.getsizeof(last) if type(last) is bytes else _UUID)


def overhead(key: CacheKey) -> int:
    """Bytes an entry takes beyond its value: itself, its key and its place in the queues.

    The dict that holds all entries is not included; it is measured as a whole.
    """
    return _FIXED + key_size(key)
