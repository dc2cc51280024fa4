"""The bugs that the sample agents repair in the transcripts. The projects are made up."""

from __future__ import annotations

import json
from typing import NamedTuple

from memory_core.samples.files import transcripts

__all__ = ["BUGS", "Bug"]


class Bug(NamedTuple):
    """A bug: its report, its place, its fix and the test that shows it.

    Attributes:
        repo: the project.
        issue: number of the report.
        report: its text.
        search: the word that leads to the place.
        path: the file to change.
        line: the line's number in it.
        before: the wrong line.
        after: the right one.
        test: the command that shows the bug.
        failure: what that prints before the repair.
    """

    repo: str
    issue: int
    report: str
    search: str
    path: str
    line: int
    before: str
    after: str
    test: str
    failure: str


def _bug(text: str) -> Bug:
    """The bug that a trajectory is about."""
    run = json.loads(text)
    steps = run["trajectory"]
    path, line, before = steps[0]["observation"].split(":", 2)
    fixed = next(s["observation"] for s in steps if s["observation"].startswith("Replaced 1"))
    return Bug(
        repo=run["environment"],
        issue=int(json.loads(run["replay_config"])["problem_statement"]["id"].rpartition("-")[2]),
        report=run["history"][1]["content"].split("ISSUE:\n")[1].split("\n\nINSTRUCTIONS:")[0],
        search=steps[0]["action"].split("'")[1],
        path=path,
        line=int(line),
        before=before,
        after=fixed.split(":", 1)[1],
        test=steps[2]["action"],
        failure=steps[2]["observation"],
    )


BUGS = tuple(_bug(item.read_text("utf-8")) for item in transcripts("memory_core.samples.repairs"))
