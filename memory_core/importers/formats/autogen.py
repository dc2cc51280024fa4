"""AutoGen: messages, results and saved states of version 0.4, chats of version 0.2 in which code was run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memory_core.importers.autogen_messages import add_autogen_message, is_autogen_message
from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import Fields, json_of, mapping, objects, sequence
from memory_core.importers.reading import conversations
from memory_core.importers.sample import Layout, sample_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "AutoGenImporter"]

_LISTS = ("messages", "chat_history", "task_result.messages", "llm_context.messages")
_LOOKED_AT = 50


def _recognises(sample: Sample) -> bool:
    if sample.layout is not Layout.DOCUMENT and (
        own := [i for i in sample.objects if i.has("content")]
    ):
        return any(is_autogen_message({name: item.get(name) for name in item.keys}) for item in own)
    return sample.any("agent_states") or any(
        any(map(is_autogen_message, item.items(name)[:_LOOKED_AT]))
        for item in sample.objects
        for name in _LISTS
    )


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    sample = sample_of(source)
    if sample.layout is Layout.LINES and sample.first.has("source"):
        lines = [dict(line.value) for line in conversations(source, log, is_bare=False)]
        yield from _drafts(Fields({"messages": lines}, log))
        return
    for entry in conversations(source, log, is_bare=sample.first.has("content")):
        yield from _drafts(entry)


def _drafts(entry: Fields) -> Iterator[EpisodeDraft]:
    draft = EpisodeDraft(
        source="autogen",
        key=(content_digest(dict(entry.value)),),
        log=entry.log,
        place=entry.place,
        unnamed="A conversation of agents",
        metadata={"stop_reason": entry.text("stop_reason", "task_result.stop_reason")},
    )
    for message in _thread(entry):
        add_autogen_message(draft, message)
    if draft.steps:
        yield draft
    else:
        entry.log.skip(entry.place, "messages: expected a list of messages that say something")


def _thread(entry: Fields) -> Iterator[Fields]:
    """The messages of a result, or of a team's saved state: its manager's, else the longest of an agent."""
    states = [mapping(state) for state in entry.object("agent_states").value.values()]
    threads = [sequence(state.get("message_thread")) for state in states]
    inner = [mapping(mapping(state.get("agent_state")).get("llm_context")) for state in states]
    contexts = [sequence(context.get("messages")) for context in inner]
    if any(threads):
        thread = max(threads, key=len)
        return objects([*_before(thread, contexts), *thread], entry.log, entry.place, "messages")
    if any(contexts):
        return objects(max(contexts, key=len), entry.log, entry.place, "messages")
    return entry.objects(*_LISTS)


def _before(thread: list[Any], contexts: Iterable[list[Any]]) -> Iterator[Any]:
    """What agents remember of the team's earlier tasks, which its thread no longer holds."""
    known = set(map(_said, thread))
    for context in contexts:
        remembered: list[Any] = []
        for message in context:
            if _said(message) in known:
                break
            remembered.append(message)
        yield from remembered
        known.update(map(_said, remembered))


def _said(message: object) -> str:
    fields = mapping(message)
    return json_of([fields.get("source"), fields.get("content")])


FORMAT = Format(
    name="autogen",
    summary="AutoGen: messages and states of version 0.4, chats of version 0.2 in which code was run",
    recognises=_recognises,
    read=_read,
    table={
        "the whole entry": "id",
        "messages[].source, content": "steps: role user for the user, else assistant; metadata agent, kind",
        "agent_states: message_thread": "the same, of a team's saved state",
        "agent_states: llm_context.messages": "the same, where there is no thread; else what was before it",
        "ToolCallRequestEvent, AssistantMessage": "steps with tool and parameters",
        "ToolCallExecutionEvent, FunctionExecutionResultMessage": "their results; is_error: an error",
        "ThoughtEvent, thought": "steps: thinking",
        "models_usage; created_at": "tokens of the message's first step; times of steps",
        "stop_reason": "metadata stop_reason",
        "0.2: role, name, content": "steps with the role, metadata name",
        "0.2: exitcode: N": "steps: tool named for the code's language, parameters.code; not 0: an error",
        "0.2: tool_calls, tool_responses": "steps with parameters; their results",
    },
)


class AutoGenImporter(FormatImporter):
    """Reads conversations of AutoGen's agents."""

    format = FORMAT
