"""Writing of records into a store in any order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeAlias, TypeVar
from uuid import UUID

from attrs import define, field, frozen

from memory_core.errors import (
    CycleError,
    DuplicateError,
    MemoryCoreError,
    OutcomeUnknownError,
    ReferenceNotFoundError,
    ReferenceRestrictedError,
    StorageClosedError,
    StorageFullError,
    StorageUnavailableError,
)
from memory_core.storage import CommitResult, Delete, Put, Storage, WriteBatch

__all__ = ["Key", "Refusal", "Refusals", "Sink", "key_of"]

Token = TypeVar("Token")
Key: TypeAlias = tuple[str, str, UUID]
"""Namespace, kind and id."""

# These errors may disappear once the other records are there.
_MAY_PASS_LATER = (
    CycleError,
    DuplicateError,
    ReferenceNotFoundError,
    ReferenceRestrictedError,
)
# These errors are not about the record: it would be accepted at another time.
_STORE_FAILED = (
    OutcomeUnknownError,
    StorageClosedError,
    StorageFullError,
    StorageUnavailableError,
)
_KEPT = 100
_RETRIED_AT_ONCE = 100


@frozen
class Refusal:
    """An operation that the store rejected for good.

    Attributes:
        namespace: of the record.
        kind: of the record.
        id: of the record.
        error: why.
    """

    namespace: str
    kind: str
    id: UUID
    error: MemoryCoreError


@define
class Refusals:
    """The first rejections, and their number."""

    first: list[Refusal] = field(factory=list[Refusal])
    count: int = 0

    def add(self, key: Key, error: MemoryCoreError) -> None:
        """Count one, and keep it when it is among the first."""
        self.count += 1
        if len(self.first) < _KEPT:
            self.first.append(Refusal(*key, error))


Fetch: TypeAlias = Callable[[Sequence[tuple[Key, Token]]], Awaitable[list[Put | Delete | None]]]
"""Fetches operations again by their tokens; ``None`` for one that is no longer needed."""


@define
class Sink(Generic[Token]):
    """Writes operations in batches. An operation that is rejected because another record is still
    missing, or still present, is set aside under a small token and retried at the end.

    Attributes:
        storage: any handle on the store; each operation names its namespace.
        refusals: operations that were rejected for good.
    """

    storage: Storage
    refusals: Refusals = field(factory=Refusals)
    _aside: dict[Key, Token] = field(factory=dict[Key, Token], init=False)

    async def write(
        self, namespace: str, operations: Sequence[Put | Delete], tokens: Sequence[Token]
    ) -> list[Put | Delete]:
        """Write operations of one namespace; return those that were applied.

        Raises:
            StorageError: the store failed, rather than reject single operations.
        """
        errors = await self._commit(namespace, operations)
        applied: list[Put | Delete] = []
        for operation, token, error in zip(operations, tokens, errors, strict=True):
            key = key_of(namespace, operation)
            # An operation set aside for this record before is older.
            self._aside.pop(key, None)
            if error is None:
                applied.append(operation)
            elif isinstance(error, _MAY_PASS_LATER):
                self._aside[key] = token
            else:
                self.refusals.add(key, error)
        return applied

    async def finish(self, fetch: Fetch[Token]) -> list[Put | Delete]:
        """Retry the operations that were set aside, as long as that makes progress; return the applied
        ones. The rest counts as rejected.
        """
        applied: list[Put | Delete] = []
        backwards = False
        while self._aside:
            waiting = list(self._aside.items())
            # Otherwise a chain of references in reverse order would take one pass per link.
            self._aside = {}
            last: list[tuple[Key, MemoryCoreError]] = []
            for chunk in _chunks(waiting[::-1] if backwards else waiting):
                applied += await self._retry(chunk, fetch, last)
            backwards = not backwards
            if len(self._aside) == len(waiting):
                for key, error in last:
                    self.refusals.add(key, error)
                self._aside = {}
        return applied

    async def _retry(
        self,
        chunk: list[tuple[Key, Token]],
        fetch: Fetch[Token],
        errors: list[tuple[Key, MemoryCoreError]],
    ) -> list[Put | Delete]:
        applied: list[Put | Delete] = []
        fetched = zip(chunk, await fetch(chunk), strict=True)
        wanted = [(key, token, item) for (key, token), item in fetched if item is not None]
        for namespace in dict.fromkeys(key[0] for key, _, _ in wanted):
            own = [entry for entry in wanted if entry[0][0] == namespace]
            results = await self._commit(namespace, [item for _, _, item in own])
            for (key, token, item), error in zip(own, results, strict=True):
                if error is None:
                    applied.append(item)
                else:
                    self._aside[key] = token
                    errors.append((key, error))
        return applied

    async def _commit(
        self, namespace: str, operations: Sequence[Put | Delete]
    ) -> list[MemoryCoreError | None]:
        """Apply operations; returns for each the error that rejected it, or ``None``.

        Raises:
            StorageError: the store failed; some may have been applied.
        """
        if not operations:
            return []
        scoped = self.storage.scoped(namespace)
        (result,) = await scoped.commit([WriteBatch(tuple(operations))])
        if not isinstance(result, MemoryCoreError):
            return [None] * len(operations)
        # One operation failed the whole batch: alone, each gets its own answer. Some also need less room.
        if not isinstance(result, StorageFullError):
            _check_well([result])
        results = await scoped.commit([WriteBatch((operation,)) for operation in operations])
        _check_well(results)
        return [item if isinstance(item, MemoryCoreError) else None for item in results]


def _check_well(results: Sequence[CommitResult]) -> None:
    for result in results:
        if isinstance(result, _STORE_FAILED):
            raise result


def key_of(namespace: str, operation: Put | Delete) -> Key:
    """The record that an operation concerns."""
    if isinstance(operation, Put):
        return namespace, operation.record.kind, operation.record.id
    return namespace, operation.kind, operation.id


def _chunks(items: Iterable[tuple[Key, Token]]) -> Iterator[list[tuple[Key, Token]]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _RETRIED_AT_ONCE)):
        yield chunk
