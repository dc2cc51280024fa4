"""``memory watch``: import transcripts as they grow."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import define, field

from memory_core.cli.commands import command
from memory_core.cli.imports import AUTO, named_importer, report_json, source_in, transcripts_in
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
        list[Path],
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
    for folder in folders:
        if not folder.is_dir():
            raise ConfigurationError(f"{shown(folder)}: is not a folder")
    watching = _ChangedFiles(session, session.registry.importers, named_importer(form, session))
    async with session.open(create=True) as memory, aclosing(_changes(folders)) as changes:
        watching.storing = Storing(memory.storage)
        # Watch first, so that no change is missed however long the existing files take.
        following = asyncio.ensure_future(anext(changes))
        try:
            await watching.take(path for folder in folders for path in transcripts_in(folder))
            while True:
                changed = await following
                following = asyncio.ensure_future(anext(changes))
                await watching.take(changed or watching.unread(), final=not changed)
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
            raise_interrupt=True,
        )
        async for changes in found:
            yield {Path(name) for kind, name in changes if kind != Change.deleted}

    return follow()


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
    _unread: dict[Path, FileReport] = field(factory=dict[Path, FileReport], init=False)

    def unread(self) -> list[Path]:
        """The files that could not be read completely, perhaps because they were being written."""
        return list(self._unread)

    async def take(self, paths: Iterable[Path], *, final: bool = False) -> None:
        """Import files.

        Args:
            paths: the files; missing paths and folders are ignored.
            final: whether nothing has changed for a while, so that a file that cannot be read is reported.
        """
        for path in paths:
            if not path.is_file():
                self._unread.pop(path, None)
                continue
            report = FileReport(shown(path), log=Log(shown(path)))
            for source, importer in source_in(path, self._named, self._importers, report.log):
                report = await self.storing.file(source, importer)
            if report.log.lost and not final:
                self._unread[path] = report
            else:
                self._unread.pop(path, None)
            if report.episodes > report.unchanged or final:
                self._print(report)
        await self.storing.finish()

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
