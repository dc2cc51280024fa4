"""Type checkers know the public API: what it takes, what it returns, and what is a mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints
from uuid import UUID

import attrs
import pytest

from memory_core.memory.arguments import COMPLETION
from memory_core.query import keywords
from memory_core.records import CORE_RECORD_TYPES, Episode, Index, Pattern, Record, changes
from tests.architecture.typing_cases.completion import LanguageServer
from tests.architecture.typing_cases.mistakes import MISTAKES

pytestmark = pytest.mark.slow

CASES = Path(__file__).parent / "typing_cases"
PROGRAM = (CASES / "program.py").read_text("utf-8")
INFERRED = (CASES / "inferred.py").read_text("utf-8")
# Both checkers read all of the packages before they come to the cases.
SECONDS = 300


def pyright(folder: Path) -> dict[str, list[str]]:
    """Errors of pyright by file."""
    config = {"typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    said = run(folder, "pyright", "--outputjson", "--pythonpath", sys.executable)
    found: dict[str, list[str]] = {}
    for problem in json.loads(said)["generalDiagnostics"]:
        name = Path(problem["file"]).stem
        # A mistake may leave an import unused, which is not how it is to be found.
        by_the_way = name != "program" and problem.get("rule") == "reportUnusedImport"
        if problem["severity"] == "error" and not by_the_way:
            found.setdefault(name, []).append(problem["message"])
    return found


def mypy(folder: Path) -> dict[str, list[str]]:
    """Errors of mypy by file."""
    options = ("--strict", "--no-pretty", "--no-color-output", "--python-executable")
    said = run(folder, "mypy", *options, sys.executable, ".")
    found: dict[str, list[str]] = {}
    for file, message in re.findall(r"^(\w+)\.py:\d+: error: (.*)$", said, re.MULTILINE):
        found.setdefault(file, []).append(message)
    return found


def need(checker: str) -> None:
    """Skip, or fail with ``CI=true``, where a checker is not installed."""
    if find_spec(checker) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{checker} is missing: pip install --group types")
        pytest.skip(f"no {checker}: pip install --group types")


def run(folder: Path, checker: str, *arguments: str) -> str:
    """What a checker says of a folder."""
    need(checker)
    command = [sys.executable, "-m", checker, *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    # 0: no error, 1: errors. Anything else is no answer.
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("checker", [pyright, mypy], ids=lambda checker: checker.__name__)
def test_checkers_pass_what_is_right_and_find_what_is_wrong(
    checker: Callable[[Path], dict[str, list[str]]], tmp_path: Path
):
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    (tmp_path / "inferred.py").write_text(INFERRED, "utf-8")
    for number, mistake in enumerate(MISTAKES):
        assert PROGRAM.count(mistake.right) == 1, mistake
        wrong = PROGRAM.replace(mistake.right, mistake.wrong)
        (tmp_path / f"mistake_{number}.py").write_text(wrong, "utf-8")
    found = checker(tmp_path)
    assert found.pop("program", []) == []
    assert found.pop("inferred", []) == []
    # The program has no error, so each error in a copy of it is the mistake.
    missed = {
        mistake.wrong for number, mistake in enumerate(MISTAKES) if f"mistake_{number}" not in found
    }
    expected = {mistake.wrong for mistake in MISTAKES if checker.__name__ in mistake.missed}
    assert missed == expected


@pytest.mark.timeout(SECONDS)
def test_editors_complete_keywords(tmp_path: Path):
    need("pyright")
    fields = {item.name for item in attrs.fields(Episode)}
    with LanguageServer(tmp_path) as server:
        for call, expected in {
            "Query(Episode).where(": {index.name for index in Episode.indexes},
            "Query(ToolSequence).limit(3).where(": {index.name for index in Pattern.indexes},
            "Episode(": fields,
            "episode.replace(": fields,
            "memory.start_episode(": {"episode", *fields},
            "memory.complete_episode(episode.id, outcome, ": {"episode_id", "outcome", *COMPLETION},
        }.items():
            assert set(server.keywords(call)) == expected, call


def test_there_are_enough_mistakes_that_each_checker_finds():
    for checker in ("pyright", "mypy"):
        assert sum(checker not in mistake.missed for mistake in MISTAKES) >= 30
    assert all(all(mistake.missed.values()) for mistake in MISTAKES)


def test_the_program_runs():
    done = subprocess.run(
        [sys.executable, str(CASES / "program.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CASES.parents[2])},
    )
    assert done.returncode == 0, done.stderr
    assert "review inmemory False" in done.stdout


# What is written down for type checkers is what the records declare


def taken(cls: type[Record]) -> dict[str, Any]:
    """What the constructor of a class takes for each field."""
    hints = get_type_hints(cls)
    found: dict[str, Any] = {}
    for item in attrs.fields(cls):
        converter: Any = item.converter
        declared = getattr(converter, "__wrapped__", converter)
        instance = item.metadata.get("memory_core", {}).get("instance")
        found[item.name] = (
            hints[item.name] if instance else next(iter(get_type_hints(declared).values()))
        )
    return found


@pytest.mark.parametrize("cls", [*CORE_RECORD_TYPES, Pattern, Record], ids=lambda cls: cls.__name__)
def test_changes_are_the_fields(cls: type[Record]):
    assert get_type_hints(vars(changes)[f"{cls.__name__}Changes"]) == taken(cls)


def test_what_completes_an_episode_are_fields_of_it():
    hints = get_type_hints(changes.EpisodeCompletion)
    fields = taken(Episode)
    assert set(hints) == COMPLETION
    assert hints == {name: fields[name] | None for name in hints}


def given(index: Index) -> Any:
    """What a condition on an index takes."""
    value: Any = index.type
    if value is UUID or (value is not str and issubclass(value, str)):
        value |= str
    alias: Any = keywords.Many if index.multi else keywords.One
    return alias[value] | (Mapping[str, str] if index.pairs else alias[value])


@pytest.mark.parametrize(
    "cls",
    [cls for cls in [*CORE_RECORD_TYPES, Pattern] if not cls.variant],
    ids=lambda cls: cls.__name__,
)
def test_conditions_are_the_indexes(cls: type[Record]):
    hints = get_type_hints(vars(keywords)[f"{cls.__name__}Conditions"])
    assert hints == {index.name: given(index) for index in cls.indexes}
