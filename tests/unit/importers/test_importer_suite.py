"""The kit for importers: those of the core pass it, and faults are found."""

from pathlib import Path

import pytest

import memory_core.samples
from memory_core.errors import ImportFormatError
from memory_core.importers import (
    ClaudeCodeImporter,
    OpenAIChatImporter,
    SweAgentImporter,
    TauBenchImporter,
)
from memory_core.records import Episode, new_id
from memory_core.testing import ImporterSuite

SAMPLES = Path(memory_core.samples.__file__).parent


@pytest.fixture(autouse=True)
def only_transcripts(monkeypatch):
    """The folders of the samples are packages."""
    whole = ImporterSuite.transcripts
    monkeypatch.setattr(
        ImporterSuite,
        "transcripts",
        lambda self: [path for path in whole(self) if not path.name.startswith("__")],
    )


class TestClaudeCode(ImporterSuite):
    samples = SAMPLES / "coding_sessions"

    def create(self):
        return ClaudeCodeImporter()


class TestOpenAIChat(ImporterSuite):
    samples = SAMPLES / "incidents"

    def create(self):
        return OpenAIChatImporter()


class TestSweAgent(ImporterSuite):
    samples = SAMPLES / "repairs"

    def create(self):
        return SweAgentImporter()


class TestTauBench(ImporterSuite):
    samples = SAMPLES / "support_desk"

    def create(self):
        return TauBenchImporter()


class Lines:
    """An importer of a made-up format: a task a line, after a first line that says ``tasks``."""

    name, summary = "lines", "a task a line"

    def sniff(self, head, _path, /):
        return head.startswith(b"tasks\n")

    def read(self, path, *, keep_going=False):
        first, *tasks = path.read_text().splitlines() or [""]
        if first != "tasks":
            raise ImportFormatError(path.name, "no tasks")
        for number, task in enumerate(tasks):
            yield Episode(id=self.id_of(number), task_description=task, start_time=TIME)

    def id_of(self, number):
        return FIXED[number]


FIXED = [new_id() for _ in range(10)]
TIME = Episode(task_description="x").start_time


class Greedy(Lines):
    def sniff(self, head, _path, /):
        return True


class Random(Lines):
    def id_of(self, number):
        return new_id()


class Same(Lines):
    def id_of(self, number):
        return FIXED[0]


class Untyped(Lines):
    def read(self, path, *, keep_going=False):
        if path.read_text().split("\n")[0] != "tasks":
            raise KeyError(0)
        yield from super().read(path)


def suite_of(cls, folder):
    class Suite(ImporterSuite):
        samples = folder

        def create(self):
            return cls()

    return Suite()


@pytest.mark.parametrize(
    ("cls", "test", "arguments"),
    [
        (Greedy, "test_other_files_are_not_recognised", ("prose",)),
        (Random, "test_reading_again_gives_equal_episodes", ()),
        (Same, "test_episodes_have_ids_of_their_own", ()),
        (Untyped, "test_what_is_cut_off_is_an_error_that_names_the_file", ()),
    ],
)
def test_faults_are_found(cls, test, arguments, tmp_path):
    folder = tmp_path / "samples"
    folder.mkdir()
    (folder / "a.txt").write_text("tasks\none\ntwo\n")
    last = (
        (tmp_path,)
        if test
        not in {
            "test_reading_again_gives_equal_episodes",
            "test_episodes_have_ids_of_their_own",
        }
        else ()
    )
    getattr(suite_of(Lines, folder), test)(Lines(), *arguments, *last)
    with pytest.raises((AssertionError, KeyError)):
        getattr(suite_of(cls, folder), test)(cls(), *arguments, *last)
