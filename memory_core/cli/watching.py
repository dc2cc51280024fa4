"""``memory watch``: import transcripts as they grow."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import define, field

from memory_core.cli.commands import command
from memory_core.cli.failures import WorkFailedError
from memory_core.cli.imports import (
    AUTO,
    given_path,
    named_importer,
    report_json,
    source_in,
    transcripts_in,
)
from memory_core.cli.session import Session
from memory_core.cli.streams import say, warn
from memory_core.errors import ConfigurationError, PluginError
from memory_core.importers.log import Log
from memory_core.importers.source import shown
from memory_core.importers.storing import FileReport, Storing

if TYPE_CHECKING:
    from memory_core.importers import Importer

__all__ = ["add_commands"]

_DEBOUNCE_MS, _STEP_MS, _IDLE_MS = 300, 50, 1_000


def add_commands(app: typer.Typer) -> None:
    """Add the command to an application."""
    command(app, "watch")(watch)


async def watch(
    session: Session,
    folders: Annotated[
        list[str],
        typer.Argument(metavar="DIR...", help="Folders of transcripts, searched recursively."),
    ],
    *,
    form: Annotated[
        str, typer.Option("--format", help="An importer's name (see memory plugins), or auto.")
    ] = AUTO,
) -> None:
    """Import transcripts and follow them as they grow, until stopped.

    It may be stopped, even killed, and started again at any time: each episode is stored once, and what
    was written in between is imported at the start.
    """
    watched = _Folders([given_path(folder) for folder in folders])
    watching = _ChangedFiles(session, session.registry.importers, named_importer(form, session))
    async with session.open(create=True) as memory, aclosing(_changes(watched.paths)) as changes:
        watching.storing = Storing(memory.storage)
        # Watch first, so that no change is missed however long the existing files take.
        following = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        try:
            await watching.take(watched.paths)
            while True:
                changed = await following
                following = asyncio.ensure_future(anext(changes))
                watched.check()
                await watching.take(changed)
                await watching.take(watching.unread(), final=True)
        finally:
            following.cancel()


def _changes(folders: Iterable[Path]) -> AsyncGenerator[set[Path], None]:
    """Yield sets of changed files; an empty set while nothing happens.

    Raises:
        PluginError: ``watchfiles`` is not installed.
    """
    try:
        from watchfiles import Change, awatch  # pyright: ignore[reportUnknownVariableType]  # it names types of trio
    except ImportError as error:
        raise PluginError(
            f"memory watch needs watchfiles: pip install 'memory-core[watch]' ({error})"
        ) from error

    async def follow() -> AsyncGenerator[set[Path], None]:
        # Every kind of file: the content decides.
        found = awatch(
            *folders,
            watch_filter=None,
            debounce=_DEBOUNCE_MS,
            step=_STEP_MS,
            rust_timeout=_IDLE_MS,
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
        async for changes in found:
            yield {
                _as_given(name, folders)
                for kind, name in changes
                # The files in a folder that was moved here are not named. Where one of them changes, its
                # folder does, too.
                if kind == Change.added or (kind == Change.modified and not os.path.isdir(name))  # noqa: ASYNC240, PTH112  # does not block
            }

    return follow()


def _as_given(name: str, folders: Iterable[Path]) -> Path:
    """A path as seen from the folder that was given, which the system names from the root."""
    for folder in folders:
        for place in (os.path.abspath(folder), os.path.realpath(folder)):  # noqa: PTH100  # keeps links
            if name == place or name.startswith(os.path.join(place, "")):  # noqa: PTH118  # as above
                return folder / os.path.relpath(name, place)
    return Path(name)


class _Folders:
    """The folders that are watched. The system follows each of them, not its name.

    Raises:
        ConfigurationError: one of them is not a folder.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._known = [_identity(path) for path in paths]
        for path, known in zip(paths, self._known, strict=True):
            if known is None:
                raise ConfigurationError(f"{shown(path)}: is not a folder")

    def check(self) -> None:
        """Check that each is where it was.

        Raises:
            WorkFailedError: one was removed or renamed, so that nothing in it would be seen any more.
        """
        for path, known in zip(self.paths, self._known, strict=True):
            if _identity(path) != known:
                raise WorkFailedError(
                    f"{shown(path)}: was removed, renamed or replaced; watch it again when it is back"
                )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None


@define
class _ChangedFiles:
    """Imports files whenever they change.

    Attributes:
        storing: stores what they hold.
    """

    _session: Session
    _importers: Mapping[str, Importer]
    _named: Importer | None
    storing: Storing = field(init=False)
    _unread: dict[Path, float] = field(factory=dict[Path, float], init=False)

    def unread(self) -> list[Path]:
        """The files that could not be read completely, and were not written to for a second since then."""
        quiet = time.monotonic() - _IDLE_MS / 1_000
        return [path for path, changed in self._unread.items() if changed <= quiet]

    async def take(self, paths: Iterable[Path], *, final: bool = False) -> None:
        """Import files, and the files in folders.

        Args:
            paths: where they are; what is not there any more is ignored.
            final: whether they have not changed for a while, so that a file that cannot be read is reported.
        """
        for path in paths:
            if path.is_dir():
                around = FileReport(shown(path), log=Log(shown(path)))
                for inner in transcripts_in(path, around.log):
                    await self._file(inner, final=final)
                if around.log.lost:
                    self._print(around)
            elif path.is_file():
                await self._file(path, final=final)
            else:
                self._unread.pop(path, None)
        await self.storing.finish()

    async def _file(self, path: Path, *, final: bool) -> None:
        report = FileReport(shown(path), log=Log(shown(path)))
        for source, importer in source_in(path, self._named, self._importers, report.log):
            report = await self.storing.file(source, importer)
        if report.log.lost and not final:
            self._unread[path] = time.monotonic()
        else:
            self._unread.pop(path, None)
        if report.episodes > report.unchanged or final:
            self._print(report)

    def _print(self, report: FileReport) -> None:
        if self._session.as_json:
            sys.stdout.write(f"{json.dumps(report_json(report))}\n")
            sys.stdout.flush()
            return
        counts = {"stored": report.stored, "kept": report.kept, "skipped": report.log.lost}
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        say(f"{report.file}: {said or 'nothing new'}")
        sys.stdout.flush()
        for error in report.skipped:
            warn(f"skipped: {error}")
