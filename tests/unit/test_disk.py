"""What is made under another name appears when it is whole."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys

import pytest

from memory_core.disk import (
    disk_failure,
    has_room,
    new_backup,
    remove_unfinished,
    replacement,
)
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


def test_a_replacement_appears_at_the_end(tmp_path):
    file = tmp_path / "facts"
    file.write_text("before")
    with replacement(file) as out:
        out.write(b"after")
        assert file.read_text() == "before"
    assert file.read_text() == "after"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(KeyError), replacement(file) as out:
        raise KeyError
    assert file.read_text() == "after"
    assert names(tmp_path) == ["facts"]


def test_of_unfinished_replacements_those_of_killed_processes_are_removed(tmp_path):
    file = tmp_path / "facts"
    code = (
        "import os, signal, sys; from pathlib import Path; from memory_core.disk import replacement\n"
        "with replacement(Path(sys.argv[1])) as out:\n"
        "    out.write(b'secret'); out.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", code, file], check=False)
        assert run.returncode == -signal.SIGKILL
        # The second one has removed what the first one left.
        assert len(names(tmp_path)) == 1
    with replacement(file) as mine:
        [growing] = names(tmp_path)
        with replacement(file) as out:
            out.write(b"other")
        remove_unfinished(file)
        assert names(tmp_path) == ["facts", growing]
        mine.write(b"mine")
    assert file.read_bytes() == b"mine"
    assert names(tmp_path) == ["facts"]
    for other in ("facts.bak", "facts.4711"):
        (tmp_path / other).touch()
    remove_unfinished(file)
    # The other was left by an earlier version.
    assert names(tmp_path) == ["facts", "facts.bak"]


def test_a_replacement_that_was_removed_before_it_was_locked_is_begun_again(tmp_path, monkeypatch):
    import fcntl

    locked, flock = [], fcntl.flock

    def removing(descriptor, flags):
        if not locked:
            for path in tmp_path.iterdir():
                path.unlink()
        locked.append(flags)
        flock(descriptor, flags)

    monkeypatch.setattr(fcntl, "flock", removing)
    with replacement(tmp_path / "facts") as out:
        out.write(b"whole")
    assert len(locked) == 2
    assert names(tmp_path) == ["facts"]
