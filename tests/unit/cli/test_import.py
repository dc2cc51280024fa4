import asyncio
import gzip
import json
import lzma
import os
import sys
import zipfile
from pathlib import Path

import pytest
import zstandard
from attrs import evolve

from memory_core import Outcome, open_memory
from memory_core.cli.imports import import_file
from memory_core.importers import ClaudeCodeImporter, OpenAIChatImporter
from memory_core.importers.source import opened
from memory_core.importers.storing import Storing
from memory_core.samples import EPISODES as SAMPLE_EPISODES
from memory_core.samples import write_samples
from tests.unit.cli.episodes import episode
from tests.unit.importers.transcripts import (
    SESSION,
    chat_entry,
    claude_line,
    claude_session,
    use,
    used,
    write,
    write_lines,
)


@pytest.fixture
def samples(tmp_path):
    return write_samples(tmp_path / "transcripts")


def test_import_and_import_again(cli, samples):
    first = cli.json("import", *samples)
    assert first["stored"] == SAMPLE_EPISODES
    assert first["skipped"] == 0
    assert {report["format"] for report in first["files"]} == {
        "tau-bench",
        "swe-agent",
        "openai-chat",
        "claude-code",
    }
    before = cli.json("stats")["position"]
    again = cli.json("import", *samples)
    assert again["stored"] == 0
    assert again["unchanged"] == SAMPLE_EPISODES
    assert cli.json("stats")["position"] == before
    assert "tau-bench" in cli("import", *samples).stdout


def test_a_folder_is_imported_with_those_below_it(cli, samples, tmp_path):
    deep = tmp_path / "transcripts" / "a" / "b"
    deep.mkdir(parents=True)
    for path in samples[:3]:
        path.rename(deep / path.name)
    (deep / "README.md").write_text("not a transcript")
    (deep / "empty.jsonl").write_text("")
    os.mkfifo(deep / "pipe")
    (deep / "dangling").symlink_to(deep / "nowhere")
    report = cli.json("import", tmp_path / "transcripts")
    assert report["stored"] == SAMPLE_EPISODES
    assert report["skipped"] == 0
    notes = {Path(f["file"]).name: f["notes"][0]["reason"] for f in report["files"] if f["notes"]}
    assert notes["README.md"] == "ignored: not JSON"
    assert notes["empty.jsonl"] == "is empty"
    around = report["files"][-1]
    assert around["file"] == str(tmp_path / "transcripts")
    assert {Path(note["entry"]).name: note["reason"] for note in around["notes"]} == {
        "pipe": "ignored: neither a file nor a folder",
        "dangling": "cannot be read: No such file or directory",
    }


def test_folders_that_are_not_read_are_listed(cli, samples, tmp_path):
    (tmp_path / "transcripts" / "same").symlink_to(samples[0].parent)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "transcripts" / "other").symlink_to(tmp_path / "elsewhere")
    report = cli.json("import", tmp_path / "transcripts", code=1)
    assert (report["stored"], report["skipped"]) == (SAMPLE_EPISODES, 1)
    around = report["files"][-1]
    assert around["file"] == str(tmp_path / "transcripts")
    assert [note["entry"] for note in around["notes"]] == ["same"]
    (skipped,) = around["skipped"]
    assert skipped["entry"] == "other"
    assert f"import {tmp_path / 'elsewhere'} itself" in skipped["reason"]


def test_a_folder_that_cannot_be_read_is_listed(cli, samples, tmp_path, monkeypatch):
    # Too deep to be opened by its path, also for root, who may read everything.
    monkeypatch.chdir(samples[0].parent)
    for _ in range(30):
        Path("d" * 200).mkdir()
        os.chdir("d" * 200)
    Path("session.jsonl").write_text("{}")
    os.chdir(tmp_path)
    result = cli("import", tmp_path / "transcripts", "--json", code=1)
    report = json.loads(result.stdout)
    assert (report["stored"], report["skipped"]) == (SAMPLE_EPISODES, 1)
    (skipped,) = report["files"][-1]["skipped"]
    assert skipped["entry"].startswith("d" * 200)
    assert "File name too long" in skipped["reason"]


