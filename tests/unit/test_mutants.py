"""The lists of planted faults are current, and planting works."""

import pytest

from tests.mutants import planting
from tests.mutants.planting import Copy, Fault

FAULTS = {name: planting.read(name) for name in planting.LISTS}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_of_the_code_as_it_is(name):
    wrong = {fault.what: fault.problems() for fault in FAULTS[name]}
    assert {what: problems for what, problems in wrong.items() if problems} == {}


@pytest.mark.parametrize(("name", "least"), [("whole", 150), ("kit", 20)])
def test_there_are_enough(name, least):
    faults = FAULTS[name]
    assert len(faults) >= least
    assert len({fault.what for fault in faults}) == len(faults)
    assert len({(fault.file, fault.new, fault.old) for fault in faults}) == len(faults)


def test_the_kit_finds_its_faults_by_tests_of_a_suite():
    suites = [path.read_text("utf-8") for path in planting.SUITES]
    for fault in FAULTS["kit"]:
        for test in fault.test:
            name = test.rpartition("::")[2]
            assert any(f"def {name}(" in suite for suite in suites), test


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A project of one module and one test, and a copy of it."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (root / "plugins").mkdir()
    (root / "code.py").write_text("def double(x):\n    return 2 * x\n")
    (root / "test_code.py").write_text(
        "from code import double\n\ndef test_double():\n    assert double(2) == 4\n\n"
        "def test_three():\n    assert double(3) == 6\n"
    )
    monkeypatch.setattr(planting, "ROOT", root)
    monkeypatch.setattr(
        planting, "COPIED", ("pyproject.toml", "plugins", "code.py", "test_code.py")
    )
    return Copy(tmp_path / "copy")


def fault(new, test=("test_code.py",), old="2 * x"):
    return Fault(what="it is wrong", file="code.py", old=old, new=new, test=test)


def test_a_fault_is_found_or_survives_and_is_taken_back(small):
    assert small.plant(fault("3 * x")).result == "found"
    assert small.plant(fault("x + 2", ("test_code.py::test_double",))).result == "survives"
    assert small.plant(fault("x + 2", ("test_code.py::test_three",))).result == "found"
    assert (small.folder / "code.py").read_text() == (planting.ROOT / "code.py").read_text()


def test_a_fault_that_hangs_is_ended(small, monkeypatch):
    monkeypatch.setattr(planting, "SECONDS", 5.0)
    assert small.plant(fault("[None for _ in iter(int, 1)]")).result == "hangs"


def test_a_test_that_is_not_there_is_no_find(small):
    with pytest.raises(RuntimeError, match="no test ran"):
        small.plant(fault("3 * x", ("test_code.py::test_missing",)))


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (fault("3 * x", old="4 * x"), "0 times"),
        (fault("2 * x"), "changes nothing"),
        (fault("3 * x", ()), "expected either"),
        (fault("3 * x", ("test_other.py",)), "there is no test_other.py"),
        (fault("3 * x", ("test_code.py::test_none",)), "has no test_none"),
        (Fault(what="w", file="none.py", old="a", new="b", why="x"), "there is no none.py"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said(small, wrong, problem):
    assert any(problem in said for said in wrong.problems())
    assert fault("3 * x").problems() == []
