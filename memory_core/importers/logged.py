"""What logs of chats say around their messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from memory_core.importers.fields import Fields, is_number, json_of, mapping, plain_text
from memory_core.importers.unknown import count_unknown_beside
from memory_core.records import Outcome, OutcomeStatus, TaskType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memory_core.importers.draft import EpisodeDraft

__all__ = [
    "Around",
    "count_unread_around",
    "describe",
    "logged_answers",
    "logged_outcome",
]

# Names that are read, or known to be about the call.
_KNOWN_NAMES = """
messages choices message request response completion output metadata created created_at timestamp usage
task_type outcome success verdict reason error reward score model id custom_id object system_fingerprint
service_tier tools functions tool_choice function_call response_format
"""
_KNOWN = frozenset(_KNOWN_NAMES.split())
_READ = frozenset(
    {"messages", "choices", "message", "completion", "output", "metadata", "tools", "functions"}
)
_TOKENS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
_OWN = {"domain", "language", "framework", "task_type", "tags"}
_CREATED = tuple(
    f"{around}{name}"
    for name in ("created", "created_at", "timestamp")
    for around in ("", "response.", "request.")
)
_TASK_TYPES = {member.value for member in TaskType}


class Around:
    """What may be in the entry or in the objects inside of it."""

    def __init__(self, entry: Fields) -> None:
        value = entry.value
        self._told: dict[str, Any] = {}
        for name in ("request", "response", "metadata"):
            if inside := value.get(name):
                self._told |= _without_null(mapping(inside))
        self._told |= _without_null(value)

    def get(self, *names: str) -> Any:
        """The first of the names, each looked for everywhere."""
        for name in names:
            if name in self._told:
                return self._told[name]
        return None


def _without_null(part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if value is not None}


_OUTCOMES: dict[str, tuple[Callable[[str], Outcome], str]] = {
    OutcomeStatus.SUCCESS: (Outcome.success, "Logged as a success."),
    OutcomeStatus.PARTIAL_SUCCESS: (Outcome.partial_success, "Logged as a partial success."),
    OutcomeStatus.FAILURE: (Outcome.failure, "Logged as a failure."),
    OutcomeStatus.ABSTAINED: (Outcome.abstained, "Logged as abstained."),
}


def logged_outcome(around: Around) -> Outcome | None:
    """The outcome that a log names: a status with words, or whether it was a success."""
    status = around.get("outcome")
    if status is None and isinstance(success := around.get("success"), bool):
        status = OutcomeStatus.SUCCESS if success else OutcomeStatus.FAILURE
    if not isinstance(status, str) or status not in _OUTCOMES:
        return None
    make, words = _OUTCOMES[status]
    told = plain_text(around.get("verdict", "reason")) or _error_text(around.get("error"))
    return make(told or words)


def _error_text(error: object) -> str | None:
    """What an API says of an error: a text, or an object with a message."""
    text = plain_text(error) or plain_text(mapping(error).get("message"))
    return text or (json_of(error) if error else None)


def _tokens(around: Around) -> object:
    """How many tokens a call took."""
    usage = mapping(around.get("usage"))
    if not usage:
        return 0
    if usage.get("total_tokens") is not None:
        return usage["total_tokens"]
    parts = (usage.get(name) for name in _TOKENS)
    return sum(cast("int", part) for part in parts if is_number(part))


def logged_answers(entry: Fields, asked: Sequence[object]) -> list[object]:
    """The messages of the answer that a log has beside the messages that were sent.

    Args:
        entry: the log's entry.
        asked: the messages that were sent; some logs have the answer among them already.
    """
    choices = entry.list("choices", "response.choices")
    if choices:
        return [_answer(mapping(one).get("message", mapping(one).get("text"))) for one in choices]
    for name in ("message", "response", "completion", "output"):
        given = entry.value.get(name)
        if not given:
            continue
        parts = cast("list[object]", given) if isinstance(given, list) else [given]
        answers = [answer for part in parts if (answer := _answer(part)) is not None]
        if len(answers) == len(parts):
            last = [mapping(message).get("content") for message in asked[-len(parts) :]]
            return [] if last == [answer.get("content") for answer in answers] else [*answers]
        if not isinstance(given, dict):
            entry.log.unknown(name)
    return []


def count_unread_around(entry: Fields) -> None:
    """Count the fields of a log beside its messages that are not read."""
    count_unknown_beside(entry.value, entry.log, known=_KNOWN, read=_READ)


def _answer(given: object) -> Mapping[str, Any] | None:
    """A message of the assistant, given as one or as its text; ``None`` where it is not one."""
    if isinstance(given, str):
        return {"role": "assistant", "content": given}
    fields = mapping(given)
    known = "role" in fields or "content" in fields
    return {"role": "assistant", **fields} if known else None


def describe(draft: EpisodeDraft, entry: Fields) -> None:
    """Take over what a log tells of a conversation beside its messages."""
    around = Around(entry)
    draft.start = entry.time(*_CREATED)
    if draft.steps:
        # A whole call is counted: its tokens are those of its last step.
        draft.steps[-1].count(_tokens(around))
    given = entry.object("metadata")
    task_type = around.get("task_type")
    if isinstance(task_type, str) and task_type in _TASK_TYPES:
        draft.task_type = TaskType(task_type)
    if given:
        _describe_by(draft, given)
    draft.outcome = logged_outcome(around)
    if (reward := around.get("reward", "score")) is not None:
        draft.reward = Fields({"reward": reward}, entry.log, entry.place).number("reward")
    told = {
        **{key: value for key, value in given.value.items() if key not in _OWN},
        "model": plain_text(around.get("model")),
        "entry_id": plain_text(around.get("id", "custom_id")),
        "error": _error_text(around.get("error")),
    }
    if draft.outcome is None:
        # Words of which nobody says what they mean.
        told |= {name: plain_text(around.get(name)) for name in ("outcome", "success")}
    draft.metadata |= {name: value for name, value in told.items() if value is not None}


def _describe_by(draft: EpisodeDraft, metadata: Fields) -> None:
    draft.domain = metadata.text("domain")
    draft.language = metadata.text("language")
    draft.framework = metadata.text("framework")
    tags = metadata.list("tags")
    draft.tags = [text for tag in tags if (text := plain_text(tag))]
    if len(draft.tags) < len(tags):
        draft.log.note(draft.place, "metadata.tags: what is not a text is left out")
