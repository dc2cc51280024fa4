"""Events of OpenHands as steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from memory_core.importers.chat import is_unknown
from memory_core.importers.content import arguments_of, first_line, text_of
from memory_core.importers.fields import Fields, mapping, plain_text
from memory_core.importers.language import patched_files
from memory_core.records import Episode, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from memory_core.importers.draft import Draft, EpisodeDraft
    from memory_core.records import ExecutionStep

__all__ = ["add_event", "is_event", "joined", "outcome_claimed", "outcome_reported"]

_STATES = {
    "change_agent_state",
    "recall",
    "null",
    "agent_state_changed",
    "condensation",
    "loop_recovery",
}
_ROLES = {"user": "user", "agent": "assistant", "environment": "system"}
_MARKS = {"thought", "hidden", "confirmation_state", "security_risk"}
_ARGUMENTS = {
    "image_urls",
    "file_urls",
    "wait_for_response",
    "tools",
    "openhands_version",
    "agent_class",
}


def is_event(value: object) -> bool:
    """Whether a value is an event of either version."""
    event = mapping(value)
    if not event.get("source") or "timestamp" not in event:
        return False
    kind = event.get("kind")
    if isinstance(kind, str) and kind.endswith("Event"):
        return True
    return ("action" in event and "args" in event) or ("observation" in event and "extras" in event)


def add_event(draft: EpisodeDraft, event: Fields, steps: dict[int, Draft]) -> None:
    """Add what an event says or does.

    Args:
        draft: the episode.
        event: the event.
        steps: the steps of actions by the number of their event, of version 0.
    """
    time = event.time("timestamp")
    if kind := event.text("kind"):
        _add_v1(draft, event, kind, time)
    elif "action" in event:
        _act(draft, event, time, steps)
    elif "observation" in event:
        _observe(draft, event, time, steps)
    else:
        draft.log.skip(event.place, "is no event of OpenHands: it has no action or observation")


def _act(
    draft: EpisodeDraft, event: Fields, time: datetime | None, steps: dict[int, Draft]
) -> None:
    action = event.text("action") or "unknown"
    args = event.object("args")
    content = text_of(args.get("content"), event.log, event.place)
    if action in _STATES:
        draft.log.left_out[f"action {action}"] += 1
        return
    if action in {"message", "system"}:
        role = "system" if action == "system" else _role(event)
        if not content and is_unknown(draft, args.value, event.place, _MARKS | _ARGUMENTS):
            return
        args.leave_out_others("content", *_MARKS, *_ARGUMENTS)
        if "image_urls" in args:
            draft.log.left_out["image_urls"] += 1
        step = draft.turn(role, content, time, event.place)
    else:
        tool = event.text("tool_call_metadata.function_name") or action
        given = {k: v for k, v in args.value.items() if k not in _MARKS and v is not None}
        step = draft.call(
            tool, given, event.text("tool_call_metadata.tool_call_id"), time, event.place
        )
        step.action = action
        if thought := args.text("thought"):
            step.metadata["thought"] = thought
    number = event.integer("id")
    if number is not None:
        steps[number] = step
    _count(draft, event, step)


def _count(draft: EpisodeDraft, event: Fields, step: Draft) -> None:
    reply = event.object("tool_call_metadata.model_response")
    if (reply_id := reply.text("id")) and reply_id != draft.metadata.get("reply"):
        # Several actions of one reply have its usage each.
        draft.metadata["reply"] = reply_id
        step.count(reply.integer("usage.total_tokens"))
    if model := reply.text("model"):
        draft.metadata["model"] = model
    if (cost := event.get("llm_metrics.accumulated_cost")) is not None:
        draft.metadata["cost"] = cost


def _observe(
    draft: EpisodeDraft, event: Fields, time: datetime | None, steps: dict[int, Draft]
) -> None:
    observation = event.text("observation") or "unknown"
    text = text_of(event.get("content"), event.log, event.place)
    step = steps.get(event.integer("cause") or -1)
    if observation in _STATES and not (text and step is None):
        draft.log.left_out[f"observation {observation}"] += 1
        return
    if step is None or step.result is not None:
        step = draft.answer(None, observation, time, event.place)
    else:
        step.ended(time)
    event.object("extras.metadata").leave_out_others()
    code = event.integer("extras.metadata.exit_code", "extras.exit_code")
    if code is not None:
        step.metadata["exit_code"] = str(code)
    if observation == "error" or event.get("success") is False or (code or 0) > 0:
        step.failed(text)
    elif code == -1 and "timed out" in text:
        step.timed_out(text)
    else:
        step.succeeded(text)


def _add_v1(draft: EpisodeDraft, event: Fields, kind: str, time: datetime | None) -> None:
    log, place = event.log, event.place
    before = len(draft.steps)
    match kind:
        case "MessageEvent":
            content = event.get("llm_message.content", "content")
            role = event.text("llm_message.role") or _role(event)
            draft.say(role, text_of(content, log, place), time, place)
        case "SystemPromptEvent":
            draft.say("system", text_of(event.get("system_prompt"), log, place), time, place)
        case "ActionEvent":
            given = arguments_of(event.get("action") or event.get("tool_call.arguments"))
            given = {k: v for k, v in given.items() if k != "kind" and v is not None}
            step = draft.call(
                event.text("tool_name"), given, event.text("tool_call_id"), time, place
            )
            thoughts = (event.get("reasoning_content"), event.get("thought"))
            if thought := "\n".join(filter(None, (text_of(t, log, place) for t in thoughts))):
                step.metadata["thought"] = thought
        case "ObservationEvent" | "AgentErrorEvent" | "UserRejectObservation":
            _observe_v1(draft, event, kind, time)
        case "ConversationErrorEvent":
            text = event.text("detail", "code") or kind
            draft.turn("system", text, time, place).failed(text)
        case _:
            log.left_out[kind] += 1
    for step in draft.steps[before:]:
        if event_id := event.text("id"):
            step.metadata["event_id"] = event_id


def _observe_v1(draft: EpisodeDraft, event: Fields, kind: str, time: datetime | None) -> None:
    step = draft.answer(event.text("tool_call_id"), event.text("tool_name"), time, event.place)
    seen = event.object("observation")
    content = seen.get("content", "output", "text", "message")
    text = text_of(event.get("error", "rejection_reason") or content, event.log, event.place)
    if not text and seen:
        text = text_of({k: v for k, v in seen.value.items() if k != "kind"}, event.log, event.place)
    code = seen.integer("exit_code", "metadata.exit_code")
    if code is not None:
        step.metadata["exit_code"] = str(code)
    if seen.get("timeout") is True:
        step.timed_out(text)
    elif kind != "ObservationEvent" or seen.get("is_error", "error") or (code or 0) > 0:
        step.failed(text)
    else:
        step.succeeded(text)


def _role(event: Fields) -> str:
    source = event.text("source") or "unknown"
    return _ROLES.get(source, source)


def outcome_reported(run: Fields, patch: str) -> Outcome | None:
    """What an evaluation says of a run."""
    resolved = run.flag("test_result.report.resolved", "report.resolved", "resolved")
    if resolved is None:
        failure = run.text("error")
        return Outcome.failure(failure) if failure else None
    if resolved:
        return Outcome.success("The instance is resolved.", artifacts=patched_files(patch))
    return Outcome.failure("The instance is not resolved.")


def outcome_claimed(events: Sequence[Any]) -> Outcome | None:
    """What the agent itself said about its success when it finished."""
    for event in reversed(events):
        given = mapping(mapping(event).get("args"))
        if mapping(event).get("action") == "finish":
            words = first_line(given.get("final_thought") or given.get("thought"))
            match str(plain_text(given.get("task_completed"))).strip('"').lower():
                case "true":
                    return Outcome.success(words or "The agent says that it is done.")
                case "partial":
                    return Outcome.partial_success(
                        words or "The agent says that it is partly done."
                    )
                case "false":
                    return Outcome.failure(words or "The agent says that it is not done.")
                case _:
                    return None
    return None


def joined(old: Episode, new: Episode) -> Episode:
    """One episode of two that hold events of one conversation; others are left to their length."""
    if not all(step.metadata.get("event_id") for episode in (old, new) for step in episode.steps):
        return new
    steps = {step.metadata["event_id"]: step for episode in (new, old) for step in episode.steps}
    ordered = sorted(steps.values(), key=lambda step: step.timestamp)
    calls = {step.metadata.get("call_id"): step for step in ordered if step.action != "result"}
    answers = {
        step.metadata.get("call_id"): step
        for step in ordered
        if step.action == "result" and step.metadata.get("call_id") in calls
    }
    kept = [step for step in ordered if step not in answers.values()]
    with_answers = [_answered(step, answers.get(step.metadata.get("call_id"))) for step in kept]
    first = new if new.start_time < old.start_time else old
    numbered = tuple(evolve(step, number=number) for number, step in enumerate(with_answers, 1))
    return evolve(
        first,
        task_description=_described(numbered) or first.task_description,
        steps=numbered,
        start_time=min(old.start_time, new.start_time),
        end_time=max(filter(None, (old.end_time, new.end_time))),
    )


def _answered(step: ExecutionStep, answer: ExecutionStep | None) -> ExecutionStep:
    if answer is None or step.result is not None:
        return step
    passed = (answer.timestamp - step.timestamp).total_seconds() * 1000
    metadata = {**answer.metadata, **step.metadata}
    return evolve(step, result=answer.result, latency_ms=max(0.0, passed), metadata=metadata)


def _described(steps: Sequence[ExecutionStep]) -> str | None:
    said = (str(step.parameters.get("content")) for step in steps if step.action == "user")
    return next(said, None)
