"""``memory list`` and ``memory search``."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memory_core.cli import cells
from memory_core.cli.cells import Column
from memory_core.cli.commands import command
from memory_core.cli.conditions import Conditions, Paging, where
from memory_core.cli.hints import hint_at_conditions, hint_at_namespace
from memory_core.cli.plain import plain_table, plain_width
from memory_core.cli.session import Session
from memory_core.cli.streams import warn
from memory_core.query import Page, Query
from memory_core.records import Episode, Record

if TYPE_CHECKING:
    from memory_core.memory import Memory
    from memory_core.search import SearchHit, SearchHits

__all__ = ["add_commands"]

_SCANNED_AT_ONCE = 200
# The reference index reads every episode each time the command runs: up to so many in a second or two.
_FOR_THE_REFERENCE = 5_000
# Below these widths of a terminal a table has fewer columns, so that the description can be read.
_NARROW, _NARROWEST = 110, 70
# A column that takes the width that is left.
_REST: dict[str, Any] = {"overflow": "ellipsis", "no_wrap": True, "ratio": 1}


def add_commands(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(app, "list")(list_records)
    command(app, "search")(search)


async def list_records(
    session: Session,
    paging: Paging,
    *,
    kind: Annotated[str, typer.Option(help="Kind of record.")] = Episode.kind,
    conditions: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="INDEX=VALUE",
            help="Has this value of an index; of several values of a list, all of them.",
        ),
    ] = None,
) -> None:
    """List records, newest first."""
    query = paging.of(where(Query(session.types.cls(kind)), conditions))
    async with session.read() as memory:
        page = await memory.query(query)
        _print(session, kind, page)
        if not page.records:
            await hint_at_namespace(memory)


async def search(
    session: Session,
    conditions: Conditions,
    paging: Paging,
    text: Annotated[
        str | None,
        typer.Argument(help="Words of the episode; the last one may be the beginning of a word."),
    ] = None,
    *,
    phrase: Annotated[
        bool, typer.Option("--phrase", help="The words one after the other, as they are.")
    ] = False,
    typos: Annotated[
        int, typer.Option(min=0, max=2, help="Of how many letters a word may differ.")
    ] = 0,
) -> None:
    """Find episodes by words and conditions: the best match first, without words the newest.

    An episode must fulfil all conditions. Of several values of one option it needs one; of --tag, --tool
    and --metadata it needs all. With --order or --cursor the text is looked for as it is, in descriptions
    alone.
    """
    query = paging.of(conditions.query())
    async with session.read() as memory:
        ranked = paging.order is None and paging.desc and paging.cursor is None
        if text is not None and ranked and await _is_searchable(memory):
            from memory_core.search import Words

            words = Words(text, match="phrase" if phrase else "prefix", typos=typos)
            hits = await memory.search(words, query)
            page = Page(tuple(hits.records))
            _print_hits(session, hits)
        else:
            page = await _page(memory, query, text)
            _print(session, Episode.kind, page)
        if not page.records and not await hint_at_namespace(memory):
            await hint_at_conditions(memory, conditions)


async def _is_searchable(memory: Memory) -> bool:
    """Whether the search index answers in the time that a command may take."""
    if memory.search_index() != "reference":
        return True
    held = await memory.count_episodes()
    if held <= _FOR_THE_REFERENCE:
        return True
    warn(
        f"hint: no plugin with a search index for large stores is installed: only the descriptions of "
        f"{held:,} episodes are looked at, newest first"
    )
    return False


async def _page(memory: Memory, query: Query[Episode], text: str | None) -> Page[Episode]:
    return await memory.query(query) if text is None else await _containing(memory, query, text)


async def _containing(memory: Memory, query: Query[Episode], text: str) -> Page[Episode]:
    """The first episodes of a query whose descriptions contain a text."""
    wanted, needle = query.page_size, _folded(text)
    found: list[Episode] = []
    query = query.limit(_SCANNED_AT_ONCE)
    while True:
        page = await memory.query(query)
        for place, episode in enumerate(page.records, 1):
            if needle not in _folded(episode.task_description):
                continue
            found.append(episode)
            if len(found) == wanted:
                more = place < len(page) or page.next_cursor is not None
                return Page(tuple(found), _after(query, episode) if more else None)
        if page.next_cursor is None:
            return Page(tuple(found))
        query = query.after(page.next_cursor)


def _folded(text: str) -> str:
    """Text folded for caseless, canonical matching (Unicode 3.13, D145)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def _after(query: Query[Episode], episode: Episode) -> str:
    index = Episode.index(query.order) if query.order else None
    value: Any = None if index is None else index.of(episode)
    return query.cursor(value, episode.id)