def test_an_empty_argument_is_not_the_current_folder(cli, samples, monkeypatch):
    monkeypatch.chdir(samples[0].parent)
    assert "empty argument" in cli("import", "", code=2).stderr
    assert "there is no store" in cli("list", code=2).stderr
    assert cli.json("import", ".")["stored"] == SAMPLE_EPISODES


@pytest.fixture
def broken(samples, tmp_path):
    """A file whose second entry is malformed; and how many it has."""
    source = next(path for path in samples if path.name.startswith("support-desk"))
    entries = json.loads(source.read_bytes())
    entries[1]["traj"] = 7
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(entries))
    return file, len(entries)


@pytest.mark.filterwarnings("ignore:--keep-going:DeprecationWarning")
@pytest.mark.parametrize("options", [[], ["--keep-going"]])
def test_files_stand_alone_and_what_is_skipped_is_listed(cli, broken, tmp_path, options):
    file, entries = broken
    nonsense = tmp_path / "nonsense.txt"
    nonsense.write_text("no transcript")
    result = cli("import", nonsense, file, *options, "--json", code=1)
    report = json.loads(result.stdout)
    assert report["stored"] == entries - 1
    assert report["skipped"] == 2
    (skipped,) = next(f for f in report["files"] if f["file"] == str(file))["skipped"]
    assert skipped["entry"] == "index 1"
    assert result.stderr.count("skipped: ") == 2
    assert "broken.json, index 1: traj: " in result.stderr
    assert "2 entries were skipped" in result.stderr


def test_sessions_that_say_nothing_or_end_early_are_noted_and_stop_no_other(cli, tmp_path):
    folder = tmp_path / "sessions"
    folder.mkdir()
    (folder / "empty.jsonl").write_bytes(b"")
    write_lines(
        folder / "titles.jsonl", [{"type": "custom-title", "customTitle": "x", "sessionId": "t"}]
    )
    bookkeeping = {"type": "mode", "mode": "normal", "sessionId": "b"}
    write_lines(folder / "bookkeeping.jsonl", [bookkeeping, {**bookkeeping, "type": "last-prompt"}])
    whole = write_lines(folder / "cut.jsonl", [claude_line("user", 1, "Hi", sessionId="c")])
    whole.write_bytes(whole.read_bytes() + b'{"type": "assistant", "message": {"content": [{"te')
    write_lines(folder / "whole.jsonl", claude_session())
    report = cli.json("import", folder)
    assert (report["stored"], report["skipped"]) == (2, 0)
    notes = {Path(f["file"]).name: [n["reason"] for n in f["notes"]] for f in report["files"]}
    assert notes["empty.jsonl"] == ["is empty"]
    for name in ("titles.jsonl", "bookkeeping.jsonl"):
        assert notes[name][0].startswith("holds no episode of claude-code")
    assert notes["cut.jsonl"][0].startswith("the last line is cut and left out")
    assert notes["whole.jsonl"] == []


BROKEN = [
    b'{"messages": [',
    gzip.compress(b'{"messages": []}')[:-12],
    b"\xff\xfe{\x00",
    b'{"messages": [{"apples": 1}]}',
    lzma.compress(b"x" * 100)[:40],
    b"garbage",
    b"[" * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b"PK\x03\x04 not a zip",
    zstandard.compress(b'{"a": 1}\n' * 1000)[:20],
    b'[{"role": "user", "content": "x"}, {"role": "user"',
]


