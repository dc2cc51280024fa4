"""Export: every record of some namespaces as lines of JSON."""

from __future__ import annotations

import asyncio
import errno
import gzip
import lzma
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast
from uuid import UUID, uuid4

import zstandard
from attrs import frozen

from memory_core.disk import private_file
from memory_core.errors import ConfigurationError, StorageFullError
from memory_core.records import RecordTypes
from memory_core.records.fields import now
from memory_core.storage import Position, Storage
from memory_core.transfer.lines import LineWriter
from memory_core.transfer.progress import OnProgress, Progress, ignore_progress
from memory_core.transfer.scan import ChangeFollower, count_records, newest_position, pages

__all__ = ["ExportReport", "export_records"]


@frozen(kw_only=True)
class ExportReport:
    """What was exported.

    Attributes:
        namespaces: names of the namespaces.
        counts: records by kind; one that was changed meanwhile counts each time it was written.
        deletes: records that were written and deleted meanwhile.
        store_id: the store's identity.
        position: the store's position that the export stands for.
        settled: whether it equals the store as it was at that position; it may not if others kept
            writing.
        sha256: the checksum.
    """

    namespaces: tuple[str, ...]
    counts: Mapping[str, int]
    deletes: int
    store_id: UUID
    position: Position
    settled: bool
    sha256: str


async def export_records(
    storage: Storage,
    types: RecordTypes,
    target: Path | BinaryIO,
    *,
    namespaces: Sequence[str] | None = None,
    on_progress: OnProgress = ignore_progress,
    overwrite: bool = True,
) -> ExportReport:
    """Write every record of every kind.

    Args:
        storage: the store.
        types: its kinds.
        target: a file, which appears under its name only when it is complete and is compressed
            where its name ends in ``.gz``, ``.xz`` or ``.zst``, or a stream.
        namespaces: which ones; by default the handle's own.
        on_progress: called with the progress.
        overwrite: whether to replace a file that exists.

    Raises:
        ConfigurationError: the file cannot be written there, or exists and must not be replaced.
        UnknownKindError: the store holds records of other kinds; nothing was written.
        StorageFullError: the file's disk is full.
        StorageError: the store cannot be read, or changed more than its change feed keeps.
    """
    names = list(namespaces or [storage.namespace])
    if not isinstance(target, Path):
        return await _export(storage, types, LineWriter(target), names, on_progress)
    with _whole_or_nothing(target, overwrite=overwrite) as stream:
        return await _export(storage, types, LineWriter(stream), names, on_progress)


async def _export(
    storage: Storage,
    types: RecordTypes,
    writer: LineWriter,
    namespaces: Sequence[str],
    on_progress: OnProgress,
) -> ExportReport:
    # Each has a position of its own where namespaces are databases of their own.
    begun = {name: await newest_position(storage.scoped(name)) for name in namespaces}
    position = await newest_position(storage)
    store_id = (await storage.stats()).store_id
    total = await count_records(storage, types, namespaces)
    writer.header(
        types, store_id=store_id, position=position, created_at=now(), namespaces=namespaces
    )
    for name in namespaces:
        scoped = storage.scoped(name)
        for kind in types.kinds:
            async for records in pages(scoped, types.cls(kind)):
                for record in records:
                    writer.record(name, record)
                on_progress(Progress(writer.counts.total(), total))
                # A backend that reads inline never suspends: let other tasks run.
                await asyncio.sleep(0)
    settled = True
    for name, since in begun.items():
        follower = ChangeFollower(storage.scoped(name), types, since)
        async for present, gone in follower:
            for record in present:
                writer.record(name, record)
            for kind, record_id in gone:
                writer.delete(name, kind, record_id)
        settled = settled and follower.settled
        position = max(position, follower.position)
    trailer = writer.trailer(settled=settled, position=position)
    return ExportReport(
        namespaces=tuple(namespaces),
        counts=trailer.counts,
        deletes=trailer.deletes,
        store_id=store_id,
        position=position,
        settled=settled,
        sha256=trailer.sha256,
    )


@contextmanager
def _whole_or_nothing(path: Path, *, overwrite: bool) -> Generator[BinaryIO]:
    """A stream to a file that appears under its name only after success."""
    if path.is_dir():
        raise ConfigurationError(f"{path}: is a directory")
    if path.exists() and not path.is_file():
        # A device or pipe cannot be replaced.
        with _explained(path), path.open("wb") as stream:
            yield stream
        return
    _check_new(path, overwrite=overwrite)
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        with _explained(path):
            with open(part, "xb", opener=private_file) as stream:  # it takes an opener
                _keep_mode(path, stream)
                with _compressed(path, stream) as content:
                    yield content
                stream.flush()
                os.fsync(stream.fileno())
            _check_new(path, overwrite=overwrite)
            part.replace(path)
            _sync_directory(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _keep_mode(path: Path, stream: BinaryIO) -> None:
    """Give the stream's file the permissions of the one that it replaces, if there is one."""
    if os.name == "posix" and path.exists():
        os.fchmod(stream.fileno(), path.stat().st_mode & 0o777)


def _check_new(path: Path, *, overwrite: bool) -> None:
    if not overwrite and (path.exists() or path.is_symlink()):
        raise ConfigurationError(f"{path}: exists already; --overwrite replaces it")


@contextmanager
def _compressed(path: Path, stream: BinaryIO) -> Generator[BinaryIO]:
    """The stream, or one that compresses into it as the end of the file's name says."""
    match path.suffix.lower():
        case ".gz":
            with gzip.GzipFile(path.stem, "wb", compresslevel=6, fileobj=stream) as content:
                yield cast("BinaryIO", content)
        case ".xz":
            with lzma.LZMAFile(stream, "wb") as content:
                yield cast("BinaryIO", content)
        case ".zst":
            with zstandard.ZstdCompressor().stream_writer(stream, closefd=False) as content:
                yield cast("BinaryIO", content)
        case _:
            yield stream


def _sync_directory(directory: Path) -> None:
    if os.name != "nt":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _explained(path: Path) -> Generator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = f"{path}: {error.strerror or error}"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFullError(reason) from error
        raise ConfigurationError(reason) from error
