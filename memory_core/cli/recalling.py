"""``memory recall``, ``memory feedback`` and ``memory evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from memory_core.cli import cells
from memory_core.cli.commands import command
from memory_core.cli.conditions import Conditions
from memory_core.cli.hints import hint_at_namespace
from memory_core.cli.lookup import prefix_range
from memory_core.cli.session import Session
from memory_core.records import Outcome, OutcomeStatus, Record

if TYPE_CHECKING:
    from memory_core.learning import Evaluation, Measure, Recall, RecalledEpisode, RecalledRule

__all__ = ["add_commands"]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(app, "recall")(recall)
    command(app, "feedback")(feedback)
    command(app, "evaluate")(evaluate)


async def recall(
    session: Session,
    conditions: Conditions,
    task: Annotated[str, typer.Argument(help="The task, in any words.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many of each sort.")] = 5,
    prompt: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", min=150, help="Print the text for a prompt of this size."),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what moved each score.")] = False,
    record: Annotated[
        bool, typer.Option("--record/--no-record", help="Record it, so that feedback can name it.")
    ] = True,
) -> None:
    """Show what helps with a task: what worked, what failed, patterns and heuristics.

    With conditions, only episodes that fulfil all of them are looked at.
    """
    where = conditions.query()
    opened = session.open() if record else session.read()
    async with opened as memory:
        found = await memory.recall(task, where=where, limit=limit)
        if not found.shown:
            await hint_at_namespace(memory)
    if session.as_json:
        session.write_json(_json(found, prompt))
    elif prompt is not None:
        typer.echo(found.to_prompt(prompt))
    elif explain:
        _print_explanation(found)
    else:
        _print(found)


async def feedback(
    session: Session,
    recalled: Annotated[str, typer.Argument(metavar="RECALL", help="The whole id of the recall.")],
    *,
    used: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="What was used: an id, or its beginning.")
    ] = None,
    outcome: Annotated[OutcomeStatus, typer.Option(help="How the task ended.")],
    note: Annotated[
        str, typer.Option(help="The verdict, or the reason.")
    ] = "told on the command line",
) -> None:
    """Say whether what was recalled helped."""
    from memory_core.cli.failures import WorkFailedError
    from memory_core.records import RecallRecord

    made = {
        OutcomeStatus.SUCCESS: Outcome.success,
        OutcomeStatus.PARTIAL_SUCCESS: Outcome.partial_success,
        OutcomeStatus.FAILURE: Outcome.failure,
        OutcomeStatus.ABSTAINED: Outcome.abstained,
    }[outcome](note)
    async with session.open() as memory:
        stored = await memory.get(RecallRecord, recalled)
        if stored is None:
            raise WorkFailedError(f"no recall {recalled} is recorded: it has expired, or never was")
        chosen: list[Any] = []
        for text in used or ():
            low, high = prefix_range(text) or (None, None)
            matches = [one for one in stored.shown if low and high and low <= one <= high]
            if len(matches) != 1:
                raise WorkFailedError(
                    f"{text!r} is the beginning of {len(matches)} of the ids shown"
                )
            chosen += matches
        receipt = await memory.feedback(stored.id, chosen, made)
    if session.as_json:
        session.write_json({"recall": str(stored.id), "position": receipt.position})
    else:
        what = (
            f"{len(chosen)} record{'s' * (len(chosen) > 1)}"
            if chosen
            else "no record, moves nothing"
        )
        typer.echo(f"told of {what}: {outcome.value}")


async def evaluate(
    session: Session,
    conditions: Conditions,
    *,
    task_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Metadata of a task. Default: the same description."),
    ] = None,
    sample: Annotated[int, typer.Option(min=2, help="Ask for at most so many episodes.")] = 200,
) -> None:
    """Measure how well recall works on this store: each episode is left out, and its task asked again."""
    async with session.read() as memory:
        found = await memory.evaluate(where=conditions.query(), task_key=task_key, sample=sample)
    if session.as_json:
        session.write_json(_evaluation_json(found))
        return
    from memory_core.cli import output

    rows = [
        ("a useful episode comes first", _interval(found.useful)),
        ("the same task among the first five", _interval(found.same_task)),
        ("confidence tells seen from unseen (AUROC)", _interval(found.auroc)),
    ]
    title = f"{found.episodes} episodes of {found.tasks} tasks, each left out; intervals at 95 %"
    output.console().print(output.facts(title, rows))


def _interval(measure: Measure) -> str:
    return f"{measure.value:.3f} ({measure.low:.3f} to {measure.high:.3f})"


def _evaluation_json(found: Evaluation) -> dict[str, Any]:
    measures = {"useful": found.useful, "same_task": found.same_task, "auroc": found.auroc}
    return {"episodes": found.episodes, "tasks": found.tasks} | {
        name: {"value": one.value, "low": one.low, "high": one.high}
        for name, one in measures.items()
    }


def _json(found: Recall, prompt: int | None) -> dict[str, Any]:
    from memory_core.codec.json_objects import record_to_json

    def item(one: RecalledEpisode | RecalledRule[Record]) -> dict[str, Any]:
        return {"score": one.score, "why": one.why, "record": record_to_json(one.record)}

    groups = {
        "worked": found.worked, "failed": found.failed, "unjudged": found.unjudged,
        "patterns": found.patterns, "heuristics": found.heuristics,
    }  # fmt: skip
    return {
        "id": str(found.id),
        "confidence": found.confidence,
        "known": found.known,
        **{name: [item(one) for one in items] for name, items in groups.items()},
        "prompt": found.to_prompt(prompt or 800),
    }


def _print_explanation(found: Recall) -> None:
    from memory_core.cli import output

    text = f"recall {found.id}\n{found.explain()}"
    output.console().print(output.indented_lines(text), soft_wrap=True)


def _print(found: Recall) -> None:
    from memory_core.cli import output

    console = output.console()
    known = "known" if found.known else "nothing here is like it"
    console.print(output.plain(f"recall {found.id}: {found.confidence:.0%} sure, {known}"))
    names = cells.short_ids(found.shown)
    groups = {
        "worked": found.worked, "failed": found.failed, "unjudged": found.unjudged,
        "patterns": found.patterns, "heuristics": found.heuristics,
    }  # fmt: skip
    columns: list[cells.Column] = [
        ("score", cells.RIGHT | cells.WHOLE),
        ("id", cells.WHOLE),
        ("about", {"overflow": "ellipsis", "no_wrap": True, "ratio": 1}),
    ]
    for name, items in groups.items():
        if items:
            rows = [(f"{o.score:.3f}", names[o.id], cells.summary(o.record)) for o in items]
            console.print(output.table(name, columns, rows))
