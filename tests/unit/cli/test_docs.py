"""``docs/cli.md`` cannot drift from the command."""

import importlib
import re
from pathlib import Path

import pytest
import typer.main

from memory_core.cli.app import _COMMANDS, build
from memory_core.cli.failures import ExitCode
from memory_core.samples import write_samples
from tests.unit.cli.episodes import EPISODES, numbered, relationship

DOCS = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS = {
    match[1]: match[2]
    for match in re.finditer(
        r"^### `memory ([a-z-]+(?: [a-z]+)*)[^`]*`\n(.*?)(?=^##)", DOCS, re.MULTILINE | re.DOTALL
    )
}
SHARED = {"--url", "--namespace", "--config", "--json", "--debug"}


def commands(group=None, prefix=""):
    group = group or typer.main.get_command(build())
    for name in group.list_commands(None):
        item = group.get_command(None, name)
        if hasattr(item, "commands"):
            yield from commands(item, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", item


def test_every_command_is_described_and_no_other():
    assert set(SECTIONS) == {name for name, _ in commands()}


def test_the_help_lists_every_command_as_it_describes_itself():
    group = typer.main.get_command(build())
    for name, command in _COMMANDS.items():
        described = group.get_command(None, name).help.partition("\n\n")[0]
        assert command.help == " ".join(described.split())
    with_all = typer.Typer()
    for module in {command.module for command in _COMMANDS.values()}:
        importlib.import_module(f"memory_core.cli.{module}").add_commands(with_all)
    assert set(typer.main.get_group(with_all).commands) == set(_COMMANDS)


def test_every_option_is_described():
    for name, item in commands():
        options = {
            option
            for parameter in item.params
            for option in (*parameter.opts, *parameter.secondary_opts)
            if option.startswith("--")
        }
        assert options >= SHARED
        described = set(re.findall(r"--[a-z-]*[a-z]", SECTIONS[name] + f"### `memory {name}`"))
        heading = next(line for line in DOCS.splitlines() if line.startswith(f"### `memory {name}"))
        described |= set(re.findall(r"--[a-z-]*[a-z]", heading))
        if name == "list":
            described.add("--desc")
        missing = options - SHARED - described - {"--help"}
        assert not missing, f"memory {name}: {missing} not in docs/cli.md"


def test_the_exit_codes():
    table = DOCS[DOCS.index("## Exit codes") : DOCS.index("## JSON")]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == set(ExitCode)


def documented_keys(name):
    text = SECTIONS[name].split("JSON keys: ")[1].split(";")[0]
    return set(re.findall(r"`(\w+)`", text))


@pytest.mark.parametrize("name", sorted(name for name in SECTIONS if "JSON keys" in SECTIONS[name]))
def test_the_keys_of_json(cli, tmp_path, name):
    cli.put(*EPISODES, relationship(1, 2), EPISODES[0].replace(id=numbered(9)))
    transcripts = write_samples(tmp_path / "transcripts")
    file, other = tmp_path / "all.jsonl", f"lmdb:{tmp_path / 'other.lmdb'}"
    cli("export", file)
    recalled = cli.json("recall", "the login test")["id"]
    arguments = {
        "backup": [tmp_path / "backup.db"],
        "copy": [cli.url, other],
        "export": [tmp_path / "again.jsonl"],
        "feedback": [recalled, "--outcome", "success"],
        "import": transcripts[:1],
        "load": [file],
        "namespaces wipe": ["default", "--yes"],
        "new-plugin": ["cache", "near", "--path", tmp_path],
        "recall": ["the login test"],
        "relate": [numbered(1), numbered(3), "--type", "follows"],
        "show": [numbered(1)],
    }
    assert set(cli.json(*name.split(), *arguments.get(name, []))) == documented_keys(name)
