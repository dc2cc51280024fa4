"""Cycle checks of a batch: the edges of a group are read once, however many of them the batch puts.

After the first check of a group in a batch, `EdgeOrder` keeps the part of the graph that its edges lead to,
in topological order. An edge that agrees with the order needs no search; one that does not moves nodes
between its ends.

Source: D. J. Pearce and P. H. J. Kelly, "A dynamic topological sort algorithm for directed acyclic graphs",
ACM Journal of Experimental Algorithmics 11, 2006.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = ["EdgeOrder", "reaches"]

Targets = Callable[[bytes], Iterable[bytes]]


def reaches(start: bytes, goal: bytes, targets: Targets) -> bool:
    """Whether edges lead from a node to another one (depth-first search)."""
    seen: set[bytes] = set()
    backlog = [start]
    while backlog:
        node = backlog.pop()
        if node == goal:
            return True
        if node not in seen:
            seen.add(node)
            backlog += targets(node)
    return False


class EdgeOrder:
    """The nodes that some nodes lead to, with all edges that leave them, in topological order.

    Args:
        targets: reads the targets of the edges that leave a node.
    """

    def __init__(self, targets: Targets) -> None:
        self._read = targets
        self._targets: dict[bytes, list[bytes]] = {}
        self._sources: dict[bytes, list[bytes]] = {}
        # Sparse numbers: what leads to known nodes comes before them all.
        self._rank: dict[bytes, int] = {}
        self._least = 0

    def add(self, source: bytes, target: bytes) -> bool:
        """Add an edge; false, and nothing is added, if it closes a cycle."""
        if source == target:
            return False
        self._load(target)
        if source not in self._rank:
            # Nothing known leads there, and all that the target leads to is known.
            return True
        if self._rank[source] > self._rank[target] and not self._move(source, target):
            return False
        self._targets[source].append(target)
        self._sources[target].append(source)
        return True

    def _load(self, start: bytes) -> None:
        """Read what a node leads to, in postorder: a node comes before all that it leads to."""
        backlog = [(start, False)]
        while backlog:
            node, done = backlog.pop()
            if done:
                self._least -= 1
                self._rank[node] = self._least
            elif node not in self._targets:
                found = self._targets[node] = list(self._read(node))
                self._sources.setdefault(node, [])
                for target in found:
                    self._sources.setdefault(target, []).append(node)
                backlog.append((node, True))
                backlog += [(target, False) for target in found]

    def _move(self, source: bytes, target: bytes) -> bool:
        """Move the source, and what leads to it, before the target and what that leads to.

        Returns:
            False if the target leads to the source.
        """
        first, last = self._rank[target], self._rank[source]
        after = self._between(target, self._targets, first, last)
        if source in after:
            return False
        moved = [*self._between(source, self._sources, first, last), *after]
        for node, rank in zip(moved, sorted(self._rank[node] for node in moved), strict=True):
            self._rank[node] = rank
        return True

    def _between(
        self, start: bytes, edges: dict[bytes, list[bytes]], first: int, last: int
    ) -> list[bytes]:
        """What is reached along these edges between two ranks, in the order of the ranks."""
        seen, backlog = {start}, [start]
        while backlog:
            for node in edges[backlog.pop()]:
                if node not in seen and first <= self._rank[node] <= last:
                    seen.add(node)
                    backlog.append(node)
        return sorted(seen, key=self._rank.__getitem__)
