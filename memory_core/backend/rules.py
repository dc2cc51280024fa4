"""Finding stored records that break the rules of their kind: before a rule counts that was not declared
when they were put.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias
from uuid import UUID

from memory_core.errors import ConfigurationError, SchemaVersionError
from memory_core.records import Acyclic, IndexValue, RecordTypes, Reference, Unique

__all__ = ["Rule", "RuleCheck", "check_broken", "check_versions"]

Rule: TypeAlias = Unique | Acyclic | Reference

_Exists: TypeAlias = Callable[[Any, str, UUID], bool]
_Edges: TypeAlias = dict[IndexValue, list[IndexValue]]

_MOST_EXAMPLES = 3


def check_versions(where: object, types: RecordTypes, stored: Mapping[str, int]) -> None:
    """Check that no newer release of a plugin has written a store.

    Args:
        where: the store.
        types: the kinds that it is opened with.
        stored: by kind, the ``schema_version`` that it was last opened with.

    Raises:
        SchemaVersionError: one is higher than that of the kind's class.
    """
    for kind, version in stored.items():
        known = types.cls(kind).schema_version if kind in types else version
        if version > known:
            raise SchemaVersionError(f"{where}: kind {kind!r}", version, known)


def check_broken(where: object, broken: Iterable[str]) -> None:
    """Check that no record breaks a rule.

    Args:
        where: the store.
        broken: which records break which rule, in words.

    Raises:
        ConfigurationError: some do; it names the first ones.
    """
    if found := "; ".join(broken):
        raise ConfigurationError(
            f"{where}: records in the store break what their kind declares: {found}"
        )


class RuleCheck:
    """Finds records that break the rules of their kinds. It keeps a key of each of them in memory.

    Args:
        types: the kinds.
        rules: by kind, the rules to check; by default all that are declared.
        exists: whether there is a record, by its namespace, kind and id; by default, whether it was added.
    """

    def __init__(
        self,
        types: RecordTypes,
        rules: Mapping[str, Sequence[Rule]] | None = None,
        exists: _Exists | None = None,
    ) -> None:
        if rules is None:
            classes = {kind: types.cls(kind) for kind in types.kinds}
            rules = {kind: [*cls.constraints, *cls.references] for kind, cls in classes.items()}
        self._rules = rules
        self._exists = exists or self._was_added
        self._targets = {
            rule.kind for each in rules.values() for rule in each if isinstance(rule, Reference)
        }
        self._ids: set[tuple[Hashable, str, UUID]] = set()
        self._holders: dict[tuple[Hashable, ...], UUID] = {}
        self._edges: dict[tuple[Hashable, str, Acyclic, IndexValue], _Edges] = {}
        self._references: dict[tuple[Hashable, str, Reference, bytes], UUID] = {}
        self._broken: list[str] = []

    def add(
        self,
        namespace: Hashable,
        kind: str,
        record_id: UUID,
        values: Mapping[str, IndexValue] | None,
    ) -> None:
        """Look at a record.

        Args:
            namespace: its namespace, or what stands for it.
            kind: its kind.
            record_id: its id.
            values: its index values, at least those that the rules name; ``None`` where it is damaged.
        """
        if kind in self._targets:
            self._ids.add((namespace, kind, record_id))
        if values is None:
            return
        for rule in self._rules.get(kind, ()):
            if isinstance(rule, Unique):
                self._add_unique(namespace, kind, record_id, rule, values)
            elif isinstance(rule, Acyclic):
                self._add_edge(namespace, kind, rule, values)
            elif isinstance(target := values[rule.field], bytes):
                self._references.setdefault((namespace, kind, rule, target), record_id)

    def broken(self) -> list[str]:
        """Which of the records break which rule, in words; the first few."""
        for (_, kind, rule, group), edges in self._edges.items():
            node = _on_cycle(edges)
            if node is not None:
                self._note(kind, f"edges of {rule.group} {group!r} form a cycle at {_text(node)}")
        for (namespace, kind, rule, target), record_id in self._references.items():
            to = UUID(bytes=target)
            itself = (rule.kind, to) == (kind, record_id)
            if not itself and not self._exists(namespace, rule.kind, to):
                self._note(
                    kind, f"{record_id} has a {rule.field} that points at no {rule.kind}: {to}"
                )
        return self._broken

    def check(self, where: object) -> None:
        """Check that none of the records breaks a rule.

        Args:
            where: the store, for the error.

        Raises:
            ConfigurationError: some do; it names the first ones.
        """
        check_broken(where, self.broken())

    def _add_unique(
        self,
        namespace: Hashable,
        kind: str,
        record_id: UUID,
        rule: Unique,
        values: Mapping[str, IndexValue],
    ) -> None:
        own = tuple(values[name] for name in rule.fields)
        if None not in own:
            holder = self._holders.setdefault((namespace, kind, rule.fields, *own), record_id)
            if holder != record_id:
                names = ", ".join(rule.fields)
                self._note(kind, f"{holder} and {record_id} have the same {names}")

    def _add_edge(
        self, namespace: Hashable, kind: str, rule: Acyclic, values: Mapping[str, IndexValue]
    ) -> None:
        source, target, group = (values[name] for name in (rule.source, rule.target, rule.group))
        if group in rule.groups and None not in (source, target):
            edges = self._edges.setdefault((namespace, kind, rule, group), {})
            edges.setdefault(source, []).append(target)

    def _was_added(self, namespace: Any, kind: str, record_id: UUID) -> bool:
        return (namespace, kind, record_id) in self._ids

    def _note(self, kind: str, text: str) -> None:
        if len(self._broken) < _MOST_EXAMPLES:
            self._broken.append(f"{kind}: {text}")


def _on_cycle(edges: Mapping[IndexValue, list[IndexValue]]) -> IndexValue:
    """A node on a cycle, found by a depth-first search; ``None`` where there is none."""
    done: set[IndexValue] = set()
    for start in edges:
        if start in done:
            continue
        path: dict[IndexValue, Iterator[IndexValue]] = {start: iter(edges[start])}
        while path:
            node, following = next(reversed(path.items()))
            target = next((each for each in following if each not in done), None)
            if target is None:
                done.add(node)
                del path[node]
            elif target in path:
                return target
            else:
                path[target] = iter(edges.get(target, ()))
    return None


def _text(value: IndexValue) -> str:
    return str(UUID(bytes=value)) if isinstance(value, bytes) and len(value) == 16 else repr(value)
