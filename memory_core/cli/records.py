"""``memory list``, ``search`` and ``show``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memory_core.cli.commands import command
from memory_core.cli.conditions import Conditions, Paging
from memory_core.cli.session import Session
from memory_core.query import Page, Query
from memory_core.records import Episode, Record

if TYPE_CHECKING:
    from memory_core.memory import Memory

__all__ = ["add_commands"]

_SCANNED_AT_ONCE = 200
# Terminals with fewer columns get fewer of a table's, so that the description keeps most of the width.
_NARROW, _NARROWEST = 110, 70


def add_commands(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(app, "list")(list_records)
    command(app, "search")(search)
    from memory_core.cli.showing import show

    command(app, "show")(show)


async def list_records(
    session: Session,
    paging: Paging,
    *,
    kind: Annotated[str, typer.Option(help="Kind of record.")] = Episode.kind,
) -> None:
    """List records, newest first."""
    query = paging.of(Query(session.types.cls(kind)))
    async with session.open() as memory:
        _print(session, kind, await memory.query(query))


async def search(
    session: Session,
    conditions: Conditions,
    paging: Paging,
    text: Annotated[
        str | None, typer.Argument(help="Part of the description, in upper or lower case.")
    ] = None,
) -> None:
    """Find episodes by text and conditions.

    All conditions must hold; of several values of one option any, of --tag, --tool and --metadata all.
    """
    query = paging.of(conditions.query())
    async with session.open() as memory:
        page = await memory.query(query) if text is None else await _containing(memory, query, text)
        _print(session, Episode.kind, page)


async def _containing(memory: Memory, query: Query[Episode], text: str) -> Page[Episode]:
    """The first of what a query finds whose description contains a text."""
    wanted, needle = query.page_size, text.casefold()
    found: list[Episode] = []
    query = query.limit(_SCANNED_AT_ONCE)
    while True:
        page = await memory.query(query)
        for place, episode in enumerate(page.records, 1):
            if needle not in episode.task_description.casefold():
                continue
            found.append(episode)
            if len(found) == wanted:
                more = place < len(page) or page.next_cursor is not None
                return Page(tuple(found), _after(query, episode) if more else None)
        if page.next_cursor is None:
            return Page(tuple(found))
        query = query.after(page.next_cursor)


def _after(query: Query[Episode], episode: Episode) -> str:
    index = Episode.index(query.order) if query.order else None
    value: Any = None if index is None else index.of(episode)
    return query.cursor(value, episode.id)


def _print(session: Session, kind: str, page: Page[Any]) -> None:
    if session.as_json:
        from memory_core.codec.convert import record_to_json

        records = [record_to_json(record) for record in page.records]
        session.write_json({"kind": kind, "records": records, "next_cursor": page.next_cursor})
        return
    from memory_core.cli import output

    console = output.console()
    if not page.records:
        console.print(f"no {kind} found")
        return
    if kind == Episode.kind:
        console.print(_episodes(page.records, console.width))
    else:
        console.print(_records(page.records))
    if page.next_cursor is not None:
        console.print(f"[dim]more: --cursor {page.next_cursor}[/dim]", soft_wrap=True)


def _episodes(records: tuple[Episode, ...], width: int) -> Any:
    from memory_core.cli import output

    right, whole = {"justify": "right", "no_wrap": True}, {"no_wrap": True}
    form = "%Y-%m-%d %H:%M:%S"
    if width < _NARROW:
        form = "%Y-%m-%d" if width < _NARROWEST else "%Y-%m-%d %H:%M"
    names = output.short_ids(record.id for record in records)
    columns: dict[str, tuple[dict[str, Any], Callable[[Episode], Any]]] = {
        "id": (whole, lambda episode: names[episode.id]),
        "began (UTC)": (whole, lambda episode: output.start_text(episode, form)),
        "type": (whole, lambda episode: episode.task_type.value),
        "outcome": (whole, output.outcome_text),
        "reward": (
            right,
            lambda episode: output.number(episode.reward.total if episode.reward else None),
        ),
        "steps": (right, lambda episode: str(len(episode.steps))),
        "description": (
            {"overflow": "ellipsis", "no_wrap": True, "ratio": 1},
            lambda episode: output.plain(episode.task_description),
        ),
    }
    if width < _NARROW:
        for name in ("type", "reward", "steps"):
            del columns[name]
    table = output.table("", [(name, options) for name, (options, _) in columns.items()])
    for episode in records:
        table.add_row(*(value(episode) for _, value in columns.values()))
    return table


def _records(records: tuple[Record, ...]) -> Any:
    from memory_core.cli import output

    whole = {"overflow": "ellipsis", "no_wrap": True, "ratio": 1}
    table = output.table("", [("id", {"no_wrap": True}), "kind", ("about", whole)])
    names = output.short_ids(record.id for record in records)
    for record in records:
        table.add_row(
            names[record.id], record.variant or record.kind, output.plain(output.summary(record))
        )
    return table
