"""Which rule of eviction hits more: both are simulated on a sample of the keys, and the winner is followed.

Source: Waldspurger et al., "Cache modeling and optimization using miniature simulations" (USENIX ATC 2017):
a cache that sees a share of the keys, chosen by their hash, and has that share of the room, hits about as
often as the whole.

A *shadow* is such a cache without values. A read that both shadows would have answered, or neither, does not
tell which is better. So a hit of an entry that both have costs no more than that of one outside the sample:
the shadows read its hits when they look for a victim. An entry that one of them lacks is ``watched``. Until
the cache evicts, the shadows do not, though their sample may be larger than its share: no hit is watched.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from memory_storage_lmdb.adaptive.eviction import EvictionPolicy, Rule

if TYPE_CHECKING:
    from memory_storage_lmdb.adaptive.entry import Entry

__all__ = ["Chooser", "Shade", "Shadow"]

_MOST = 512  # keys in a shadow
_FEWEST = 8  # however small the budget
_BYTES = 800  # that a key of the sample takes, in both shadows with what they remember, roughly
_SHARE = 16  # of a budget of bytes that the shadows may take, as a divisor
_MEASURED = 16  # calls that are answered by the last measurement
_SCORE = 0.5  # the lead, as a share of a shadow's keys, beyond which nothing is counted
_DECIDED = 0.25  # and the share of that from which the leader is followed


class Shade:
    """A key in a shadow.

    Attributes:
        fingerprint: the hash of the key.
        charge: the bytes that its entry takes.
        entry: its entry, while the cache has it.
        earlier: reads before that entry came in, less those of it before the key came into the shadow.
        spent, counted, counted_at, in_main, older, newer: as the policy says.
    """

    __slots__ = (
        "charge",
        "counted",
        "counted_at",
        "earlier",
        "entry",
        "fingerprint",
        "in_main",
        "newer",
        "older",
        "spent",
    )

    older: Shade
    newer: Shade

    def __init__(self, entry: Entry) -> None:
        self.fingerprint = entry.fingerprint
        self.charge = entry.charge
        self.entry: Entry | None = entry
        self.earlier = -entry.hits
        self.spent = self.counted = 0
        self.counted_at = 0.0
        self.in_main = False

    @property
    def hits(self) -> int:
        """The number of reads since the key came into the shadow."""
        return self.earlier if self.entry is None else self.earlier + self.entry.hits


class Shadow:
    """A cache without values that follows one rule.

    Attributes:
        table: its keys by fingerprint.
        bytes: bytes that their entries would take.
        policy: decides which of them is evicted.
    """

    __slots__ = ("bytes", "policy", "table")

    def __init__(self, rule: Rule) -> None:
        self.policy = EvictionPolicy[Shade](rule)
        self.table: dict[int, Shade] = {}
        self.bytes = 0

    def add(self, entry: Entry, clock: float) -> None:
        """Add the key of an entry."""
        self.table[entry.fingerprint] = shade = Shade(entry)
        self.bytes += shade.charge
        self.policy.admit(shade, clock)

    def take(self, entry: Entry) -> Shade:
        """Take over the charge of an entry whose key it has."""
        shade = self.table[entry.fingerprint]
        shade.entry = entry
        self.bytes += entry.charge - shade.charge
        shade.charge = entry.charge
        return shade

    def evict(self, clock: float) -> None:
        """Evict a key. There must be one."""
        self._forget(self.policy.evict(clock))

    def remove(self, shade: Shade, *, returns: bool = True) -> None:
        """Remove a key, which may come back."""
        self.policy.remove(shade, returns=returns)
        self._forget(shade)

    def clear(self) -> None:
        """Remove all keys."""
        self.policy.clear()
        self.table = {}
        self.bytes = 0

    def _forget(self, shade: Shade) -> None:
        del self.table[shade.fingerprint]
        self.bytes -= shade.charge
        if shade.entry is not None:
            shade.entry.watched = True


class Chooser:
    """Chooses the rule that a policy follows.

    Args:
        policy: the policy of the cache.

    Attributes:
        wins: by rule, reads of the sample that only its shadow would have answered.
        changes: how often another rule took over.
    """

    def __init__(self, policy: EvictionPolicy[Entry]) -> None:
        self._policy = policy
        self.wins = dict.fromkeys(Rule, 0)
        self.changes = 0
        self._shadows = {rule: Shadow(rule) for rule in Rule}
        self.clear()

    @property
    def keys(self) -> int:
        """The number of keys in both shadows."""
        return sum(len(shadow.table) for shadow in self._shadows.values())

    def footprint(self) -> int:
        """Bytes that the shadows take, or took lately: a small cache calls this at every insertion."""
        self._unmeasured -= 1
        if self._unmeasured < 0:
            self._unmeasured = _MEASURED
            self._bytes = sum(
                sys.getsizeof(shadow.table) + _SHADE * len(shadow.table) + shadow.policy.footprint()
                for shadow in self._shadows.values()
            )
        return self._bytes

    def clear(self) -> None:
        """Forget all keys, and sample every key again."""
        for shadow in self._shadows.values():
            shadow.clear()
        self._mask = 0  # a key is in the sample if its hash has none of these bits
        self._by_bytes = self._evicts = False
        self._score = 0.0
        self._bytes = self._unmeasured = 0

    def missed(self, fingerprint: int) -> None:
        """Note a read that the cache does not answer."""
        if not self._sampled(fingerprint):
            return
        for shade in self._judge(fingerprint):
            if shade is not None:
                shade.earlier += 1

    def hit(self, entry: Entry, clock: float, entries: int, size: int) -> None:
        """Note a read of a watched entry; for the other arguments see ``added``."""
        if self._sampled(entry.fingerprint):
            self._judge(entry.fingerprint)
        self.added(entry, clock, entries, size)

    def added(self, entry: Entry, clock: float, entries: int, size: int) -> None:
        """Bring an entry that the cache has into the shadows.

        Args:
            entry: the entry.
            clock: the clock of the policy.
            entries: how many entries the cache has.
            size: the bytes that they take.
        """
        entry.watched = False
        fingerprint = entry.fingerprint
        if not self._sampled(fingerprint):
            return
        share = 1 / (self._mask + 1)
        for shadow in self._shadows.values():
            if fingerprint in shadow.table:
                shadow.take(entry)
                continue
            while (
                self._evicts
                and shadow.table
                and (
                    shadow.bytes + entry.charge > share * size
                    if self._by_bytes
                    else len(shadow.table) >= max(1, share * entries)
                )
            ):
                shadow.evict(clock)
            shadow.add(entry, clock)
        self._bound(size)

    def replaced(self, entry: Entry) -> None:
        """Note that an entry has a new value."""
        for shadow in self._shadows.values():
            if entry.fingerprint in shadow.table:
                shadow.policy.replaced(shadow.take(entry))

    def evicted(self, entry: Entry, *, by_bytes: bool) -> None:
        """Note that the cache has evicted an entry, and whether bytes were what it lacked."""
        self._by_bytes = by_bytes
        self._evicts = True
        if self._sampled(entry.fingerprint):
            for shadow in self._shadows.values():
                shade = shadow.table.get(entry.fingerprint)
                if shade is not None:
                    shade.earlier += entry.hits
                    shade.entry = None

    def removed(self, fingerprint: int) -> None:
        """Forget a key that was invalidated or has expired."""
        for shadow in self._shadows.values():
            shade = shadow.table.get(fingerprint)
            if shade is not None:
                shadow.remove(shade)

    def _sampled(self, fingerprint: int) -> bool:
        return not fingerprint >> 40 & self._mask

    def _judge(self, fingerprint: int) -> list[Shade | None]:
        """Score a read, and follow a rule that leads clearly."""
        shades = [shadow.table.get(fingerprint) for shadow in self._shadows.values()]
        frequent, recent = shades
        if (frequent is None) is not (recent is None):
            winner = Rule.FREQUENCY if recent is None else Rule.RECENCY
            self.wins[winner] += 1
            most = _SCORE * max(len(shadow.table) for shadow in self._shadows.values())
            score = self._score + (1 if recent is None else -1)
            self._score = min(max(score, -most), most)
            leads = self._score if recent is None else -self._score
            if leads > _DECIDED * most and self._policy.rule is not winner:
                self._policy.rule = winner
                self.changes += 1
        return shades

    def _bound(self, size: int) -> None:
        """Halve the sample when it has become too large."""
        most = _MOST
        if self._by_bytes:
            most = min(max(size // (_SHARE * _BYTES), _FEWEST), _MOST)
        if max(len(shadow.table) for shadow in self._shadows.values()) > most:
            self._mask = 2 * self._mask + 1
            for shadow in self._shadows.values():
                for shade in [*shadow.table.values()]:
                    if not self._sampled(shade.fingerprint):
                        shadow.remove(shade, returns=False)


# The garbage collector's header, which sys.getsizeof of a type does not know, and counted_at, earlier.
_SHADE = Shade.__basicsize__ + 16 + 24 + 32
