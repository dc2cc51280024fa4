"""``memory import``: agent transcripts as episodes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from attrs import define, field

from memory_core.cli.commands import command
from memory_core.cli.failures import WorkFailedError
from memory_core.cli.session import Session
from memory_core.errors import ConfigurationError, ImportFormatError, MemoryCoreError
from memory_core.importers import Importer, detect
from memory_core.records import Episode
from memory_core.storage import WriteBatch

if TYPE_CHECKING:
    from memory_core.memory import Memory

__all__ = ["FileReport", "add_commands", "import_file"]

_BATCH = 100
_AUTO = "auto"


@define
class FileReport:
    """What became of one file.

    Attributes:
        file: its path.
        format: the importer that read it; "" when none did.
        stored: episodes that were new or had changed.
        unchanged: episodes that were there already.
        skipped: what was left out, and why.
    """

    file: str
    format: str = ""
    stored: int = 0
    unchanged: int = 0
    skipped: list[ImportFormatError] = field(factory=list[ImportFormatError])


def add_commands(app: typer.Typer) -> None:
    """Add the command to an application."""
    command(app, "import")(import_files)


async def import_files(
    session: Session,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Transcripts, also compressed ones.")
    ],
    *,
    form: Annotated[
        str, typer.Option("--format", help="An importer's name (see memory plugins), or auto.")
    ] = _AUTO,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Leave out what cannot be read, and list it.")
    ] = False,
) -> None:
    """Store the episodes of agent transcripts.

    The same file a second time changes nothing. Without --keep-going, nothing is stored unless every
    file can be read whole.
    """
    from memory_core.cli import output

    if not keep_going:
        for path in files:
            _check_readable(path)
    chosen = [
        (path, _importer(path, form, session.registry.importers, keep_going)) for path in files
    ]
    if not keep_going:
        for path, importer in chosen:
            _check(path, importer)
    reports: list[FileReport] = []
    async with session.open(create=True) as memory:
        with output.progress_bar("importing") as on_progress:
            for path, importer in chosen:
                done = sum(report.stored + report.unchanged for report in reports)

                def count(more: int, done: int = done) -> None:
                    from memory_core.transfer import Progress

                    on_progress(Progress(done + more, 0))

                reports.append(await import_file(memory, path, importer, keep_going, count))
    _print(session, reports)
    skipped = [error for report in reports for error in report.skipped]
    for error in skipped:
        sys.stderr.write(f"skipped: {error}\n")
    if skipped:
        raise WorkFailedError(f"{len(skipped)} entries were skipped")


async def import_file(
    memory: Memory,
    path: Path,
    importer: Importer | ImportFormatError,
    keep_going: bool,
    on_progress: Callable[[int], None] = lambda _: None,
) -> FileReport:
    """Store the episodes of one file that are not there just so.

    Raises:
        ImportFormatError: something cannot be read, unless ``keep_going``.
        WorkFailedError: something cannot be stored, unless ``keep_going``.
    """
    if isinstance(importer, ImportFormatError):
        return FileReport(str(path), skipped=[importer])
    report = FileReport(str(path), importer.name)
    for batch in _batches(importer.read(path, keep_going=keep_going), report.skipped):
        await _store(memory, batch, report, keep_going)
        on_progress(report.stored + report.unchanged)
    return report


def _importer(
    path: Path,
    form: str,
    importers: Mapping[str, Importer],
    keep_going: bool,
) -> Importer | ImportFormatError:
    if form != _AUTO:
        if form not in importers:
            known = ", ".join((_AUTO, *importers))
            raise ConfigurationError(f"unknown format {form!r}; known: {known}")
        return importers[form]
    try:
        return detect(path, importers.values())
    except ImportFormatError as error:
        if not keep_going:
            raise
        return error


def _check_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error


def _check(path: Path, importer: Importer | ImportFormatError) -> None:
    """Read a file to its end, so that a malformed entry is found before anything is stored."""
    if not isinstance(importer, ImportFormatError):
        for _ in importer.read(path):
            pass


def _batches(
    found: Iterator[Episode | ImportFormatError], skipped: list[ImportFormatError]
) -> Iterator[list[Episode]]:
    batch: list[Episode] = []
    for item in found:
        if isinstance(item, ImportFormatError):
            skipped.append(item)
            continue
        batch.append(item)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


async def _store(
    memory: Memory,
    batch: Sequence[Episode],
    report: FileReport,
    keep_going: bool,
) -> None:
    there = await memory.storage.get(Episode, [episode.id for episode in batch])
    changed = [new for new, old in zip(batch, there, strict=True) if new != old]
    report.unchanged += len(batch) - len(changed)
    if not changed:
        return
    (result,) = await memory.storage.commit([WriteBatch().put(*changed)])
    if not isinstance(result, MemoryCoreError):
        report.stored += len(changed)
        return
    # One of them spoilt it for all: apart, each gets its own answer.
    results = await memory.storage.commit([WriteBatch().put(episode) for episode in changed])
    for episode, refused in zip(changed, results, strict=True):
        if not isinstance(refused, MemoryCoreError):
            report.stored += 1
            continue
        error = ImportFormatError(report.file, str(refused), entry=f"episode {episode.id}")
        if not keep_going:
            raise WorkFailedError(str(error)) from refused
        report.skipped.append(error)


def _print(session: Session, reports: Sequence[FileReport]) -> None:
    if session.as_json:
        session.write_json(
            {
                "files": [_json(report) for report in reports],
                "stored": sum(report.stored for report in reports),
                "unchanged": sum(report.unchanged for report in reports),
                "skipped": sum(len(report.skipped) for report in reports),
            }
        )
        return
    from memory_core.cli import output

    right: dict[str, Any] = {"justify": "right"}
    columns = ["file", "format", ("stored", right), ("unchanged", right), ("skipped", right)]
    table = output.table("", columns)
    for report in reports:
        row = [report.stored, report.unchanged, len(report.skipped)]
        table.add_row(output.plain(report.file), report.format, *map(output.number, row))
    output.console().print(table)


def _json(report: FileReport) -> dict[str, Any]:
    skipped = [
        {"file": error.file, "entry": error.entry, "reason": error.reason}
        for error in report.skipped
    ]
    return {
        "file": report.file,
        "format": report.format,
        "stored": report.stored,
        "unchanged": report.unchanged,
        "skipped": skipped,
    }
