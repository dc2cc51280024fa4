"""Words that a native reader stumbles over are in no docstring, comment, message or document."""

from __future__ import annotations

import re

from tests.architecture.tree import place, text_files

# Spelled apart, so that this file has none of them.
STUMBLES = re.compile(
    r"\b(who" + r"ever|ane" + r"w|what\s+is\s+" + r"none|lets?\s+go\s+" + r"of|for\s+" + r"who)\b",
    re.IGNORECASE,
)


def test_no_word_makes_a_reader_stumble():
    found = []
    for path in text_files():
        text = path.read_text("utf-8", errors="replace")
        # A phrase may be broken by the end of a line.
        joined = re.sub(r"\n[ #>*]*", lambda gap: "\n" + " " * (len(gap[0]) - 1), text)
        found += [
            place(path, text.count("\n", 0, match.start()) + 1)
            for match in STUMBLES.finditer(joined)
        ]
    assert found == []
