"""Checks and tests. ``nox`` alone runs what must pass before pushing; ``nox --list`` shows the rest.

A backend has a file in ``tests/conformance`` or a distribution in ``plugins``; a new one joins the matrix
by itself. Interpreters that are not installed are left out.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.16"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "imports", "tests", "build"]

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = ["3.11", "3.12", "3.13"]
PLUGINS = [f"plugins/{folder.name}" for folder in sorted((ROOT / "plugins").glob("*/"))]
CONFORMANCE = {
    path.stem.removeprefix("test_").replace("_", "-"): f"tests/conformance/{path.name}"
    for path in sorted((ROOT / "tests" / "conformance").glob("test_*.py"))
}
BACKENDS = {name: [path] for name, path in CONFORMANCE.items()} | {
    Path(plugin).name: [f"{plugin}/tests"] for plugin in PLUGINS
}
# The tests that belong to no single backend.
BACKENDS["core"] = ["tests", "--ignore=tests/conformance"]
MUST_BE_IN_WHEEL = (
    "memory_core/py.typed",
    "memory_core/cli/templates/storage/pyproject.toml.in",
    "memory_core/testing/suite/storage_suite.py",
    "memory_core/samples/coding_sessions/agent-a01a38311.jsonl",
    "memory_core/samples/incidents/operations-chats.jsonl",
    "memory_core/samples/repairs/tidewatch-27.traj",
    "memory_core/samples/support_desk/support-desk.json",
    "memory_storage_lmdb/plugin.py",
    "memory_storage_lmdb/py.typed",
    "memory_storage_turso/plugin.py",
    "memory_storage_turso/py.typed",
)


def install(session: nox.Session, *further: str) -> None:
    """Install the project and the distributions under ``plugins`` as they are in this tree."""
    plugins = [argument for plugin in PLUGINS for argument in ("-e", plugin)]
    session.install("-e", ".[dev]", *plugins, *further)


def group(name: str) -> list[str]:
    """The requirements of a dependency group."""
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session(python=PYTHONS)
@nox.parametrize("backend", [nox.param(name, id=name) for name in sorted(BACKENDS)])
def tests(session: nox.Session, backend: str) -> None:
    """Run the tests of one backend, or those that belong to none (``core``)."""
    install(session)
    session.run(
        "pytest", "-m", "not long", *BACKENDS[backend], *(session.posargs or ["-n", "logical"])
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly; those of the public API also with mypy, as users see them."""
    install(session, *group("types"))
    session.run("pyright", *session.posargs)
    session.run("pytest", "tests/architecture/test_typing.py")


@nox.session
def imports(session: nox.Session) -> None:
    """Check who imports whom."""
    install(session)
    session.run("lint-imports")


@nox.session(python=PYTHONS[0], venv_backend="uv")
def min_deps(session: nox.Session) -> None:
    """Run the tests with the oldest dependencies that are allowed."""
    scratch = Path(session.create_tmp()).resolve()
    # Direct dependencies of the project and its plugins at their lower bounds, all others newest.
    sources, lowest = scratch / "sources.in", scratch / "lowest.txt"
    sources.write_text(
        f"-e {ROOT}[testing,turso-ws]\n" + "".join(f"-e {ROOT / plugin}\n" for plugin in PLUGINS)
    )
    resolve = ["uv", "pip", "compile", "--quiet", "--resolution", "lowest-direct", "--no-annotate"]
    session.run(*resolve, str(sources), "--output-file", str(lowest), external=True)
    pinned = [line for line in lowest.read_text().splitlines() if "==" in line]
    lowest.write_text("\n".join(pinned) + "\n")
    install(session, "--constraint", str(lowest))
    session.run("uv", "pip", "list", external=True)
    session.run("pytest", "-m", "not long", *(session.posargs or ["-n", "logical"]))


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks of the caches, beside their peers: hit_ratio, agent_workload, cache_latency.
    Arguments name others instead: ``nox -s bench -- peers load``.
    """
    install(session, *group("benchmarks"))
    for name in session.posargs or ["hit_ratio", "agent_workload", "cache_latency"]:
        # Exit code 3: a setting other than the default misses a bound, as docs/caching.md describes.
        session.run("python", "-m", f"benchmarks.{name}", success_codes=[0, 3])


@nox.session
def report(session: nox.Session) -> None:
    """Measure everything that docs/benchmarks.md says, in under an hour, and write it again."""
    install(session, *group("benchmarks"))
    session.run("python", "-m", "benchmarks.report", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build every distribution, and use the wheels in an environment with nothing else."""
    session.install(*group("build"))
    scratch = Path(session.create_tmp()).resolve()
    target = scratch / "dist"
    for folder in (".", *PLUGINS):
        session.run("pyproject-build", "--outdir", str(target), folder, silent=True)
    wheels = sorted(target.glob("*.whl"))
    sources = sorted(target.glob("*.tar.gz"))
    if not len(wheels) == len(sources) == 1 + len(PLUGINS):
        session.error(f"expected one wheel and one sdist each, got {wheels} and {sources}")
    (wheel,) = target.glob("memory_core-*.whl")
    missing = set(MUST_BE_IN_WHEEL) - set(zipfile.ZipFile(wheel).namelist())
    if missing:
        session.error(f"{wheel.name} lacks {', '.join(sorted(missing))}")
    fresh = scratch / "fresh"
    session.run("python", "-m", "venv", "--clear", str(fresh))
    session.run(str(fresh / "bin" / "pip"), "install", "-q", *map(str, wheels), external=True)
    with session.chdir(scratch):
        for command in (["--help"], ["plugins"], ["demo"]):
            session.run(str(fresh / "bin" / "memory"), *command, external=True, silent=True)
        session.run(str(fresh / "bin" / "python"), "-c", "import memory_core", external=True)


@nox.session(python=PYTHONS)
def long(session: nox.Session) -> None:
    """Run the tests that take minutes: kills by the thousand, 200,000 episodes, cached reads, a browser."""
    install(session, *group("browser"))
    session.run("pytest", "-m", "long", "--timeout", "3600", *session.posargs)
    searching = {"MEMORY_CORE_KIT_EXAMPLES": "200"}
    session.run(
        "pytest", "-k", "behaves_like", "--timeout", "3600", *session.posargs, env=searching
    )


@nox.session
def mutants(session: nox.Session) -> None:
    """Plant the chosen faults, one after the other, and see that the tests find at least 95 % of them."""
    install(session)
    session.run("python", "-m", "tests.mutants", "whole", *session.posargs)


@nox.session
def kit_mutants(session: nox.Session) -> None:
    """Plant faults in backends and caches, and see that the kit finds every one."""
    install(session)
    session.run("python", "-m", "tests.mutants", "kit", "--least", "1", *session.posargs)
