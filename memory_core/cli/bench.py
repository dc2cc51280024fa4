"""``memory bench``: how fast a store is on this machine, and what became slower."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast
from urllib.parse import quote
from uuid import uuid4

import typer

from memory_core.cli import cells
from memory_core.cli.commands import command
from memory_core.cli.session import Session
from memory_core.config import StorageURL
from memory_core.errors import ConfigurationError
from memory_core.storage import Capability, local_path, require

if TYPE_CHECKING:
    from memory_core.benchmarking import BenchReport, CaseChange
    from memory_core.memory import Memory
    from memory_core.storage import SupportsNamespaces

__all__ = ["add_commands"]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(app, "bench")(bench)


async def bench(
    session: Session,
    store: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="The store; else that of --url.")
    ] = None,
    second: Annotated[
        str | None, typer.Argument(metavar="[B.json]", help="With --compare: the later result.")
    ] = None,
    *,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare two results: A.json B.json.")
    ] = False,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, help="For how long to measure.")
    ] = 20.0,
    episodes: Annotated[
        int, typer.Option("--episodes", min=100, help="How many there are before the reads.")
    ] = 2_000,
) -> None:
    """Measure how fast a store is on this machine, without touching what it holds."""
    if compare:
        _compare(session, store, second)
        return
    if second is not None:
        raise ConfigurationError(f"{second}: a second argument is for --compare")
    from memory_core.benchmarking import run_benchmark
    from memory_core.cli import output

    where = StorageURL.parse(store or session.settings.url)
    async with _scratch(session, where) as memory:
        with output.progress_bar("measuring") as on_progress:
            report = await run_benchmark(
                memory, str(where), episodes=episodes, seconds=seconds, on_progress=on_progress
            )
    if session.as_json:
        import msgspec

        session.write_json(msgspec.to_builtins(report))
        return
    output.console().print(_table(report))


@asynccontextmanager
async def _scratch(session: Session, url: StorageURL) -> AsyncGenerator[Memory]:
    """An empty memory on the same disk or server, which leaves nothing there: a new store beside an embedded
    one, on a server a namespace that is wiped.
    """
    if url.location and session.registry.storage(url.scheme).embedded:
        parent = local_path(url.location).parent
        existing = next(folder for folder in (parent, *parent.parents) if folder.is_dir())
        with tempfile.TemporaryDirectory(prefix="memory-bench-", dir=existing) as folder:
            made = f"{url.scheme}:{quote(str(Path(folder) / 'store'))}{_options(url)}"
            async with session.open(made, create=True, read_only=False) as memory:
                yield memory
        return
    shown = f"{url}{_options(url)}"
    async with session.open(shown, create=True, read_only=False) as opened:
        require(opened.storage, Capability.NAMESPACES)
        memory = opened.scoped(f"bench-{uuid4().hex[:12]}")
        try:
            yield memory
        finally:
            await cast("SupportsNamespaces", memory.storage).wipe()


def _options(url: StorageURL) -> str:
    return "".join(
        f"{'&' if place else '?'}{name}={quote(value, safe='')}"
        for place, (name, value) in enumerate(url.options.items())
    )


def _compare(session: Session, first: str | None, second: str | None) -> None:
    from memory_core.benchmarking import compare, read_report

    if first is None or second is None:
        raise ConfigurationError("--compare needs two files: memory bench --compare A.json B.json")
    before, after = read_report(Path(first)), read_report(Path(second))
    changes = compare(before, after)
    if session.as_json:
        import msgspec

        session.write_json(msgspec.to_builtins(changes))
        return
    from memory_core.cli import output

    output.console().print(_changes(changes, before, after))


def _table(report: BenchReport) -> Any:
    from memory_core.cli import output

    names = ("a second", "spread", "p50 ms", "p95 ms", "p99 ms")
    columns = ["case", "what it does", *((name, cells.RIGHT) for name in names)]
    rows = [
        [
            case.name,
            case.about,
            f"{case.rate:,.0f}",
            f"{min(case.rates):,.0f} to {max(case.rates):,.0f}",
            *(f"{value:.3f}" for value in (case.p50_ms, case.p95_ms, case.p99_ms)),
        ]
        for case in report.cases
    ]
    return output.table(f"{report.url}, {report.episodes:,} episodes", columns, rows)


def _changes(changes: list[CaseChange], before: BenchReport, after: BenchReport) -> Any:
    from memory_core.cli import output

    names = ("before", "after", "ratio", "spread")
    columns = ["case", "", *((name, cells.RIGHT) for name in names)]
    rows = [
        [
            change.name,
            change.verdict,
            f"{change.before:,.0f}/s",
            f"{change.after:,.0f}/s",
            f"{change.ratio:.2f}",
            f"{change.least:.2f} to {change.most:.2f}",
        ]
        for change in changes
    ]
    slower = sum(change.verdict == "slower" for change in changes)
    return output.table(f"{slower} slower, from {before.url} to {after.url}", columns, rows)
