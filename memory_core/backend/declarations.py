"""What the kinds of a process declare. A store keeps it, as its entries are right for nothing else."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias, cast
from uuid import UUID

import msgspec

from memory_core.backend.rules import RuleCheck, check_versions
from memory_core.backend.working_set import lookups
from memory_core.codec import Codec
from memory_core.errors import MigrationNeededError, UnknownKindError
from memory_core.records import IndexValues, RecordTypes, Scalar

__all__ = ["Declarations"]

ValuesOf: TypeAlias = Callable[[str, str, UUID, bytes], IndexValues]


class Declarations:
    """What the kinds declare: their versions, lookups and indexes.

    A store keeps ``data``. Whether an entry of a lookup or an index is right depends on nothing else, so each
    transaction that writes compares it, and `DeclarationChangedError` says that another process has stored
    another.

    Args:
        types: the kinds of this process.
        codec: decodes the records of the store.

    Attributes:
        data: the declarations, as bytes.
    """

    def __init__(self, types: RecordTypes, codec: Codec) -> None:
        classes = {kind: types.cls(kind) for kind in types.kinds}
        self._types = types
        self._codec = codec
        self._lookups = {kind: lookups(cls) for kind, cls in classes.items()}
        declared = {
            kind: (
                cls.schema_version,
                self._lookups[kind],
                [(one.name, one.type.__name__, one.multi, one.fingerprint) for one in cls.indexes],
            )
            for kind, cls in classes.items()
        }
        self.data: bytes = msgspec.json.encode(declared)

    def entries(
        self, kind: str, values: IndexValues
    ) -> list[tuple[tuple[str, ...], tuple[Scalar, ...]]]:
        """The lookups that find a record, and its values for each.

        Args:
            kind: its kind.
            values: its index values; empty for a damaged record, which no lookup finds.
        """
        found = [
            (fields, cast("tuple[Scalar, ...]", tuple(values[name] for name in fields)))
            for fields in (self._lookups[kind] if values else ())
        ]
        return [item for item in found if None not in item[1]]

    def differ(self, where: object, stored: bytes | str | None, *, read_only: bool) -> bool:
        """Whether a store was last opened with other declarations, so that its entries must be made again.

        Args:
            where: the store, for errors.
            stored: what it keeps; nothing where it is new.
            read_only: whether this process may not change it.

        Raises:
            SchemaVersionError: a newer version of a kind's class has written the store.
            MigrationNeededError: they differ, and this process may not change it.
        """
        found = stored.encode() if isinstance(stored, str) else stored
        if found == self.data:
            return False
        before: Mapping[str, Any] = msgspec.json.decode(found or b"{}")
        check_versions(where, self._types, {kind: of[0] for kind, of in before.items()})
        if read_only:
            raise MigrationNeededError(str(where), "other kinds were declared")
        return True

    @contextmanager
    def rebuilding(self, where: object) -> Generator[ValuesOf]:
        """Make the entries of every record again.

        The context is a function that is called with namespace, kind, id and body of each record, and returns
        its index values, which are empty where the record is damaged.

        Args:
            where: the store, for errors.

        Raises:
            UnknownKindError: a record is of a kind that this process does not know.
            ConfigurationError: records break a rule; at the end of the context.
        """
        rules = RuleCheck(self._types)

        def values_of(namespace: str, kind: str, record_id: UUID, body: bytes) -> IndexValues:
            if kind not in self._types:
                raise UnknownKindError(str(where), {kind: 1})
            record = self._codec.decode_or_error(kind, body, record_id)
            values = None if isinstance(record, Exception) else record.index_values()
            rules.add(namespace, kind, record_id, values)
            return values or {}

        yield values_of
        rules.check(where)
