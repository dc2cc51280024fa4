"""Runs of LangSmith, as its SDK and its exports write them: one run an entry, a trace an episode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.content import first_line, set_result
from memory_core.importers.draft import EpisodeDraft
from memory_core.importers.fields import mapping
from memory_core.importers.langsmith_runs import (
    BATCHES,
    add_answer,
    add_question,
    generated,
    merged_runs,
    only_text,
)
from memory_core.importers.reading import entries
from memory_core.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memory_core.importers.fields import Fields
    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "LangSmithImporter"]

_STEPS = frozenset({"tool", "retriever", "embedding", "prompt", "parser"})
_TIMES = ("trace_id", "dotted_order", "start_time")
_COUNTS = (
    "total_tokens", "outputs.llm_output.token_usage.total_tokens", "outputs.usage_metadata.total_tokens",
)  # fmt: skip
_FEEDBACK = "feedback_stats"


def _recognises(sample: Sample) -> bool:
    return any(sample.any("run_type", "inputs", name) for name in _TIMES) or any(
        item.get(f"{name}.0.run_type") for item in sample.objects for name in BATCHES
    )


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    traces: dict[str, list[Fields]] = {}
    for run in merged_runs(entries(source, log)):
        if "run_type" in run:
            traces.setdefault(run.text("trace_id") or run.place, []).append(run)
        else:
            log.skip(run.place, "run_type: is missing")
    for trace, runs in traces.items():
        yield _draft(trace, sorted(runs, key=_order), log)


def _order(run: Fields) -> tuple[str, str]:
    return run.text("dotted_order") or "", run.text("start_time") or ""


def _draft(trace: str, runs: Sequence[Fields], log: Log) -> EpisodeDraft:
    root = next((run for run in runs if "parent_run_id" not in run), runs[0])
    draft = EpisodeDraft(
        source="langsmith",
        key=(trace,),
        log=log,
        place=root.place,
        unnamed=root.text("name") or "A trace",
        start=root.time("start_time"),
        end=root.time("end_time"),
        tags=[tag for tag in root.list("tags") if isinstance(tag, str) and tag],
        metadata={
            "trace_id": trace,
            "name": root.text("name"),
            "project": root.text("session_name", "session_id"),
            "total_tokens": root.text("total_tokens"),
            "cost": root.text("total_cost"),
            **_feedback(root),
        },
    )
    if root.text("run_type") not in _STEPS:
        add_question(draft, root)
    for run in runs:
        if run is not root or run.text("run_type") in {"llm", *_STEPS}:
            _run(draft, run)
    if root.text("run_type") not in {"llm", *_STEPS}:
        add_answer(draft, root)
    if error := root.text("error"):
        draft.outcome = Outcome.failure(first_line(error.strip().split("\n")[-1]), error)
    return draft


def _feedback(root: Fields) -> dict[str, object]:
    stats = root.object(_FEEDBACK)
    return {f"feedback_{name}": mapping(stats.get(name)).get("avg") for name in stats.value}


def _run(draft: EpisodeDraft, run: Fields) -> None:
    kind, error, time = run.text("run_type"), run.text("error"), run.time("start_time")
    if kind in _STEPS:
        inputs = dict(run.object("inputs").value)
        step = draft.call(run.text("name"), inputs, run.text("id"), time, run.place)
        step.ended(run.time("end_time"))
        if error or "outputs" in run:
            set_result(step, error or only_text(run.get("outputs"), draft, run), bool(error))
    elif kind == "llm":
        text = generated(run, draft)
        if text or error:
            step = draft.turn("assistant", text, time, run.place)
            step.ended(run.time("end_time"))
            step.count(run.get(*_COUNTS))
            if error:
                step.failed(error)
        if model := run.text("extra.metadata.ls_model_name", "extra.invocation_params.model"):
            draft.metadata.setdefault("model", model)
    else:
        # Chains hold what their own runs do.
        draft.log.left_out[f"{kind} runs"] += 1


FORMAT = Format(
    name="langsmith",
    summary="LangSmith runs: JSON lines or arrays, a trace an episode",
    recognises=_recognises,
    read=_read,
    table={
        "trace_id": "id; metadata trace_id",
        "post, patch; entries with one dotted_order or id": "one run",
        "the root's inputs, outputs": "the first steps; the last",
        "run_type llm": "steps with role assistant; latency",
        "run_type tool, retriever, …": "steps with parameters, result, latency; error: an error",
        "run_type chain": "left out: their runs say it",
        "start_time, end_time": "start, end; times of steps",
        "error of the root": "outcome: a failure",
        "total_tokens; ls_model_name": "tokens of the step; metadata model",
        "total_cost, feedback_stats": "metadata cost, feedback_…",
        "name, session_name, tags": "metadata name, project; tags",
    },
)


class LangSmithImporter(FormatImporter):
    """Reads runs of LangSmith."""

    format = FORMAT
