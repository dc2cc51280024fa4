"""Turns of ShareGPT's conversations as steps, with the calls of tools that are in their texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.chat import add_message, is_unknown
from memory_core.importers.content import arguments_of, parameters_of, set_result, text_of
from memory_core.importers.fields import mapping, plain_text, sequence
from memory_core.importers.json_text import NotJsonError, loads

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator

    from memory_core.importers.draft import Draft, EpisodeDraft
    from memory_core.importers.fields import Fields

__all__ = ["add_turn"]

_ROLES = {
    "human": "user", "gpt": "assistant", "bing": "assistant", "bard": "assistant", "chatgpt": "assistant",
}  # fmt: skip
_ANSWERS = frozenset({"tool", "observation", "function_response", "function"})


def add_turn(draft: EpisodeDraft, turn: Fields, waiting: deque[Draft]) -> None:
    """Add a turn; calls without an answer wait for the turns after it."""
    if "from" not in turn and "role" in turn:
        add_message(draft, turn.value, turn.place)
        return
    named = (turn.text("from") or "unknown").lower()
    text, place = text_of(turn.get("value"), draft.log, turn.place), turn.place
    if not text and is_unknown(draft, turn.value, place, ("from", "value", "weight")):
        return
    if turn.get("value") is None and named not in _ANSWERS:
        draft.log.note(place, f"the turn of {named} has no value, and is left out")
        return
    if named == "function_call":
        _call(draft, text, place, waiting)
    elif named in _ANSWERS:
        _answer(draft, text, place, waiting)
    else:
        _said(draft, _ROLES.get(named, named), text, place, waiting)


def _said(draft: EpisodeDraft, role: str, text: str, place: str, waiting: deque[Draft]) -> None:
    before = len(draft.steps)
    if role == "assistant":
        for name in ("think", "thinking"):
            text = _without_thoughts(draft, text, name, place)
        *parts, (text, _) = _tagged(text, "tool_call")
        for part, is_call in parts:
            if is_call:
                _call(draft, part, place, waiting)
            else:
                draft.say(role, part.strip(), None, place)
    rest = text.strip() if len(draft.steps) > before else text
    if rest or len(draft.steps) == before:
        draft.turn(role, rest, None, place)


def _without_thoughts(draft: EpisodeDraft, text: str, name: str, place: str) -> str:
    kept: list[str] = []
    for part, is_thought in _tagged(text, name):
        if is_thought:
            draft.say("thinking", part, None, place)
        else:
            kept.append(part)
    return "".join(kept)


def _tagged(text: str, name: str) -> Iterator[tuple[str, bool]]:
    """The parts of a text, and whether each is inside of a tag; the last one never is."""
    opener = f"<{name}>"
    first, *rest = text.split(opener)
    outside = [first]
    for part in rest:
        inside, closed, after = part.partition(f"</{name}>")
        if closed:
            yield "".join(outside), False
            yield inside.strip(), True
            outside = [after]
        else:
            outside += [opener, part]
    yield "".join(outside), False


def _call(draft: EpisodeDraft, text: str, place: str, waiting: deque[Draft]) -> None:
    try:
        value, _ = loads(text.encode("utf-8", "surrogatepass"))
    except NotJsonError:
        value = None
    for call in sequence(value) or [value]:
        given = mapping(call)
        name = plain_text(given.get("name"))
        parameters = parameters_of(given, "arguments", "parameters") if name else arguments_of(text)
        call_id = plain_text(given.get("id"))
        waiting.append(draft.call(name, parameters, call_id, None, place))


def _answer(draft: EpisodeDraft, text: str, place: str, waiting: deque[Draft]) -> None:
    inside = [part for part, is_answer in _tagged(text, "tool_response") if is_answer]
    for answer in inside or [text]:
        fields = mapping(arguments_of(answer))
        call_id, name = plain_text(fields.get("tool_call_id")), plain_text(fields.get("name"))
        step = draft.called(call_id, name)
        while waiting and (step is None or step.result is not None):
            step = waiting.popleft()
        if step is None or step.result is not None:
            step = draft.answer(None, name, None, place)
        set_result(step, answer)
