import asyncio

import pytest

from memory_core import (
    CodecError,
    ConfigurationError,
    CycleError,
    ImportFormatError,
    InvalidValueError,
    OutcomeUnknownError,
    StorageFullError,
    StorageUnavailableError,
    UnsupportedCapabilityError,
)
from memory_core.cli import stores
from memory_core.cli.app import build
from memory_core.cli.failures import ExitCode, WorkFailedError, exit_code_of
from tests.unit.cli.conftest import Cli
from tests.unit.cli.episodes import numbered


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkFailedError("x"), 1),
        (ImportFormatError("f", "x"), 3),
        (CycleError("relationship", numbered(1), numbered(2), "blocks"), 1),
        (ConfigurationError("x"), 2),
        (InvalidValueError("f", "x", 1), 2),
        (UnsupportedCapabilityError("backup", "x"), 2),
        (StorageUnavailableError("x"), 3),
        (StorageFullError("x"), 3),
        (OutcomeUnknownError("x"), 3),
        (CodecError("x"), 3),
        (OSError(13, "Permission denied"), 1),
        (RuntimeError("a bug"), 70),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
    ],
)
def test_exit_codes(error, code):
    assert exit_code_of(error) == code


@pytest.fixture
def failing(cli, monkeypatch, registry):
    def make(error):
        return app_that_raises(monkeypatch, registry, cli.url, error)

    return make


def app_that_raises(monkeypatch, registry, url, error):
    async def stats(session):
        raise error

    def add_commands(app):
        stores.command(app, "stats")(stats)

    monkeypatch.setattr(stores, "add_commands", add_commands)
    return Cli(url, build(registry))


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (StorageUnavailableError("the store\nis  locked"), 3, "memory: the store is locked\n"),
        (asyncio.CancelledError(), ExitCode.TERMINATED, "memory: terminated\n"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "memory: interrupted\n"),
        (
            ZeroDivisionError("x"),
            70,
            "memory: unexpected ZeroDivisionError: x (--debug shows where)\n",
        ),
    ],
)
def test_a_failure_is_one_line(failing, error, code, line):
    assert failing(error)("stats", code=code).stderr == line


def test_debug_shows_the_traceback(failing):
    app = failing(StorageFullError("no room"))
    shown = app("stats", "--debug", code=3).stderr
    assert "Traceback" in shown
    assert shown.endswith("memory: no room\n")
    assert "Traceback" in app("--debug", "stats", code=3).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--url", "nonsense"], "is not a storage URL"),
        (["list", "--url", "nonsense:x"], "installed: "),
        (["list", "--url", "turso:x?durability=none"], "turso:x: durability: expected one of full"),
        (["list", "--url", "inmemory:?speed=9"], "unknown option 'speed'; valid: "),
        (["list", "--namespace", "a b"], "namespace"),
        (["list", "--config", "none.toml"], "no such settings file"),
        (["nonsense"], "No such command"),
        (["show"], "Missing argument"),
    ],
)
def test_usage_and_configuration(cli, arguments, message):
    assert message in cli(*arguments, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["search", "--outcome", "failed"],
            "'failed' is not one of 'success', 'partial_success', ",
        ),
        (["search", "--limit", "x"], "valid integer"),
        (["search", "--min-reward", "x"], "valid"),
        (["show", "1", "--depth", "0"], "1"),
    ],
)
def test_a_wrong_value_is_explained_in_one_language(cli, arguments, reason):
    line = cli(*arguments, code=2).stderr.splitlines()[-1]
    assert line.startswith(f"Error: Invalid value for '{arguments[-2]}': ")
    assert reason in line
    for words in ("Value error", "Input should be", "unable to parse"):
        assert words not in line


def test_neither_a_text_file_nor_a_directory_is_a_store(cli, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("not a database " * 1000)
    for url in (f"turso:{file}", f"turso:{tmp_path}", f"lmdb:{file}"):
        result = cli("list", "--url", url, code=2)
        assert result.stderr.count("\n") == 1
        assert str(tmp_path) in result.stderr
    assert file.read_text() == "not a database " * 1000


def test_version(cli):
    assert cli("--version").stdout.startswith("memory-core ")
