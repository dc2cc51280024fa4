"""A message of Anthropic's API, with what it and Cline say about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.chat import add_message
from memory_core.importers.cline import without_results

if TYPE_CHECKING:
    from memory_core.importers.draft import Draft, EpisodeDraft
    from memory_core.importers.fields import Fields

__all__ = ["add_anthropic_message"]

_COUNTS = (
    "usage.input_tokens", "usage.output_tokens", "metrics.tokens.prompt",
    "metrics.tokens.completion",
)  # fmt: skip
_BESIDE = {
    "model": ("modelInfo.modelId", "model"),
    "provider": ("modelInfo.providerId",),
    "mode": ("modelInfo.mode",),
    "stop_reason": ("stop_reason",),
    "refusal": ("stop_details.explanation", "stop_details.category"),
}
# What a message says about itself, not to anybody.
_NOT_SAID = frozenset({"stop_details", "container", "context_management", "modelInfo", "metrics"})


def add_anthropic_message(
    draft: EpisodeDraft, message: Fields, waiting: list[Draft]
) -> list[Draft]:
    """Add a message, with the results of the calls before it; returns the calls in it."""
    before = len(draft.steps)
    given = {name: value for name, value in message.value.items() if name not in _NOT_SAID}
    rest = without_results(draft, {"role": "assistant", **given}, waiting)
    if rest.get("content") or not given.get("content"):
        add_message(draft, rest, message.place)
    if len(draft.steps) > before:
        draft.steps[before].count(sum(message.number(name) or 0 for name in _COUNTS))
    for name, paths in _BESIDE.items():
        if found := message.text(*paths):
            draft.metadata[name] = found
    if cost := message.number("metrics.cost"):
        draft.metadata["cost"] = draft.metadata.get("cost", 0.0) + cost
    return [step for step in draft.steps[before:] if step.action == "call"]
