"""The walk-through's excerpts are the source."""

import re
from pathlib import Path
from textwrap import dedent

import pytest

from memory_core.storage import Storage

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/writing_a_backend.md").read_text()
EXCERPT = re.compile(r"<!-- excerpt: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
EXCERPTS = EXCERPT.findall(TEXT)


@pytest.mark.parametrize(
    ("source", "excerpt"), EXCERPTS, ids=[Path(source).name for source, _ in EXCERPTS]
)
def test_excerpt_is_in_its_source(source, excerpt):
    assert is_part_of(excerpt, (ROOT / source).read_text())


def is_part_of(excerpt, source):
    """Whether its lines follow each other in the source; the indentation of the whole may differ."""
    wanted = dedent(excerpt).splitlines()
    lines = source.splitlines()
    return any(
        dedent("\n".join(lines[start : start + len(wanted)])).splitlines() == wanted
        for start in range(len(lines))
    )


def test_every_marker_has_an_excerpt():
    assert TEXT.count("<!-- excerpt:") == len(EXCERPTS) > 10


def test_a_changed_line_is_noticed():
    _, excerpt = next(found for found in EXCERPTS if "submit" in found[1])
    source = (ROOT / "plugins/memory-storage-jsonl/memory_storage_jsonl/engine.py").read_text()
    changed = source.replace("submit", "send")
    assert is_part_of(excerpt, source)
    assert not is_part_of(excerpt, changed)


def test_it_counts_the_members_right():
    members = [name for name in vars(Storage) if not name.startswith("_")]
    numbers = {10: "ten", 11: "eleven", 12: "twelve", 13: "thirteen"}
    assert f"{numbers[len(members)]} of them" in TEXT
