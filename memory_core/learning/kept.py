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
import stat
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from struct import Struct
from typing import Annotated, BinaryIO, TypeAlias

import msgspec
from attrs import frozen

from memory_core.disk import make_folder, private_file, remove_unfinished, replacement
from memory_core.following import Bookmark
from memory_core.learning import extracting
from memory_core.learning.extracting import Extractor
from memory_core.learning.vocabulary import Vocabulary

__all__ = ["Kept", "facts_of", "program_of", "read_facts", "write_facts"]

_LOG = logging.getLogger("memory_core")
_FORMAT = 2
_DIGEST = 16
_PIECE = 2**20
_LENGTH = Struct("<Q")
_LARGEST = 4 * 2**30
"""Of a file that is read, in bytes: those of a million episodes with the most facts that are kept of one. A
larger file would be read for long before it is known to be damaged.
"""
_FACT = array("I").itemsize
_KEY, _EPISODE = Struct("<II"), Struct("<16sI")


class _DamagedError(Exception):
    """A file is not as it was written."""


@frozen(eq=False)
class Kept:
    """What a file of facts has.

    Attributes:
        bookmark: how far the facts have come.
        vocabulary: what each number means.
        episodes: what each episode shows, by the number that its id is; see `facts_of`.
        shown: what some episodes show, by itself: those that show the same are one object.
    """

    bookmark: Bookmark
    vocabulary: Vocabulary
    episodes: dict[int, bytes]
    shown: dict[bytes, bytes]


_Whole: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Head(msgspec.Struct, array_like=True, frozen=True):
    format: int
    program: bytes
    position: _Whole
    change: _Whole
    mark: bytes
    texts: list[str]
    size: _Whole
    keys: _Whole


def facts_of(shown: bytes) -> array[int]:
    """The numbers of the facts that an episode shows; the first byte says whether it succeeded."""
    return array("I", shown[1:])


def program_of(extractors: Iterable[Extractor]) -> bytes | None:
    """A digest of the program that finds facts: the extractors, in their order, with the modules beside them;
    ``None`` if one has no file.
    """
    digest = hashlib.blake2b(f"{_FORMAT} {sys.byteorder} {_FACT}".encode())
    try:
        sources = [
            Path(extracting.__file__),
            *(
                Path(extracting.__file__).with_name(name)
                for name in ("learned.py", "vocabulary.py")
            ),
        ]
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


def write_facts(file: Path, program: bytes, kept: Kept) -> bool:
    """Write facts to a file, which appears when it is whole; that it cannot be written is logged.

    Args:
        file: the file.
        program: as by `program_of`.
        kept: the facts; the keys that no episode has are removed first.

    Returns:
        Whether it is written.
    """
    kept.vocabulary.tidy(fully=True)
    digest = hashlib.blake2b(digest_size=_DIGEST)
    try:
        make_folder(file.parent)
        with replacement(file) as out:
            for piece in _pieces(program, kept):
                digest.update(piece)
                out.write(piece)
            out.write(digest.digest())
    except OSError as error:
        # The facts are in memory, and the next process computes them from the episodes.
        _LOG.warning("%s: what was counted to learn is not kept: %s", file, error)
        return False
    return True


def read_facts(file: Path, program: bytes) -> Kept | None:
    """The facts in a file; ``None`` if it is missing, damaged, of another program, or over 4 GiB.

    What killed processes left beside it is removed.

    Args:
        file: the file.
        program: as by `program_of`.
    """
    remove_unfinished(file)
    try:
        with open(file, "rb", opener=_without_waiting) as source:  # Path.open takes no opener
            content = _whole(source)
    except OSError:
        return None
    if content is None:
        return None
    try:
        return _parsed(content, program)
    except (_DamagedError, struct.error, msgspec.DecodeError, UnicodeDecodeError):
        # The head of another format, or content that no process wrote with these modules.
        return None


