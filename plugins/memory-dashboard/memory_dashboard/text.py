"""Stored text as it is shown: nothing in it can hide, reorder or become markup."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from markupsafe import Markup, escape

__all__ = ["FOLD", "PIECE", "Folded", "exact", "folded", "one_line", "pretty", "shown", "visible"]

FOLD = 1_200
"""Characters of a value that are shown before it is opened."""
PIECE = 100_000
"""Characters of an opened value that are fetched at once."""

# Control characters; marks that change the direction of text; blanks without width; line separators; tags.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)

_MARKS = "".join(
    chr(number)
    for number in range(0x300, 0xFFFF)
    if unicodedata.category(chr(number)) in {"Mn", "Me"}
)
# Languages put up to six on a letter. Very many cover what is above and below, and no line breaks there.
_STACKED = re.compile(f"([{_MARKS}]{{8}})([{_MARKS}]+)")


def visible(text: str) -> str:
    """The text with characters that cannot be seen, or that reorder others, written by their numbers. Where
    more than eight marks are on one letter, the others are counted.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _STACKED.sub(lambda found: f"{found[1]}\u27e8{len(found[2])} more marks\u27e9", text)
    # What a line of Windows ends with is no surprise.
    return _HIDDEN.sub(
        lambda found: f"\u27e8U+{ord(found[0]):04X}\u27e9", text.replace("\r\n", "\n")
    )


def exact(text: str) -> Markup:
    """A text as the value of an attribute that a browser sends back: characters that cannot be seen are
    references, so that the page has none and the value is what was stored.
    """
    escaped = str(escape(text))
    return Markup(_HIDDEN.sub(lambda found: f"&#x{ord(found[0]):x};", escaped))  # noqa: S704  # escaped above


def shown(value: Any) -> Any:
    """What a template prints for a value; Jinja then escapes it."""
    if value is None:
        return ""
    if isinstance(value, Markup | int | float):
        return value
    return visible(str(value))


def one_line(text: str, length: int = 160) -> str:
    """The beginning of a text on one line."""
    joined = " ".join(text[: 4 * length].split())
    return joined if len(joined) <= length and len(text) <= 4 * length else f"{joined[:length]}…"


def pretty(value: Any) -> str:
    """A JSON value as text: texts as they are, everything else indented."""
    if isinstance(value, str):
        return value
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


@frozen
class Folded:
    """A value of a record, of which a page has the beginning.

    Attributes:
        text: the beginning.
        length: the characters of the whole.
    """

    text: str
    length: int

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return len(self.text) == self.length


def folded(value: Any) -> Folded | None:
    """The beginning of a value; ``None`` if there is nothing to show."""
    if value is None or (isinstance(value, str | Mapping | list | tuple) and not value):
        return None
    text = pretty(value)
    return Folded(text[:FOLD], len(text))
