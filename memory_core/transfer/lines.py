"""The export format: lines of JSON with a header, a trailer and a checksum.

::

    {"format":"memory-core export","version":1,"store_id":…,"position":…,"created_at":…,
     "namespaces":["default"],"kinds":{"episode":1,…}}
    {"namespace":"default","record":{"kind":"episode","id":…,…}}
    {"namespace":"default","delete":{"kind":"step","id":…}}
    {"end":true,"lines":2,"counts":{"episode":1},"deletes":1,"settled":true,"position":…,"sha256":…}

``kinds`` gives each kind's schema version. If several lines concern one record, the last one counts:
changes made while the store was read follow at the end. The checksum is over every byte before the
trailer, so a file that was cut off or altered is told from a whole one before anything is loaded.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, BinaryIO, TypeAlias
from uuid import UUID

import msgspec
from attrs import define, field

from memory_core.codec.json_objects import record_from_json, record_to_json
from memory_core.errors import CodecError, MemoryCoreError, SchemaVersionError
from memory_core.records import Record, RecordTypes
from memory_core.storage import Delete, Put, check_namespace

__all__ = ["Header", "Line", "LineReader", "LineWriter", "Trailer"]

FORMAT = "memory-core export"
VERSION = 1
_CHUNK = 2**20
_LONGEST_TRAILER = 2**20
_LONGEST_LINE = 512 * 2**20

Line: TypeAlias = tuple[str, Put | Delete]
"""A namespace and an operation in it."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line."""

    format: str
    version: int
    store_id: UUID
    position: int
    created_at: datetime
    namespaces: tuple[str, ...]
    kinds: Mapping[str, int]


class Trailer(msgspec.Struct, frozen=True, kw_only=True):
    """The last line."""

    end: bool
    lines: int
    counts: Mapping[str, int]
    deletes: int
    settled: bool
    position: int
    sha256: str


class _Deleted(msgspec.Struct, frozen=True):
    kind: str
    id: UUID


class _ExportLine(msgspec.Struct, frozen=True):
    namespace: str
    record: dict[str, Any] | None = None
    delete: _Deleted | None = None


_ENCODER = msgspec.json.Encoder()
_EXPORT_LINE = msgspec.json.Decoder(_ExportLine)


@define
class LineWriter:
    """Writes an export and computes its counts and checksum.

    Attributes:
        counts: lines with a record, by kind.
        deletes: lines with a delete.
    """

    stream: BinaryIO
    counts: Counter[str] = field(factory=Counter[str], init=False)
    deletes: int = field(default=0, init=False)
    _sum: Any = field(factory=hashlib.sha256, init=False)

    def header(
        self,
        types: RecordTypes,
        *,
        store_id: UUID,
        position: int,
        created_at: datetime,
        namespaces: Sequence[str],
    ) -> None:
        """Write the first line."""
        kinds = {kind: types.cls(kind).schema_version for kind in types.kinds}
        header = Header(
            format=FORMAT,
            version=VERSION,
            store_id=store_id,
            position=position,
            created_at=created_at,
            namespaces=tuple(namespaces),
            kinds=kinds,
        )
        self._write(header)

    def record(self, namespace: str, record: Record) -> None:
        """Write a record."""
        self._write({"namespace": namespace, "record": record_to_json(record)})
        self.counts[record.kind] += 1

    def delete(self, namespace: str, kind: str, record_id: UUID) -> None:
        """Write the deletion of a record."""
        self._write({"namespace": namespace, "delete": {"kind": kind, "id": record_id}})
        self.deletes += 1

    def trailer(self, *, settled: bool, position: int) -> Trailer:
        """Write the last line."""
        trailer = Trailer(
            end=True,
            lines=self.counts.total() + self.deletes,
            counts=dict(self.counts),
            deletes=self.deletes,
            settled=settled,
            position=position,
            sha256=self._sum.hexdigest(),
        )
        self.stream.write(_ENCODER.encode(trailer) + b"\n")
        return trailer

    def _write(self, value: object) -> None:
        line = _ENCODER.encode(value) + b"\n"
        self._sum.update(line)
        self.stream.write(line)


