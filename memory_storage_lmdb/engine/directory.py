"""Opening a store's directory: whether it is a store, told without changing a byte of it, and a new one."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import lmdb

from memory_core.disk import is_read_only, is_unwritten, make_folder, may_access
from memory_core.errors import NotAStoreError
from memory_core.storage import StorageContext
from memory_storage_lmdb.config import LmdbConfig
from memory_storage_lmdb.engine.binding import Transaction
from memory_storage_lmdb.engine.data_file import check_whole

__all__ = ["META", "check_names", "names_of", "open_directory"]

META = b"memory/meta"
"""The database by which a directory says that it is a store."""

_DATA, _LOCK = "data.mdb", "lock.mdb"
_MAP_SIZE = 256 * 2**20
_MOST_READERS = 1_024
_MAGIC = (0xBEEFC0DE).to_bytes(4, sys.byteorder)
# The file has two pages with the magic number, of one of the sizes that systems have.
_PLACES = (0, 4_096, 16_384, 65_536)
_HEAD_BYTES = 64


def open_directory(path: str, config: LmdbConfig, context: StorageContext) -> lmdb.Environment:
    """Open the environment of a store. A missing one is made, if the context allows it.

    Raises:
        StoreNotFoundError: it is missing, and may not be made.
        NotAStoreError: it is something else; it was not changed.
        lmdb.Error, OSError: it is damaged, or cannot be used.
    """
    directory = Path(path)
    if directory.is_file():
        raise NotAStoreError(path, "it is a file; a store is a directory")
    context.check_exists(directory / _DATA, path)
    if not _is_store(directory, may_create=context.may_create):
        _make(directory)
    writable = _may_write(directory)
    env = lmdb.open(
        path,
        map_size=min(_MAP_SIZE, config.max_map_size),
        max_readers=_MOST_READERS,
        max_dbs=config.max_dbs,
        # Both syncs, or only that of the data before the meta page: never none, as the order of the
        # writes is what keeps the store whole when the power fails.
        sync=True,
        metasync=config.durability == "full",
        # Keeping an ended read transaction for the next one saves a tenth of a microsecond, and
        # leaves it a slot in the reader table that a forked child would free.
        max_spare_txns=0,
        mode=0o600,
        # A directory has one environment in a process. One that can be written serves all handles, those
        # that write and those that only read.
        readonly=context.read_only and not writable,
        # Nobody can write there, and no lock be taken.
        lock=writable or not is_read_only(directory),
    )
    try:
        check_whole(env, directory / _DATA)
        # Free the reader slots of dead processes.
        env.reader_check()
    except BaseException:
        env.close()
        raise
    return env


def _is_store(directory: Path, *, may_create: bool) -> bool:
    """Whether a directory has the data of a store; ``False`` where a new one is to be made.

    Raises:
        NotAStoreError: it has something else.
    """
    data = directory / _DATA
    if data.is_dir():
        raise NotAStoreError(str(directory), f"its {_DATA} is a directory")
    companions = (directory / _LOCK, Path(f"{directory}.search"))
    if is_unwritten(data, *companions, may_create=may_create):
        return False
    if not _has_magic(data):
        raise NotAStoreError(str(directory), f"its {_DATA} is not a file of LMDB")
    if not (directory / _LOCK).exists():
        # Opened with locks it would get a lock file. Without one, nobody has it open.
        with lmdb.open(str(directory), readonly=True, lock=False, create=False) as env:
            check_whole(env, data)
            with env.begin() as txn:
                check_names(str(directory), txn)
    return True


def check_names(path: str, txn: Transaction) -> bool:
    """Check that an environment is a store's; ``False`` where nothing is in it yet.

    Raises:
        NotAStoreError: it has databases, or other entries, of another program.
    """
    names = names_of(txn)
    if names and META not in names:
        raise NotAStoreError(path, "it is an LMDB environment of another program")
    return bool(names)


def names_of(txn: Transaction) -> list[bytes]:
    """The names of all databases, and the keys of anything else that lies beside them."""
    # LMDB 1.0 keeps names with the zero byte that ends them.
    return [name.removesuffix(b"\0") for name in txn.cursor().iternext(values=False)]


def _has_magic(data: Path) -> bool:
    """Whether a file has one of the two pages with the magic number of LMDB."""
    with data.open("rb") as file:
        for place in _PLACES:
            file.seek(place)
            head = file.read(_HEAD_BYTES)
            if _MAGIC in head:
                return True
    return False


def _make(directory: Path) -> None:
    """Make an environment without entries, which is there whole or not at all."""
    make_folder(directory)
    part = Path(mkdtemp(prefix=".new-", dir=directory))
    try:
        lmdb.open(str(part), mode=0o600, lock=False).close()
        # Another process may have made one meanwhile. Where the file system has no links, or an empty file
        # is there, LMDB writes it in its place.
        with suppress(OSError):
            os.link(part / _DATA, directory / _DATA)
    finally:
        shutil.rmtree(part)


def _may_write(directory: Path) -> bool:
    return not is_read_only(directory) and all(
        may_access(path, os.W_OK) for path in (directory, directory / _DATA)
    )
