"""OpenAI's batches: a file of requests and a file of answers, whose lines belong together by ``custom_id``.

A request makes an episode that ends with the question, an answer one that has the answer only. Imported one
after the other, in either order, they become one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.batch_halves import ANSWER, REQUEST, instead, joined
from memory_core.importers.chat import add_message, add_messages, is_unknown
from memory_core.importers.content import first_line, text_of
from memory_core.importers.draft import EpisodeDraft
from memory_core.importers.fields import sequence
from memory_core.importers.reading import entries
from memory_core.importers.response_items import add_items
from memory_core.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.fields import Fields
    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "OpenAIBatchImporter"]

_ERROR_STATUS = 400


def _recognises(sample: Sample) -> bool:
    return sample.any("custom_id", "method", "url", "body") or sample.any(
        "custom_id", "response", "error"
    )


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    for entry in entries(source, log):
        custom = entry.text("custom_id")
        if custom is None:
            log.skip(entry.place, "custom_id: is missing")
            continue
        draft = EpisodeDraft(
            source="openai-batch",
            key=(custom,),
            log=log,
            place=entry.place,
            unnamed=f"A request of a batch: {custom}",
        )
        if "body" in entry:
            _request(draft, entry)
        else:
            _answer(draft, entry)
        draft.metadata["custom_id"] = custom
        if draft.steps or draft.outcome:
            yield draft
        else:
            log.skip(entry.place, "expected messages, choices, input or output")


def _request(draft: EpisodeDraft, entry: Fields) -> None:
    body = entry.object("body")
    add_messages(draft, body.list("messages"), entry.place)
    asked = body.get("prompt", "input")
    if isinstance(asked, str) or any(isinstance(text, str) for text in sequence(asked)):
        draft.say("user", text_of(asked, draft.log, entry.place), None, entry.place)
    elif asked is not None:
        add_items(draft, body)
    draft.metadata = {
        "half": REQUEST,
        "requested": len(draft.steps),
        "url": entry.text("url"),
        "model": body.text("model"),
    }


def _answer(draft: EpisodeDraft, entry: Fields) -> None:
    body = entry.object("response.body")
    if "output" in body:
        add_items(draft, body)
    for choice in body.objects("choices"):
        if "text" in choice:
            draft.say("assistant", choice.text("text") or "", None, choice.place)
        elif "message" in choice:
            add_message(draft, choice.object("message").value, choice.place)
        else:
            is_unknown(draft, choice.value, choice.place, ("logprobs",))
    if draft.steps:
        draft.steps[-1].count(body.get("usage.total_tokens"))
    draft.start = body.time("created", "created_at")
    code = entry.integer("response.status_code") or 0
    error = entry.get("error") or body.get("error")
    failure = entry.text("error.message", "error.code") or body.text("error.message")
    failure = failure or text_of(error, draft.log, entry.place)
    if failure or code >= _ERROR_STATUS:
        reason = failure or f"The request was answered with status {code}."
        draft.outcome = Outcome.failure(first_line(reason), reason)
    draft.metadata = {
        "half": ANSWER,
        "batch_request_id": entry.text("id"),
        "model": body.text("model"),
        "status_code": entry.text("response.status_code"),
    }


FORMAT = Format(
    name="openai-batch",
    summary="OpenAI Batch input and output, joined by custom_id",
    recognises=_recognises,
    read=_read,
    joined=joined,
    instead=instead,
    table={
        "custom_id": "id; metadata custom_id",
        "body.messages, input, prompt": "the first steps",
        "response.body.choices, output": "the last steps",
        "error, response.status_code": "outcome: a failure; metadata status_code",
        "response.body.created": "start",
        "response.body.usage.total_tokens": "tokens of the last step",
        "url, model, id": "metadata url, model, batch_request_id",
    },
)


class OpenAIBatchImporter(FormatImporter):
    """Reads the input and output files of OpenAI's batches."""

    format = FORMAT
