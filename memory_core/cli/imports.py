"""``memory import``: agent transcripts as episodes."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memory_core.cli import cells
from memory_core.cli.commands import command
from memory_core.cli.failures import NothingReadError, WorkFailedError
from memory_core.cli.hints import hint_at_format
from memory_core.cli.indexing import update_search_indexes
from memory_core.cli.session import Session
from memory_core.cli.streams import warn
from memory_core.errors import ConfigurationError, ImportFormatError, UnknownFormatError
from memory_core.importers import FileReport, Importer, import_file
from memory_core.importers.base import recognised
from memory_core.importers.likely import looks_like_transcript
from memory_core.importers.log import Log
from memory_core.importers.sample import Layout, Sample, sample_of
from memory_core.importers.source import STDIN, Source, name_of, opened, shown
from memory_core.importers.storing import Storing

if TYPE_CHECKING:
    from memory_core.memory import Memory

__all__ = [
    "AUTO",
    "FileReport",
    "add_commands",
    "given_path",
    "import_file",
    "named_importer",
    "report_json",
    "source_in",
    "transcripts_in",
]

AUTO = "auto"
_MOST_SHOWN = 20
# A file with such a suffix is meant to be a transcript, whatever it contains.
_TRANSCRIPTS = {".json", ".jsonl", ".ndjson", ".traj", ".eval"}
_OWN_SUFFIXES = {".traj", ".eval"}
_KINDS_SHOWN = 6


def add_commands(app: typer.Typer) -> None:
    """Add the command to an application."""
    command(app, "import")(import_files)


async def import_files(
    session: Session,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Transcripts, also packed ones, folders of them, or - for standard input.",
        ),
    ],
    *,
    form: Annotated[
        str, typer.Option("--format", help="An importer's name (see memory plugins), or auto.")
    ] = AUTO,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="No longer needed.", hidden=True)
    ] = False,
) -> None:
    """Store the episodes of agent transcripts.

    The same file a second time changes nothing, and of two copies of a session the longer one stays.
    Files are independent: those that cannot be read are listed, and the rest is imported.
    """
    if keep_going:
        warnings.warn(
            "--keep-going is what memory import always does; leave it out",
            DeprecationWarning,
            stacklevel=2,
        )
    importers = session.registry.importers
    named = named_importer(form, session)
    paths = [given_path(file) for file in files]
    for path in paths:
        _check_readable(path)
    reports: list[FileReport] = []
    chosen = _chosen(paths, named, importers, reports)
    first = next(chosen, None)
    if first is not None:
        async with session.open(create=True) as memory:
            await _store(memory, chain((first,), chosen), reports)
            await update_search_indexes(memory, [memory.namespace])
    _end(session, reports, paths)


async def _store(
    memory: Memory, chosen: Iterable[tuple[Source, Importer]], reports: list[FileReport]
) -> None:
    from memory_core.cli import output
    from memory_core.transfer import Progress

    with output.progress_bar("importing") as on_progress:
        storing = Storing(memory.storage, lambda done: on_progress(Progress(done, 0)))
        for source, importer in chosen:
            reports.append(await storing.file(source, importer))
        await storing.finish()


def _end(session: Session, reports: Sequence[FileReport], files: Sequence[Path]) -> None:
    """Report the result of each file, and fail if anything was skipped."""
    skipped = [error for report in reports for error in report.skipped]
    lost = sum(report.log.lost for report in reports)
    known = ", ".join(session.registry.importers)
    alone = len(reports) == 1 == len(skipped) and not reports[0].format and not files[0].is_dir()
    if not alone:
        _print(session, reports)
        _list_notes(reports)
    if lost == 1 and not any(report.episodes or report.refused for report in reports):
        # What cannot be read is all there is: its error is the whole report.
        raise _with_formats(skipped[0], known)
    for error in skipped:
        warn(f"skipped: {error}")
    if lost > len(skipped):
        warn(f"skipped: {lost - len(skipped)} more")
    if any(isinstance(error, UnknownFormatError) for error in skipped):
        warn(f"note: the known formats are {known}; --format names one")
    if lost and not any(report.episodes or report.refused for report in reports):
        raise NothingReadError(f"nothing could be read: {lost} entries were skipped")
    if lost:
        what = "entry was" if lost == 1 else "entries were"
        raise WorkFailedError(f"{lost} {what} skipped")


def _with_formats(error: ImportFormatError, known: str) -> ImportFormatError:
    """An error that also names the known formats, if it is that a format is not known."""
    if not isinstance(error, UnknownFormatError):
        return error
    return UnknownFormatError(error.file, f"{error.reason}; the known formats are {known}")


def _list_notes(reports: Sequence[FileReport]) -> None:
    notes = [note for report in reports for note in report.log.notes]
    for note in notes[:_MOST_SHOWN]:
        warn(f"note: {note}")
    noted = sum(report.log.noted for report in reports)
    if noted > _MOST_SHOWN:
        warn(f"note: {noted - _MOST_SHOWN} more; --json lists them")
    left_out: Counter[str] = Counter()
    for report in reports:
        left_out.update(report.log.left_out)
    if left_out:
        named = [f"{kind} ({count})" for kind, count in left_out.most_common(_KINDS_SHOWN)]
        more = [] if len(left_out) <= _KINDS_SHOWN else ["…"]
        warn(
            f"note: {left_out.total()} lines or fields left out: {', '.join(named + more)}; "
            "--json lists them by file"
        )


def transcripts_in(folder: Path, log: Log) -> Iterator[Path]:
    """The regular files in a folder and those below it, in the order of their names.

    Args:
        folder: the folder.
        log: gets the folders in it that cannot be read, and links to folders elsewhere, which are not
            followed; and notes on what is neither a file nor a folder.
    """

    def unreadable(error: OSError) -> None:
        place = shown(Path(os.fsdecode(error.filename)).relative_to(folder))
        log.skip("" if place == "." else place, f"cannot be read: {error.strerror or error}")

    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders.sort()
        for name in folders:
            path = Path(place, name)
            if os.path.islink(path):  # noqa: PTH114  # is false, not an error, where the path is too long
                _not_followed(path, folder, log)
        for name in sorted(names):
            path = Path(place, name)
            try:
                mode = path.stat().st_mode
            except OSError as error:
                # Nothing is lost of a dangling link, or a file that was deleted in the meantime.
                nothing = error.errno in {errno.ENOENT, errno.ELOOP}
                what = log.note if nothing else log.skip
                what(shown(path.relative_to(folder)), f"cannot be read: {error.strerror or error}")
                continue
            if stat.S_ISREG(mode):
                yield _file(path)
            else:
                log.note(shown(path.relative_to(folder)), "ignored: neither a file nor a folder")


def _not_followed(link: Path, folder: Path, log: Log) -> None:
    place, target = shown(link.relative_to(folder)), link.resolve()
    if target.is_relative_to(folder.resolve()):
        log.note(place, "ignored: a link to a folder that is read anyway")
    else:
        log.skip(place, f"a link to a folder is not followed: import {shown(target)} itself")


def _chosen(
    files: Sequence[Path],
    named: Importer | None,
    importers: Mapping[str, Importer],
    reports: list[FileReport],
) -> Iterator[tuple[Source, Importer]]:
    """Each source with its importer; sources without one are reported."""
    for given in files:
        inside = given.is_dir()
        around = FileReport(shown(given), log=Log(shown(given)))
        for path in transcripts_in(given, around.log) if inside else [given]:
            report = FileReport(name_of(path), log=Log(name_of(path)))
            found = False
            for source in source_in(path, named, importers, report.log, inside=inside):
                found = True
                yield source
            if not found:
                reports.append(report)
        if around.log.lost or around.log.noted:
            reports.append(around)


def source_in(
    path: Path,
    named: Importer | None,
    importers: Mapping[str, Importer],
    log: Log,
    *,
    inside: bool = True,
) -> Iterator[tuple[Source, Importer]]:
    """The source at a path with its importer; nothing, with a reason in the log, if it cannot be read.

    Args:
        path: where it is.
        named: the importer to use; without one the content decides.
        importers: every importer by name.
        log: gets the reason.
        inside: whether it was found in a folder, where anything may be.
    """
    try:
        with opened(path) as source:
            importer = named or _importer(source, importers, log, inside=inside)
            if importer is not None:
                yield source, importer
    except ImportFormatError as error:
        log.skip_error(error)


def _importer(
    source: Source, importers: Mapping[str, Importer], log: Log, *, inside: bool
) -> Importer | None:
    """The importer for a source; ``None``, with a note, where there is nothing to import.

    Args:
        source: the source.
        importers: every importer by name.
        log: gets the note.
        inside: whether it was found in a folder, where anything may be.
    """
    layout = sample_of(source).layout
    if layout is Layout.EMPTY:
        log.note("", "is empty")
        return None
    try:
        return recognised(source, importers.values(), log)
    except UnknownFormatError as error:
        sample = sample_of(source)
        if inside and (reason := _ignored(sample, source)):
            log.note("", reason)
            return None
        # The report names the known formats once.
        reason = f"is of no known format: {sample.described()}"
        raise UnknownFormatError(source.name, reason) from error


def _ignored(sample: Sample, source: Source) -> str:
    """Why a file of no known format is ignored in a folder; "" if it may be a transcript."""
    suffix = source.suffix
    if sample.layout is Layout.TEXT:
        return "" if suffix in _TRANSCRIPTS else "ignored: not JSON"
    if sample.layout is Layout.ARCHIVE:
        return "ignored: an archive without a transcript" if _holds_no_transcript(source) else ""
    if suffix in _OWN_SUFFIXES or looks_like_transcript(sample):
        return ""
    return f"ignored: not a transcript: {sample.described()}"


def _holds_no_transcript(source: Source) -> bool:
    """Whether an archive is another program's document, such as a text with its pictures."""
    names = [source.path.name, *sample_of(source).members]
    return not any(Path(name).suffix.lower() in _TRANSCRIPTS for name in names)


