"""``memory watch``: every line that an agent writes is there soon, and only once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from memory_core import open_memory
from memory_core.cli.watching import _as_given
from tests.unit.importers.transcripts import chat_entry, claude_line, claude_session, write_lines

pytestmark = pytest.mark.slow

MEMORY = [sys.executable, "-m", "memory_core.cli"]
PATIENCE = 30


@pytest.fixture
def watcher(tmp_path):
    """Starts `memory watch` on a folder; every one that still runs is ended."""
    folder = tmp_path / "transcripts"
    folder.mkdir()
    url = f"turso:{tmp_path / 'memory.db'}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEMORY_")}
    environment = kept | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    running = []

    def start(*options, folder=folder, cwd=None):
        process = subprocess.Popen(
            [*MEMORY, "--url", url, "watch", str(folder), *options],
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        running.append(process)
        return process

    start.folder, start.url = folder, url
    yield start
    for process in running:
        process.kill()
        process.communicate()


async def texts_when(memory, count):
    """What is said in all episodes, once it is this much."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = [episode async for episode in memory.iter_episodes()]
            texts = [step.parameters.get("content") for e in found for step in e.steps]
            if len(texts) >= count:
                return len(found), texts
            await asyncio.sleep(0.02)


def append(path, number):
    kind = "user" if number % 2 else "assistant"
    line = claude_line(kind, number, f"line {number}", uuid=f"u{number}")
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


async def test_a_session_that_grows_is_followed_also_after_a_kill(watcher):
    path = watcher.folder / "deep" / "session.jsonl"
    path.parent.mkdir()
    async with open_memory(watcher.url) as memory:
        process = watcher()
        for number in range(1, 13):
            append(path, number)
            if number in {4, 8}:
                # In the middle of whatever it does.
                process.kill()
                process.communicate()
                process = watcher()
            episodes, texts = await texts_when(memory, number)
            assert episodes == 1
            assert texts == [f"line {n}" for n in range(1, number + 1)]


async def test_what_was_there_before_is_imported_and_what_cannot_be_read_is_listed(watcher):
    write_lines(watcher.folder / "before.jsonl", claude_session())
    (watcher.folder / "broken.json").write_text('{"messages": [')
    process = watcher("--json")
    reports = {}
    while len(reports) < 2:
        report = json.loads(await asyncio.to_thread(process.stdout.readline))
        reports[Path(report["file"]).name] = report
    assert reports["before.jsonl"]["stored"] == 1
    assert len(reports["broken.json"]["skipped"]) == 1
    (watcher.folder / "broken.json").write_text(
        json.dumps({"messages": [{"role": "user", "content": "Hi"}]})
    )
    mended = json.loads(await asyncio.to_thread(process.stdout.readline))
    assert (mended["stored"], mended["skipped"]) == (1, [])
    process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(process.wait, PATIENCE) == 130


async def test_a_folder_that_is_moved_into_the_tree_is_imported(watcher, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "below"
    elsewhere.mkdir(parents=True)
    (watcher.folder / "first.json").write_text(json.dumps(chat_entry()))
    write_lines(elsewhere / "session.jsonl", [claude_line("user", 1, "moved", uuid="u1")])
    async with open_memory(watcher.url) as memory:
        process = watcher("--json")
        # It watches when it says that it has read what was there.
        await asyncio.to_thread(process.stdout.readline)
        (tmp_path / "elsewhere").rename(watcher.folder / "here")
        report = json.loads(await asyncio.to_thread(process.stdout.readline))
        assert (Path(report["file"]).name, report["stored"]) == ("session.jsonl", 1)
        # And followed from then on.
        append(watcher.folder / "here" / "below" / "session.jsonl", 2)
        report = json.loads(await asyncio.to_thread(process.stdout.readline))
        assert report["stored"] == 1
        assert await memory.count_episodes() == 2


def test_what_cannot_be_read_is_listed_while_another_file_grows(watcher):
    busy = watcher.folder / "busy.jsonl"
    append(busy, 1)
    process = watcher("--json")
    process.stdout.readline()
    (watcher.folder / "broken.json").write_text('{"messages": [')
    stop = threading.Event()

    def write_on():
        for number in range(2, 500):
            if stop.wait(0.2):
                return
            append(busy, number)

    writing = threading.Thread(target=write_on)
    writing.start()
    try:
        # A report of each of the busy file's changes; those of fifteen seconds at most.
        names = [Path(json.loads(process.stdout.readline())["file"]).name for _ in range(25)]
    finally:
        stop.set()
        writing.join()
    assert names.count("broken.json") == 1


@pytest.mark.parametrize("change", ["removed", "renamed", "replaced"])
def test_it_ends_when_its_own_folder_is_gone(watcher, tmp_path, change):
    (watcher.folder / "first.json").write_text(json.dumps(chat_entry()))
    process = watcher("--json")
    process.stdout.readline()
    if change == "removed":
        shutil.rmtree(watcher.folder)
    else:
        watcher.folder.rename(tmp_path / "other")
    if change == "replaced":
        watcher.folder.mkdir()
    assert process.wait(PATIENCE) == 1
    assert f"{watcher.folder}: was removed, renamed or replaced" in process.stderr.read()


def test_what_is_not_a_folder_is_refused(cli, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is not a folder" in cli("watch", tmp_path / "file", code=2).stderr
    assert "empty argument" in cli("watch", "", code=2).stderr
    assert "unknown format" in cli("watch", tmp_path, "--format", "nonsense", code=2).stderr


def test_without_watchfiles_it_says_what_to_install(cli, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert "memory-core[watch]" in cli("watch", tmp_path, code=2).stderr


@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_file_has_one_name_however_it_was_found(tmp_path, monkeypatch, through_a_link):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real" / "deep").mkdir(parents=True)
    folder = Path("real")
    if through_a_link:
        (tmp_path / "link").symlink_to("real")
        folder = Path("link")
    for place in {tmp_path / folder, (tmp_path / folder).resolve()}:
        assert _as_given(f"{place}/deep/a.jsonl", [Path("rea"), folder]) == folder / "deep/a.jsonl"
    assert _as_given(str(tmp_path / "other"), [folder]) == tmp_path / "other"


async def test_the_name_of_a_file_stays_the_same_when_it_changes(watcher, tmp_path):
    path = watcher.folder / "session.jsonl"
    append(path, 1)
    process = watcher("--json", folder="transcripts", cwd=tmp_path)
    names = []
    for number in (2, 3):
        names.append(json.loads(await asyncio.to_thread(process.stdout.readline))["file"])
        append(path, number)
    assert names == ["transcripts/session.jsonl"] * 2
