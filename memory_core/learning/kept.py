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
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from struct import Struct

import msgspec
from attrs import frozen

from memory_core.disk import make_folder, private_file
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
_KEY, _EPISODE = Struct("<II"), Struct("<16sI")


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


class _Head(msgspec.Struct, array_like=True, frozen=True):
    format: int
    program: bytes
    position: int
    change: int
    mark: bytes
    texts: list[str]
    size: int
    keys: int


def facts_of(shown: bytes) -> array[int]:
    """The numbers of the facts that an episode shows; the first byte says whether it succeeded."""
    return array("I", shown[1:])


def program_of(extractors: Iterable[Extractor]) -> bytes | None:
    """A digest of the program that finds facts: the extractors, in their order, with the modules beside them;
    ``None`` if one has no file.
    """
    digest = hashlib.blake2b(f"{_FORMAT} {sys.byteorder} {array('I').itemsize}".encode())
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


def write_facts(file: Path, program: bytes, kept: Kept) -> None:
    """Write facts to a file, which appears when it is whole; that it cannot be written is logged.

    Args:
        file: the file.
        program: as by `program_of`.
        kept: the facts; the keys that no episode has are removed first.
    """
    kept.vocabulary.tidy(fully=True)
    made = file.with_name(f"{file.name}.{os.getpid()}")
    digest = hashlib.blake2b(digest_size=_DIGEST)
    try:
        make_folder(file.parent)
        with open(made, "wb", opener=private_file) as out:  # Path.open takes no opener
            for piece in _pieces(program, kept):
                digest.update(piece)
                out.write(piece)
            out.write(digest.digest())
        made.replace(file)
    except OSError as error:
        # The facts are in memory, and the next process computes them from the episodes.
        _LOG.warning("%s: what was counted to learn is not kept: %s", file, error)
        with suppress(OSError):
            made.unlink(missing_ok=True)


def read_facts(file: Path, program: bytes) -> Kept | None:
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
    codes: dict[bytes, int] = {}
    for _ in range(head.keys):
        number, length = _KEY.unpack_from(whole, end)
        start = end + _KEY.size
        end = start + length
        codes[bytes(whole[start:end])] = number
    vocabulary = Vocabulary(head.texts, codes, head.size)
    episodes: dict[int, bytes] = {}
    same: dict[bytes, bytes] = {}
    while end < len(whole):
        one, length = _EPISODE.unpack_from(whole, end)
        start = end + _EPISODE.size
        end = start + length
        shown = bytes(whole[start:end])
        episodes[int.from_bytes(one)] = same.setdefault(shown, shown)
        vocabulary.count(facts_of(shown), success=bool(shown[0]))
    return Kept(Bookmark(head.position, head.change, head.mark), vocabulary, episodes, same)


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
