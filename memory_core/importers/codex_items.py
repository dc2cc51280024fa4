"""Items and events of Codex as steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.chat import is_unknown
from memory_core.importers.content import arguments_of, parameters_of, text_of
from memory_core.importers.software import set_command_output

if TYPE_CHECKING:
    from datetime import datetime

    from memory_core.importers.draft import Draft, EpisodeDraft
    from memory_core.importers.fields import Fields

__all__ = ["add_event", "add_item", "is_context"]

# What the program puts before the first prompt.
_CONTEXT = (
    "<environment_context", "<user_instructions", "<permissions", "<skills", "<INSTRUCTIONS",
    "# AGENTS.md instructions", "<turn_aborted", "<collaboration_mode", "<app-context", "<personality",
)  # fmt: skip
# What an item has besides what is said.
_NOT_SAID = frozenset({"summary", "encrypted_content", "ghost_commit", "phase", "status"})


def add_item(draft: EpisodeDraft, item: Fields, time: datetime | None) -> None:
    """Add an item of OpenAI's Responses: a message, a thought, a call or its output."""
    kind = item.text("type") or ("message" if "role" in item else "unknown")
    log, place, before = draft.log, item.place, draft.heard
    match kind.rpartition("_")[2]:
        case "message":
            role = item.text("role") or "unknown"
            said = draft.say(role, text_of(item.get("content"), log, place), time, place)
            if said is not None and is_context(said):
                said.metadata["meta"] = "true"
        case "reasoning":
            thought = text_of(item.get("content") or item.get("summary"), log, place)
            draft.say("thinking", thought, time, place)
        case "output":
            step = draft.answer(item.text("call_id"), None, time, place)
            set_command_output(step, item.get("output"), log, place)
        case "call":
            _call(draft, item, kind, time)
        case _:
            log.left_out[kind] += 1
    if "encrypted_content" in item:
        log.left_out[f"encrypted {kind}"] += 1
    if draft.heard == before:
        is_unknown(draft, item.value, place, _NOT_SAID)


def _call(draft: EpisodeDraft, item: Fields, kind: str, time: datetime | None) -> None:
    name = item.text("name") or kind.removesuffix("_call")
    given = item.get("arguments", "input", "action")
    parameters = arguments_of(given, "input" if "input" in item else "arguments")
    if given is None:
        parameters = parameters_of({k: v for k, v in item.value.items() if k not in _NOT_SAID})
    step = draft.call(name, parameters, item.text("call_id", "id"), time, item.place)
    status = item.text("status")
    if status in {"failed", "incomplete"}:
        step.failed(status)


def is_context(step: Draft) -> bool:
    """Whether a message is what the program puts before the first prompt."""
    return str(step.parameters["content"]).lstrip().startswith(_CONTEXT)


def add_event(draft: EpisodeDraft, event: Fields, time: datetime | None, counted: int) -> int:
    """Take over what only an event tells.

    Returns:
        How many tokens the session has taken so far; those that it had read before are not counted.
    """
    kind = event.text("type") or "unknown"
    if kind == "token_count":
        usage = event.object("info.total_token_usage")
        total = (usage.integer("total_tokens") or 0) - (usage.integer("cached_input_tokens") or 0)
        if draft.steps and total > counted:
            draft.steps[-1].tokens_used = (draft.steps[-1].tokens_used or 0) + total - counted
        draft.metadata["tokens"] = usage.integer("total_tokens") or draft.metadata.get("tokens")
        return max(counted, total)
    if kind in {"error", "stream_error", "turn_aborted"}:
        text = event.text("message", "reason") or kind
        step = draft.turn("system", text, time, event.place, event=kind)
        if kind != "turn_aborted":
            step.failed(text)
    else:
        draft.log.left_out[f"event {kind}"] += 1
    return counted
