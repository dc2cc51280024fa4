"""tau2-bench results: one object with ``info``, ``tasks`` and ``simulations``, or a simulation in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.chat import is_unknown
from memory_core.importers.content import arguments_of, parameters_of, set_result, text_of
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import Fields, plain_text
from memory_core.importers.reading import entries
from memory_core.importers.tau_outcomes import described, expected_calls, outcome_of_checks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "Tau2BenchImporter"]


def _recognises(sample: Sample) -> bool:
    first = sample.first
    if first.has("tasks", "info") and isinstance(first.get("info.environment_info"), dict):
        return True
    return first.has("task_id", "termination_reason") and bool(first.keys & {"messages", "ticks"})


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    for run in entries(source, log):
        if "termination_reason" in run:
            yield from _draft(run, run.object("info"), {})
            continue
        info = run.object("info")
        if policy := info.text("environment_info.policy"):
            log.note(run.place, f"the policy of all simulations left out: {len(policy)} characters")
        tasks = {task.text("id"): task for task in run.objects("tasks")}
        for simulation in run.objects("simulations"):
            yield from _draft(simulation, info, tasks)
        if "simulations" not in run:
            log.note(run.place, "its simulations are in files of their own")


def _draft(run: Fields, info: Fields, tasks: Mapping[str | None, Fields]) -> Iterator[EpisodeDraft]:
    if not isinstance(run.get("messages"), list):
        run.log.skip(run.place, "it has no messages (a voice call has ticks instead)")
        return
    task_id = run.text("task_id")
    task = tasks.get(task_id) or Fields({}, run.log)
    key = run.text("id") or content_digest(run.list("messages"))
    draft = EpisodeDraft(
        source="tau2-bench",
        key=(key, task_id, run.text("trial")),
        log=run.log,
        place=run.place,
        description=described(task),
        unnamed="tau2-bench task",
        domain=info.text("environment_info.domain_name"),
        start=run.time("start_time"),
        end=run.time("end_time"),
    )
    for message in run.objects("messages"):
        _add(draft, message)
    if draft.domain:
        draft.tags = [draft.domain]
    draft.reward = run.number("reward_info.reward")
    draft.outcome = outcome_of_checks(run, draft.reward)
    actions = (action.text("name") for action in task.objects("evaluation_criteria.actions"))
    draft.metadata = {
        "task_id": task_id,
        "trial": run.text("trial"),
        "simulation_id": run.text("id"),
        "seed": run.text("seed"),
        "termination_reason": run.text("termination_reason"),
        "model": info.text("agent_info.llm"),
        "user_model": info.text("user_info.llm"),
        "cost": run.get("agent_cost"),
        "user_cost": run.get("user_cost"),
        "expected_actions": ",".join(name for name in actions if name),
        "expected_calls": expected_calls(
            task.objects("evaluation_criteria.actions"), "arguments", "kwargs"
        ),
    }
    yield draft


def _thought(block: Fields, message: Fields) -> str:
    """What was thought; of Gemini it is a part of the answer as JSON, which the message may repeat."""
    part = arguments_of(text := block.text("thinking") or "")
    if part.get("thought") is True:
        return plain_text(part.get("text")) or text
    said = "text" in part and part["text"] == message.get("content")
    return "" if said or ("functionCall" in part and "tool_calls" in message) else text


def _add(draft: EpisodeDraft, message: Fields) -> None:
    role, time, place = message.text("role") or "unknown", message.time("timestamp"), message.place
    if role == "tool":
        for answer in list(message.objects("tool_messages")) or [message]:
            step = draft.answer(answer.text("id"), None, time, place)
            said = text_of(answer.get("content"), draft.log, place)
            set_result(step, said, answer.flag("error"))
        return
    before, heard = len(draft.steps), draft.heard
    for thought in ("raw_data", "raw_data.message"):
        for block in message.object(thought).objects("thinking_blocks"):
            draft.say("thinking", _thought(block, message), time, place)
    draft.say(role, text_of(message.get("content"), draft.log, place), time, place)
    for call in message.objects("tool_calls"):
        step = draft.call(
            call.text("name"), parameters_of(call.value, "arguments"), call.text("id"), time, place
        )
        if role != "assistant":
            step.metadata["requestor"] = role
    if draft.heard == heard:
        is_unknown(draft, message.value, place, ("raw_data", "error", "is_audio"))
    else:
        usage = message.object("usage")
        counts = (usage.integer("prompt_tokens"), usage.integer("completion_tokens"))
        draft.steps[before].count(sum(count or 0 for count in counts))
        if cost := message.text("cost"):
            draft.steps[before].metadata["cost"] = cost


FORMAT = Format(
    name="tau2-bench",
    summary="tau2-bench results: info, tasks and simulations",
    recognises=_recognises,
    read=_read,
    table={
        "simulations[].id, task_id, trial": "id; metadata simulation_id, task_id, trial",
        "info.environment_info.policy": "left out with a note: all simulations share it",
        "tasks[].user_scenario.instructions, by task_id": "description",
        "tasks[].evaluation_criteria.actions": "metadata expected_actions, expected_calls",
        "info.environment_info.domain_name": "domain, tag",
        "messages[].content, tool_calls": "steps; metadata requestor of a user's calls",
        "raw_data.thinking_blocks": "steps with role thinking",
        "role tool: content, error": "results; latency",
        "messages[].timestamp, usage, cost": "times; tokens; metadata cost of a step",
        "reward_info": "reward; outcome: 1 is a success, less a failure with its checks",
        "termination_reason, agent_cost, user_cost, seed; info…llm": "metadata; model, user_model",
    },
)


class Tau2BenchImporter(FormatImporter):
    """Reads the results of tau2-bench."""

    format = FORMAT
