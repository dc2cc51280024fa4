from typing import Annotated

import pytest
import typer

from memory_core import ToolSequence, hookimpl
from memory_core.cli import stores
from memory_core.cli.app import build
from memory_core.cli.session import Session
from memory_core.plugins import PluginRegistry
from tests.unit.cli.conftest import Cli
from tests.unit.cli.episodes import EPISODES, episode, numbered


def test_stats(cli):
    cli.put(*EPISODES, ToolSequence(tools=("a",)))
    found = cli.json("stats")
    assert found["backend"] == "turso"
    assert found["records"]["episode"] == 4
    assert found["records"]["pattern"] == 1
    assert found["position"] >= 5
    assert "durable" in found["capabilities"]
    shown = cli("stats").stdout
    assert "memory.db" in shown
    assert found["store_id"] in shown


def test_the_table_leaves_out_what_did_not_happen(cli):
    cli.put(*EPISODES)
    found = cli.json("stats")
    assert found["sections"]["compression"]["ratio"] == 1.0
    assert found["counters"]["batches"] == 0
    shown = cli("stats").stdout
    for text in ("compression", "ratio", "counters", "batches", "evictions"):
        assert text not in shown
    for text in ("records", "pattern", "connections", "readers"):
        assert text in shown
    ratio = stores.said({"bodies": 3, "compressed": 1, "evictions": 0, "ratio": 2.5, "on": False})
    assert ratio == {"bodies": 3, "compressed": 1, "ratio": 2.5, "on": False}


def test_histograms_are_printed_in_words(cli):
    cli.put(*EPISODES)
    assert "{" not in cli("stats").stdout
    nothing, some = {"count": 0, "mean": 0.0}, {"count": 12, "mean": 0.25}
    assert stores.said({"size": nothing, "age": some}) == {"age": some}
    assert stores._spaced({"last_age": some}) == [("last age", "count 12, mean 0.25")]


def test_namespaces(cli):
    cli.put(episode(1))
    cli.put(episode(1), episode(2), namespace="agent-7")
    found = {item["name"]: item["records"] for item in cli.json("namespaces", "list")["namespaces"]}
    assert found["default"]["episode"] == 1
    assert found["agent-7"]["episode"] == 2
    assert "agent-7" in cli("namespaces", "list").stdout
    assert cli.json("list", "--namespace", "agent-7", "--limit", 1)["records"][0]["id"] == str(
        numbered(2)
    )


def test_wiping_asks_first(cli):
    cli.put(episode(1))
    cli.put(episode(1), episode(2), namespace="agent-7")
    refused = cli("namespaces", "wipe", "agent-7", code=1, input="n\n")
    assert "Delete all 2 records of 'agent-7'" in refused.stderr
    assert len(cli.json("list", "--namespace", "agent-7")["records"]) == 2
    wiped = cli.json("namespaces", "wipe", "agent-7", "--yes")
    assert wiped["deleted"] == 2
    assert [item["name"] for item in cli.json("namespaces", "list")["namespaces"]] == ["default"]
    wiped = cli("namespaces", "wipe", "default", input="y\n")
    assert "Delete the only record of 'default'" in wiped.stderr
    assert "default: 1 record deleted" in wiped.stdout
    assert "no namespace" in cli("namespaces", "list").stdout


def test_a_namespace_that_is_not_there_is_not_wiped(cli):
    cli.put(episode(1))
    before = cli.json("stats")["position"]
    for options in ([], ["--yes"], ["--yes", "--json"]):
        wiped = cli("namespaces", "wipe", "nosuch", *options, code=1)
        assert "there is no namespace 'nosuch' in" in wiped.stderr
        assert not wiped.stdout
    assert cli.json("stats")["position"] == before


def test_backup(cli, tmp_path):
    cli.put(*EPISODES)
    target = tmp_path / "backup.db"
    made = cli.json("backup", target)
    assert made["size_bytes"] == target.stat().st_size > 0
    found = cli.json("list", "--url", f"turso:{target}")
    assert found["records"] == cli.json("list")["records"]
    assert "backup.db" in cli("backup", target, code=2).stderr


def test_a_backend_without_the_capability_says_so(cli, tmp_path):
    result = cli("backup", tmp_path / "x", "--url", "inmemory:", code=2)
    assert result.stderr == "memory: InMemoryStorage does not support backup\n"


def test_plugins(cli):
    found = cli.json("plugins")
    assert {"core", "turso", "lmdb"} <= {info["name"] for info in found["plugins"]}
    assert {"inmemory", "turso", "lmdb"} <= set(found["storages"])
    assert "tau-bench" in found["importers"]
    assert "episode" in found["record_types"]
    shown = cli("plugins").stdout
    assert "memory-core" in shown


