"""Words that a native reader stumbles over are in no docstring, comment, message or document."""

from __future__ import annotations

import re

import pytest

from tests.architecture.tree import ROOT, place, tracked_files

# Spelled apart, so that this file has none of them.
STUMBLES = re.compile(
    r"\b(who" + r"ever|ane" + r"w|what\s+is\s+" + r"none|lets?\s+go\s+" + r"of|for\s+" + r"who)\b",
    re.IGNORECASE,
)
TEXTS = {".py", ".md", ".toml", ".sh", ".yml", ".html", ".js", ""}


@pytest.mark.parametrize(
    "path",
    [path for path in tracked_files() if path.suffix in TEXTS and path.stat().st_size < 2**20],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_word_makes_a_reader_stumble(path):
    text = path.read_text("utf-8", errors="replace")
    # A phrase may be broken by the end of a line.
    found = [
        place(path, text.count("\n", 0, match.start()) + 1)
        for match in STUMBLES.finditer(
            re.sub(r"\n[ #>*]*", lambda gap: "\n" + " " * (len(gap[0]) - 1), text)
        )
    ]
    assert found == []
