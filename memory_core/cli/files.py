"""``memory export``, ``load`` and ``copy``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from memory_core.cli import cells
from memory_core.cli.commands import command, run_async
from memory_core.cli.failures import WorkFailedError
from memory_core.cli.hints import hint_at_namespace
from memory_core.cli.indexing import update_search_indexes
from memory_core.cli.session import Session
from memory_core.cli.streams import say, warn
from memory_core.disk import disk_failure
from memory_core.errors import ConfigurationError

if TYPE_CHECKING:
    from memory_core.memory import Memory
    from memory_core.transfer import CopyReport, ExportReport, LoadReport, Refusal, VerifyReport

__all__ = ["add_commands", "copy_json", "verify_json"]

_STDIO = "-"
_LISTED = 20

AllNamespaces = Annotated[
    bool, typer.Option("--all-namespaces", help="Take all namespaces instead of one.")
]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(app, "export")(export)
    command(app, "load")(load)
    command(app, "copy")(copy)


async def export(
    session: Session,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="JSON lines, compressed if it ends in .gz, .xz or .zst; '-' for standard output.",
        ),
    ],
    *,
    all_namespaces: AllNamespaces = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it exists.")
    ] = False,
) -> None:
    """Write every record to a file.

    Writes all kinds, relationships included. The file appears under its name only when it is complete.
    """
    from memory_core.cli import output
    from memory_core.transfer import export_records, list_namespaces

    target: Path | BinaryIO = sys.stdout.buffer if file == _STDIO else Path(file)
    async with session.read() as memory:
        names = await list_namespaces(memory.storage) if all_namespaces else None
        await _check_namespace(session, memory, all_namespaces=all_namespaces)
        with output.progress_bar("exporting") as on_progress:
            report = await export_records(
                memory.storage,
                session.types,
                target,
                namespaces=names,
                on_progress=on_progress,
                overwrite=overwrite,
            )
    _report_export(session, file, report)


async def _check_namespace(session: Session, memory: Memory, *, all_namespaces: bool) -> None:
    """Check that the namespace holds something, unless others do not, either.

    Raises:
        WorkFailedError: nothing would be written, because of a namespace that may be misspelt.
    """
    if not all_namespaces and await hint_at_namespace(memory):
        raise WorkFailedError(
            f"nothing is written: namespace {memory.namespace!r} of {session.settings.url} holds no record"
        )


def _report_export(session: Session, file: str, report: ExportReport) -> None:
    messages = sys.stderr if file == _STDIO else sys.stdout
    if session.as_json:
        shown = {
            "file": file,
            "namespaces": report.namespaces,
            "counts": report.counts,
            "deletes": report.deletes,
            "store_id": report.store_id,
            "position": report.position,
            "settled": report.settled,
            "sha256": report.sha256,
        }
        session.write_json(shown, messages)
    else:
        say(f"{file}: {_counted(report.counts)} exported", messages)
    if not report.settled:
        raise WorkFailedError(
            "other processes kept writing: the newest changes may be missing from the export"
        )


def load(
    session: Session,
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="An export, also compressed; '-' for standard input."),
    ],
    *,
    into: Annotated[
        str | None, typer.Option(help="Load into this namespace instead of each record's own.")
    ] = None,
) -> None:
    """Put the records of an export into the store.

    Checks the whole file before it writes anything. Replaces records with the same ids.
    """
    if file != _STDIO:
        report = run_async(_load(session, Path(file), into))
    else:
        if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  # where it is closed
            raise ConfigurationError("standard input is closed")
        # Before the event loop runs, so that Ctrl-C interrupts the reading.
        with _spooled_stdin() as spooled:
            report = run_async(_load(session, spooled, into))
    if session.as_json:
        session.write_json(
            {
                "file": file,
                "namespaces": report.namespaces,
                "counts": report.counts,
                "deletes": report.deletes,
                **_refused_json(report.refused, report.refused_count),
            }
        )
    else:
        say(f"{file}: {_counted(report.counts)} loaded into {', '.join(report.namespaces)}")
    _report_rejected(report.refused, report.refused_count)


@contextmanager
def _spooled_stdin() -> Generator[BinaryIO]:
    with ExitStack() as stack:
        try:
            spooled = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(sys.stdin.buffer, spooled)
        except OSError as error:
            where = "standard input: its copy in the temporary folder"
            raise disk_failure(error, where) from error
        yield spooled


async def _load(session: Session, source: Path | BinaryIO, into: str | None) -> LoadReport:
    from memory_core.cli import output
    from memory_core.transfer import load_export, open_export

    # Checked first, so that a damaged export creates no store.
    with open_export(session.types, source, into=into) as found:
        async with session.open(create=True) as memory:
            with output.progress_bar("loading") as on_progress:
                report = await load_export(memory.storage, found, on_progress=on_progress)
            await update_search_indexes(memory, report.namespaces)
            return report


async def copy(
    session: Session,
    source: Annotated[str, typer.Argument(metavar="FROM_URL", help="The store to copy from.")],
    target: Annotated[str, typer.Argument(metavar="TO_URL", help="The store to copy to.")],
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare both stores record by record afterwards.")
    ] = False,
    all_namespaces: AllNamespaces = False,
) -> None:
    """Copy every record from one store to another, whatever their backends.

    Run it again after an interruption: records that are equal in both are not written again. Other records
    of the target stay.
    """
    from memory_core.cli import output
    from memory_core.transfer import copy_records, count_records, list_namespaces, verify_records

    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(session.read(source))
        names = await list_namespaces(one.storage) if all_namespaces else [one.namespace]
        await _check_namespace(session, one, all_namespaces=all_namespaces)
        # Checked first, so that a source that cannot be copied completely creates no target.
        await count_records(one.storage, session.types, names)
        other = await stack.enter_async_context(session.open(target, create=True))
        await _check_different(one, other)
        if verify:
            await count_records(other.storage, session.types, names)
        with output.progress_bar("copying") as on_progress:
            report = await copy_records(
                one.storage, other.storage, session.types, namespaces=names, on_progress=on_progress
            )
        await update_search_indexes(other, names if all_namespaces else [other.namespace])
        verified = None
        if verify:
            with output.progress_bar("verifying") as on_progress:
                verified = await verify_records(
                    one.storage,
                    other.storage,
                    session.types,
                    namespaces=names,
                    on_progress=on_progress,
                )
    _report_copy(session, source, target, report, verified)


def _report_copy(
    session: Session,
    source: str,
    target: str,
    report: CopyReport,
    verified: VerifyReport | None,
) -> None:
    if session.as_json:
        shown = copy_json(report) | {"verified": verify_json(verified) if verified else None}
        session.write_json({"from": source, "to": target, **shown})
    else:
        _print_copy(report, verified)
    _report_rejected(report.refused, report.refused_count)
    if verified is not None and not verified.ok:
        raise WorkFailedError(f"{sum(verified.counts.values())} records differ")
    if not report.settled:
        raise WorkFailedError("other processes kept writing: run the copy again")


async def _check_different(one: Memory, other: Memory) -> None:
    first, second = await one.stats(), await other.stats()
    if (first.store_id, first.location) == (second.store_id, second.location):
        raise ConfigurationError(f"both URLs are the same store: {first.location}")


def copy_json(report: CopyReport) -> dict[str, Any]:
    """A copy's report as JSON."""
    return {
        "namespaces": report.namespaces,
        "copied": report.copied,
        "unchanged": report.unchanged,
        "deletes": report.deletes,
        "settled": report.settled,
        **_refused_json(report.refused, report.refused_count),
    }


