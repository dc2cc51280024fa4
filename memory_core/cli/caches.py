"""``memory cache``: look into the caches of running processes, and clear caches."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Annotated, Any

import typer

from memory_core.cache.monitor import INTERVAL, monitored, request_clear
from memory_core.cli import cells
from memory_core.cli.commands import Group, command
from memory_core.cli.failures import WorkFailedError
from memory_core.cli.session import Session
from memory_core.cli.streams import say
from memory_core.errors import ConfigurationError, StorageUnavailableError

__all__ = ["add_commands"]

# Tiers count failed calls under these names instead of raising.
_FAILURES = ("errors", "timeouts", "skipped")
_NONE = "no process shares its cache statistics: set monitor = true in [cache] of its memory.toml"


def add_commands(app: typer.Typer) -> None:
    """Add the commands to an application."""
    caches = typer.Typer(
        cls=Group, help="Look into caches of running processes.", no_args_is_help=True
    )
    command(caches, "stats")(stats)
    command(caches, "top")(top)
    command(caches, "clear")(clear)
    app.add_typer(caches, name="cache")


async def stats(
    session: Session,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show them every second until Ctrl-C.")
    ] = False,
) -> None:
    """Show live statistics of the caches of every process that shares them."""
    if session.as_json and not watch:
        session.write_json(monitored())
        return
    while session.as_json:
        # One document a line, flushed at once, for a program that reads lines.
        sys.stdout.write(f"{json.dumps(monitored())}\n")
        sys.stdout.flush()
        await asyncio.sleep(INTERVAL)
    from rich.live import Live

    from memory_core.cli import output

    if not watch:
        output.console().print(_statistics(monitored()))
        return
    with Live(_statistics(monitored()), console=output.console(), screen=False) as live:
        while True:
            await asyncio.sleep(INTERVAL)
            live.update(_statistics(monitored()))


def top(
    session: Session,
    *,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="How many keys of each process.")
    ] = 10,
) -> None:
    """Show the keys that are read most."""
    rows = [
        {"pid": process["pid"], **key}
        for process in monitored()
        for key in process["top_keys"][:limit]
    ]
    if session.as_json:
        session.write_json(rows)
        return
    from memory_core.cli import output

    names = ("pid", "namespace", "kind", "key")
    shown = [[*(str(row[name]) for name in names), row["hits"]] for row in rows]
    columns = ["process", "namespace", "kind", "key", ("reads", cells.RIGHT)]
    output.console().print(
        output.table("Top keys", columns, shown) if rows else output.plain(_NONE)
    )


async def clear(
    session: Session,
    *,
    tier: Annotated[
        str | None,
        typer.Option("--tier", help="Clear this shared tier instead, such as lmdb:PATH."),
    ] = None,
    pid: Annotated[
        int | None, typer.Option("--pid", help="Clear only the caches of this process.")
    ] = None,
) -> None:
    """Clear the caches of running processes, or a shared tier."""
    if tier is None:
        processes = [item for item in monitored() if pid is None or item["pid"] == pid]
        if pid is not None and not processes:
            raise WorkFailedError(f"process {pid} does not share its cache statistics")
        for process in processes:
            request_clear(process)
        cleared: dict[str, Any] = {"processes": [process["pid"] for process in processes]}
    else:
        await _clear_tier(session, tier)
        cleared = {"tier": tier}
    if session.as_json:
        session.write_json({"cleared": cleared})
        return
    if tier is not None:
        text = f"cleared {tier}"
    elif cleared["processes"]:
        pids = ", ".join(map(str, cleared["processes"]))
        text = f"asked {pids} to clear; done within {INTERVAL:.0f} s"
    else:
        text = _NONE
    say(text)


async def _clear_tier(session: Session, tier: str) -> None:
    from memory_core.memory.composing import create_cache

    cache = create_cache(tier, session.registry, {})
    try:
        if cache.holds == "objects":
            raise ConfigurationError(
                f"--tier {tier}: each process has its own; name a shared tier, such as lmdb:PATH, or "
                "leave --tier out to clear the caches of running processes"
            )
        await cache.clear()
        counters = cache.stats().counters
    finally:
        await cache.aclose()
    failures = [f"{name}: {counters[name]}" for name in _FAILURES if counters.get(name)]
    if failures:
        raise StorageUnavailableError(
            f"{tier} was not cleared, or not completely: it cannot be reached or does not answer "
            f"({', '.join(failures)})"
        )


def _statistics(processes: list[dict[str, Any]]) -> Any:
    from memory_core.cli import output

    if not processes:
        return output.plain(_NONE)
    numbers = ("entries", "size", "hits", "misses", "hit rate", "evictions", "dropped")
    columns = ["process", "store", "cache", *((name, cells.RIGHT) for name in numbers), "seen"]
    return output.table("Caches", columns, [row for item in processes for row in _rows(item)])


def _rows(process: dict[str, Any]) -> list[list[Any]]:
    """A row of the table for each cache of a process."""
    from memory_core.cli import output

    dropped = sum(
        count for name, count in process["coherence"].items() if name.startswith("invalidated_")
    )
    return [
        [
            str(process["pid"]),
            process["location"],
            cache["name"],
            cache["entries"],
            output.size(cache["bytes"]),
            cache["hits"],
            cache["misses"],
            f"{cache['hit_rate']:.1%}",
            int(sum(n for name, n in cache["counters"].items() if name.startswith("evictions"))),
            dropped,
            f"{max(0.0, time.time() - process['updated']):.0f} s ago",
        ]
        for cache in process["caches"]
    ]
