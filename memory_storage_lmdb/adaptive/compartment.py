"""Compartments: the parts of the cache with a budget of their own, and when each has to evict."""

from __future__ import annotations

from attrs import define, field

from memory_storage_lmdb.adaptive.entry import Entry
from memory_storage_lmdb.adaptive.eviction import EvictionPolicy
from memory_storage_lmdb.adaptive.shadows import Chooser
from memory_storage_lmdb.adaptive.statistics import EvictionCause

__all__ = ["ByteBudget", "Compartment"]


@define(eq=False)
class ByteBudget:
    """Bytes that one compartment, or several together, may take.

    Attributes:
        limit: the most they may take.
        taken: what entries take.
        reserved: what the cache's bookkeeping takes.
        members: the compartments that share the budget.
    """

    limit: int
    taken: int = 0
    reserved: int = 0
    members: list[Compartment] = field(factory=list["Compartment"], repr=False)


@define(eq=False)
class Compartment:
    """Entries that compete with each other for places.

    Attributes:
        max_entries: entries it may hold.
        budget: bytes it may take, perhaps together with others.
        entries: entries it holds.
        bytes: bytes they take.
        policy: decides which of them is evicted.
        chooser: decides by which rule.
    """

    max_entries: int
    budget: ByteBudget
    entries: int = 0
    bytes: int = 0
    policy: EvictionPolicy[Entry] = field(factory=EvictionPolicy[Entry])
    chooser: Chooser = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Join the compartments that share the budget."""
        self.chooser = Chooser(self.policy)
        self.budget.members.append(self)

    def add(self, entries: int, size: int) -> None:
        """Count entries that were added, or removed if negative, and their bytes."""
        self.entries += entries
        self.bytes += size
        self.budget.taken += size

    def clear(self) -> None:
        """Forget all entries."""
        self.policy.clear()
        self.chooser.clear()
        self.add(-self.entries, -self.bytes)

    def footprint(self) -> int:
        """Bytes that its bookkeeping takes."""
        return self.policy.footprint() + self.chooser.footprint()

    def room(self, share: float) -> float:
        """The bytes available to a new entry if there were no other.

        Args:
            share: the share of the budget that memory pressure leaves.
        """
        return self.budget.limit * share - self.budget.reserved if self.max_entries else 0

    def exceeded(self, more: int, size: int, share: float) -> EvictionCause | None:
        """Why ``more`` entries of ``size`` bytes do not fit; ``None`` if they do."""
        entries = self.entries + more
        budget = self.budget
        taken = budget.taken + budget.reserved + size
        if entries > self.max_entries:
            return EvictionCause.CAPACITY
        if taken > budget.limit:
            return EvictionCause.BYTES
        if share < 1.0 and (entries > self._places(share) or taken > share * budget.limit):
            return EvictionCause.PRESSURE
        return None

    def donor(self, more: int, share: float) -> Compartment:
        """The compartment that has to evict: this one if it has too many entries, else the largest that
        shares the exhausted byte budget.
        """
        members = self.budget.members
        if len(members) == 1 or self.entries + more > self._places(share):
            return self
        return max(members, key=lambda part: part.bytes)

    def _places(self, share: float) -> float:
        return max(1.0, share * self.max_entries)
