import errno
import inspect
import os

import lmdb
import pytest

from memory_core import disk
from memory_core.errors import (
    ConfigurationError,
    MemoryCoreError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from memory_storage_lmdb.engine import binding

DRIVER_ERRORS = [
    value for _, value in inspect.getmembers(lmdb, inspect.isclass) if issubclass(value, lmdb.Error)
]


@pytest.mark.parametrize("kind", DRIVER_ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_of_the_driver_is_mapped(kind):
    assert kind.__name__ in binding._ERRORS
    error = binding.translate(kind("mdb_something"), "/some/path")
    assert isinstance(error, MemoryCoreError)
    assert "/some/path" in str(error)


def test_the_context_manager_keeps_the_cause():
    original = lmdb.CorruptedError("mdb_get")
    with pytest.raises(StorageError) as raised, binding.translated("/p"):
        raise original
    assert raised.value.__cause__ is original


def driver_error(code, *, old=False):
    """As the driver makes it; older versions have the code in the message only."""
    error = lmdb.Error(f"mdb_txn_commit: {os.strerror(code)}")
    if not old:
        error.code = code
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), StorageFullError),
        (OSError(errno.EDQUOT, "quota"), StorageFullError),
        (driver_error(errno.ENOSPC), StorageFullError),
        (driver_error(errno.ENOSPC, old=True), StorageFullError),
        (driver_error(errno.EFBIG), StorageFullError),
        (driver_error(errno.EACCES), ConfigurationError),
        (driver_error(errno.EACCES, old=True), ConfigurationError),
        (PermissionError(errno.EACCES, "no"), ConfigurationError),
        (NotADirectoryError(errno.ENOTDIR, "no"), ConfigurationError),
        (driver_error(errno.EIO), StorageError),
        (lmdb.InvalidError("mdb_env_open"), StorageError),
        (lmdb.VersionMismatchError("mdb_env_open"), StorageError),
        (lmdb.MapFullError("mdb_put"), StorageFullError),
        (lmdb.TxnFullError("mdb_put"), StorageFullError),
        (lmdb.ReadersFullError("mdb_txn_begin"), StorageUnavailableError),
        (lmdb.DbsFullError("mdb_dbi_open"), ConfigurationError),
    ],
)
def test_the_translation_of_an_error(error, expected, tmp_path):
    (tmp_path / "data.mdb").touch()
    assert type(binding.translate(error, str(tmp_path))) is expected


@pytest.mark.parametrize("old", [False, True])
def test_a_write_that_was_cut_short_means_a_full_disk(monkeypatch, tmp_path, old):
    (tmp_path / "data.mdb").touch()

    def full(**_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(disk, "TemporaryFile", full)
    error = binding.translate(driver_error(errno.EIO, old=old), str(tmp_path))
    assert type(error) is StorageFullError
    assert list(tmp_path.iterdir()) == [tmp_path / "data.mdb"]