class LineReader:
    """Reads an export, after checking that it is complete; needs a stream that can seek.

    Args:
        stream: the file.
        types: the kinds its records may have.
        name: its name in messages.

    Raises:
        CodecError: when the file is not an export, was cut off or altered.
        SchemaVersionError: when a newer version wrote it, or records of it.
    """

    def __init__(self, stream: BinaryIO, types: RecordTypes, name: str) -> None:
        self._stream = stream
        self._types = types
        self._name = name
        stream.seek(0)
        first = stream.readline(_LONGEST_TRAILER)
        self._start = len(first)
        self.header = self._check_header(first)
        self.trailer, self._end = self._read_trailer()
        self._check_sum()

    def __iter__(self) -> Iterator[tuple[int, int, Line]]:
        """The offset, size and content of each line.

        Raises:
            CodecError: for a line that fits no record; names the line.
        """
        self._stream.seek(self._start)
        offset, number = self._start, 1
        while offset < self._end:
            data = self._stream.readline(_LONGEST_LINE)
            number += 1
            yield offset, len(data), self._parsed(data, f"line {number}")
            offset += len(data)
        if number - 1 != self.trailer.lines:
            raise self._broken(f"{number - 1} lines where {self.trailer.lines} were written")

    def at(self, offset: int) -> Line:
        """The content of the line at an offset."""
        self._stream.seek(offset)
        return self._parsed(self._stream.readline(_LONGEST_LINE), f"byte {offset}")

    def _check_header(self, line: bytes) -> Header:
        try:
            header = msgspec.json.decode(line, type=Header)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._broken("is not an export of memory-core") from error
        if header.format != FORMAT:
            raise self._broken("is not an export of memory-core")
        if header.version > VERSION:
            raise SchemaVersionError(self._name, header.version, VERSION)
        return header

    def _read_trailer(self) -> tuple[Trailer, int]:
        size = self._stream.seek(0, os.SEEK_END)
        self._stream.seek(max(self._start, size - _LONGEST_TRAILER))
        tail = self._stream.read()
        cut_off = self._broken("was cut off: its last line is not the one that ends an export")
        if not tail.endswith(b"\n"):
            raise cut_off
        line = tail[tail.rfind(b"\n", 0, -1) + 1 :]
        try:
            trailer = msgspec.json.decode(line, type=Trailer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise cut_off from error
        self._check_kinds(trailer)
        return trailer, size - len(line)

    def _check_kinds(self, trailer: Trailer) -> None:
        unknown = sorted(kind for kind in trailer.counts if kind not in self._types)
        if unknown:
            held = ", ".join(f"{trailer.counts[kind]} of kind {kind!r}" for kind in unknown)
            raise self._broken(f"holds records that no installed plugin declares: {held}")
        for kind in trailer.counts:
            supported = self._types.cls(kind).schema_version
            if self.header.kinds.get(kind, 1) > supported:
                raise SchemaVersionError(
                    f"{self._name}: {kind}", self.header.kinds[kind], supported
                )

    def _check_sum(self) -> None:
        checksum = hashlib.sha256()
        self._stream.seek(0)
        left = self._end
        while left and (chunk := self._stream.read(min(left, _CHUNK))):
            checksum.update(chunk)
            left -= len(chunk)
        if checksum.hexdigest() != self.trailer.sha256:
            raise self._broken("was altered: its checksum does not match")

    def _parsed(self, data: bytes, where: str) -> Line:
        try:
            body = _EXPORT_LINE.decode(data)
            namespace = check_namespace(body.namespace)
            if body.record is not None:
                return namespace, Put(record_from_json(self._types, body.record))
            if body.delete is not None:
                return namespace, Delete(body.delete.kind, body.delete.id)
        except RecursionError as error:
            raise self._broken(f"{where}: it is nested too deeply") from error
        except (msgspec.DecodeError, UnicodeDecodeError, MemoryCoreError) as error:
            raise self._broken(f"{where}: {error}") from error
        raise self._broken(f"{where}: neither a record nor a delete")

    def _broken(self, reason: str) -> CodecError:
        return CodecError(f"{self._name}: {reason}")
