"""``memory show``: a record; an episode with its steps as a timeline and its relationships as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from memory_core.cli.lookup import find_record
from memory_core.cli.session import Session
from memory_core.codec.convert import record_to_json
from memory_core.records import Episode, ExecutionStep, Record

if TYPE_CHECKING:
    from uuid import UUID

    from rich.console import Console
    from rich.tree import Tree

    from memory_core.graph import RelatedEpisode

__all__ = ["show"]

_LONGEST = 200
_LONGEST_NUMBER = 15
_WIDEST_TOOL = 24


async def show(
    session: Session,
    record: Annotated[str, typer.Argument(metavar="ID", help="An id, or the beginning of one.")],
    *,
    depth: Annotated[int, typer.Option(min=1, help="How far to follow relationships.")] = 2,
) -> None:
    """Show one record.

    Of an episode also its steps as a timeline and its relationships as a tree.
    """
    async with session.open() as memory:
        found = await find_record(memory, session.types, record)
        related: list[RelatedEpisode] = []
        if isinstance(found, Episode):
            related = await memory.find_related_episodes(found.id, max_depth=depth, limit=1_000)
    if session.as_json:
        session.write_json(
            {
                "record": record_to_json(found),
                "related": [_related_json(item) for item in related],
            }
        )
        return
    from memory_core.cli import output

    console = output.console()
    if isinstance(found, Episode):
        _show_episode(console, found)
        if related:
            console.print(_tree(found, related))
    else:
        _show_record(console, found)


def _related_json(item: RelatedEpisode) -> dict[str, Any]:
    return {
        "id": str(item.episode.id),
        "description": item.episode.task_description,
        "distance": item.distance,
        "path": [record_to_json(edge) for edge in item.path],
    }


def _show_episode(console: Console, episode: Episode) -> None:
    from rich.text import Text

    from memory_core.cli import output

    console.print(Text(episode.task_description, style="bold"))
    head = output.table("", [("", {"style": "dim", "no_wrap": True}), ""])
    head.show_header = False
    for name, value in _facts(episode):
        head.add_row(name, value if isinstance(value, Text) else output.plain(value))
    console.print(head)
    if episode.steps:
        console.print()
        console.print(_timeline(episode))


def _facts(episode: Episode) -> list[tuple[str, Any]]:
    from memory_core.cli import output

    context = episode.context
    facts: list[tuple[str, Any]] = [
        ("id", episode.id),
        ("type", f"{episode.task_type.value}, {context.complexity.value}"),
        ("domain", ", ".join(filter(None, (context.domain, context.language, context.framework)))),
        ("began", _began(episode)),
        ("took", _took(episode)),
        ("outcome", output.outcome_text(episode)),
    ]
    if episode.outcome:
        facts.append(("", episode.outcome.verdict or episode.outcome.reason or ""))
    if episode.reward:
        facts.append(("reward", output.number(episode.reward.total)))
    facts.append(("tags", ", ".join(dict.fromkeys((*episode.tags, *context.tags)))))
    facts.append(
        ("metadata", ", ".join(f"{key}={_rounded(text)}" for key, text in episode.metadata.items()))
    )
    if episode.reflection:
        facts += [("insight", text) for text in episode.reflection.insights]
    return [(name, value) for name, value in facts if str(value)]


def _began(episode: Episode) -> str:
    from memory_core.cli import output

    began = output.start_text(episode, "%Y-%m-%d %H:%M:%S UTC")
    return f"{began} (the transcript has no times)" if began == "—" else began


def _took(episode: Episode) -> Any:
    from memory_core.cli import output

    if episode.end_time is None or not output.has_times(episode):
        return ""
    return episode.end_time - episode.start_time


def _rounded(text: str) -> str:
    """A number that was computed in binary, without the digits that come of it."""
    try:
        number = float(text)
    except ValueError:
        return text
    return f"{number:.12g}" if repr(number) == text and len(text) > _LONGEST_NUMBER else text


def _timeline(episode: Episode) -> Any:
    from memory_core.cli import output

    timed = output.has_times(episode)
    rows = [
        (
            str(step.number),
            f"{(step.timestamp - episode.start_time).total_seconds():+.1f} s" if timed else "",
            output.plain(step.tool),
            output.plain(_shortened(_action(step))),
            _result(step),
            output.number(step.latency_ms, 0) if step.latency_ms else "",
        )
        for step in episode.steps
    ]
    # By how much there is to read in each; neither gets less than a third.
    actions, results = (sum(len(str(row[place])) for row in rows) for place in (3, 4))
    least = max(1, (actions + results) // 3)
    columns: list[tuple[str, dict[str, Any]]] = [
        ("#", {"justify": "right", "style": "dim", "no_wrap": True}),
        ("after", {"justify": "right", "no_wrap": True}),
        ("tool", {"no_wrap": True, "overflow": "ellipsis", "max_width": _WIDEST_TOOL}),
        ("action", {"ratio": max(actions, least)}),
        ("result", {"ratio": max(results, least)}),
        ("ms", {"justify": "right", "no_wrap": True}),
    ]
    return output.filled_table("Steps", columns, rows)


def _action(step: ExecutionStep) -> str:
    values = step.parameters.values()
    if len(values) == 1 and isinstance(only := next(iter(values)), str):
        return f"{step.action} {only}".strip()
    named = (
        f"{name}={value if isinstance(value, str) else _json(value)}"
        for name, value in step.parameters.items()
    )
    return f"{step.action} {', '.join(named)}".strip()


def _result(step: ExecutionStep) -> Any:
    from memory_core.cli import output

    if step.result is None:
        return ""
    if step.result.output is None:
        text = output.plain(_shortened(step.result.message or step.result.status.value))
        text.stylize("red" if step.result.message else "")
        return text
    shown = step.result.output if isinstance(step.result.output, str) else _json(step.result.output)
    return output.plain(_shortened(shown))


def _tree(episode: Episode, related: list[RelatedEpisode]) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    from memory_core.cli import output

    names = output.short_ids([episode.id, *(item.episode.id for item in related)])
    root = Tree(Text("Relationships", style="bold"), guide_style="dim")
    branches: dict[UUID, Tree] = {episode.id: root}
    for item in related:
        edge = item.path[-1]
        outgoing = edge.to_episode_id == item.episode.id
        near = edge.from_episode_id if outgoing else edge.to_episode_id
        kind = edge.relationship_type.value
        label = Text(f"{kind} → " if outgoing else f"← {kind} ", style="cyan")
        label.append(f"{names[item.episode.id]} ", style="dim")
        label.append_text(output.plain(_shortened(item.episode.task_description, 80)))
        branches[item.episode.id] = branches.get(near, root).add(label)
    return root


def _show_record(console: Console, record: Record) -> None:
    from memory_core.cli import output

    table = output.table(record.variant or record.kind, [("", {"style": "dim"}), ""])
    table.show_header = False
    for name, value in record_to_json(record).items():
        table.add_row(name, output.plain(value if isinstance(value, str) else _json(value)))
    console.print(table)


def _json(value: object) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()


def _shortened(text: str, length: int = _LONGEST) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
