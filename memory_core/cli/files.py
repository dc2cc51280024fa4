"""``memory export``, ``load`` and ``copy``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from memory_core.cli.commands import command, run_async
from memory_core.cli.failures import WorkFailedError
from memory_core.cli.session import Session
from memory_core.errors import ConfigurationError

if TYPE_CHECKING:
    from memory_core.memory import Memory
    from memory_core.transfer import CopyReport, LoadReport, Refusal, VerifyReport

__all__ = ["add_commands", "copy_json", "verify_json"]

_STDIO = "-"
_LISTED = 20

AllNamespaces = Annotated[
    bool, typer.Option("--all-namespaces", help="Not only this one, but all.")
]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(app, "export")(export)
    command(app, "load")(load)
    command(app, "copy")(copy)


async def export(
    session: Session,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSON lines; '-' for standard output.")
    ],
    *,
    all_namespaces: AllNamespaces = False,
) -> None:
    """Write every record to a file.

    All kinds, relationships included. The file takes its name only when it is whole.
    """
    from memory_core.cli import output
    from memory_core.transfer import export_records, list_namespaces

    target: Path | BinaryIO = sys.stdout.buffer if file == _STDIO else Path(file)
    async with session.open() as memory:
        names = await list_namespaces(memory.storage) if all_namespaces else None
        with output.progress_bar("exporting") as on_progress:
            report = await export_records(
                memory.storage, session.types, target, namespaces=names, on_progress=on_progress
            )
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
        messages.write(f"{file}: {_counted(report.counts)} exported\n")
    if not report.settled:
        raise WorkFailedError(
            "others wrote without pause: the newest changes may not be in the export"
        )


def load(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="An export; '-' for standard input.")],
    *,
    into: Annotated[
        str | None, typer.Option(help="Namespace to load into, instead of each record's own.")
    ] = None,
) -> None:
    """Put the records of an export into the store.

    The file is checked whole before anything is written. Records with the same ids are replaced.
    """
    if file != _STDIO:
        report = run_async(_load(session, Path(file), into))
    else:
        # Before the event loop runs, so that Ctrl-C ends the waiting for input.
        with tempfile.TemporaryFile() as spooled:
            shutil.copyfileobj(sys.stdin.buffer, spooled)
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
        typer.echo(f"{file}: {_counted(report.counts)} loaded into {', '.join(report.namespaces)}")
    _complain(report.refused, report.refused_count)


async def _load(session: Session, source: Path | BinaryIO, into: str | None) -> LoadReport:
    from memory_core.cli import output
    from memory_core.transfer import load_export, open_export

    # What is no whole export leaves no new store behind.
    with open_export(session.types, source, into=into) as found:
        async with session.open(create=True) as memory:
            with output.progress_bar("loading") as on_progress:
                return await load_export(memory.storage, found, on_progress=on_progress)


async def copy(
    session: Session,
    source: Annotated[str, typer.Argument(metavar="FROM_URL", help="The store to copy from.")],
    target: Annotated[str, typer.Argument(metavar="TO_URL", help="The store to copy to.")],
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Then compare record for record, both ways.")
    ] = False,
    all_namespaces: AllNamespaces = False,
) -> None:
    """Copy every record from one store to another, of any backends.

    Run it again after an interruption: what is there already is not written again. What the target
    has besides stays.
    """
    from memory_core.cli import output
    from memory_core.transfer import copy_records, count_records, list_namespaces, verify_records

    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(session.open(source))
        names = await list_namespaces(one.storage) if all_namespaces else [one.namespace]
        # What cannot be copied whole leaves no new store behind.
        await count_records(one.storage, session.types, names)
        other = await stack.enter_async_context(session.open(target, create=True))
        await _check_different(one, other)
        if verify:
            await count_records(other.storage, session.types, names)
        with output.progress_bar("copying") as on_progress:
            report = await copy_records(
                one.storage, other.storage, session.types, namespaces=names, on_progress=on_progress
            )
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
    _complain(report.refused, report.refused_count)
    if verified is not None and not verified.ok:
        raise WorkFailedError(f"{sum(verified.counts.values())} records differ")
    if not report.settled:
        raise WorkFailedError("others wrote without pause: run the copy again")


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

    right: dict[str, Any] = {"justify": "right"}
    columns = ["kind", ("copied", right), ("unchanged", right)]
    if verified is not None:
        columns.append(("equal", right))
    table = output.table("", columns)
    for kind in dict.fromkeys((*report.unchanged, *report.copied)):
        row = [report.copied.get(kind, 0), report.unchanged.get(kind, 0)]
        if verified is not None:
            row.append(verified.equal.get(kind, 0))
        table.add_row(kind, *map(output.number, row))
    console = output.console()
    console.print(table)
    if verified is None:
        return
    for item in verified.differences[:_LISTED]:
        fields = f" ({', '.join(item.fields)})" if item.fields else ""
        console.print(f"{item.what.value}: {item.kind} {item.id} in {item.namespace}{fields}")
    if verified.ok:
        console.print(f"verified: {_counted(verified.equal)} are equal in both")


def _refused_json(refused: Sequence[Refusal], count: int) -> dict[str, Any]:
    listed = [
        {"namespace": item.namespace, "kind": item.kind, "id": item.id, "error": str(item.error)}
        for item in refused
    ]
    return {"refused": listed, "refused_count": count}


def _complain(refused: Sequence[Refusal], count: int) -> None:
    for item in refused[:_LISTED]:
        sys.stderr.write(f"refused: {item.kind} {item.id} in {item.namespace}: {item.error}\n")
    if count:
        raise WorkFailedError(f"{count} records were refused")


def _counted(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
    return f"{total:,} records" + (f" ({kinds})" if kinds else "")
