"""What became of a transcript besides its episodes: what was left out, and what was changed."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import NamedTuple

from attrs import Factory, define

from memory_core.errors import ImportFormatError

__all__ = ["Log", "Note"]

_MOST = 10_000
_LONGEST_NAME = 80


class Note(NamedTuple):
    """Something that a reader of the episodes should know of.

    Attributes:
        file: the file's name.
        entry: which entry of it (line, index, message), or "".
        reason: what happened.
    """

    file: str
    entry: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}{f', {self.entry}' if self.entry else ''}: {self.reason}"


@define
class Log:
    """Collects what is lost or changed while one file is read.

    At most 10,000 of each are kept with their text; all are counted.

    Attributes:
        file: the file's name.
        skipped: content that is in no episode: entries that cannot be read.
        notes: what was changed or says nothing: repaired values, media, files without a turn.
        lost: how many were skipped.
        noted: how many notes there were.
        left_out: bookkeeping that is in no episode, as it says nothing: how much of each kind.
        repairs: what was repaired in the entry that was decoded last.
    """

    file: str
    skipped: list[ImportFormatError] = Factory(list[ImportFormatError])
    notes: list[Note] = Factory(list[Note])
    lost: int = 0
    noted: int = 0
    left_out: Counter[str] = Factory(Counter[str])
    repairs: frozenset[str] = frozenset()

    def skip(self, entry: str, reason: str) -> None:
        """Content of the transcript is in no episode."""
        self.skip_error(ImportFormatError(self.file, reason, entry=entry or None))

    def skip_error(self, error: ImportFormatError) -> None:
        """As ``skip``, with the error that says why."""
        self.lost += 1
        if len(self.skipped) < _MOST:
            self.skipped.append(error)

    def note(self, entry: str, reason: str) -> None:
        """Something was changed, or there was nothing to import."""
        self.noted += 1
        if len(self.notes) < _MOST:
            self.notes.append(Note(self.file, entry, reason))

    def unknown(self, name: str) -> None:
        """A field has a name that no format knows."""
        kind = f"field {name[:_LONGEST_NAME]}"
        # Names may be anything, and as many.
        many = len(self.left_out) >= _MOST and kind not in self.left_out
        self.left_out["other fields" if many else kind] += 1

    def repaired(self, entry: str, repairs: frozenset[str]) -> None:
        """An entry could be read only after repairs."""
        self.repairs = repairs
        self.note(entry, ", ".join(sorted(repairs)))

    def medium(self, entry: str, kind: str, data: str | bytes) -> str:
        """Note a medium, and return the text that stands for it in a step.

        Args:
            entry: its place.
            kind: its type, such as ``image/png``.
            data: its bytes, or their base64 text as it stands in the transcript.
        """
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        size = len(raw) if isinstance(data, bytes) else _decoded_size(data)
        digest = hashlib.sha256(raw).hexdigest()
        what = f"{kind}, {size} bytes, sha256 {digest}"
        self.note(entry, f"media left out: {what}")
        return what


def _decoded_size(base64: str) -> int:
    return len(base64) * 3 // 4 - base64[-2:].count("=")
