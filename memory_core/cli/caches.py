"""``memory cache``: look into the caches of running processes, and clear caches."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Annotated, Any

import typer

from memory_core.cache.monitor import INTERVAL, monitored, request_clear
from memory_core.cli.commands import command
from memory_core.cli.failures import WorkFailedError
from memory_core.cli.session import Session
from memory_core.errors import ConfigurationError, StorageUnavailableError

__all__ = ["add_commands"]

# How tiers count that they did not get through: they never raise.
_FAILURES = ("errors", "timeouts", "skipped")
_NONE = "no process shares its cache figures: set monitor = true in [cache] of its memory.toml"


def add_commands(app: typer.Typer) -> None:
    """Add the commands to an application."""
    caches = typer.Typer(help="Look into caches of running processes.", no_args_is_help=True)
    command(caches, "stats")(stats)
    command(caches, "top")(top)
    command(caches, "clear")(clear)
    app.add_typer(caches, name="cache")


async def stats(
    session: Session,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Until Ctrl-C, every second.")] = False,
) -> None:
    """Show live statistics of the caches of every process that shares them."""
    if session.as_json and not watch:
        session.write_json(monitored())
        return
    while session.as_json:
        # Each on a line, at once: whoever reads them reads lines.
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
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many of each process.")] = 10,
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

    table = output.table("Top keys", ["process", "namespace", "kind", "key", ("reads", _RIGHT)])
    for row in rows:
        shown = [output.plain(row[name]) for name in ("pid", "namespace", "kind", "key")]
        table.add_row(*shown, output.number(row["hits"]))
    output.console().print(table if rows else output.plain(_NONE))


async def clear(
    session: Session,
    *,
    tier: Annotated[
        str | None,
        typer.Option("--tier", help="Clear this shared tier instead, such as lmdb:PATH."),
    ] = None,
    pid: Annotated[int | None, typer.Option("--pid", help="Only this process's caches.")] = None,
) -> None:
    """Clear the caches of running processes, or a shared tier."""
    if tier is None:
        processes = [item for item in monitored() if pid is None or item["pid"] == pid]
        if pid is not None and not processes:
            raise WorkFailedError(f"process {pid} does not share its cache figures")
        for process in processes:
            request_clear(process)
        cleared: dict[str, Any] = {"processes": [process["pid"] for process in processes]}
    else:
        await _clear_tier(session, tier)
        cleared = {"tier": tier}
    if session.as_json:
        session.write_json({"cleared": cleared})
        return
    from memory_core.cli import output

    if tier is not None:
        text = f"cleared {tier}"
    elif cleared["processes"]:
        pids = ", ".join(map(str, cleared["processes"]))
        text = f"asked {pids} to clear; done within {INTERVAL:.0f} s"
    else:
        text = _NONE
    output.console().print(output.plain(text))


async def _clear_tier(session: Session, tier: str) -> None:
    from memory_core.memory.composing import create_cache

    cache = create_cache(tier, session.registry, {})
    try:
        if cache.holds == "objects":
            raise ConfigurationError(
                f"--tier {tier}: is within each process and no shared tier, such as lmdb:PATH; "
                "without --tier the caches of running processes are cleared"
            )
        await cache.clear()
        counters = cache.stats().counters
    finally:
        await cache.aclose()
    failures = [f"{name}: {counters[name]}" for name in _FAILURES if counters.get(name)]
    if failures:
        raise StorageUnavailableError(
            f"{tier} was not cleared, or not wholly: it cannot be reached or does not answer "
            f"({', '.join(failures)})"
        )


_RIGHT: dict[str, Any] = {"justify": "right"}


def _statistics(processes: list[dict[str, Any]]) -> Any:
    from memory_core.cli import output

    if not processes:
        return output.plain(_NONE)
    numbers = ("entries", "size", "hits", "misses", "hit rate", "evictions", "dropped")
    table = output.table(
        "Caches", ["process", "store", "cache", *((name, _RIGHT) for name in numbers), "seen"]
    )
    for process in processes:
        dropped = sum(
            count for name, count in process["coherence"].items() if name.startswith("invalidated_")
        )
        for cache in process["caches"]:
            evictions = sum(
                count for name, count in cache["counters"].items() if name.startswith("evictions")
            )
            table.add_row(
                str(process["pid"]),
                output.plain(process["location"]),
                cache["name"],
                output.number(cache["entries"]),
                output.size(cache["bytes"]),
                output.number(cache["hits"]),
                output.number(cache["misses"]),
                f"{cache['hit_rate']:.1%}",
                output.number(int(evictions)),
                output.number(dropped),
                f"{max(0.0, time.time() - process['updated']):.0f} s ago",
            )
    return table
