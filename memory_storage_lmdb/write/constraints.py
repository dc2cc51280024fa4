"""What must hold before a record may be put. Checked in the write's own transaction."""

from __future__ import annotations

from uuid import UUID

from memory_core.errors import CycleError, DuplicateError, ReferenceNotFoundError
from memory_storage_lmdb.store.declaration import AcyclicRule
from memory_storage_lmdb.write.staging import StagedPut
from memory_storage_lmdb.write.transaction import WriteTransaction

__all__ = ["check_put"]


def check_put(write: WriteTransaction, staged: StagedPut) -> None:
    """Check a record against the store.

    Raises:
        ReferenceNotFoundError, DuplicateError, CycleError: it may not be put.
    """
    declaration = staged.layout.declaration
    _check_references(write, staged)
    _check_uniques(write, staged)
    for rule in declaration.acyclic:
        _check_acyclic(write, staged, rule)


def _check_references(write: WriteTransaction, staged: StagedPut) -> None:
    layout = staged.layout
    for rule in layout.declaration.references:
        target = staged.values[layout.positions[rule.field]]
        if target is None or (rule.kind == layout.kind and target == staged.id):
            continue
        if not write.exists(write.catalog.layouts[rule.kind], staged.namespace + target):
            raise ReferenceNotFoundError(layout.kind, rule.field, rule.kind, UUID(bytes=target))


def _check_uniques(write: WriteTransaction, staged: StagedPut) -> None:
    for unique in staged.layout.uniques:
        key = unique.key(staged.namespace, staged.values)
        if key is None:
            continue
        holder = write.holder(unique, key)
        if holder is not None and holder != staged.id:
            raise DuplicateError(staged.layout.kind, unique.fields)


def _check_acyclic(write: WriteTransaction, staged: StagedPut, rule: AcyclicRule) -> None:
    """Refuse an edge from whose target its source can be reached over edges of the same group
    (depth-first search).
    """
    layout, namespace = staged.layout, staged.namespace
    at = layout.positions
    source, target, group = (
        staged.values[at[name]] for name in (rule.source, rule.target, rule.group)
    )
    if group not in rule.groups or source is None or target is None:
        return
    seen: set[bytes] = set()
    waiting = [target]
    while waiting:
        node = waiting.pop()
        if node == source:
            ends = UUID(bytes=source), UUID(bytes=target)
            raise CycleError(layout.kind, *ends, group=str(group))
        if node is None or node in seen:
            continue
        seen.add(node)
        for edge_id in write.holders(layout, rule.source, namespace, node):
            # The edge that is being replaced no longer counts.
            if edge_id == staged.id:
                continue
            values = write.values(layout, namespace + edge_id)
            if values[at[rule.group]] == group:
                waiting.append(values[at[rule.target]])
