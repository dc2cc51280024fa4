"""``memory show``: one record; for an episode also a timeline of its steps and a tree of its
relationships.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memory_core.cli import cells
from memory_core.cli.commands import command
from memory_core.cli.lookup import find_record
from memory_core.cli.session import Session
from memory_core.codec.json_objects import record_to_json
from memory_core.importers.timing import has_times
from memory_core.records import Episode, ExecutionStep, Heuristic, Pattern, Record, ResultStatus

if TYPE_CHECKING:
    from uuid import UUID

    from rich.console import Console
    from rich.tree import Tree

    from memory_core.graph import RelatedEpisode

__all__ = ["add_commands", "show"]

_LONGEST = 200
_LONGEST_NUMBER = 15
_WIDEST_TOOL = 24
# Metadata of a step that did not end in time: what it had printed.
_PRINTED = ("output", "observation")


def add_commands(app: typer.Typer) -> None:
    """Add the command to an application."""
    command(app, "show")(show)


async def show(
    session: Session,
    record: Annotated[str, typer.Argument(metavar="ID", help="An id, or the beginning of one.")],
    *,
    depth: Annotated[int, typer.Option(min=1, help="How far to follow relationships.")] = 2,
    full: Annotated[
        bool, typer.Option("--full", help="Show long texts of steps whole, with their line breaks.")
    ] = False,
) -> None:
    """Show one record.

    An episode comes with a timeline of its steps and a tree of its relationships.
    """
    async with session.read() as memory:
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
        _show_episode(console, found, full=full)
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


def _show_episode(console: Console, episode: Episode, *, full: bool) -> None:
    from memory_core.cli import output

    console.print(output.plain_lines(episode.task_description, "bold"))
    console.print(output.facts("", _facts(episode)))
    if not episode.steps:
        return
    console.print()
    if full:
        _print_steps(console, episode)
    else:
        console.print(_timeline(episode))


def _facts(episode: Episode) -> list[tuple[str, Any]]:

    context = episode.context
    facts: list[tuple[str, Any]] = [
        ("id", str(episode.id)),
        ("type", f"{episode.task_type.value}, {context.complexity.value}"),
        ("domain", ", ".join(filter(None, (context.domain, context.language, context.framework)))),
        ("began", _began(episode)),
        ("took", _took(episode)),
        ("outcome", cells.outcome_text(episode)),
    ]
    if episode.outcome:
        facts.append(("", episode.outcome.verdict or episode.outcome.reason or ""))
    if episode.reward:
        facts.append(("reward", cells.number(episode.reward.total)))
    if tokens := sum(step.tokens_used or 0 for step in episode.steps):
        facts.append(("tokens", cells.number(tokens)))
    facts.append(("tags", ", ".join(dict.fromkeys((*episode.tags, *context.tags)))))
    facts.append(
        ("metadata", ", ".join(f"{key}={_rounded(text)}" for key, text in episode.metadata.items()))
    )
    if episode.reflection:
        facts += [("insight", text) for text in episode.reflection.insights]
    return [(name, value) for name, value in facts if str(value)]


def _began(episode: Episode) -> str:

    began = cells.start_text(episode, "%Y-%m-%d %H:%M:%S UTC")
    return f"{began} (the transcript has no times)" if began == "—" else began


def _took(episode: Episode) -> str:
    from memory_core.cli import output

    if episode.end_time is None or not has_times(episode):
        return ""
    return output.duration(episode.end_time - episode.start_time)


def _rounded(text: str) -> str:
    """A number without binary rounding noise: 0.1 instead of 0.100000000000000006."""
    try:
        number = float(text)
    except ValueError:
        return text
    return f"{number:.12g}" if repr(number) == text and len(text) > _LONGEST_NUMBER else text


def _after(episode: Episode, step: ExecutionStep) -> str:
    """A step's time since the start of the episode; "" if its transcript has no times."""
    if not has_times(episode):
        return ""
    seconds = round((step.timestamp - episode.start_time).total_seconds(), 1)
    return f"{seconds + 0.0:+.1f} s"  # adding 0.0 turns -0.0 into 0.0


