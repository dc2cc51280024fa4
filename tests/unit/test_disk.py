"""What is made under another name appears when it is whole."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from memory_core.disk import disk_failure, has_room, new_backup
from memory_core.errors import ConfigurationError, StorageError, StorageFullError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end(tmp_path):
    target = tmp_path / "copy"
    with new_backup(target) as growing:
        growing.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert names(tmp_path) == ["copy"]


def test_a_folder_appears_at_the_end(tmp_path):
    target = tmp_path / "copy"
    with new_backup(target) as growing:
        growing.mkdir()
        (growing / "data").write_text("whole")
    assert names(target) == ["data"]
    (tmp_path / "made").mkdir()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE((tmp_path / "made").stat().st_mode)


def test_everything_is_on_the_disk_before_it_appears(tmp_path, monkeypatch):
    target, synced = tmp_path / "copy", []
    fsync = os.fsync

    def noting(descriptor):
        synced.append((os.fstat(descriptor).st_ino, target.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    with new_backup(target) as growing:
        growing.mkdir()
        (growing / "data").write_text("whole")
    inodes = [path.stat().st_ino for path in (target / "data", target, tmp_path)]
    assert synced == list(zip(inodes, (False, False, True), strict=True))


def test_what_is_there_stays(tmp_path):
    target = tmp_path / "copy"
    target.write_text("mine")
    with pytest.raises(ConfigurationError, match="exists"), new_backup(target):
        pytest.fail("it exists")
    target.unlink()
    target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="exists"), new_backup(target):
        pytest.fail("it exists")
    assert names(tmp_path) == ["copy"]


def test_what_comes_meanwhile_stays(tmp_path):
    target = tmp_path / "copy"

    def write():
        with new_backup(target) as growing:
            growing.write_text("copy")
            target.write_text("mine")

    with pytest.raises(ConfigurationError, match="exists"):
        write()
    assert target.read_text() == "mine"
    assert names(tmp_path) == ["copy"]


def test_an_error_leaves_nothing(tmp_path):
    def write():
        with new_backup(tmp_path / "copy") as growing:
            growing.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, StorageFullError),
        (errno.EDQUOT, StorageFullError),
        (errno.EROFS, ConfigurationError),
        (errno.EACCES, ConfigurationError),
        (errno.ENAMETOOLONG, ConfigurationError),
        (errno.EIO, StorageError),
    ],
)
def test_what_the_system_says(code, kind):
    failure = disk_failure(OSError(code, os.strerror(code)), "/some/path")
    assert type(failure) is kind
    assert "/some/path" in str(failure)
    assert os.strerror(code) in str(failure)


def test_room(tmp_path):
    assert has_room(tmp_path / "file")
    assert names(tmp_path) == []