def named_importer(form: str, session: Session) -> Importer | None:
    """The importer of ``--format``; ``None`` for ``auto``.

    Raises:
        ConfigurationError: no importer has that name.
    """
    importers = session.registry.importers
    if form == AUTO:
        return None
    if form not in importers:
        raise ConfigurationError(hint_at_format(form, (AUTO, *importers)))
    return importers[form]


def given_path(argument: str) -> Path:
    """The path that an argument names.

    Raises:
        ConfigurationError: it is empty: the value of a variable that is not set, not the current folder.
    """
    if not argument:
        raise ConfigurationError("an empty argument does not name a file or folder; '.' does")
    return _file(Path(argument)) if argument != STDIN else Path(argument)


def _file(path: Path) -> Path:
    """A path that is not taken for standard input, as a file may be called ``-``, too."""
    return path.absolute() if str(path) == STDIN else path


def _check_readable(path: Path) -> None:
    if str(path) == STDIN:
        return
    try:
        # A pipe can be opened only once, and a folder not at all.
        if stat.S_ISREG(path.stat().st_mode):
            path.open("rb").close()
    except OSError as error:
        raise ConfigurationError(f"{shown(path)}: {error.strerror or error}") from error


def _print(session: Session, reports: Sequence[FileReport]) -> None:
    if session.as_json:
        files = [report_json(report) for report in reports]
        session.write_json({"files": files, **_totals(reports)})
        return
    from memory_core.cli import output

    right: dict[str, Any] = {"justify": "right"}
    counted = ("stored", "unchanged", "kept", "skipped", "notes")
    table = output.table("", ["file", "format", *((name, right) for name in counted)])
    for report in reports:
        row = [report.stored, report.unchanged, report.kept, report.log.lost, report.log.noted]
        table.add_row(output.plain(report.file), report.format, *map(cells.number, row))
    if len(reports) > 1:
        totals = _totals(reports)
        row = [output.plain(cells.number(totals[name]), "bold") for name in counted]
        table.add_row(output.plain("total", "bold"), "", *row)
    output.console().print(table)


def _totals(reports: Sequence[FileReport]) -> dict[str, int]:
    counted = ("stored", "unchanged", "kept", "related")
    return {
        **{name: sum(getattr(report, name) for report in reports) for name in counted},
        "skipped": sum(report.log.lost for report in reports),
        "notes": sum(report.log.noted for report in reports),
    }


def report_json(report: FileReport) -> dict[str, Any]:
    """One line about the result of a file."""
    return {
        "file": report.file,
        "format": report.format,
        "stored": report.stored,
        "unchanged": report.unchanged,
        "kept": report.kept,
        "related": report.related,
        "skipped": [
            {"file": error.file, "entry": error.entry, "reason": error.reason}
            for error in report.skipped
        ],
        "left_out": dict(report.log.left_out),
        "notes": [
            {"entry": note.entry or None, "reason": note.reason} for note in report.log.notes
        ],
    }
