"""``memory learn``, ``memory calculate``, ``memory patterns`` and ``memory heuristics``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from attrs import frozen

from memory_core.cli import cells
from memory_core.cli.commands import command
from memory_core.cli.hints import hint_at_namespace
from memory_core.cli.session import Session
from memory_core.query import Query
from memory_core.records import Episode, ErrorRecovery, Heuristic, OutcomeStatus, Pattern

if TYPE_CHECKING:
    from memory_core.learning import Tally
    from memory_core.memory import Memory

__all__ = ["Shown", "add_commands"]

_AT_ONCE = 200


def add_commands(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(app, "learn")(learn)
    command(app, "calculate")(calculate)
    command(app, "patterns")(patterns)
    command(app, "heuristics")(heuristics)


@frozen(kw_only=True)
class Shown:
    """Which patterns or heuristics are shown."""

    domain: Annotated[str | None, typer.Option(help="Those of this domain.")] = None
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20


async def learn(
    session: Session,
    *,
    min_support: Annotated[
        int, typer.Option(min=2, help="In how many episodes something must be seen.")
    ] = 5,
) -> None:
    """Learn patterns and heuristics from the episodes that succeeded or failed.

    Those that were learned before and no longer hold are deleted; what a person stored is never touched.
    """
    from attrs import asdict

    async with session.open() as memory:
        found = await memory.learn(min_support=min_support)
        if not found.episodes:
            await hint_at_namespace(memory)
    if session.as_json:
        session.write_json(asdict(found))
        return
    typer.echo(
        f"{found.episodes:,} episodes: {found.patterns:,} patterns, {found.heuristics:,} heuristics; "
        f"{found.written:,} written, {found.removed:,} removed"
    )


async def calculate(session: Session) -> None:
    """Calculate the reward, the reflection and the salient features that episodes lack.

    A calculated field is marked in the episode's metadata, which says how it came about. What was recorded
    is never replaced.
    """
    from attrs import asdict

    async with session.open() as memory:
        found = await memory.calculate()
        if not found.episodes:
            await hint_at_namespace(memory)
    if session.as_json:
        session.write_json(asdict(found))
        return
    typer.echo(
        f"{found.episodes:,} episodes: calculated {found.rewards:,} rewards, "
        f"{found.reflections:,} reflections, {found.salient_features:,} salient features; "
        f"{found.written:,} written"
    )


async def patterns(session: Session, shown: Shown) -> None:
    """List patterns with their evidence, the surest first.

    The rate is that at which the episodes that show the pattern succeeded, from low to high at 95 %. Of a
    recovery from an error it is that at which the failed call worked later; how the episodes ended stands
    beside it. The lift is the rate divided by that of all episodes of the domain.
    """
    await _list(session, Pattern, shown)


async def heuristics(session: Session, shown: Shown) -> None:
    """List heuristics with their evidence, the surest first.

    The rate is that at which the episodes that followed the rule succeeded, from low to high at 95 %.
    """
    await _list(session, Heuristic, shown)


async def _list(session: Session, kind: type[Pattern | Heuristic], shown: Shown) -> None:
    from memory_core.learning import tally_of

    async with session.read() as memory:
        query: Query[Any] = Query(kind).limit(_AT_ONCE)
        query = query if shown.domain is None else query.where(domain=shown.domain)
        counted = [(tally_of(record), record) async for record in memory.iterate(query)]
        # Those that nobody has counted come last.
        counted.sort(key=lambda item: (not item[0].support, -item[0].bounds[0], item[1].id))
        chosen = counted[: shown.limit]
        rates = {
            domain: await _rate(memory, domain)
            for domain in {_domain(record) for _, record in chosen}
        }
        if not chosen:
            await hint_at_namespace(memory)
    rows = [_row(tally, record, rates[_domain(record)]) for tally, record in chosen]
    if session.as_json:
        session.write_json({f"{kind.kind}s": rows})
    else:
        _print(kind, rows)


async def _rate(memory: Memory, domain: str) -> float | None:
    """The rate at which the episodes of a domain succeed; ``None`` if there are none."""
    succeeded, failed = [
        await memory.count(Query(Episode).where(domain=domain, outcome=status))
        for status in (OutcomeStatus.SUCCESS, OutcomeStatus.FAILURE)
    ]
    return succeeded / (succeeded + failed) if succeeded + failed else None


def _row(tally: Tally, record: Pattern | Heuristic, rate: float | None) -> dict[str, Any]:
    from memory_core.learning import episodes_of, is_learned, what_was_counted

    counted = tally.support > 0
    ended = episodes_of(record)
    low, high = tally.bounds
    # A recovery is counted by another rate, and a heuristic has its pattern's.
    lifted = counted and rate and not isinstance(record, ErrorRecovery | Heuristic)
    row = {
        "id": str(record.id),
        "type": record.variant,
        "domain": _domain(record),
        "about": cells.summary(record),
        "learned": is_learned(record),
        "support": tally.support,
        "successes": tally.successes,
        "counted": what_was_counted(record),
        "episodes_succeeded": None if ended is None else ended.successes,
        "rate": tally.rate if counted else None,
        "low": low if counted else None,
        "high": high if counted else None,
        "lift": tally.rate / rate if rate and lifted else None,
    }
    if isinstance(record, Heuristic):
        del row["type"], row["lift"]
    return row


def _domain(record: Pattern | Heuristic) -> str:
    return record.domain if isinstance(record, Heuristic) else record.context.domain


def _print(kind: type[Pattern | Heuristic], rows: list[dict[str, Any]]) -> None:
    from uuid import UUID

    from memory_core.cli import output

    console = output.console()
    if not rows:
        console.print(f"no {kind.kind} found")
        return
    names = cells.short_ids(UUID(row["id"]) for row in rows)
    right = cells.RIGHT | cells.WHOLE
    columns: list[cells.Column] = [
        ("id", cells.WHOLE), ("type", cells.WHOLE), ("domain", cells.WHOLE), ("of", right),
        ("rate", right), ("low", right), ("high", right), ("lift", right), ("about", {"ratio": 1}),
    ]  # fmt: skip
    table: list[list[output.Cell]] = [
        [
            names[UUID(row["id"])], row.get("type", ""), row["domain"],
            f"{row['successes']}/{row['support']}" if row["support"] else "",
            *(_number(row.get(name)) for name in ("rate", "low", "high", "lift")),
            _with_counts(row) if row.get("type") == ErrorRecovery.variant else row["about"],
        ]
        for row in rows
    ]  # fmt: skip
    console.print(output.filled_table("", columns, table))


def _with_counts(row: dict[str, Any]) -> str:
    return f"{row['about']} ({row['counted']})" if row["counted"] else row["about"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
