"""ATIF, the trajectory format of Harbor and Terminal-Bench: a JSON object with an agent and its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.chat import is_unknown
from memory_core.importers.content import parameters_of, set_result, text_of
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import plain_text
from memory_core.importers.reading import entries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from memory_core.importers.draft import Draft
    from memory_core.importers.fields import Fields
    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "AtifImporter"]

_ROLES = {"agent": "assistant"}
_TOTALS = {
    "prompt_tokens": "final_metrics.total_prompt_tokens",
    "completion_tokens": "final_metrics.total_completion_tokens",
    "cost": "final_metrics.total_cost_usd",
}


def _recognises(sample: Sample) -> bool:
    return any(
        str(item.get("schema_version")).startswith("ATIF-") and item.has("steps")
        for item in sample.objects
    )


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    for entry in entries(source, log):
        waiting: list[tuple[Fields, UUID | None]] = [(entry, None)]
        while waiting:
            trajectory, parent = waiting.pop()
            if not trajectory.list("steps"):
                log.skip(trajectory.place, "steps: expected a list of steps")
                continue
            draft = _draft(trajectory, entry)
            draft.parent = parent
            yield draft
            waiting += [(child, draft.id) for child in trajectory.objects("subagent_trajectories")]


def _draft(trajectory: Fields, whole: Fields) -> EpisodeDraft:
    session = trajectory.text("session_id") or whole.text("session_id")
    own = trajectory.text("trajectory_id")
    draft = EpisodeDraft(
        source="atif",
        key=(session, own) if session or own else (content_digest(dict(trajectory.value)),),
        log=trajectory.log,
        place=trajectory.place,
        unnamed="A trajectory",
        framework=trajectory.text("agent.name"),
        metadata={
            "session_id": session,
            "trajectory_id": own,
            "agent": trajectory.text("agent.name"),
            "version": trajectory.text("agent.version"),
            "model": trajectory.text("agent.model_name"),
            "notes": trajectory.text("notes"),
            "continued_in": trajectory.text("continued_trajectory_ref"),
            **{name: trajectory.get(path) for name, path in _TOTALS.items()},
        },
    )
    for step in trajectory.objects("steps"):
        _step(draft, step)
    return draft


def _step(draft: EpisodeDraft, step: Fields) -> None:
    source, time = step.text("source") or "unknown", step.time("timestamp")
    before, heard = len(draft.steps), draft.heard
    thought = text_of(step.get("reasoning_content"), draft.log, step.place)
    draft.say("reasoning", thought, time, step.place)
    said = text_of(step.get("message"), draft.log, step.place)
    draft.say(_ROLES.get(source, source), said, time, step.place)
    calls: list[Draft] = []
    for call in step.objects("tool_calls"):
        name, call_id = call.text("function_name"), call.text("tool_call_id")
        arguments = parameters_of({**call.value, "function_name": None}, "arguments")
        calls.append(draft.call(name, arguments, call_id, time, call.place))
    for result in step.objects("observation.results"):
        _result(draft, calls, result)
    if draft.heard == heard and is_unknown(draft, step.value, step.place, ("observation",)):
        return
    if len(draft.steps) == before:
        draft.turn(_ROLES.get(source, source), "", time, step.place)
    names = ("metrics.prompt_tokens", "metrics.completion_tokens")
    draft.steps[before].count(sum(step.number(name) or 0 for name in names))
    beside = {"model": "model_name", "cost": "metrics.cost_usd", "copied": "is_copied_context"}
    aside = {name: step.text(path) for name, path in beside.items()}
    draft.steps[before].metadata |= {name: text for name, text in aside.items() if text}


def _result(draft: EpisodeDraft, calls: list[Draft], result: Fields) -> None:
    call_id = result.text("source_call_id")
    if "content" not in result and "subagent_trajectory_ref" not in result:
        is_unknown(draft, result.value, result.place, ("source_call_id", "extra"))
    if call_id is None and len(calls) == 1:
        call_id = calls[0].metadata.get("call_id")
    text = text_of(result.get("content"), draft.log, result.place)
    if call_id is None:  # What the environment shows without having been asked by a tool.
        draft.say("observation", text, calls[0].timestamp if calls else None, result.place)
    else:
        set_result(draft.answer(call_id, None, None, result.place), text)
    children = [
        plain_text(child.get("trajectory_id", "session_id"))
        for child in result.objects("subagent_trajectory_ref")
    ]
    if named := ", ".join(filter(None, children)):
        draft.steps[-1].metadata["subagents"] = named


FORMAT = Format(
    name="atif",
    summary="ATIF trajectories (Harbor, Terminal-Bench)",
    recognises=_recognises,
    read=_read,
    nested=True,
    table={
        "session_id, trajectory_id": "id; metadata session_id, trajectory_id",
        "agent.name, version, model_name": "framework; metadata agent, version, model",
        "steps[].message, reasoning_content": "steps with role user, assistant, system; reasoning",
        "steps[].tool_calls": "steps with tool and parameters",
        "steps[].observation.results": "their results; what no call asked for: steps with role observation",
        "steps[].timestamp": "times of steps",
        "steps[].metrics": "tokens of its first step, metadata cost",
        "final_metrics": "metadata prompt_tokens, completion_tokens, cost",
        "subagent_trajectories": "episodes of their own, related by parent_child",
        "subagent_trajectory_ref, continued_trajectory_ref": "metadata subagents; continued_in",
    },
)


class AtifImporter(FormatImporter):
    """Reads trajectories in ATIF."""

    format = FORMAT
