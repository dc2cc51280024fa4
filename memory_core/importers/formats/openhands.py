"""OpenHands: events of version 0, alone or in results of evaluations, and events of version 1.

- Version 0: actions and observations; an array, JSON lines, an object with ``history``, or lines of an
  evaluation's ``output.jsonl`` with ``instance_id`` and ``history``.
- Version 1: events with a ``kind``, also a file each, as a conversation's folder has them; those of one
  folder become one episode, whichever is imported first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import Fields, mapping, sequence
from memory_core.importers.language import language_of, patched_files
from memory_core.importers.openhands_events import (
    add_event,
    is_event,
    joined,
    outcome_claimed,
    outcome_reported,
)
from memory_core.importers.reading import values
from memory_core.importers.sample import Layout, sample_of
from memory_core.importers.software import note_patch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "OpenHandsImporter"]

_LISTS = ("history", "events", "trajectory")
_ASKED = {"source", "timestamp", "action", "args", "observation", "extras", "kind", "content"}


def _recognises(sample: Sample) -> bool:
    for item in sample.objects:
        own = {name: item.get(name) for name in item.keys & _ASKED}
        if is_event(own):
            return True
        for name in _LISTS:
            first = item.get(f"{name}.0")
            if is_event(first) or is_event(item.get(f"{name}.0.0")):
                return True
    return False


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    sample = sample_of(source)
    bare = sample.first.has("kind") or sample.first.has("source")
    if bare and sample.layout is not Layout.DOCUMENT:
        events = [value for _, value in values(source, log)]
        yield from _draft(source, Fields({"history": events}, log))
        return
    for place, value in values(source, log):
        run = Fields(_run_of(value), log, place)
        if isinstance(run.get(*_LISTS), list):
            yield from _draft(source, run)
        else:
            log.skip(place, "history: expected a list of events")


def _run_of(value: Any) -> object:
    """An object with events in it, also of one event, or of a bare list of them."""
    if bare := sequence(value):
        return {"history": bare}
    return {"history": [value]} if is_event(value) else value


def _draft(source: Source, run: Fields) -> Iterator[EpisodeDraft]:
    # Older evaluations have pairs of an action and its observation.
    events = [event for item in run.list(*_LISTS) for event in sequence(item) or [item]]
    instance = run.text("instance_id")
    draft = EpisodeDraft(
        source="openhands",
        key=_key(source, run, instance, events),
        log=run.log,
        place=run.place,
        description=run.text("instruction"),
        unnamed="An OpenHands conversation",
        domain="software-engineering",
    )
    steps: dict[int, Any] = {}
    for number, event in enumerate(events, 1):
        add_event(draft, Fields(event, run.log, f"{run.place} event {number}".strip()), steps)
    draft.metadata.pop("reply", None)
    if not draft.steps:
        return
    patch = run.text("test_result.git_patch", "git_patch") or ""
    note_patch(draft, "test_result.git_patch", patch)
    draft.language = language_of(patched_files(patch))
    draft.outcome = outcome_reported(run, patch) or outcome_claimed(events)
    run.object("metadata").leave_out_others("agent_class")
    draft.metadata |= {
        "instance_id": instance,
        "agent": run.text("metadata.agent_class"),
        "model": run.text("metadata.llm_config.model") or draft.metadata.get("model"),
        "cost": run.get("metrics.accumulated_cost") or draft.metadata.get("cost"),
        "error": run.text("error"),
    }
    yield draft


def _key(
    source: Source, run: Fields, instance: str | None, events: list[Any]
) -> tuple[object, ...]:
    """What stays as a conversation goes on: its instance, its folder, or its first prompt."""
    if instance is not None:
        return (instance, content_digest(events))
    folder = source.path.parent
    if len(events) == 1 and folder.name == "events":
        return ("conversation", folder.parent.name)
    if conversation := run.text("conversation_id", "id"):
        return ("conversation", conversation)
    prompts = (event for event in events if mapping(event).get("source") == "user")
    first = next(prompts, events[0] if events else None)
    named = {name: mapping(first).get(name) for name in ("id", "timestamp", "source")}
    return (content_digest(named),)


FORMAT = Format(
    name="openhands",
    summary="OpenHands events, and output.jsonl of its evaluations",
    recognises=_recognises,
    read=_read,
    joined=joined,
    table={
        "instance_id, history; the first event; the conversation's folder": "id; metadata instance_id",
        "instruction; the user's first message": "description",
        "action, args; kind ActionEvent": "step: tool, parameters; metadata thought",
        "observation, content, cause; ObservationEvent": "its result; latency",
        "extras.metadata.exit_code, success, error": "an error where it is not 0; metadata exit_code",
        "timestamp": "times (UTC where they name no zone)",
        "model_response.usage, accumulated_cost": "tokens, once a reply; metadata cost, model",
        "test_result.report.resolved, error; else finish task_completed": "outcome, artifacts",
        "changes of state, recalls; message, extras": "left out: the latter repeat the others",
    },
)


class OpenHandsImporter(FormatImporter):
    """Reads events and evaluations of OpenHands."""

    format = FORMAT
