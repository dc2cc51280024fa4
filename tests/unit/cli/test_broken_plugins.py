"""A plugin that is broken in any way leaves every command of the others usable, and is listed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.installed import Installed

HOOK = """
    from memory_core import Record, hookimpl

    @hookimpl
    def {hook}():
        {body}
"""
# Each by its name: the source of its plugin, and what is said about it.
BROKEN = {
    "exits": ("raise SystemExit(0)", "SystemExit: 0"),
    "record": (
        HOOK.format(
            hook="memory_record_types",
            body='return [type("Wrong", (Record,), {"kind": "Not A Kind"})]',
        ),
        "memory_record_types: Wrong: kind must be a lower-case identifier",
    ),
    "no_typer": (
        HOOK.format(hook="memory_cli_commands", body='return {"mine": print}'),
        "expected a Typer",
    ),
}
UNBUILT = HOOK.format(
    hook="memory_cli_commands",
    body="""
        import typer

        app = typer.Typer()

        @app.command()
        def go(value: 'Nowhere') -> None:
            pass

        return {"unbuilt": app}""",
)


def memory(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    installed = [str(folder) for folder in (tmp_path / "installed").iterdir()]
    return subprocess.run(
        [sys.executable, "-m", "memory_core.cli", *arguments],
        cwd=tmp_path,
        env={
            **os.environ,
            "MEMORY_URL": f"lmdb:{tmp_path / 'store'}",
            "PYTHONPATH": os.pathsep.join(installed),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def installed(tmp_path, monkeypatch):
    return Installed(tmp_path / "installed", monkeypatch)


def test_broken_plugins_are_listed_and_stop_no_command(tmp_path, installed):
    for name, (source, _) in BROKEN.items():
        installed.plugin(f"acme-{name.replace('_', '-')}", source, entry=name)
    installed.plugin("acme-unbuilt", UNBUILT, entry="unbuilt")
    listed = memory(tmp_path, "plugins", "--json")
    assert listed.returncode == 0, listed.stderr
    errors = {found["name"]: found["error"] for found in json.loads(listed.stdout)["plugins"]}
    for name, (_, said) in BROKEN.items():
        assert said in errors[name]
    assert "the plugin command 'unbuilt' is left out: NameError" in listed.stderr
    done = memory(tmp_path, "namespaces", "list")
    assert (done.returncode, "no store" in done.stderr) == (2, True), done.stderr


def test_names_that_are_claimed_twice_are_listed(tmp_path, installed):
    for number in (1, 2):
        same = HOOK.format(
            hook="memory_wrapper_factories", body="return {'audit': FACTORY}"
        ).replace(
            "@hookimpl",
            "from memory_core import WrapperFactory\n\n"
            "    FACTORY = WrapperFactory(wrap=print)\n\n    @hookimpl",
        )
        installed.plugin(f"acme-entry{number}", "", entry="same")
        installed.plugin(f"acme-wrapper{number}", same, entry=f"wrapper{number}")
    listed = memory(tmp_path, "plugins", "--json")
    assert listed.returncode == 0, listed.stderr
    found = json.loads(listed.stdout)
    assert {"turso", "lmdb", "inmemory"} <= found["storages"].keys()
    assert found["wrappers"] == {}
    (problem,) = found["problems"]
    assert "acme-wrapper1 (wrapper1) and acme-wrapper2 (wrapper2) both claim 'audit'" in problem
    assert f"hint: {problem}" in listed.stderr
    second = [info for info in found["plugins"] if info["name"] == "same"][1]
    assert second["distribution"] == "acme-entry2"
    assert "two plugins are named 'same'" in second["error"]