def test_a_folder_with_every_kind_of_broken_file_lists_exactly_those(cli, tmp_path):
    folder = tmp_path / "mixed"
    for number in range(60):
        path = folder / f"d{number % 3}" / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        packed = [bytes, gzip.compress, lzma.compress, zstandard.compress][number % 4]
        path.write_bytes(packed(json.dumps(chat_entry(id=str(number))).encode()))
    for number, data in enumerate(BROKEN):
        (folder / f"d{number % 3}" / f"broken-{number}.json").write_bytes(data)
    result = cli("import", folder, "--json", code=1)
    report = json.loads(result.stdout)
    assert (report["stored"], len(report["files"])) == (60, 60 + len(BROKEN))
    listed = {Path(f["file"]).name for f in report["files"] if f["skipped"]}
    assert listed == {f"broken-{number}.json" for number in range(len(BROKEN))}
    assert all(f"broken-{number}.json" in result.stderr for number in range(len(BROKEN)))


def test_an_option_that_is_no_longer_needed_is_named_in_a_warning(cli, samples):
    with pytest.warns(DeprecationWarning, match="--keep-going"):
        cli("import", samples[0], "--keep-going")


@pytest.mark.parametrize("command", ["import", "load"])
def test_a_file_that_is_not_there_and_one_that_is_malformed(cli, samples, tmp_path, command):
    """Both commands say so with the same exit codes, and make no store."""
    nonsense = tmp_path / "nonsense.txt"
    nonsense.write_text("neither a transcript nor an export")
    for file, code, said in (
        (tmp_path / "missing", 2, "No such file"),
        (nonsense, 3, "nonsense.txt"),
    ):
        result = cli(command, file, code=code)
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    assert "there is no store" in cli("list", code=2).stderr


def test_what_was_seen_of_an_unknown_format_is_said(cli, tmp_path):
    (tmp_path / "x.json").write_text('{"apples": 1, "pears": {}}')
    error = cli("import", tmp_path / "x.json", code=3).stderr
    assert "a JSON object whose first object has the keys apples, pears" in error
    (tmp_path / "z.json").write_text('{"messages": [')
    assert "z.json: is not JSON: " in cli("import", tmp_path / "z.json", code=3).stderr
    history = [{"model_output": {}, "result": [], "state": {}}]
    (tmp_path / "y.json").write_text(json.dumps({"history": history}))
    error = cli("import", tmp_path / "y.json", code=3).stderr
    assert "looks like a browser-use history, for which there is no importer" in error


def test_a_named_format(cli, samples):
    source = next(path for path in samples if path.name.startswith("support-desk"))
    assert cli.json("import", source, "--format", "tau-bench")["stored"] > 0
    cli("import", source, "--format", "claude-code", code=3)
    cli("import", source, "--format", "inspect-ai", code=3)
    assert "known: auto, " in cli("import", source, "--format", "nonsense", code=2).stderr
    assert "unknown format" in cli("import", source, "--format", "nonsense", code=2).stderr


def test_a_misspelt_format_and_one_without_an_importer_are_answered(cli, samples):
    said = cli("import", samples[0], "--format", "claude", code=2).stderr
    assert "unknown format 'claude'; did you mean 'claude-code'?" in said
    assert "tau-bench" not in said
    for form, what in (
        ("aider", "an Aider chat history"),
        ("browseruse", "a browser-use history"),
        ("agentbench", "an AgentBench run"),
    ):
        said = cli("import", samples[0], "--format", form, code=2).stderr
        assert f"there is no importer for {what}" in said


def test_a_file_of_another_format_than_was_named_says_what_it_is(cli, tmp_path):
    (tmp_path / "chat.json").write_text(
        json.dumps({"messages": [{"role": "user", "content": "Hi"}]})
    )
    result = cli("import", tmp_path / "chat.json", "--format", "inspect-ai", code=3)
    assert "holds no episode of inspect-ai: it is a JSON object" in result.stderr
    write_lines(
        tmp_path / "rollout.jsonl", [{"type": "event_msg", "payload": {}, "timestamp": "x"}]
    )
    result = cli("import", tmp_path / "rollout.jsonl", "--format", "claude-code", code=3)
    assert "holds no episode of claude-code: it is a JSON object" in result.stderr


