"""Hints where nothing is found: what may be misspelt."""

import pytest

from memory_core.cli.hints import misspelt_variables
from tests.unit.cli.episodes import EPISODES, episode, numbered


@pytest.fixture
def filled(cli):
    cli.put(*EPISODES)
    cli.put(episode(9), namespace="agent-7")
    return cli


OTHER_NAMESPACE = (
    "hint: namespace 'agent_7' holds no record; these do: agent-7, default; did you mean"
)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["list"], 0),
        (["list", "--json"], 0),
        (["search", "--tool", "bash"], 0),
        (["graph"], 0),
        (["export", "-"], 1),
        (["export", "here.jsonl"], 1),
        (["stats"], 0),
        (["show", str(numbered(1))], 1),
        (["relate", "00000001", "00000002", "--type", "follows"], 1),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else None,
)
def test_a_namespace_that_holds_nothing(filled, arguments, code):
    said = filled(*arguments, "--namespace", "agent_7", code=code).stderr
    assert f"{OTHER_NAMESPACE} 'agent-7'?\n" in said
    assert said.count("hint:") == 1


def test_an_empty_store_gives_no_hint_at_namespaces(cli):
    cli.put(episode(1))
    cli("namespaces", "wipe", "default", "--yes")
    assert cli("list").stderr == ""


def test_nothing_is_written_for_a_namespace_that_may_be_misspelt(filled, tmp_path):
    other = tmp_path / "other"
    said = filled("copy", filled.url, f"lmdb:{other}", "--namespace", "agent_7", code=1).stderr
    assert OTHER_NAMESPACE in said
    assert "nothing is written: namespace 'agent_7' of " in said
    assert not other.exists()
    filled("export", tmp_path / "here.jsonl", "--namespace", "agent_7", code=1)
    assert not (tmp_path / "here.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (["serach", "x"], "'search'"),
        (["exprot", "-"], "'export'"),
        (["cache", "stat"], "'stats'"),
        (["list", "--lmit", "3"], "--limit"),
        (["--url", "lmbd:mem", "list"], "'lmdb'"),
        (["--url", "lmdb:mem?indx_lag=3", "list"], "'index_lag'"),
    ],
)
def test_a_misspelt_name_is_answered_with_what_it_may_be(cli, line, meant):
    assert meant in cli(*line, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "hints"),
    [
        (["--tool", "bahs"], ["no episode has --tool 'bahs'; did you mean 'bash'?"]),
        (["--tool", "bash", "--tool", "unlike"], ["no episode has --tool 'unlike'"]),
        (["--tag", "flakey"], ["no episode has --tag 'flakey'; did you mean 'flaky'?"]),
        (["--any-tag", "httpp"], ["no episode has --any-tag 'httpp'; did you mean 'http'?"]),
        (["--domain", "wbe"], ["no episode has --domain 'wbe'"]),
        (["--language", "pyhton"], ["no episode has --language 'pyhton'; did you mean 'python'?"]),
        (
            ["--metadata", "run=44", "--tool", "bahs"],
            [
                "no episode has --tool 'bahs'; did you mean 'bash'?",
                "no episode has --metadata 'run=44'; did you mean 'run=42'?",
            ],
        ),
        (
            ["--since", "2031-01-01"],
            [
                "--since leaves nothing: the episodes began from 2025-03-02 12:00 to 2025-03-05 12:00 (UTC)"
            ],
        ),
        (
            ["--until", "2001-01-01"],
            [
                "--until leaves nothing: the episodes began from 2025-03-02 12:00 to 2025-03-05 12:00 (UTC)"
            ],
        ),
        (["--tool", "edit", "--domain", "ops"], []),
        (["nothing like it"], []),
        (["--tool", "bash"], []),
    ],
)
def test_a_condition_that_no_episode_fulfils(filled, arguments, hints):
    said = filled("search", *arguments).stderr.splitlines()
    assert [line.split(";")[0] for line in said] == [f"hint: {h}".split(";")[0] for h in hints]
    for line, hint in zip(said, hints, strict=True):
        assert ("did you mean" in line) == ("did you mean" in hint)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MEMORY_NAMESPCE", "MEMORY_NAMESPACE"),
        ("MEMORY_NAME_SPACE", "MEMORY_NAMESPACE"),
        ("MEMORY_CHACHE", "MEMORY_CACHE"),
        ("MEMORY_CONFIGS", "MEMORY_CONFIG"),
        ("MEMORY_URI", "MEMORY_URL"),
        ("MEMORY_BLOCKED_PLUGINS", "MEMORY_BLOCK_PLUGINS"),
        ("MEMORY_NAMESPACE", None),
        ("MEMORY_LIMIT", None),
        ("MEMORY_FILE_PATH", None),
        ("MEMORY_CORE_DATA", None),
        ("MEMORY_TURSO_AUTH_TOKEN", None),
        ("NAMESPCE", None),
    ],
)
def test_a_variable_that_is_almost_a_setting(name, meant):
    expected = f"the environment variable {name} has no effect; did you mean {meant}?"
    assert misspelt_variables({name: "x"}) == ([expected] if meant else [])


def test_a_misspelt_variable_is_named_once(filled, monkeypatch):
    monkeypatch.setenv("MEMORY_NAMESPCE", "agent-7")
    shown = filled("list")
    assert shown.stderr.count("MEMORY_NAMESPCE") == 1
    assert "task 9" not in shown.stdout


@pytest.mark.parametrize(
    ("cache", "hint"),
    [
        ("adaptve", "hint: the settings name an unknown cache 'adaptve'; known: "),
        ("adaptive,lmbd:./tier", "hint: the settings name an unknown cache 'lmbd'; known: "),
        ("balanced", ""),
        ("adaptive,lmdb:./tier?max_bytes=1000000", ""),
        ("none", ""),
        ("", ""),
    ],
)
def test_an_unknown_cache_is_noticed_though_commands_use_none(filled, monkeypatch, cache, hint):
    monkeypatch.setenv("MEMORY_CACHE", cache)
    said = filled("list").stderr
    assert said.startswith(hint)
    assert bool(said) == bool(hint)
    assert said.count("\n") == bool(hint)


def test_a_wrong_setting_of_the_cache_is_noticed(filled, tmp_path):
    (tmp_path / "memory.toml").write_text("[cache]\nsize = 3\n")
    assert "hint: cache: unknown setting 'size'" in filled("list").stderr
