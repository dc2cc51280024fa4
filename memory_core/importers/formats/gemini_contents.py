"""Contents of Gemini's API: lists of ``{role, parts}``, bare, in a request, or as ``messages``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.chat import is_unknown
from memory_core.importers.content import parameters_of, set_result, text_of
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import Fields, mapping, objects, plain_text, sequence
from memory_core.importers.reading import document, values
from memory_core.importers.sample import Layout, sample_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "GeminiContentsImporter", "response_text"]

_LISTS = ("contents", "messages", "request.contents")
_KINDS = (
    "functionCall", "function_call", "functionResponse", "function_response", "executableCode",
    "codeExecutionResult",
)  # fmt: skip


def _recognises(sample: Sample) -> bool:
    if sample.layout is Layout.ARRAY and sample.first.has("role", "parts"):
        return _are_parts(sample.first.get("parts"))
    return any(
        _are_parts(mapping(item.get(f"{name}.0")).get("parts"))
        for item in sample.objects
        for name in _LISTS
    )


def _are_parts(parts: object) -> bool:
    """Parts without a type: those of Vercel's UI messages have one."""
    return isinstance(parts, list) and all("type" not in mapping(part) for part in sequence(parts))  # pyright: ignore[reportUnknownArgumentType]  # any JSON value


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    sample = sample_of(source)
    if sample.layout is Layout.ARRAY and sample.first.has("role"):
        found = iter([("", document(source, log))])
    else:
        found = values(source, log)
    for place, value in found:
        entry = Fields({"contents": bare} if (bare := sequence(value)) else value, log, place)
        draft = EpisodeDraft(
            source="gemini", key=(content_digest(value),), log=log, place=place, unnamed="A chat",
            start=entry.time("createTime", "created_at", "timestamp"),
            metadata={"model": entry.text("model", "modelVersion", "request.model")},
        )  # fmt: skip
        system = entry.object(
            "systemInstruction", "system_instruction", "request.systemInstruction"
        )
        turns = [*([{"role": "system", **system.value}] if system else []), *entry.list(*_LISTS)]
        turns += [candidate.get("content") for candidate in entry.objects("candidates")][:1]
        for turn in objects(turns, log, place, "content"):
            _turn(draft, turn)
        if draft.steps:
            yield draft
        else:
            log.skip(place, "contents: expected a list of contents with parts")


def _turn(draft: EpisodeDraft, turn: Fields) -> None:
    role, before = turn.text("role") or "user", draft.heard
    parts = turn.get("parts")
    for part in sequence(parts) or [parts]:
        _part(draft, "assistant" if role == "model" else role, part, turn.time("timestamp"), turn)
    if draft.heard == before:
        is_unknown(draft, turn.value, turn.place, ("parts",))


def _part(draft: EpisodeDraft, role: str, part: Any, time: datetime | None, turn: Fields) -> None:
    fields, log, place = mapping(part), draft.log, turn.place
    kind = next((name for name in _KINDS if mapping(fields.get(name))), "")
    inner = mapping(fields.get(kind))
    call_id = plain_text(inner.get("id"))
    match kind:
        case "functionCall" | "function_call":
            given = parameters_of(inner, "args")
            draft.call(plain_text(inner.get("name")), given, call_id, time, place)
        case "functionResponse" | "function_response":
            step = draft.answer(call_id, plain_text(inner.get("name")), time, place)
            failed = "error" in mapping(inner.get("response"))
            set_result(step, response_text(inner, log, place), failed=failed)
        case "executableCode":
            draft.call("code_execution", inner, "code_execution", time, place)
        case "codeExecutionResult":
            step = draft.answer("code_execution", "code_execution", time, place)
            ended = plain_text(inner.get("outcome")) or "OUTCOME_OK"
            text = text_of(inner.get("output"), log, place)
            set_result(step, text or ended, failed=ended != "OUTCOME_OK")
        case _:
            said = "thinking" if fields.get("thought") is True else role
            draft.say(said, text_of([part], log, place), time, place)


def response_text(answer: object, log: Log, place: str) -> str:
    """What a function answered: its output or error where there is nothing else."""
    given = mapping(mapping(answer).get("response"))
    only = [given[name] for name in ("output", "error", "result", "content") if name in given]
    return text_of(only[0] if len(only) == 1 == len(given) else given or answer, log, place)


FORMAT = Format(
    name="gemini",
    summary="Gemini contents: lists of role and parts, bare, in requests or as messages",
    recognises=_recognises,
    read=_read,
    table={
        "the whole entry": "id",
        "contents[].parts text, thought": "steps with the role, model being assistant; thinking",
        "functionCall, functionResponse; executableCode, codeExecutionResult": "steps and their results",
        "systemInstruction; candidates[0].content": "the first step; the last",
        "inlineData": "its type, size and digest",
        "model, modelVersion": "metadata model",
    },
)


class GeminiContentsImporter(FormatImporter):
    """Reads contents of Gemini's API."""

    format = FORMAT
