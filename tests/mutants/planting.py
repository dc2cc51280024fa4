"""The lists of faults, and how one is planted: a line of one file is changed in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import field, frozen

ROOT = Path(__file__).parents[2]
LISTS = {"whole": ROOT / "tests/mutants/faults.toml", "kit": ROOT / "tests/mutants/kit.toml"}
# What a copy needs: the packages, their tests, and what these read.
COPIED = (
    "conftest.py", "pyproject.toml", "noxfile.py", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE",
    "benchmarks", "docs", "memory_core", "memory_storage_lmdb", "memory_storage_turso", "plugins", "tests",
)  # fmt: skip
SECONDS = 120.0
SUITES = tuple((ROOT / "memory_core/testing/suite").glob("*.py"))


@frozen(kw_only=True)
class Fault:
    """One fault.

    Attributes:
        what: what goes wrong.
        file: the file that is changed.
        old: a text that is in it once.
        new: what takes its place.
        test: the tests that find it: node ids of pytest, or files.
        why: why no client can see it, where no test is named.
    """

    what: str
    file: str
    old: str
    new: str
    test: tuple[str, ...] = field(default=(), converter=tuple)
    why: str = ""

    def problems(self) -> list[str]:
        """What is wrong with the entry itself; the code may have changed since it was written."""
        path = ROOT / self.file
        if not path.is_file():
            return [f"there is no {self.file}"]
        found = path.read_text(encoding="utf-8").count(self.old)
        wrong = [] if found == 1 else [f"{self.file} has {self.old!r} {found} times, not once"]
        if self.old == self.new:
            wrong.append("it changes nothing")
        if bool(self.test) == bool(self.why):
            wrong.append("expected either tests that find it, or why none can")
        return wrong + [problem for test in self.test for problem in _missing(test)]


@frozen
class Outcome:
    """What became of a planted fault: ``found``, ``hangs`` (its tests do not end), or ``survives``."""

    fault: Fault
    result: str
    seconds: float
    said: str


def read(name: str) -> list[Fault]:
    """The faults of a list."""
    listed = tomllib.loads(LISTS[name].read_text(encoding="utf-8"))
    return [Fault(**item) for item in listed["fault"]]


class Copy:
    """A copy of the project, in which faults are planted one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            source, target = ROOT / name, folder / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def plant(self, fault: Fault, tests: Sequence[str] = (), *options: str) -> Outcome:
        """Plant a fault, run its tests, and take it back."""
        path = self.folder / fault.file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
        start = time.monotonic()
        try:
            code, said = self.run(tests or fault.test, *options)
        finally:
            path.write_text(text, encoding="utf-8")
        result = {0: "survives", None: "hangs"}.get(code, "found")
        return Outcome(fault, result, time.monotonic() - start, said)

    def run(
        self, tests: Iterable[str], *options: str, seconds: float | None = None
    ) -> tuple[int | None, str]:
        """Run tests in the copy: pytest's exit code, ``None`` where they take too long, and its output.

        Raises:
            RuntimeError: no test ran.
        """
        paths = [self.folder, *(self.folder / "plugins").iterdir()]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-m",
            "not long",
            "--timeout",
            "60",
        ]
        with subprocess.Popen(
            [sys.executable, *command, *options, *tests],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as running:
            try:
                said, _ = running.communicate(timeout=seconds or SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, 9)
                return None, running.communicate()[0]
        if running.returncode in {4, 5}:
            raise RuntimeError(f"no test ran: {' '.join(tests)}\n{said}")
        return running.returncode, said


def _missing(test: str) -> list[str]:
    file, *names = test.split("::")
    if not (ROOT / file).exists():
        return [f"there is no {file}"]
    if not names:
        return []
    own = (ROOT / file).read_text(encoding="utf-8")
    function = names[-1].partition("[")[0]
    if len(names) == 1:
        known = re.search(rf"^(async )?def {function}\(", own, re.MULTILINE) is not None
    else:
        # A suite's tests are inherited, from the kit or from another class of the tests.
        sources = [own, *(path.read_text(encoding="utf-8") for path in SUITES)]
        known = f"class {names[0]}" in own and any(f"def {function}(" in text for text in sources)
    return [] if known else [f"{file} has no {'::'.join(names)}"]
