"""Repairing a damaged log: keep what can be read, say what cannot, and write a log that opens.

Whole commits are kept as they are. Of a commit that does not match its checksum each line is kept that can
be read by itself; it may have been changed. A record that then breaks a rule, such as an edge to an episode
that is lost, is dropped as well.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from attrs import define, field, frozen

from memory_core.backend import Effect, Model, Stored
from memory_core.disk import private_file
from memory_core.errors import CodecError, ConfigurationError, MemoryCoreError
from memory_core.records import Limits, RecordTypes
from memory_core.storage import Position
from memory_storage_jsonl.entries import Changed, Deleted, PutRecord, decode, put_line
from memory_storage_jsonl.frames import Frame, Rest, parts
from memory_storage_jsonl.log import Log

__all__ = ["Dropped", "Repair", "repair"]

_COMMIT = b'{"commit":'
_INTERRUPTED = "of a commit that was interrupted, and never acknowledged"


@frozen
class Dropped:
    """What a repair drops.

    Attributes:
        line: the number of a line, from 1; 0 for a record that breaks a rule.
        reason: why.
        content: the line, or the record as a line.
    """

    line: int
    reason: str
    content: bytes


@define
class Repair:
    """What can be kept of a log.

    Attributes:
        path: the log.
        commits: how many commits are whole.
        records: how many records are kept.
        unchecked: the numbers of lines that are kept though the checksum of their commit does not match.
        dropped: what is not kept.
        is_damaged: whether the log does not open as it is.
        position: the last position that a whole commit led to.
        copy: the copy of the log as it was; ``None`` where nothing was written.
    """

    path: Path
    commits: int = 0
    records: int = 0
    unchecked: list[int] = field(factory=list[int])
    dropped: list[Dropped] = field(factory=list[Dropped])
    is_damaged: bool = False
    position: Position = 0
    copy: Path | None = None


def repair(path: Path, types: RecordTypes, *, write: bool = False) -> Repair:
    """Find out what can be kept of a log, and perhaps write it in its place.

    The new log has another store id, so that caches and indexes which know the old one start over. It has
    no earlier changes in its feed.

    Args:
        path: the log, which no process may have open.
        types: the kinds.
        write: whether to replace it, if it is damaged; a copy of it is kept beside it.

    Raises:
        ConfigurationError: it has records of a kind that no plugin declares, or several names.
        NotAStoreError: its first line is not the header of a log.
        SchemaVersionError: a newer version wrote it.
        StorageUnavailableError: it is open elsewhere.
        StorageFullError: no room for the copy or the new log; the log is as it was.
        OSError: it cannot be read, or the copy cannot be written.
    """
    log = Log(path, sync=True, may_create=False, read_only=not write)
    try:
        found = Repair(path)
        model = Model(types, Limits())
        for namespace, entry, size in _entries(found, types):
            _replay(model, namespace, entry, size)
        _drop_what_breaks_rules(found, model)
        found.records = sum(1 for _ in model.entries())
        if write and found.is_damaged:
            if log.has_other_names:
                raise ConfigurationError(f"{path} has other names (hard links); remove them first")
            found.copy = _copied(path)
            kept = (put_line(name, item.record, is_change=False) for name, item in model.entries())
            log.rewrite(kept, found.position, store_id=uuid4())
        return found
    finally:
        log.close()


def _entries(found: Repair, types: RecordTypes) -> Iterator[tuple[str, PutRecord | Deleted, int]]:
    """What can be read, in order: namespace, entry and size of its line."""
    for part in parts(found.path):
        if isinstance(part, Frame):
            found.commits += 1
            found.position = part.position
            lines = [(part.first_line + at, line) for at, line in enumerate(part.lines)]
        else:
            damage = part.damage() is not None
            found.is_damaged |= damage
            lines = [(number, line) for number, _, line in part.lines]
            if not damage:
                found.dropped += [Dropped(number, _INTERRUPTED, line) for number, line in lines]
                continue
        for number, line in lines:
            if isinstance(part, Rest) and line.startswith(_COMMIT):
                continue
            try:
                entry = decode(types, line)
            except CodecError as error:
                found.is_damaged = True
                found.dropped.append(Dropped(number, error.reason, line))
                continue
            if isinstance(part, Rest):
                found.unchecked.append(number)
            if not isinstance(entry, Changed):
                yield entry.namespace, entry, len(line)


def _replay(model: Model, namespace: str, entry: PutRecord | Deleted, size: int) -> None:
    if isinstance(entry, Deleted):
        effect = Effect(namespace, entry.kind, entry.id, None, None)
    else:
        record = entry.record
        stored = Stored(record, record.index_values(), size)
        effect = Effect(namespace, record.kind, record.id, None, stored)
    model.replay([effect])


def _drop_what_breaks_rules(found: Repair, model: Model) -> None:
    """Remove the records that could not be put; of those with the same unique value the last one stays."""
    complete = False
    while not complete:
        complete = True
        for namespace, stored in list(model.entries()):
            record = stored.record
            try:
                model.apply(namespace, [stored])
            except MemoryCoreError as error:
                complete, found.is_damaged = False, True
                line = put_line(namespace, record, is_change=False)
                found.dropped.append(Dropped(0, str(error), line))
                model.replay([Effect(namespace, record.kind, record.id, None, None)])


def _copied(path: Path) -> Path:
    """A durable copy of a log beside it, of a name that no file has."""
    copy = path.with_name(f"{path.name}.damaged-{uuid4().hex[:8]}")
    fd = private_file(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with path.open("rb") as source, os.fdopen(fd, "wb") as target:
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())
    return copy
