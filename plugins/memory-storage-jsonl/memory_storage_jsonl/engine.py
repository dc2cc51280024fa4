"""The engine behind all handles: the reference model in memory, and the log that restores it.

A commit is applied to the model, to learn its effects or its error, and reverted; its effects are
written to the log; only then does the model apply them for good. So readers never wait for the disk,
and never see changes that a crash could still undo.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast
from weakref import WeakMethod

from attrs import evolve

from memory_core.backend import ChangeFeed, Effect, ModelStore, QueuedBatch, Stored
from memory_core.coalesce import GroupCommit
from memory_core.disk import make_folder
from memory_core.errors import (
    CodecError,
    ConfigurationError,
    MemoryCoreError,
    SchemaVersionError,
    StorageError,
)
from memory_core.storage import (
    CommitResult,
    Position,
    Receipt,
    StorageContext,
    WriteBatch,
    local_path,
)
from memory_storage_jsonl.config import JsonlConfig
from memory_storage_jsonl.entries import (
    Changed,
    Deleted,
    Entry,
    PutRecord,
    change_line,
    decode,
    delete_line,
    put_line,
)
from memory_storage_jsonl.frames import Frame
from memory_storage_jsonl.log import Log

__all__ = ["Engine"]

T = TypeVar("T")

# Bytes that a change takes in a compacted log, roughly.
_CHANGE_BYTES = 130


class Engine(ModelStore):
    """An open store. Opening reads the whole log: call it in a thread.

    Args:
        location: path of the log.
        config: options.
        context: kinds and limits.

    Raises:
        StorageUnavailableError: the store is open elsewhere.
        OSError: the file cannot be used.
        StoreNotFoundError: it is missing, and may not be created.
        NotAStoreError: it is not a log; it was not changed.
        CodecError: it is damaged.
        ConfigurationError: the path is a directory, a stored kind is unknown, or records break a rule.
        SchemaVersionError: a newer version wrote it.
    """

    def __init__(self, location: str, config: JsonlConfig, context: StorageContext) -> None:
        path = local_path(location)
        context.check_exists(path)
        super().__init__(context, config.change_feed_limit, ("batches_refused", "changes"))
        self.config = config
        self.failed_compactions = 0
        if context.may_create:
            make_folder(path.parent)
        self.log = Log(
            path,
            sync=config.durability == "full",
            may_create=context.may_create,
            read_only=context.read_only,
        )
        self._replay_all()
        self.commits = GroupCommit[QueuedBatch, CommitResult](
            self._write, weigh=lambda item: item.weight
        )
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="memory-storage-jsonl")
        self._compacted_size = 0
        self.metrics.add(self._sections)

    async def commit(self, namespace: str, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches; the group they are part of shares one frame."""
        return await self.commits.submit(QueuedBatch.of(namespace, batches))

    async def wipe(self, namespace: str) -> Position:
        """Delete every record of a namespace."""
        (result,) = await self.commits.submit([QueuedBatch(namespace, None)])
        if isinstance(result, MemoryCoreError):
            raise result
        return result.position

    def _sections(self) -> dict[str, dict[str, Any]]:
        """Statistics since the store was opened."""
        log = {
            "bytes": self.log.size,
            "live_bytes": self.model.size_bytes,
            "syncs": self.log.syncs,
            "torn_bytes": self.log.torn_bytes,
            "rewrites": self.log.rewrites,
            "failed_compactions": self.failed_compactions,
        }
        return {
            "counters": {**self.counters, **self.commits.stats()},
            "log": log,
            "groups": self.commits.distributions(),
        }

    async def close(self) -> None:
        """Finish what was accepted, then release everything."""
        await self.commits.aclose()
        self.abandon()

    def abandon(self) -> None:
        """Release the thread, once it has written what it writes, and the file with its lock."""
        self._writer.shutdown()
        self.log.close()

    async def _write(self, items: list[QueuedBatch]) -> list[CommitResult]:
        plan = self.model.plan(items, self.feed.position)
        self.counters["batches_refused"] += sum(
            not isinstance(result, Receipt) for result in plan.results
        )
        if plan.effects:
            loop = asyncio.get_running_loop()
            position = self.feed.position + len(plan.effects)
            done = await loop.run_in_executor(
                self._writer, _call, WeakMethod(self._log_effects), plan.effects, position
            )
            self.model.replay(done)
            self.feed.extend(done)
            self.counters["changes"] += len(done)
            if self._is_due():
                await loop.run_in_executor(self._writer, _call, WeakMethod(self._compact))
        return plan.results

    def _log_effects(self, effects: list[Effect], position: Position) -> list[Effect]:
        """Append a frame; returns the effects with the sizes that their records have in the log."""
        lines = [_effect_line(effect) for effect in effects]
        self.log.append(lines, position)
        return [_sized(effect, len(line)) for effect, line in zip(effects, lines, strict=True)]

    def _is_due(self) -> bool:
        """Whether enough of the log is obsolete, and it has grown enough since the last compaction to
        keep the cost at a constant share of all writing.
        """
        size, share = self.log.size, self.config.compact_ratio
        if size < max(self.config.compact_min_bytes, self._compacted_size / (1 - share)):
            return False
        kept = self.feed.position - self.feed.trimmed_to
        obsolete = size - self.model.size_bytes - kept * _CHANGE_BYTES
        return obsolete > share * size and not self.log.has_other_names

    def _compact(self) -> None:
        try:
            self.log.rewrite(self._snapshot(), self.feed.position)
        except StorageError:
            # The commit itself is safe in the old log: retry when that has grown.
            self.failed_compactions += 1
        self._compacted_size = self.log.size

    def _snapshot(self) -> Iterator[bytes]:
        for namespace, stored in self.model.entries():
            yield put_line(namespace, stored.record, is_change=False)
        for namespace, change in self.feed.after(self.feed.trimmed_to):
            yield change_line(namespace, change)

    def _replay_all(self) -> None:
        try:
            for frame in self.log.frames():
                self._replay(frame)
            self.model.check_rules(str(self.log.path))
        except BaseException:
            self.log.close()
            raise

    def _replay(self, frame: Frame) -> None:
        entries = [self._decoded(frame, place) for place in range(len(frame.lines))]
        told = sum(not (isinstance(entry, PutRecord) and not entry.is_change) for entry in entries)
        if told < len(entries) or isinstance(entries[0], Changed):
            # A compacted log: its changes are the last ones before its position.
            self.feed = ChangeFeed(self.config.change_feed_limit, frame.position - told)
        for entry, line in zip(entries, frame.lines, strict=True):
            self._replay_entry(entry, len(line))
        if self.feed.position != frame.position:
            raise CodecError(
                f"{self.log.path}, line {frame.first_line}: leads to position {self.feed.position}, "
                f"not to {frame.position}"
            )

    def _replay_entry(self, entry: Entry, size: int) -> None:
        match entry:
            case PutRecord(namespace=namespace, record=record):
                stored = Stored(record, record.index_values(), size)
                effect = Effect(namespace, record.kind, record.id, None, stored)
                self._redo(effect, is_change=entry.is_change)
            case Deleted(namespace=namespace, kind=kind, id=record_id):
                self._redo(Effect(namespace, kind, record_id, None, None), is_change=True)
            case Changed(namespace=namespace, kind=kind, id=record_id, operation=operation):
                self.feed.append(namespace, kind, record_id, operation)

    def _redo(self, effect: Effect, *, is_change: bool) -> None:
        self.model.replay([effect])
        if is_change:
            self.feed.extend([effect])

    def _decoded(self, frame: Frame, place: int) -> Entry:
        try:
            return decode(self.model.types, frame.lines[place])
        except MemoryCoreError as error:
            at = frame.offset + sum(map(len, frame.lines[:place]))
            where = f"{self.log.path}, line {frame.first_line + place} (offset {at})"
            if isinstance(error, SchemaVersionError):
                newer = f"{where}: {error.where}"
                raise SchemaVersionError(newer, error.found, error.supported) from error
            cls = CodecError if isinstance(error, CodecError) else ConfigurationError
            raise cls(f"{where}: {error}") from error


def _call(method: WeakMethod[Callable[..., T]], *arguments: Any) -> T:
    """Call a method of an engine that its caller keeps.

    A thread keeps what it was given for a moment longer than the caller waits. If that were the engine,
    the file of a forgotten store would stay locked.
    """
    return cast("Callable[..., T]", method())(*arguments)


def _effect_line(effect: Effect) -> bytes:
    if effect.after is None:
        return delete_line(effect.namespace, effect.kind, effect.id)
    return put_line(effect.namespace, effect.after.record)


def _sized(effect: Effect, size: int) -> Effect:
    return effect if effect.after is None else evolve(effect, after=evolve(effect.after, size=size))