def test_standard_input_that_is_empty_is_named(cli):
    report = json.loads(cli("import", "-", "--json", input=b"").stdout)
    assert report["files"][0]["file"] == "standard input"
    assert report["files"][0]["notes"] == [{"entry": None, "reason": "is empty"}]


def test_standard_input(cli):
    data = gzip.compress(json.dumps(chat_entry()).encode())
    report = json.loads(cli("import", "-", "--json", input=data).stdout)
    assert report["stored"] == 1
    assert report["files"][0]["file"] == "standard input"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"bad\xffname.jsonl", "bad\ufffdname.jsonl"),
        (b"two\nlines.jsonl", "two\nlines.jsonl"),
        (b"x" * 249 + b".jsonl", "x" * 249 + ".jsonl"),
        (b"-.jsonl", "-.jsonl"),
    ],
)
@pytest.mark.parametrize("folder", [False, True])
def test_odd_names(cli, tmp_path, name, shown, folder):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/t/" + name))
    path.parent.mkdir()
    path.write_bytes(json.dumps(chat_entry()).encode())
    report = cli.json("import", path.parent if folder else path)
    assert report["stored"] == 1
    assert report["files"][0]["file"].endswith(f"/{shown}")
    assert "\nlines" not in cli("import", path).stdout


def steps_of(cli):
    return {r["id"]: len(r["steps"]) for r in cli.json("list", "--limit", 100)["records"]}


@pytest.mark.parametrize("argument", [".", "./-"])
def test_a_file_that_is_called_like_standard_input_is_read(cli, tmp_path, monkeypatch, argument):
    monkeypatch.setattr(sys, "stdin", None)
    (tmp_path / "logs").mkdir()
    monkeypatch.chdir(write_lines(tmp_path / "logs" / "-", claude_session()).parent)
    (report,) = cli.json("import", argument)["files"]
    assert (report["stored"], report["file"]) == (1, str(tmp_path / "logs" / "-"))


