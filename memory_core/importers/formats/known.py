"""Formats that are recognised, so that a refusal names them, but that nothing here reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.fields import mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memory_core.importers.sample import Sample

__all__ = ["KNOWN"]

KNOWN: Mapping[str, Callable[[Sample], bool]] = {
    "an Aider chat history": lambda sample: b"# aider chat started at" in sample.start,
    "a browser-use history": lambda sample: (
        {"model_output", "result", "state"} <= mapping(sample.first.get("history.0")).keys()
    ),
    "what Cline shows (it keeps the conversation in api_conversation_history.json)": lambda sample: (
        sample.first.has("ts", "type") and bool(sample.first.keys & {"say", "ask"})
    ),
    "the prompts of Gemini CLI (it keeps the conversations in chats/session-*.jsonl)": lambda sample: (
        sample.first.has("sessionId", "messageId", "type", "message")
    ),
    "an AgentBench run": lambda sample: (
        sample.first.has("index", "output") and sample.first.get("output.history") is not None
    ),
}
"""What a file looks like, by what tells that it is one."""
