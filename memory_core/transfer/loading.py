"""Load: the records of an export into a store."""

from __future__ import annotations

import asyncio
import gzip
import lzma
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import zstandard
from attrs import frozen

from memory_core.disk import disk_failure
from memory_core.errors import CodecError, ConfigurationError
from memory_core.records import RecordTypes
from memory_core.storage import Delete, Put, Storage, check_namespace
from memory_core.transfer.lines import LineReader
from memory_core.transfer.progress import OnProgress, Progress, ignore_progress
from memory_core.transfer.sink import Key, Refusal, Sink

__all__ = ["Export", "LoadReport", "load_export", "load_records", "open_export"]

_GZIP, _XZ, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_UNREADABLE = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError)
_BATCH_BYTES = 4 * 2**20
_BATCH_LINES = 500


@frozen(kw_only=True)
class LoadReport:
    """What was loaded.

    Attributes:
        namespaces: names of the namespaces that were loaded into.
        counts: records put, by kind.
        deletes: deletes applied.
        refused: the first hundred operations that the store rejected.
        refused_count: the number of rejected operations.
    """

    namespaces: tuple[str, ...]
    counts: Mapping[str, int]
    deletes: int
    refused: tuple[Refusal, ...]
    refused_count: int


@frozen
class Export:
    """An export whose completeness has been checked.

    Attributes:
        reader: reads it.
        namespaces: names of the namespaces to load into.
        into: the namespace to load into, instead of each record's own.
    """

    reader: LineReader
    namespaces: tuple[str, ...]
    into: str | None


async def load_records(
    storage: Storage,
    types: RecordTypes,
    source: Path | BinaryIO,
    *,
    into: str | None = None,
    on_progress: OnProgress = ignore_progress,
) -> LoadReport:
    """Put the records of an export into a store; records with the same ids are replaced.

    The whole export is checked before anything is written. One that is compressed (gzip, xz, zstd), or a
    stream that cannot seek, is first copied to a temporary file. Loading the same file again changes nothing.

    Args:
        storage: the store.
        types: its kinds.
        source: a file or a stream.
        into: the namespace to load into; by default each record's own.
        on_progress: called with the progress.

    Raises:
        ConfigurationError: the file does not exist, or ``into`` would mix several namespaces.
        CodecError: the file is not an export, was cut off or altered; nothing was written.
        SchemaVersionError: a newer version wrote it; nothing was written.
        StorageError: the store failed; loading the export again completes it.
    """
    with open_export(types, source, into=into) as export:
        return await load_export(storage, export, on_progress=on_progress)


@contextmanager
def open_export(
    types: RecordTypes, source: Path | BinaryIO, *, into: str | None = None
) -> Generator[Export]:
    """Check a whole export, so that a damaged one is rejected before a store is created.
    Arguments and errors are those of ``load_records``.
    """
    if into is not None:
        check_namespace(into)
    with _seekable(source) as (stream, name):
        reader = LineReader(stream, types, name)
        yield Export(reader, _namespaces(reader, into, name), into)


async def load_export(
    storage: Storage, export: Export, *, on_progress: OnProgress = ignore_progress
) -> LoadReport:
    """Put the records of an opened export into a store; see ``load_records``."""
    reader, into = export.reader, export.into
    sink: Sink[int] = Sink(storage)
    put: Counter[str] = Counter()
    done = 0

    def count(operations: Sequence[Put | Delete]) -> int:
        put.update(item.record.kind for item in operations if isinstance(item, Put))
        return sum(isinstance(item, Delete) for item in operations)

    async def again(waiting: Sequence[tuple[Key, int]]) -> list[Put | Delete | None]:
        return [reader.at(offset)[1] for _, offset in waiting]

    deletes = 0
    for namespace, operations, offsets in _batches(reader):
        deletes += count(await sink.write(into or namespace, operations, offsets))
        done += len(operations)
        on_progress(Progress(done, reader.trailer.lines))
        await asyncio.sleep(0)
    deletes += count(await sink.finish(again))
    return LoadReport(
        namespaces=export.namespaces,
        counts=dict(put),
        deletes=deletes,
        refused=tuple(sink.refusals.first),
        refused_count=sink.refusals.count,
    )


def _batches(reader: LineReader) -> Iterator[tuple[str, list[Put | Delete], list[int]]]:
    """Operations of one namespace with the offsets of their lines, some at a time."""
    namespace = ""
    operations: list[Put | Delete] = []
    offsets: list[int] = []
    size = 0
    for offset, length, (name, operation) in reader:
        full = len(operations) >= _BATCH_LINES or size + length > _BATCH_BYTES
        if operations and (full or name != namespace):
            yield namespace, operations, offsets
            operations, offsets, size = [], [], 0
        namespace = name
        operations.append(operation)
        offsets.append(offset)
        size += length
    if operations:
        yield namespace, operations, offsets


@contextmanager
def _seekable(source: Path | BinaryIO) -> Generator[tuple[BinaryIO, str]]:
    """An export's bytes, decompressed, as a stream that can seek, and what messages call it."""
    if not isinstance(source, Path):
        with _plain(source, "the stream") as stream:
            yield stream, "the stream"
        return
    try:
        opened = source.open("rb")
    except OSError as error:
        raise ConfigurationError(f"{source}: {error.strerror or error}") from error
    with opened, _plain(opened, str(source)) as stream:
        yield stream, str(source)


@contextmanager
def _plain(stream: BinaryIO, name: str) -> Generator[BinaryIO]:
    """The stream, or a temporary copy of one that is compressed or cannot seek."""
    with ExitStack() as stack:
        if not stream.seekable():
            stream = stack.enter_context(_spooled(stream, name))
        stream.seek(0)
        magic = stream.read(len(_XZ))
        stream.seek(0)
        if magic.startswith(_GZIP):
            unpacked = stack.enter_context(gzip.GzipFile(fileobj=stream))
            stream = stack.enter_context(_spooled(unpacked, name))
        elif magic == _XZ:
            unpacked = stack.enter_context(lzma.LZMAFile(stream))
            stream = stack.enter_context(_spooled(unpacked, name))
        elif magic.startswith(_ZSTD):
            reader = zstandard.ZstdDecompressor().stream_reader(stream, closefd=False)
            stream = stack.enter_context(_spooled(cast("BinaryIO", reader), name))
        yield stream


@contextmanager
def _spooled(stream: BinaryIO | gzip.GzipFile | lzma.LZMAFile, name: str) -> Generator[BinaryIO]:
    """A temporary copy of a stream."""
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(stream, copy)
            copy.seek(0)
        except _UNREADABLE as error:
            raise CodecError(f"{name}: cannot be decompressed: {error}") from error
        except OSError as error:
            raise disk_failure(error, f"{name}: its copy in the temporary folder") from error
        yield copy


def _namespaces(reader: LineReader, into: str | None, name: str) -> tuple[str, ...]:
    held = reader.header.namespaces
    if into is None:
        return held
    if len(held) > 1:
        raise ConfigurationError(
            f"{name}: holds several namespaces ({', '.join(held)}), which cannot be loaded into one"
        )
    return (into,)
