"""Logs of inspect_ai: ``.json``, one object, and ``.eval``, a zip archive with a file for each sample.

A sample is an episode, with the same id from either. Messages have no times of their own: those of the
model's and tools' events are taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.content import without_media
from memory_core.importers.draft import EpisodeDraft
from memory_core.importers.fields import Fields, json_of, plain_text
from memory_core.importers.inspect_messages import add_messages, judge, resolved
from memory_core.importers.reading import decoded, entries
from memory_core.importers.sample import Layout, sample_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "InspectImporter"]

_HEADERS = ("header.json", "_journal/start.json")


def _recognises(sample: Sample) -> bool:
    if sample.layout is Layout.ARCHIVE:
        return not sample.members.isdisjoint(_HEADERS)
    return sample.first.has("eval", "status") and sample.first.get("eval.task") is not None


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    if sample_of(source).layout is Layout.ARCHIVE:
        yield from _read_archive(source, log)
        return
    for run in entries(source, log):
        for sample in run.objects("samples"):
            yield from _said(_draft(run, sample), sample)
        if not run.list("samples"):
            _note_empty(run)


def _read_archive(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    members = {info.filename: info for info in source.members()}
    header = next((members[name] for name in _HEADERS if name in members), None)
    if header is None:
        raise source.error(f"is an archive without {_HEADERS[0]}")
    run = Fields(decoded(source.member(header), log)[0], log, header.filename)
    samples = [name for name in members if name.startswith("samples/") and name.endswith(".json")]
    for name in sorted(samples):
        value, known = decoded(source.member(members[name]), log)
        if known:
            sample = Fields(value, log, name)
            yield from _said(_draft(run, sample), sample)
    if not samples:
        _note_empty(run)


def _note_empty(run: Fields) -> None:
    error = run.text("error.message")
    status = f"{run.text('status')}{f' ({error})' if error else ''}"
    run.log.note(run.place, f"has no samples; its status is {status}")


def _said(draft: EpisodeDraft, sample: Fields) -> Iterator[EpisodeDraft]:
    if draft.steps or not {"input", "scores", "error"}.isdisjoint(sample.value):
        yield draft
    else:
        sample.log.skip(sample.place, "is no sample: it has neither messages nor an input")


def _draft(run: Fields, sample: Fields) -> EpisodeDraft:
    sample = Fields(resolved(sample.value), sample.log, sample.place)
    spec = run.object("eval")
    sample_id, epoch = sample.text("id"), sample.text("epoch")
    draft = EpisodeDraft(
        source="inspect-ai",
        key=(spec.text("run_id"), spec.text("task_id", "eval_id"), sample_id, epoch),
        log=run.log,
        place=sample.place,
        unnamed=f"Sample {sample_id} of {spec.text('task')}",
        start=sample.time("started_at") or run.time("stats.started_at") or spec.time("created"),
    )
    given = sample.get("input")
    if isinstance(given, str):
        draft.description = given
    add_messages(draft, sample)
    draft.end = sample.time("completed_at")
    if task := spec.text("task"):
        draft.tags.append(task)
    usage = sample.object("model_usage").value.values()
    tokens = sum(Fields(count).integer("total_tokens") or 0 for count in usage)
    judge(draft, sample)
    target = sample.get("target")
    known = without_media(sample.get("metadata"), run.log, sample.place)
    draft.metadata |= {
        "sample_id": sample_id,
        "epoch": epoch,
        "task": task,
        "run_id": spec.text("run_id"),
        "model": spec.text("model"),
        "target": plain_text(target) or (json_of(target) if target else None),
        "metadata": json_of(known) if known else None,
        "tokens": tokens or None,
        "total_time": sample.get("total_time"),
        "working_time": sample.get("working_time"),
        "limit": sample.text("limit.type"),
        "status": run.text("status"),
        "run_error": run.text("error.message"),
        "run_traceback": run.text("error.traceback"),
    }
    return draft


FORMAT = Format(
    name="inspect-ai",
    summary="inspect_ai logs (.json and .eval)",
    recognises=_recognises,
    read=_read,
    table={
        "eval.run_id, task_id; samples[].id, epoch": "id; metadata run_id, sample_id, epoch",
        "samples[].input": "description",
        "samples[].messages": "steps; reasoning: steps with role thinking",
        "tool messages: content, error": "results: error.type timeout, or an error; metadata error_type",
        "events of models and tools": "times, latency, tokens of steps",
        "samples[].scores": "reward (C 1, P 0.5, I and N 0), outcome of the first; metadata score.NAME",
        "…answer, explanation, metadata": "in the outcome, else metadata score.NAME.answer, …",
        "samples[].error": "outcome: a failure",
        "status, error of the log": "metadata status, run_error, run_traceback",
        "started_at, completed_at; eval.created": "start, end",
        "model_usage, total_time, working_time, limit, target, metadata": "metadata tokens, …",
        "eval.task, eval.model": "tag; metadata task, model",
        "attachments": "put back where they belong; media by type, size and digest",
    },
)


class InspectImporter(FormatImporter):
    """Reads logs of inspect_ai."""

    format = FORMAT
