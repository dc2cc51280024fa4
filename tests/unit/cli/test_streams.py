"""What reaches standard output and standard error, whatever records and file names hold."""

import io
import json
import os
import subprocess
import sys

import pytest

from memory_core import Episode, ExecutionStep, Heuristic, Outcome, StepResult
from memory_core.cli import streams
from memory_core.cli.failures import WorkFailedError
from tests.unit.cli.episodes import START, episode, numbered, relationship
from tests.unit.cli.test_failures import app_that_raises

MEMORY = [sys.executable, "-m", "memory_core.cli"]
# Sets the clipboard, clears the screen, begins an escape in one character, and turns the writing direction.
EVIL = "\x1b]52;c;ZXZpbA==\x1b\\\x1b[2J\x9b2J\u202ehello"
CONTROLS = {"\x1b", "\x9b", "\u202e"}


@pytest.fixture
def evil(cli):
    heuristic = Heuristic(id=numbered(8), condition=EVIL, action=EVIL, confidence=0.5)
    step = ExecutionStep(
        number=1,
        tool=EVIL,
        action=EVIL,
        timestamp=START,
        parameters={EVIL: EVIL},
        result=StepResult.error(EVIL),
    )
    fields = {
        "task_description": f"{EVIL}\n{EVIL}",
        "tags": (EVIL,),
        "metadata": {EVIL: EVIL},
        "steps": (step,),
        "outcome": Outcome.failure(EVIL),
    }
    cli.put(episode(1, **fields), episode(2, **fields), heuristic, relationship(1, 2))
    return cli


@pytest.mark.parametrize("shape", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "--kind", "heuristic"],
        ["search", "hello"],
        ["show", numbered(1)],
        ["show", numbered(1), "--full"],
        ["show", numbered(8)],
        ["graph"],
        ["graph", "--format", "dot"],
        ["stats"],
        ["plugins"],
        ["namespaces", "list"],
    ],
    ids=lambda given: " ".join(map(str, given)),
)
def test_stored_text_does_not_control_the_terminal(evil, arguments, shape):
    shown = evil(*arguments, *shape)
    assert not CONTROLS & set(shown.output)
    assert not CONTROLS & set(shown.stderr)


def test_json_has_the_stored_text(evil):
    assert evil.json("show", numbered(1))["record"]["task_description"] == f"{EVIL}\n{EVIL}"


def test_names_of_files_do_not_control_the_terminal(cli, tmp_path):
    cli.put(episode(1))
    folder = tmp_path / EVIL.replace("/", "")
    for arguments, code in (
        (["export", folder / "x.jsonl"], 2),
        (["load", folder], 2),
        (["backup", folder], 0),
        (["export", f"{folder}.jsonl"], 0),
        (["load", f"{folder}.jsonl"], 0),
        (["list", "--url", f"lmdb:{folder}x"], 2),
        (["list", "--config", folder / "y"], 2),
        (["import", f"{folder}.jsonl"], 3),
    ):
        shown = cli(*arguments, code=code)
        assert not CONTROLS & set(shown.output + shown.stderr), arguments


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_messages_of_errors_do_not_control_the_terminal(monkeypatch, registry, cli, debug):
    app = app_that_raises(monkeypatch, registry, cli.url, WorkFailedError(f"no {EVIL}"))
    shown = app("stats", *debug, code=1).stderr
    assert not CONTROLS & set(shown)
    assert ("Traceback" in shown) is bool(debug)
    assert '  File "' in shown or not debug


def test_the_log_does_not_control_the_terminal():
    code = (
        "import logging; from memory_core.cli.streams import show_log; show_log(debug=False);"
        f"logging.getLogger('x').error('%s', {EVIL!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert b"hello" in done.stderr
    assert not CONTROLS & set(done.stderr.decode())


@pytest.fixture
def spoken(cli):
    cli.put(episode(1, task_description="日本 🎉 café"))
    return cli


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8"])
@pytest.mark.parametrize(
    "arguments", [["list"], ["show", "00000001"], ["graph"], ["stats"], ["--help"], ["plugins"]]
)
def test_a_pipe_of_any_encoding_gets_text(spoken, encoding, arguments):
    done = subprocess.run(
        [*MEMORY, "--url", spoken.url, *arguments],
        env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    done.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8"])
def test_json_in_any_encoding_says_the_same(spoken, encoding):
    done = subprocess.run(
        [*MEMORY, "--url", spoken.url, "list", "--json"],
        env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    (record,) = json.loads(done.stdout.decode(encoding))["records"]
    assert record["task_description"] == "日本 🎉 café"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
@pytest.mark.parametrize("shape", [[], ["--json"]], ids=["text", "json"])
def test_a_file_name_that_is_not_utf_8(spoken, tmp_path, shape):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/bad\xffname.jsonl")
    for command in ("export", "load"):
        done = subprocess.run(
            [*MEMORY, "--url", spoken.url, command, name, *shape],
            capture_output=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        if shape:
            assert json.loads(done.stdout)["file"] == name
        else:
            assert b"bad\xef\xbf\xbdname.jsonl" in done.stdout


def test_a_stream_of_the_same_text_in_one_encoding_and_another():
    shown = {}
    for encoding in ("ascii", "utf-8"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding)
        streams.write_json({"é": ["🎉", "\x7f", '"'], "id": numbered(1)}, stream)
        stream.flush()
        shown[encoding] = stream.buffer.getvalue()
    assert shown["ascii"].isascii()
    assert "🎉".encode() in shown["utf-8"]
    assert json.loads(shown["ascii"]) == json.loads(shown["utf-8"])
    assert b"\x7f" not in shown["utf-8"]


def test_an_episode_of_many_lines_keeps_them_in_its_heading(cli):
    cli.put(Episode(id=numbered(1), task_description="first line\n  second line"))
    assert cli("show", numbered(1)).stdout.splitlines()[:2] == ["first line", "second line"]
