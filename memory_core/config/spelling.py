"""Finds the known name that a misspelt one resembles."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["nearest", "similar"]


def nearest(text: str, known: Iterable[str], likeness: float = 0.7) -> str | None:
    """The known name that is most like a text.

    Args:
        text: the text.
        known: the names.
        likeness: from 0 to 1: how alike they must at least be.
    """
    from difflib import get_close_matches

    found = get_close_matches(text, list(known), n=1, cutoff=likeness)
    return found[0] if found else None


def similar(text: str, known: Iterable[str]) -> str:
    """A "did you mean" question with the known name most similar to a text; "" if none is similar."""
    found = nearest(text, known)
    return "" if found is None else f"; did you mean {found!r}?"