def _print_steps(console: Console, episode: Episode) -> None:
    """Print the steps one below the other, with their whole texts."""
    from rich.padding import Padding

    from memory_core.cli import output

    for step in episode.steps:
        latency = f"{cells.number(step.latency_ms, 0)} ms" if step.latency_ms else ""
        tokens = f"{cells.number(step.tokens_used)} tokens" if step.tokens_used else ""
        head = (f"{step.number}", step.tool, _after(episode, step), latency, tokens)
        console.print(output.plain(" · ".join(filter(None, head)), "bold"))
        texts = [(step.action, ""), *((text, "") for text in _parameters(step)), _outcome(step)]
        for text, style in texts:
            if text:
                console.print(Padding(output.plain_lines(text, style), (0, 0, 0, 4)))


def _timeline(episode: Episode) -> Any:
    from memory_core.cli import output

    rows: list[tuple[output.Cell, ...]] = [
        (
            str(step.number),
            _after(episode, step),
            step.tool,
            _shortened(" ".join((step.action, ", ".join(_parameters(step)))).strip()),
            _result(step),
            cells.number(step.latency_ms, 0) if step.latency_ms else "",
            cells.number(step.tokens_used) if step.tokens_used else "",
        )
        for step in episode.steps
    ]
    # The widths are proportional to the lengths of the texts, but neither column gets less than a third.
    actions, results = (sum(len(str(row[place])) for row in rows) for place in (3, 4))
    least = max(1, (actions + results) // 3)
    columns: list[tuple[str, dict[str, Any]]] = [
        ("#", {"justify": "right", "style": "dim", "no_wrap": True}),
        ("after", {"justify": "right", "no_wrap": True}),
        ("tool", {"no_wrap": True, "overflow": "ellipsis", "max_width": _WIDEST_TOOL}),
        ("action", {"ratio": max(actions, least)}),
        ("result", {"ratio": max(results, least)}),
        ("ms", {"justify": "right", "no_wrap": True}),
        ("tokens", {"justify": "right", "no_wrap": True}),
    ]
    return output.filled_table("Steps", columns, rows)


def _parameters(step: ExecutionStep) -> list[str]:
    """The parameters of a step; a single text parameter is shown without its name."""
    values = step.parameters
    if len(values) == 1 and isinstance(only := next(iter(values.values())), str):
        return [only]
    return [
        f"{name}={value if isinstance(value, str) else _json(value)}"
        for name, value in values.items()
    ]


def _outcome(step: ExecutionStep) -> tuple[str, str]:
    """A step's result and the style in which it is shown; what is not a success says so."""
    result = step.result
    if result is None:
        return "", ""
    if result.status is not ResultStatus.SUCCESS:
        printed = next((step.metadata[name] for name in _PRINTED if name in step.metadata), "")
        said = printed if result.message is None else result.message
        return f"{result.status.value}: {said}" if said else result.status.value, "red"
    if result.output is None:
        return result.status.value, ""
    return result.output if isinstance(result.output, str) else _json(result.output), ""


def _result(step: ExecutionStep) -> Any:
    from memory_core.cli import output

    text, style = _outcome(step)
    return output.plain(_shortened(text), style)


def _tree(episode: Episode, related: list[RelatedEpisode]) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    from memory_core.cli import output

    names = cells.short_ids([episode.id, *(item.episode.id for item in related)])
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

    items = record_to_json(record).items()
    shown = [(name, _shown(getattr(record, name, None), value)) for name, value in items]
    if isinstance(record, Pattern | Heuristic):
        from memory_core.learning import what_was_counted

        shown += [("counted", counted)] if (counted := what_was_counted(record)) else []
    console.print(output.facts(record.variant or record.kind, shown))


def _shown(value: object, in_json: object) -> str:
    """The value of a field as text; a span of time, which JSON has as a number, with its unit."""
    from memory_core.cli import output

    if isinstance(value, timedelta):
        milliseconds = value / timedelta(milliseconds=1)
        short = abs(milliseconds) < 1_000
        return f"{milliseconds:.4g} ms" if short else output.duration(value)
    return in_json if isinstance(in_json, str) else _json(in_json)


def _json(value: object) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()


def _shortened(text: str, length: int = _LONGEST) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
