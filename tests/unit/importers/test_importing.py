"""``import_file``: one file by the rules of the command."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from memory_core import ConfigurationError, ImportFormatError, UnknownFormatError, open_memory
from memory_core.importers import ClaudeCodeImporter, FileReport, import_file
from memory_core.importers.formats.known import KNOWN
from tests.unit.importers.transcripts import claude_line, claude_session, write, write_lines


async def test_copies_relationships_and_notes_are_as_with_the_command(tmp_path):
    agent = claude_line("user", 3, "Find it", isSidechain=True, agentId="a1")
    part = write_lines(tmp_path / "agent.jsonl", [agent])
    long = write_lines(tmp_path / "long.jsonl", claude_session())
    short = write_lines(tmp_path / "short.jsonl", claude_session()[:4])
    async with open_memory("inmemory:") as memory:
        report = await import_file(memory, part)
        assert isinstance(report, FileReport)
        assert (report.format, report.stored) == ("claude-code", 1)
        assert (await import_file(memory, str(long), "claude-code")).related == 1
        report = await import_file(memory, short, ClaudeCodeImporter())
        assert (report.stored, report.kept) == (0, 1)
        assert any(note.reason.startswith("kept: ") for note in report.log.notes)
        assert await memory.count_episodes() == 2


async def test_what_is_not_known_is_an_error(tmp_path):
    path = write(tmp_path / "a.json", {"apples": 1})
    async with open_memory("inmemory:") as memory:
        with pytest.raises(UnknownFormatError, match="is of no known format"):
            await import_file(memory, path)
        with pytest.raises(ConfigurationError, match="unknown format 'claude'; did you mean"):
            await import_file(memory, path, "claude")
        with pytest.raises(ImportFormatError, match="No such file"):
            await import_file(memory, tmp_path / "missing")


def test_the_example_of_the_docs_runs(tmp_path):
    text = Path(__file__).parents[3].joinpath("docs", "importing.md").read_text("utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "openai-chat 1 0 0"


def test_formats_without_an_importer_are_named_in_the_docs():
    text = Path(__file__).parents[3].joinpath("docs", "importing.md").read_text("utf-8")
    for what in KNOWN:
        name = next(word for word in what.split() if "-" in word or not word.islower())
        assert name in text