def verify_json(report: VerifyReport) -> dict[str, Any]:
    """A comparison's report as JSON."""
    differences = [
        {
            "namespace": item.namespace,
            "kind": item.kind,
            "id": item.id,
            "what": item.what,
            "fields": item.fields,
        }
        for item in report.differences
    ]
    return {
        "ok": report.ok,
        "equal": report.equal,
        "counts": report.counts,
        "differences": differences,
    }


def _print_copy(report: CopyReport, verified: VerifyReport | None) -> None:
    from memory_core.cli import output

    counts = {"copied": report.copied, "unchanged": report.unchanged}
    if verified is not None:
        counts["equal"] = verified.equal
    kinds = dict.fromkeys((*report.unchanged, *report.copied))
    rows = [[kind, *(count.get(kind, 0) for count in counts.values())] for kind in kinds]
    columns = ["kind", *((name, cells.RIGHT) for name in counts)]
    output.console().print(output.table("", columns, rows))
    if verified is None:
        return
    for item in verified.differences[:_LISTED]:
        fields = f" ({', '.join(item.fields)})" if item.fields else ""
        say(f"{item.what.value}: {item.kind} {item.id} in {item.namespace}{fields}")
    if verified.ok:
        say(f"verified: {_counted(verified.equal)} are equal in both")


def _refused_json(refused: Sequence[Refusal], count: int) -> dict[str, Any]:
    listed = [
        {"namespace": item.namespace, "kind": item.kind, "id": item.id, "error": str(item.error)}
        for item in refused
    ]
    return {"refused": listed, "refused_count": count}


def _report_rejected(refused: Sequence[Refusal], count: int) -> None:
    for item in refused[:_LISTED]:
        # Most errors begin with the record as well.
        reason = str(item.error).removeprefix(f"{item.kind} {item.id}").lstrip(": ")
        warn(f"rejected: {item.kind} {item.id} in {item.namespace}: {reason}")
    if count:
        raise WorkFailedError(f"the store rejected {count} records")


def _counted(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
    return f"{total:,} records" + (f" ({kinds})" if kinds else "")