def _without_waiting(file: str, flags: int) -> int:
    # Opening a pipe waits for somebody who writes into it.
    return private_file(file, flags | getattr(os, "O_NONBLOCK", 0))


def _whole(source: BinaryIO) -> memoryview | None:
    """The content of a file without its digest; ``None`` if this is wrong.

    Little memory is taken before the digest is known to be right: a damaged file may have any size.
    """
    status = os.fstat(source.fileno())
    if not stat.S_ISREG(status.st_mode) or not _DIGEST <= status.st_size <= _LARGEST:
        return None
    digest, left = hashlib.blake2b(digest_size=_DIGEST), status.st_size - _DIGEST
    while piece := source.read(min(_PIECE, left)):
        digest.update(piece)
        left -= len(piece)
    if left or source.read(_DIGEST) != digest.digest():
        return None
    source.seek(0)
    return memoryview(source.read(status.st_size - _DIGEST))


def _parsed(content: memoryview, program: bytes) -> Kept | None:
    """The facts in the content of a file; ``None`` if it is of another program.

    Raises:
        _DamagedError, struct.error, msgspec.DecodeError, UnicodeDecodeError: it is not as `_parts` writes it.
    """
    head, end = _head(content)
    if (head.format, head.program) != (_FORMAT, program):
        return None
    # The numbers of keys that are gone are few, and a key takes more than one byte.
    _fits(head.size <= len(content))
    codes: dict[bytes, int] = {}
    for _ in range(head.keys):
        number, length = _KEY.unpack_from(content, end)
        code, end = _slice(content, end + _KEY.size, length)
        codes[code] = number
    _fits(len(codes) == len(set(codes.values())) == head.keys)
    _fits(not codes or max(codes.values()) < head.size)
    vocabulary = Vocabulary(head.texts, codes, head.size)
    episodes: dict[int, bytes] = {}
    same: dict[bytes, bytes] = {}
    while end < len(content):
        one, length = _EPISODE.unpack_from(content, end)
        shown, end = _slice(content, end + _EPISODE.size, length)
        episode_id, known = int.from_bytes(one), same.get(shown)
        _fits(episode_id not in episodes)
        _fits(shown[:1] in (b"\0", b"\1") and len(shown) % _FACT == 1)
        facts = facts_of(shown)
        if known is None:
            _fits(not facts or max(facts) < head.size)
            _fits(len(set(facts)) == len(facts))
            same[shown] = known = shown
        episodes[episode_id] = known
        vocabulary.count(facts, success=bool(shown[0]))
    _fits(vocabulary.is_sound())
    return Kept(Bookmark(head.position, head.change, head.mark), vocabulary, episodes, same)


def _head(content: memoryview) -> tuple[_Head, int]:
    """The head, and where it ends."""
    (length,) = _LENGTH.unpack_from(content)
    head, end = _slice(content, _LENGTH.size, length)
    return msgspec.msgpack.decode(head, type=_Head), end


def _slice(content: memoryview, start: int, length: int) -> tuple[bytes, int]:
    """So many bytes, and where they end."""
    end = start + length
    _fits(end <= len(content))
    return bytes(content[start:end]), end


def _fits(condition: bool) -> None:
    if not condition:
        raise _DamagedError


def _pieces(program: bytes, kept: Kept) -> Iterator[bytes]:
    piece = bytearray()
    for part in _parts(program, kept):
        piece += part
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _parts(program: bytes, kept: Kept) -> Iterator[bytes]:
    mark, known = kept.bookmark, kept.vocabulary
    head = msgspec.msgpack.encode(
        _Head(
            _FORMAT,
            program,
            mark.position,
            mark.change,
            mark.mark,
            list(known.texts),
            len(known.uses),
            len(known),
        )
    )
    yield _LENGTH.pack(len(head)) + head
    for code, number in known.codes.items():
        yield _KEY.pack(number, len(code)) + code
    for one, shown in kept.episodes.items():
        yield _EPISODE.pack(one.to_bytes(16), len(shown)) + shown
