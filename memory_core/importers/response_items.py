"""Items of OpenAI's Responses API as steps.

An item is a message, a ``reasoning``, a call of a tool (``…_call``), or the output of one
(``…_call_output``). Calls of tools that the provider runs itself hold their results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.chat import add_message
from memory_core.importers.content import (
    arguments_of,
    first_line,
    set_result,
    text_of,
    without_media,
)
from memory_core.importers.fields import Fields, mapping, sequence
from memory_core.records import Outcome

if TYPE_CHECKING:
    from memory_core.importers.draft import EpisodeDraft

__all__ = ["add_items"]

_AROUND = ("", "response.", "request.")
_PARAMETERS = ("arguments", "input", "action", "queries", "code", "operation")
_RESULTS = ("output", "outputs", "results", "result")
_TOOL_SEARCH = "tool_search_call"
# What the user's own program runs is answered by an item of its own.
_ANSWERED_LATER = frozenset(
    {
        "function_call",
        "custom_tool_call",
        "computer_call",
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
        _TOOL_SEARCH,
    }
)
_FAILED = frozenset({"failed", "incomplete"})


def add_items(draft: EpisodeDraft, entry: Fields) -> None:
    """Add the instructions, input and output of a response, or of a logged call."""
    draft.start = entry.time(*_around("created_at"))
    instructions = entry.get(*_around("instructions"))
    draft.say("system", text_of(instructions, draft.log, entry.place), None, entry.place)
    asked = entry.get("input", "request.input")
    if isinstance(asked, str):
        draft.say("user", asked, None, entry.place)
    else:
        _add(draft, entry, "input", "request.input")
    _add(draft, entry, "output", "response.output")
    if draft.steps:
        # A whole call is counted: its tokens are those of its last step.
        draft.steps[-1].count(entry.get(*_around("usage.total_tokens")))
    status = entry.text(*_around("status"))
    reason = entry.text(*_around("error.message"), *_around("incomplete_details.reason"))
    if status == "failed":
        draft.outcome = Outcome.failure(first_line(reason) or "The response failed.", reason)
    draft.metadata |= {
        "model": entry.text(*_around("model")),
        "response_id": entry.text("response.id", "id"),
        "status": status,
        "reason": reason,
    }


def _around(name: str) -> tuple[str, ...]:
    return tuple(f"{around}{name}" for around in _AROUND)


def _add(draft: EpisodeDraft, entry: Fields, *paths: str) -> None:
    for item in entry.objects(*paths):
        kind = item.text("type") or "message"
        match kind.rpartition("_")[2]:
            case "output":
                _answer(draft, item)
            case "call":
                _call(draft, item, kind)
            case "reasoning":
                _thought(draft, item)
            case "message":
                add_message(draft, item.value, item.place)
            case "reference":
                where = item.text("id")
                draft.log.note(item.place, f"refers to an item that is elsewhere: {where}")
            case _:
                said = text_of(dict(item.value), draft.log, item.place)
                draft.say(kind, said, None, item.place)


def _thought(draft: EpisodeDraft, item: Fields) -> None:
    parts = [*item.list("summary"), *item.list("content")]
    draft.say("reasoning", text_of(parts, draft.log, item.place), None, item.place)
    if not parts and "encrypted_content" in item:
        draft.log.note(item.place, "reasoning left out, as only the provider can read it")


def _call(draft: EpisodeDraft, item: Fields, kind: str) -> None:
    named = next((name for name in _PARAMETERS if name in item), "arguments")
    raw = item.get(named)
    given = arguments_of(raw, named)
    tool = item.text("name") or kind.removesuffix("_call")
    # A search of tools has no id where the provider runs it: its output comes next.
    call_id = item.text("call_id") if kind == _TOOL_SEARCH else item.text("call_id", "id")
    step = draft.call(tool, given, call_id, None, item.place)
    if server := item.text("server_label"):
        step.metadata["server"] = server
    status = item.text("status")
    if kind in _ANSWERED_LATER:
        return
    error = text_of(item.get("error"), draft.log, item.place)
    found = without_media(item.get(*_RESULTS), draft.log, item.place, kind)
    if error or found is not None or status is not None:
        text = error or text_of(found, draft.log, item.place)
        set_result(step, text or status or "", failed=bool(error) or status in _FAILED)


def _answer(draft: EpisodeDraft, item: Fields) -> None:
    searched = "tool_search" if item.text("type") == "tool_search_output" else None
    step = draft.answer(item.text("call_id"), item.text("name") or searched, None, item.place)
    output = item.get("output", "tools")
    codes = [mapping(mapping(part).get("outcome")).get("exit_code") for part in sequence(output)]
    text = text_of(without_media(output, draft.log, item.place, "output"), draft.log, item.place)
    failed = True if any(codes) or item.text("status") in _FAILED else None
    set_result(step, text, failed)
