"""Cycle checks of a large batch of edges, all together; on files.

A trigger searches from the target of each edge that is put. Where many edges are put into a dense graph, all
these searches walk the same edges. So the edges that the batch can reach are read once, in its transaction,
and sorted together with the new ones. Where that shows that no edge closes a cycle, the triggers are dropped
for this batch and made again after it. Otherwise they stay, and find the edge that does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import TypeAlias, cast

from memory_core.records import Acyclic, Record
from memory_core.storage import Put
from memory_storage_turso.engine.encoding import QueuedBatch
from memory_storage_turso.sql.schema import acyclic_triggers, drop_acyclic_triggers, edges_from
from memory_storage_turso.sql.statement import Interlude, Row, Statement
from memory_storage_turso.sql.tables import KindTable, Tables

__all__ = ["checked_together"]

# Fewer are searched for one by one in less time than a change of the schema takes.
_LEAST_EDGES = 16
_LEAST_STEPS = 50_000
# Each is a parameter of a statement, of which SQLite takes 32,766.
_MOST_EDGES = 8_192

_Run: TypeAlias = Callable[[Statement], Sequence[Row]]
_Edge: TypeAlias = tuple[bytes, bytes]


def checked_together(
    item: QueuedBatch, statements: Iterable[Statement], tables: Tables
) -> Iterable[Statement]:
    """The statements of a batch, between the check of its edges and what that needs at the end, where the
    batch puts many edges.
    """
    if len(item) < _LEAST_EDGES or not item.only_puts:
        return statements
    for table in tables:
        if table.acyclics:
            puts = cast("Sequence[Put]", item.batch.operations)
            edges = [put.record for put in puts if put.record.kind == table.kind]
            if _LEAST_EDGES <= len(edges) <= _MOST_EDGES:
                statements = _between_checks(item.ns, table, edges, statements)
    return statements


def _between_checks(
    ns: int, table: KindTable, edges: Sequence[Record], statements: Iterable[Statement]
) -> Iterator[Statement]:
    for number, rule in enumerate(table.acyclics):
        yield Interlude.of(partial(_check, ns, table, number, rule, edges))
    yield from statements
    yield Interlude.of(partial(_restore, table))


def _check(  # noqa: PLR0917  # the first five are bound
    ns: int, table: KindTable, number: int, rule: Acyclic, edges: Sequence[Record], run: _Run
) -> None:
    """Drop the triggers of a rule if they would find no cycle, and would take long."""
    ids = {edge.id for edge in edges}
    if len(ids) < len(edges) or run(table.present(ns, list(ids))):
        # An edge that is replaced no longer counts, but is read.
        return
    groups: dict[str, list[_Edge]] = {}
    for edge in edges:
        values = edge.index_values()
        source, target, group = (values[name] for name in (rule.source, rule.target, rule.group))
        if group in rule.groups and source is not None and target is not None:
            ends = cast("_Edge", (source, target))
            groups.setdefault(group, []).append(ends)
    steps = 0
    for group, fresh in groups.items():
        targets = list(dict.fromkeys(target for _, target in fresh))
        stored = cast("Sequence[_Edge]", run(edges_from(table, rule, ns, group, targets)))
        if not _are_acyclic([*stored, *fresh]):
            return
        steps += len(fresh) * len(stored)
    if steps >= _LEAST_STEPS:
        for statement in drop_acyclic_triggers(table, number):
            run(statement)


def _restore(table: KindTable, run: _Run) -> None:
    for number, rule in enumerate(table.acyclics):
        for sql in acyclic_triggers(table, rule, number):
            run(Statement(sql))


def _are_acyclic(edges: Sequence[_Edge]) -> bool:
    """Whether edges can all be removed, those first that leave nodes which none leads to.

    Source: A. B. Kahn, "Topological sorting of large networks", Communications of the ACM 5, 1962.
    ``graphlib`` takes twice as long, and other writers wait meanwhile.
    """
    targets: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for source, target in edges:
        targets[source].append(target)
    entering = Counter(map(itemgetter(1), edges))
    free = [node for node in targets if node not in entering]
    while free:
        for node in targets.pop(free.pop(), ()):
            entering[node] -= 1
            if not entering[node]:
                free.append(node)
    return not targets