def _print(session: Session, kind: str, page: Page[Any]) -> None:
    if session.as_json:
        from memory_core.codec.json_objects import record_to_json

        records = [record_to_json(record) for record in page.records]
        session.write_json({"kind": kind, "records": records, "next_cursor": page.next_cursor})
        return
    width = plain_width()
    lines = width and _plain_lines(kind, page, width)
    if lines:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return
    from memory_core.cli import output

    console = output.console()
    if not page.records:
        console.print(f"no {kind} found")
        return
    console.print(output.table("", *_listing(kind, page.records, console.width)))
    if page.next_cursor is not None:
        console.print(f"[dim]more: --cursor {page.next_cursor}[/dim]", soft_wrap=True)


def _plain_lines(kind: str, page: Page[Any], width: int) -> list[str] | None:
    if not page.records:
        return [f"no {kind} found"]
    lines = plain_table(*_listing(kind, page.records, width), width)
    if lines is not None and page.next_cursor is not None:
        lines.append(f"more: --cursor {page.next_cursor}")
    return lines


def _print_hits(session: Session, hits: SearchHits[Episode]) -> None:
    if session.as_json:
        from memory_core.codec.json_objects import record_to_json

        found = [
            {"id": str(hit.record.id), "score": hit.score, "snippet": hit.snippet, "why": hit.why}
            for hit in hits
        ]
        records = [record_to_json(record) for record in hits.records]
        session.write_json(
            {"kind": Episode.kind, "records": records, "next_cursor": None, "hits": found}
        )
        return
    from memory_core.cli import output

    console = output.console()
    if not hits:
        console.print("no episode found")
        return
    excerpts = {hit.record.id: _excerpt(hit) for hit in hits}
    episodes = tuple(hits.records)
    columns, rows = _episodes(episodes, console.width, about=lambda item: excerpts[item.id])
    console.print(output.table("", columns, rows))


def _excerpt(hit: SearchHit[Episode]) -> Any:
    """A part of the description that has the words, or the description above a part of another text."""
    from memory_core.cli import output

    excerpt = output.marked(hit.snippet, hit.highlights)
    description = " ".join(hit.record.task_description.split())
    if hit.snippet.strip("… ") in description:
        return excerpt
    return output.marked(description, ()).append("\n").append_text(excerpt)


def _listing(
    kind: str, records: tuple[Any, ...], width: int
) -> tuple[list[Column], list[list[Any]]]:
    """The columns and rows that show records on lines of a width."""
    return _episodes(records, width) if kind == Episode.kind else _records(records)


def _description(episode: Episode) -> str:
    return episode.task_description


def _episodes(
    records: tuple[Episode, ...], width: int, about: Callable[[Episode], Any] = _description
) -> tuple[list[Column], list[list[Any]]]:
    form = "%Y-%m-%d %H:%M:%S"
    if width < _NARROW:
        form = "%Y-%m-%d" if width < _NARROWEST else "%Y-%m-%d %H:%M"
    names = cells.short_ids(record.id for record in records)
    columns: dict[str, tuple[dict[str, Any], Callable[[Episode], Any]]] = {
        "id": (cells.WHOLE, lambda episode: names[episode.id]),
        "began (UTC)": (cells.WHOLE, lambda episode: cells.start_text(episode, form)),
        "type": (cells.WHOLE, lambda episode: episode.task_type.value),
        "outcome": (cells.WHOLE, cells.outcome_text),
        "reward": (
            cells.RIGHT | cells.WHOLE,
            lambda episode: episode.reward.total if episode.reward else None,
        ),
        "steps": (cells.RIGHT | cells.WHOLE, lambda episode: str(episode.step_count)),
        "description": (_REST, about),
    }
    if width < _NARROW:
        for name in ("type", "reward", "steps"):
            del columns[name]
    rows = [[value(episode) for _, value in columns.values()] for episode in records]
    return [(name, options) for name, (options, _) in columns.items()], rows


def _records(records: tuple[Record, ...]) -> tuple[list[Column], list[list[Any]]]:
    names = cells.short_ids(record.id for record in records)
    rows = [
        [names[record.id], record.variant or record.kind, cells.summary(record)]
        for record in records
    ]
    return [("id", cells.WHOLE), ("kind", {}), ("about", _REST)], rows
