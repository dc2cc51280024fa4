"""Check that a data file has all its pages: reading a page past its end kills the process (SIGBUS).

A file may be shorter than LMDB's count of pages and still be whole: pages that one transaction both takes
and frees are never written. These are in the free list, which the driver does not show. So for a file that
is short, and for no other, the free list is read here, in the format of LMDB 0.9 (``struct MDB_meta``,
``MDB_page`` and ``MDB_node`` in its ``mdb.c``).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import lmdb
from attrs import frozen

__all__ = ["check_whole", "is_cut_off"]

_META = struct.Struct("=IIQQ")
_TREE = struct.Struct("=IHHQQQQQ")
_META_END = struct.Struct("=QQ")
_PAGE = struct.Struct("=QHHHH")
_NODE = struct.Struct("=HHHH")
_NUMBER = struct.Struct("=Q")
_VERSION = 1
_BRANCH, _LEAF = 0x01, 0x02
_BIG = 0x01
_EMPTY_TREE = 2**64 - 1
_DEEPEST = 32
_ATTEMPTS = 100


class _UnreadableError(Exception):
    """The free list is damaged or cut off itself. It never leaves this module."""


def check_whole(env: lmdb.Environment, file: Path) -> None:
    """Check that an environment's file has all its pages.

    Raises:
        lmdb.CorruptedError: otherwise.
    """
    if is_cut_off(env, file):
        raise lmdb.CorruptedError(f"{file}: its end is missing")


def is_cut_off(env: lmdb.Environment, file: Path) -> bool:
    """Whether pages that are in use lie beyond the end of an environment's file."""
    for _ in range(_ATTEMPTS):
        size = env.stat()["psize"]
        # In this order, because other writing processes extend the file before they raise the count.
        pages = env.info()["last_pgno"] + 1
        there = file.stat().st_size // size
        if pages <= there:
            return False
        # The transaction keeps other processes from writing over the pages of its snapshot.
        with env.begin() as txn, file.open("rb", buffering=0) as opened:
            try:
                found = _FreePages(opened.fileno(), size).missing(txn.id(), there)
            except (_UnreadableError, struct.error):
                return True
        if found is not None:
            return found
    return True


@frozen
class _FreePages:
    """The free list of a data file: a B-tree from transactions to the pages that each one freed."""

    descriptor: int
    page_size: int

    def missing(self, snapshot: int, there: int) -> bool | None:
        """Whether pages from number ``there`` on are in use; ``None`` if the snapshot's meta page has
        been overwritten in the meantime.
        """
        for number in (0, 1):
            page = self._page(number)
            _, version, _, _ = _META.unpack_from(page, _PAGE.size)
            at = _PAGE.size + _META.size
            *_, root = _TREE.unpack_from(page, at)
            last, written = _META_END.unpack_from(page, at + 2 * _TREE.size)
            if version != _VERSION:
                raise _UnreadableError
            if written == snapshot:
                needed = set(range(there, last + 1))
                return bool(needed.difference(self._free(root, _DEEPEST)))
        return None

    def _free(self, number: int, depth: int) -> Iterator[int]:
        if number == _EMPTY_TREE:
            return
        if not depth:
            raise _UnreadableError
        page = self._page(number)
        _, _, flags, lower, _ = _PAGE.unpack_from(page)
        for at in range(_PAGE.size, min(lower, self.page_size), 2):
            (node,) = struct.unpack_from("=H", page, at)
            low, high, node_flags, key_size = _NODE.unpack_from(page, node)
            if flags & _BRANCH:
                yield from self._free(low | high << 16 | node_flags << 32, depth - 1)
            elif flags & _LEAF:
                data = page[node + _NODE.size + key_size :][: low | high << 16]
                if node_flags & _BIG:
                    (first,) = _NUMBER.unpack_from(data)
                    data = self._read(first * self.page_size + _PAGE.size, low | high << 16)
                yield from self._listed(data)
            else:
                raise _UnreadableError

    @staticmethod
    def _listed(data: bytes) -> tuple[int, ...]:
        (count,) = _NUMBER.unpack_from(data)
        if (count + 1) * _NUMBER.size > len(data):
            raise _UnreadableError
        return struct.unpack_from(f"={count}Q", data, _NUMBER.size)

    def _page(self, number: int) -> bytes:
        return self._read(number * self.page_size, self.page_size)

    def _read(self, offset: int, size: int) -> bytes:
        try:
            data = os.pread(self.descriptor, size, offset)
        except (OSError, OverflowError) as error:
            raise _UnreadableError from error
        if len(data) < size:
            raise _UnreadableError
        return data
