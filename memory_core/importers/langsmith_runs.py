"""Runs of LangSmith: which entries are one run, and what its inputs and outputs say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memory_core.importers.chat import add_message
from memory_core.importers.content import text_of
from memory_core.importers.fields import Fields, mapping, sequence
from memory_core.importers.langchain_messages import add_langchain_message, is_langchain_message
from memory_core.importers.unknown import count_unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from memory_core.importers.draft import EpisodeDraft

__all__ = ["BATCHES", "add_answer", "add_question", "generated", "merged_runs", "only_text"]

BATCHES = ("post", "patch")
"""What an entry may hold instead of a run: new runs, and what has changed of them."""


def merged_runs(entries: Iterable[Fields]) -> Iterable[Fields]:
    """The runs in entries, each once: what comes later of one replaces what came before."""
    found: dict[str, Fields] = {}
    for entry in entries:
        for run in _runs(entry):
            name = run.text("dotted_order", "id") or run.place
            told = {key: value for key, value in run.value.items() if value is not None}
            known = found.get(name, run)
            found[name] = Fields({**known.value, **told}, run.log, known.place)
    return found.values()


def _runs(entry: Fields) -> Iterator[Fields]:
    """The runs of an entry: itself and those nested in it, or a batch of new and of changed ones."""
    batch = [run for name in BATCHES for run in entry.objects(name)]
    waiting = batch[::-1] or [entry]
    while waiting:
        run = waiting.pop()
        trace = run.text("trace_id") or entry.text("trace_id", "id") or run.text("id")
        yield Fields({**run.value, "trace_id": trace}, run.log, run.place)
        waiting += run.objects("child_runs")


def add_question(draft: EpisodeDraft, run: Fields) -> None:
    """Add what a run was asked: its messages, or its inputs as a message of the user."""
    given = run.list("inputs.messages")
    while given and (inner := sequence(given[0])):
        given = inner
    messages = Fields({"messages": given}, run.log, run.place).objects("messages")
    before = len(draft.steps)
    for message in messages:
        count_unknown(message.value, run.log)
        if is_langchain_message(message.value):
            add_langchain_message(draft, message)
        else:
            add_message(draft, message.value, message.place)
    for step in draft.steps[before:]:
        step.timestamp = step.timestamp or run.time("start_time")
    if len(draft.steps) > before:
        run.object("inputs").leave_out_others("messages")
    else:
        text = only_text(run.get("inputs"), draft, run)
        draft.say("user", text, run.time("start_time"), run.place)


def add_answer(draft: EpisodeDraft, run: Fields) -> None:
    """Add what a run answered, unless the last message of a model says it already."""
    last = sequence(run.get("outputs.messages"))[-1:]
    text = _said(last[0], draft, run) if last else only_text(run.get("outputs"), draft, run)
    said = (
        str(s.parameters.get("content")) for s in reversed(draft.steps) if s.action == "assistant"
    )
    if text != next(said, None):
        draft.say("assistant", text, run.time("end_time"), run.place)


def generated(run: Fields, draft: EpisodeDraft) -> str:
    """What a model said: its first generation, or its only output."""
    first: Any = run.get("outputs.generations", "outputs.choices")
    while inner := sequence(first):
        first = inner[0]
    generation = mapping(first)
    if text := generation.get("text"):
        return text_of(text, draft.log, run.place)
    if "message" in generation:
        return _said(generation["message"], draft, run)
    return only_text(run.get("outputs"), draft, run) if not generation else ""


def only_text(value: object, draft: EpisodeDraft, run: Fields) -> str:
    """The only value of an object, or the value, as text."""
    fields = mapping(value)
    if len(fields) == 1:
        value = next(iter(fields.values()))
    if not value and isinstance(value, dict | list):
        return ""
    return text_of(value, draft.log, run.place)


def _said(message: object, draft: EpisodeDraft, run: Fields) -> str:
    fields = mapping(message)
    content = mapping(fields.get("data") or fields.get("kwargs") or fields).get("content")
    return text_of(content, draft.log, run.place)
