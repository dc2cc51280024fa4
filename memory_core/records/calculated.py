"""The mark on a field of an episode that was calculated, not recorded."""

from __future__ import annotations

__all__ = ["CALCULATED_FIELDS", "mark_of"]

CALCULATED_FIELDS = ("reward", "reflection", "salient_features")
"""The fields of an episode that can be calculated."""


def mark_of(field: str) -> str:
    """The name of the metadata that says that a field was calculated, by which calculator, and why."""
    return f"calculated_{field}"