def test_documents_and_images_in_a_folder_are_noted(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("memory_core.importers.source.MAX_ENTRY_BYTES", 1000)
    folder = tmp_path / "logs"
    folder.mkdir()
    write(folder / "chat.json", chat_entry())
    with zipfile.ZipFile(folder / "report.docx", "w") as archive:
        archive.writestr("word/document.xml", "<document/>")
    (folder / "disk.img").write_bytes(b"\0" * 5000)
    report = cli.json("import", folder)
    assert (report["stored"], report["skipped"], report["notes"]) == (1, 0, 2)
    # What may hold a transcript is listed as skipped, as it was.
    with zipfile.ZipFile(folder / "logs.zip", "w") as archive:
        archive.writestr("chat.json", "{}")
    (folder / "long.txt").write_bytes(b"[" * 5000)
    cli("import", folder, code=1)


@pytest.mark.parametrize("together", [True, False])
def test_the_longer_copy_of_a_session_stays(cli, tmp_path, together):
    lines = claude_session()
    paths = [
        write_lines(tmp_path / "full.jsonl", lines),
        write_lines(tmp_path / "older.jsonl", lines[:4]),
        # One line of the session in another file, as resumed sessions have it.
        write_lines(
            tmp_path / "other.jsonl", [claude_line("user", 50, "Hi", sessionId="s"), lines[2]]
        ),
    ]
    if together:
        report = cli.json("import", *paths)
        assert (report["stored"], report["kept"]) == (2, 2)
    else:
        cli("import", paths[0])
        for path in paths[1:]:
            report = cli.json("import", path)
            assert report["kept"] == 1
            notes = [note["reason"] for note in report["files"][0]["notes"]]
            assert any(note.startswith("kept: the stored copy has 6 steps") for note in notes)
    assert sorted(steps_of(cli).values()) == [1, 6]
    grown = [*lines, claude_line("user", 20, "Go on")]
    assert cli.json("import", write_lines(tmp_path / "full.jsonl", grown))["stored"] == 1
    assert sorted(steps_of(cli).values()) == [1, 7]


@pytest.mark.parametrize("order", [1, -1])
def test_a_subagent_is_related_to_its_session_whichever_comes_first(cli, tmp_path, order):
    agent = claude_line("user", 3, "Find it", isSidechain=True, agentId="a1")
    paths = [
        write_lines(tmp_path / "session.jsonl", claude_session()),
        write_lines(tmp_path / "agent-a1.jsonl", [agent]),
    ][::order]
    related = [cli.json("import", path)["related"] for path in paths]
    assert related == [0, 1]
    assert cli.json("import", *paths)["related"] == 0
    (edge,) = cli.json("list", "--kind", "relationship")["records"]
    assert edge["relationship_type"] == "parent_child"
    records = {r["id"]: r for r in cli.json("list")["records"]}
    assert records[edge["to_episode_id"]]["metadata"]["agent_id"] == "a1"
    assert "agent_id" not in records[edge["from_episode_id"]]["metadata"]


async def test_importers_at_once_store_each_episode_once(tmp_path):
    """Each compares its copy with what others have stored meanwhile: the longest stays."""
    lines = claude_session()
    paths = [write_lines(tmp_path / f"{n}.jsonl", lines[: 3 + n]) for n in range(4)]
    chats = write_lines(tmp_path / "chats.jsonl", [chat_entry(id=str(n)) for n in range(250)])
    async with open_memory("inmemory:") as memory:

        async def some(path, importer):
            await asyncio.sleep(0)
            return await import_file(memory, path, importer)

        reports = await asyncio.gather(
            *(some(path, ClaudeCodeImporter()) for path in paths * 2),
            *(some(chats, OpenAIChatImporter()) for _ in range(4)),
        )
        assert sum(report.stored for report in reports[8:]) == 250
        assert sum(report.stored + report.unchanged for report in reports[8:]) == 1_000
        sessions = [e async for e in memory.iter_episodes() if "claude-code" in e.tags]
        assert [len(session.steps) for session in sessions] == [
            max(len(e.steps) for e in ClaudeCodeImporter().read(paths[-1]))
        ]
        assert sum(report.stored for report in reports[:8]) <= len(paths)


class _Interrupted:
    """A storage whose first commit never ends, and cancels a task that waits for another thing."""

    def __init__(self, storage):
        self.storage, self.reading = storage, None

    def __getattr__(self, name):
        return getattr(self.storage, name)

    async def commit(self, batches):
        self.reading.cancel()
        await asyncio.Event().wait()


async def test_an_import_that_is_cancelled_leaves_no_write_behind(tmp_path):
    """The store is closed next: a write that is still under way would fail with nobody to tell."""
    chats = write_lines(tmp_path / "chats.jsonl", [chat_entry(id=str(n)) for n in range(1_200)])
    async with open_memory("inmemory:") as memory:
        storage = _Interrupted(memory.storage)
        before = asyncio.all_tasks()
        with opened(chats) as source:
            reading = asyncio.create_task(Storing(storage).file(source, OpenAIChatImporter()))
            storage.reading = reading
            with pytest.raises(asyncio.CancelledError):
                await reading
        assert asyncio.all_tasks() == before


async def test_episodes_of_several_batches_are_counted(tmp_path):
    chats = write_lines(tmp_path / "chats.jsonl", [chat_entry(id=str(n)) for n in range(1_200)])
    async with open_memory("inmemory:") as memory:
        for stored, unchanged in ((1_200, 0), (0, 1_200)):
            report = await import_file(memory, chats, OpenAIChatImporter())
            assert (report.stored, report.unchanged) == (stored, unchanged)


def long_session(steps, size):
    for number in range(steps):
        call_id = f"t{number}"
        yield claude_line("assistant", 1, [use("Bash", {}, call_id)], uuid=f"a{number}")
        yield claude_line("user", 2, [used(f"{number} " * (size // 5), call_id)], uuid=f"u{number}")


@pytest.mark.parametrize("limit", ["max_record_bytes = 100000", "max_steps = 10"])
def test_a_session_over_a_limit_is_stored_in_parts_that_follow_each_other(cli, tmp_path, limit):
    (tmp_path / "memory.toml").write_text(f"[limits]\n{limit}\n")
    path = write_lines(tmp_path / "long.jsonl", long_session(40, 10_000))
    report = cli.json("import", path)
    assert (report["stored"], report["skipped"]) == (1, 0)
    records = cli.json("list", "--limit", 100)["records"]
    assert len(records) > 1
    numbers = sorted(step["number"] for record in records for step in record["steps"])
    assert numbers == list(range(1, 41))
    edges = cli.json("list", "--kind", "relationship", "--limit", 100)["records"]
    assert {edge["relationship_type"] for edge in edges} == {"follows"}
    assert len(edges) == len(records) - 1
    again = cli.json("import", path)
    assert (again["stored"], again["unchanged"]) == (0, 1)
    shorter = write_lines(tmp_path / "shorter.jsonl", long_session(30, 10_000))
    assert cli.json("import", shorter)["kept"] == 1
    longer = write_lines(tmp_path / "longer.jsonl", long_session(45, 10_000))
    assert cli.json("import", longer)["stored"] == 1
    numbers = sorted(
        step["number"]
        for record in cli.json("list", "--limit", 100)["records"]
        for step in record["steps"]
    )
    assert numbers == list(range(1, 46))


def test_a_step_over_the_limit_is_skipped_and_the_setting_is_named(cli, tmp_path):
    (tmp_path / "memory.toml").write_text("[limits]\nmax_record_bytes = 1000\n")
    path = write_lines(tmp_path / "long.jsonl", [claude_line("user", 1, "x" * 2000)])
    result = cli("import", path, code=1)
    assert "limits.max_record_bytes" in result.stderr
    assert result.stderr.count(SESSION) == 0


async def test_what_only_the_stored_copy_knows_is_kept(tmp_path):
    path = write_lines(tmp_path / "log.jsonl", claude_session())
    async with open_memory("inmemory:") as memory:
        await import_file(memory, path, ClaudeCodeImporter())
        (episode,) = [episode async for episode in memory.iter_episodes()]
        await memory.put(evolve(episode, outcome=Outcome.success("Reviewed.")))
        assert (await import_file(memory, path, ClaudeCodeImporter())).unchanged == 1
        longer = [*claude_session(), claude_line("user", 20, "Go on")]
        write_lines(path, longer)
        assert (await import_file(memory, path, ClaudeCodeImporter())).stored == 1
        (episode,) = [episode async for episode in memory.iter_episodes()]
    assert len(episode.steps) == 7
    assert episode.outcome == Outcome.success("Reviewed.")


def test_real_transcripts(cli, real_data):
    file = real_data / "tau_bench" / "gpt-4o-airline.json.gz"
    assert cli.json("import", file)["stored"] == 200
    found = cli.json("search", "--metadata", "task_id=7", "--limit", 100)["records"]
    assert len(found) == 4
    assert {record["metadata"]["trial"] for record in found} == {"0", "1", "2", "3"}
    won = cli.json("search", "--min-reward", 1, "--limit", 1000)["records"]
    assert len(won) == 84


def test_an_export_is_to_be_loaded(cli, tmp_path):
    cli.put(episode(1))
    export = tmp_path / "export.jsonl"
    cli("export", export)
    said = cli("import", export, code=3).stderr
    assert "is an export of memory-core: load it with `memory load`" in said


def test_what_can_be_unpacked_of_a_cut_file_is_imported_and_the_cut_is_listed(cli, tmp_path):
    chats = [chat_entry(id=str(number)) for number in range(700)]
    packed = gzip.compress("".join(json.dumps(chat) + "\n" for chat in chats).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:-100])
    result = cli("import", tmp_path / "cut.jsonl.gz", "--json", code=1)
    report = json.loads(result.stdout)
    assert 500 < report["stored"] < 700
    (skipped,) = report["files"][0]["skipped"]
    assert skipped["entry"].endswith(f"line {report['stored'] + 1}")
    assert "cannot be decompressed any further" in skipped["reason"]


def write_package(folder):
    (folder / "package.json").write_text('{"name": "shop", "type": "module", "scripts": {}}')
    todos = [{"content": "Fix it", "status": "pending", "activeForm": "Fixing it"}]
    (folder / "todos.json").write_text(json.dumps(todos))


def test_json_in_a_folder_that_is_not_a_transcript_is_ignored_with_a_note(cli, samples, tmp_path):
    write_package(samples[0].parent)
    report = cli.json("import", samples[0].parent)
    assert (report["stored"], report["skipped"]) == (SAMPLE_EPISODES, 0)
    notes = {Path(f["file"]).name: f["notes"][0]["reason"] for f in report["files"] if f["notes"]}
    assert notes["package.json"] == (
        "ignored: not a transcript: it is a JSON object whose first object has the keys "
        "name, scripts, type"
    )
    assert notes["todos.json"].startswith("ignored: not a transcript: it is a JSON array")
    # One that is named is meant.
    cli("import", samples[0], samples[0].parent / "package.json", code=1)


LIKE_TRANSCRIPTS = [
    {"chat_messages": [{"sender": "human", "text": "Hi"}]},
    {"item": {"type": "agent_message", "text": "Hi"}},
    {"prompt": "Hi", "chosen": "a", "rejected": "b"},
    {"requests": [{"message": {"text": "Hi"}}]},
    {"part": {"type": "text", "text": "Hi"}},
]


@pytest.mark.parametrize("value", LIKE_TRANSCRIPTS, ids=lambda value: next(iter(value)))
def test_what_looks_like_a_transcript_and_is_not_read_is_skipped_in_a_folder(cli, tmp_path, value):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "chat.json").write_text(json.dumps({"value": value, "name": 1}))
    assert "chat.json: is of no known format" in cli("import", folder, code=3).stderr


def test_a_format_without_an_importer_is_named_in_a_folder_too(cli, samples):
    history = samples[0].parent / ".aider.chat.history.md"
    history.write_text("\n# aider chat started at 2026-01-01 10:00:00\n\n#### Fix it\n")
    said = cli("import", samples[0].parent, code=1).stderr
    assert "looks like an Aider chat history, for which there is no importer" in said


def test_the_known_formats_are_listed_once_and_an_error_is_printed_once(cli, samples, tmp_path):
    folder = tmp_path / "unknown"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.json").write_text(json.dumps({"messages": [{"apples": number}]}))
    said = cli("import", folder, samples[0], code=1).stderr
    assert said.count("is of no known format") == 5
    assert said.count("mini-swe-agent") == 1
    said = cli("import", folder, code=3).stderr
    assert said.count("mini-swe-agent") == 1
    assert "nothing could be read: 5 entries were skipped" in said
    for file in (folder / "1.json", folder):
        for path in folder.iterdir():
            if path.name != "1.json":
                path.unlink()
        said = cli("import", file, code=3).stderr
        assert said.count("1.json") == said.count("mini-swe-agent") == 1


def test_the_table_has_totals_and_what_is_left_out_is_noted(cli, tmp_path):
    snapshot = {"type": "file-history-snapshot", "sessionId": SESSION, "snapshot": {}}
    first = write_lines(tmp_path / "first.jsonl", [*claude_session(), snapshot, snapshot])
    second = write_lines(
        tmp_path / "second.jsonl", [claude_line("user", 1, "Hi", sessionId="s"), snapshot]
    )
    result = cli("import", first, second)
    assert result.stdout.splitlines()[-1].split() == ["total", "2", "0", "0", "0", "0"]
    assert "lines or fields left out: file-history-snapshot (3), " in result.stderr
    assert not cli("import", first).stdout.splitlines()[-1].startswith("total")
