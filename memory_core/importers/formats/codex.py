"""Codex rollouts: JSON lines of one session, as under ``~/.codex/sessions``.

A line has a time, a type and a payload. What was said and called are ``response_item`` lines, of the form
of OpenAI's Responses; ``event_msg`` lines repeat them for the screen, and only their counts of tokens,
errors and interruptions are read. Older versions wrote the items bare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.codex_items import add_event, add_item
from memory_core.importers.content import text_of
from memory_core.importers.draft import MESSAGE, EpisodeDraft, stable_id
from memory_core.importers.fields import Fields
from memory_core.importers.reading import entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.log import Log
    from memory_core.importers.sample import Peek, Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "CodexImporter"]

_ITEMS = {"message", "reasoning", "function_call", "function_call_output", "local_shell_call"}
_LINES = {"session_meta", "turn_context", "response_item", "event_msg", "compacted"}


def _recognises(sample: Sample) -> bool:
    return any(map(_is_rollout, sample.objects)) or (
        sample.first.has("id", "timestamp", "instructions") and not sample.first.has("messages")
    )


def _is_rollout(item: Peek) -> bool:
    return item.has("type", "payload") and item.get("type") in list(_LINES)


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    draft = EpisodeDraft(
        source="codex", key=(), log=log, unnamed="A Codex session", by_line=True,
        domain="software-engineering",
    )  # fmt: skip
    meta = Fields({}, log)
    counted, model = 0, None
    for line in entries(source, log):
        kind, payload = _of(line)
        before = len(draft.steps)
        time = line.time("timestamp")
        match kind:
            case "session_meta":
                meta = meta or payload
            case "turn_context":
                model = payload.text("model")
                draft.spoke(model, before)
            case "response_item":
                add_item(draft, payload, time)
            case "compacted":
                summary = text_of(payload.get("message"), log, line.place)
                draft.say("system", summary, time, line.place, compacted="true")
            case "event_msg":
                counted = add_event(draft, payload, time, counted)
            case _:
                log.left_out[kind or "unknown"] += 1
        draft.spoke(model, before)
    if draft.steps:
        _describe(draft, meta, source)
        yield draft


def _of(line: Fields) -> tuple[str | None, Fields]:
    """A line's type and payload, also where older versions wrote the payload alone."""
    kind = line.text("type")
    if "payload" in line:
        payload = line.object("payload")
        return kind, Fields(payload.value, line.log, line.place)
    if kind in _ITEMS:
        return "response_item", line
    return ("session_meta" if "id" in line and kind is None else kind), line


def _describe(draft: EpisodeDraft, meta: Fields, source: Source) -> None:
    session = meta.text("id") or source.stem
    draft.key = (session,)
    prompts = (
        str(step.parameters["content"])
        for step in draft.steps
        if step.tool == MESSAGE and step.action == "user" and "meta" not in step.metadata
    )
    draft.description = next((prompt for prompt in prompts if prompt.strip()), None)
    draft.start = meta.time("timestamp")
    if parent := meta.text("source.subagent.thread_spawn.parent_thread_id"):
        draft.parent = stable_id("codex", parent)
        draft.tags.append("subagent")
    if origin := meta.text("forked_from_id"):
        draft.follows = stable_id("codex", origin)
    draft.metadata |= {
        "session_id": session,
        "cwd": meta.text("cwd"),
        "version": meta.text("cli_version"),
        "originator": meta.text("originator"),
        "instructions": meta.text("instructions"),
        "git_branch": meta.text("git.branch"),
        "repo": meta.text("git.repository_url"),
        "forked_from": origin,
    }


FORMAT = Format(
    name="codex",
    summary="Codex rollouts (rollout-*.jsonl)",
    recognises=_recognises,
    read=_read,
    nested=True,
    table={
        "session_meta.payload.id": "id; metadata session_id",
        "session_meta.payload.cwd, cli_version, originator, git": "metadata cwd, version, originator, …",
        "session_meta.payload.instructions": "metadata instructions",
        "session_meta.payload.source.subagent, forked_from_id": "parent; the session it follows",
        "turn_context.payload.model": "metadata model; a step's where it is another",
        "response_item message, reasoning": "steps; description: the user's first prompt",
        "response_item function_call, custom_tool_call, …": "steps with tool and parameters",
        "…_output": "results: an error where the exit code is not 0; latency; metadata exit_code",
        "event_msg token_count": "tokens, without those read before; metadata tokens: all",
        "event_msg error, turn_aborted": "steps with role system",
        "timestamp": "times",
        "other events": "left out: they repeat the items",
    },
)


class CodexImporter(FormatImporter):
    """Reads the rollouts of Codex."""

    format = FORMAT