def test_a_blocked_plugin_is_listed_as_such(cli, monkeypatch):
    monkeypatch.setenv("MEMORY_BLOCK_PLUGINS", "lmdb")
    found = cli.json("plugins")
    assert {info["name"]: info["blocked"] for info in found["plugins"]}["lmdb"]
    assert "lmdb" not in found["storages"]
    assert "unknown storage backend 'lmdb'" in cli("list", "--url", "lmdb:x", code=2).stderr


class Broken:
    @hookimpl
    def memory_storage_factories(self):
        raise RuntimeError("out of order")


def test_a_broken_plugin_is_listed_with_its_error(cli):
    registry = PluginRegistry()
    registry.register(Broken(), name="broken")
    broken = Cli(cli.url, build(registry))
    found = {info["name"]: info["error"] for info in broken.json("plugins")["plugins"]}
    assert "out of order" in found["broken"]
    cli.put(episode(1))
    assert len(broken.json("list")["records"]) == 1


def plugin_with_commands(**commands):
    class Plugin:
        @hookimpl
        def memory_cli_commands(self):
            return commands

    registry = PluginRegistry()
    registry.register(Plugin(), name="with-commands")
    return registry


def test_a_plugin_adds_commands_that_find_the_session(cli):
    sub = typer.Typer(help="Greet.")

    @sub.command()
    def hello(context: typer.Context, name: Annotated[str, typer.Option()] = "you"):
        assert isinstance(context.obj, Session)
        typer.echo(f"hello {name} at {context.obj.settings.url}")

    @sub.command()
    def other():
        typer.echo("other")

    app = Cli(cli.url, build(plugin_with_commands(greet=sub)))
    assert app("--url", "inmemory:", "greet", "hello").stdout == "hello you at inmemory:\n"
    assert "Greet." in app("--help").stdout


def test_a_plugin_cannot_take_a_command_that_exists(cli, capsys):
    sub = typer.Typer()
    sub.command()(lambda: typer.echo("taken over"))
    app = Cli(cli.url, build(plugin_with_commands(list=sub)))
    assert "'list' is left out" in capsys.readouterr().err
    cli.put(episode(1))
    assert "taken over" not in app("list").stdout


@pytest.mark.parametrize("place", ["before", "after"])
def test_shared_options_before_and_after_the_command(cli, place):
    cli.put(episode(1), namespace="agent-7")
    shared = ["--namespace", "agent-7", "--url", cli.url, "--json"]
    arguments = [*shared, "list"] if place == "before" else ["list", *shared]
    assert '"task 1"' in cli(*arguments).stdout


def test_an_option_after_the_command_wins(cli):
    cli.put(episode(1), namespace="agent-7")
    found = cli.json("--namespace", "none", "list", "--namespace", "agent-7")
    assert len(found["records"]) == 1


def test_settings_file_and_environment(cli, tmp_path, monkeypatch):
    cli.put(episode(1), namespace="from-file")
    cli.put(episode(1), episode(2), namespace="from-environment")
    file = tmp_path / "other.toml"
    file.write_text(f'url = "{cli.url}"\nnamespace = "from-file"\n')
    monkeypatch.delenv("MEMORY_URL")
    assert len(cli.json("list", "--config", file)["records"]) == 1
    monkeypatch.setenv("MEMORY_CONFIG", str(file))
    assert len(cli.json("list")["records"]) == 1
    monkeypatch.setenv("MEMORY_NAMESPACE", "from-environment")
    assert len(cli.json("list")["records"]) == 2
    assert len(cli.json("list", "--namespace", "from-file")["records"]) == 1


def test_without_settings_the_store_is_in_the_users_data_directory(cli, tmp_path, monkeypatch):
    monkeypatch.delenv("MEMORY_URL")
    file = tmp_path / "empty.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "hello"}]}\n', "utf-8")
    cli("import", file)
    location = cli.json("stats")["location"]
    assert str(tmp_path) in location
    assert any(tmp_path.rglob("memory-core/memory.db"))


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["search"], ["stats"], ["export", "out"], ["copy", "FROM", "inmemory:"], ["graph"]],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("scheme", ["turso", "lmdb"])
def test_reading_makes_no_store(cli, tmp_path, scheme, arguments):
    missing = tmp_path / "missing"
    url = f"{scheme}:{missing}"
    given = [
        url if item == "FROM" else str(tmp_path / item) if item == "out" else item
        for item in arguments
    ]
    result = cli("--url", url, *given, code=2)
    assert f"{missing}: there is no store; `memory import` creates one" in result.stderr
    assert not missing.exists()
