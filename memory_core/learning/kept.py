"""The facts of a namespace in a file beside its store: the next process reads only episodes changed since.

The file can be deleted at any time. It counts only where it is whole, and was made by the same extractors:
it has a digest of itself and of the program that found the facts. Whether it belongs to the store's history
is for the follower to say, by its bookmark.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from struct import Struct
from uuid import UUID

import msgspec
from attrs import frozen

from memory_core.disk import make_folder, private_file
from memory_core.following import Bookmark
from memory_core.learning import extracting
from memory_core.learning.extracting import Extractor, Fact

__all__ = ["Key", "Shown", "program_of", "read_facts", "write_facts"]

_LOG = logging.getLogger("memory_core")
_FORMAT = 1
_DIGEST = 16
_PIECE = 2**20
_LENGTH, _EPISODE = Struct("<Q"), Struct("<16s?I")

# The name of the extractor, the domain, and the fact; without a fact, the whole domain.
Key = tuple[str, str, Fact]


@frozen
class Shown:
    """What an episode shows.

    Attributes:
        facts: the numbers of its facts.
        success: whether it succeeded.
    """

    facts: array[int]
    success: bool


class _Head(msgspec.Struct, array_like=True, frozen=True):
    format: int
    program: bytes
    position: int
    change: int
    mark: bytes
    keys: list[tuple[str, str, tuple[str, ...]] | None]


def program_of(extractors: Iterable[Extractor]) -> bytes | None:
    """A digest of the program that finds facts: the extractors, in their order, with the modules beside them;
    ``None`` if one has no file.
    """
    digest = hashlib.blake2b(f"{_FORMAT} {sys.byteorder} {array('I').itemsize}".encode())
    try:
        sources = [Path(extracting.__file__), Path(extracting.__file__).with_name("learned.py")]
        for extractor in extractors:
            kind = type(extractor)
            digest.update(f"{kind.__module__}.{kind.__qualname__}\n".encode())
            source = Path(inspect.getfile(kind))
            package = getattr(sys.modules[kind.__module__], "__package__", None)
            sources += sorted(source.parent.glob("*.py")) if package else [source]
        for source in dict.fromkeys(sources):
            digest.update(hashlib.blake2b(source.read_bytes()).digest())
    except (OSError, TypeError):
        return None
    return digest.digest()


def write_facts(
    file: Path,
    program: bytes,
    bookmark: Bookmark,
    keys: Sequence[Key | None],
    episodes: Mapping[UUID, Shown],
) -> None:
    """Write facts to a file, which appears when it is whole; that it cannot be written is logged.

    Args:
        file: the file.
        program: as by `program_of`.
        bookmark: how far the facts have come.
        keys: what each number means.
        episodes: what each episode shows.
    """
    head = msgspec.msgpack.encode(
        _Head(_FORMAT, program, bookmark.position, bookmark.change, bookmark.mark, list(keys))
    )
    made = file.with_name(f"{file.name}.{os.getpid()}")
    digest = hashlib.blake2b(digest_size=_DIGEST)
    try:
        make_folder(file.parent)
        with open(made, "wb", opener=private_file) as out:  # Path.open takes no opener
            for piece in _pieces(head, episodes):
                digest.update(piece)
                out.write(piece)
            out.write(digest.digest())
        made.replace(file)
    except OSError as error:
        # The facts are in memory, and the next process computes them from the episodes.
        _LOG.warning("%s: what was counted to learn is not kept: %s", file, error)
        with suppress(OSError):
            made.unlink(missing_ok=True)


def read_facts(
    file: Path, program: bytes
) -> tuple[Bookmark, list[Key | None], dict[UUID, Shown]] | None:
    """The facts in a file; ``None`` if it is missing, damaged, or of another program.

    Args:
        file: the file.
        program: as by `program_of`.
    """
    try:
        content = memoryview(file.read_bytes())
    except OSError:
        return None
    whole, digest = content[:-_DIGEST], content[-_DIGEST:]
    if len(content) < _DIGEST + _LENGTH.size or (
        hashlib.blake2b(whole, digest_size=_DIGEST).digest() != bytes(digest)
    ):
        return None
    start = _LENGTH.size
    end = start + _LENGTH.unpack(whole[:start])[0]
    try:
        head = msgspec.msgpack.decode(whole[start:end], type=_Head)
    except msgspec.DecodeError:
        # The head of another format.
        return None
    if (head.format, head.program) != (_FORMAT, program):
        return None
    episodes: dict[UUID, Shown] = {}
    while end < len(whole):
        one, success, length = _EPISODE.unpack_from(whole, end)
        start = end + _EPISODE.size
        end = start + length
        facts = array("I")
        facts.frombytes(whole[start:end])
        episodes[UUID(bytes=one)] = Shown(facts, success)
    return Bookmark(head.position, head.change, head.mark), list(head.keys), episodes


def _pieces(head: bytes, episodes: Mapping[UUID, Shown]) -> Iterator[bytes]:
    piece = bytearray(_LENGTH.pack(len(head)))
    piece += head
    for one, shown in episodes.items():
        facts = shown.facts.tobytes()
        piece += _EPISODE.pack(one.bytes, shown.success, len(facts))
        piece += facts
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)
