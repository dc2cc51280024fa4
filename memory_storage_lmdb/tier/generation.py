"""Which file a tier's entries are in, and whether what is in it can be trusted.

The tier does not wait for the disk, so its file survives the end of any process but perhaps not that
of the machine: LMDB pages may then be missing in the middle of it, which nothing would notice. So it
is used only if the machine has not been restarted since it was begun, or if all of it had been
written to the disk and nothing was added afterwards. Otherwise a new file, a *generation*, is begun.

``current`` names the generation's file and the boot of the machine in which it was last opened. A
generation's lock file bears its name, so no process ever has the one of another generation.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil
from attrs import frozen

__all__ = ["Generation", "Generations"]

_POINTER = "current"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@frozen
class Generation:
    """What ``current`` says.

    Attributes:
        name: the file's name.
        boot: the boot of the machine in which it was last opened.
    """

    name: str
    boot: str


class Generations:
    """The files of one tier.

    Args:
        folder: where they are; made when missing.
        boot: which boot of the machine this is; found out by default.
    """

    def __init__(self, folder: Path, boot: str | None = None) -> None:
        self._folder = folder
        self._boot = boot or _boot_of_machine()
        self._pointer = folder / _POINTER
        self._seen: tuple[int, int] | None = None

    def settle(self) -> Path:
        """The file to open: that of the current generation, or of a new one.

        Raises:
            OSError: the folder cannot be used.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._seen = self._identity()
        current = self._read()
        if current is None:
            return self.begin("")
        if not self._trusted(current):
            return self.begin(current.name)
        if current.boot != self._boot:
            self._point_at(Generation(current.name, self._boot))
            self._seen = self._identity()
        return self._folder / current.name

    def begin(self, old: str) -> Path:
        """A file of a new generation, unless another process has begun one since that of name ``old``."""
        found = self._read()
        if found is None or found.name == old:
            self._point_at(Generation(f"tier-{uuid4().hex}.mdb", self._boot))
        # Of two processes that begin one at the same time, the later one names it.
        self._seen = self._identity()
        found = self._read()
        name = found.name if found else "tier-lost.mdb"
        self._remove_others(name)
        return self._folder / name

    @property
    def superseded(self) -> bool:
        """Whether another process may have begun a generation since this one settled."""
        return self._identity() != self._seen

    def note_written(self, path: Path) -> None:
        """Note, before it is committed, that a write is not on the disk yet. Under the write lock."""
        marker = _marker(path)
        if marker.exists():
            marker.unlink(missing_ok=True)
            _sync_folder(self._folder)

    def note_synced(self, path: Path) -> None:
        """Note that all that was ever written is on the disk. Under the write lock."""
        _marker(path).touch()
        _sync_folder(self._folder)

    def _trusted(self, generation: Generation) -> bool:
        # A file that is not there yet is about to be made by whoever named it.
        return generation.boot == self._boot or _marker(self._folder / generation.name).exists()

    def _read(self) -> Generation | None:
        try:
            name, boot = self._pointer.read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            return None
        # It names a file beside it and nothing else, whatever it says.
        return Generation(name, boot) if Path(name).name == name else None

    def _point_at(self, generation: Generation) -> None:
        part = self._pointer.with_name(f".{uuid4().hex}")
        part.write_text(f"{generation.name} {generation.boot}\n", encoding="utf-8")
        part.replace(self._pointer)

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._pointer.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _remove_others(self, name: str) -> None:
        for path in self._folder.glob("tier-*"):
            if not path.name.startswith(name):
                # Some systems refuse it while another process has it open: then the next one will.
                with suppress(OSError):
                    path.unlink()


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}-synced")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # it has no such thing
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _boot_of_machine() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        # To the minute, as setting the clock moves it. A wrong guess costs the entries.
        return f"minute-{round(psutil.boot_time() / 60)}"
