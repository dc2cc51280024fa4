from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from memory_core.errors import ImportFormatError
from memory_core.importers import BUILTIN_IMPORTERS, Importer, detect
from memory_core.importers.base import Format, FormatImporter, found_in, recognised
from memory_core.importers.log import Log
from memory_core.importers.sample import sample_of
from memory_core.importers.source import opened
from memory_core.records import Episode
from tests.unit.importers.transcripts import (
    chat_entry,
    claude_line,
    claude_session,
    swe_run,
    tau_entry,
    write,
    write_bytes,
    write_lines,
)


def detected(path):
    return detect(path, BUILTIN_IMPORTERS).name


def test_every_builtin_importer_keeps_the_contract():
    for importer in BUILTIN_IMPORTERS:
        assert isinstance(importer, Importer)
        assert importer.summary
        assert importer.format.table
    names = [importer.name for importer in BUILTIN_IMPORTERS]
    assert len(names) == len(set(names))
    assert set(names) == {
        "anthropic", "atif", "autogen", "claude-code", "codex", "gemini", "gemini-cli", "inspect-ai",
        "langchain", "langsmith", "mini-swe-agent", "openai-batch", "openai-chat", "openai-responses",
        "openhands", "otel-genai", "sharegpt", "swe-agent", "tau-bench", "tau2-bench", "vercel-ui",
    }  # fmt: skip


def cases():
    folder = Path(__file__).parent / "cases"
    return [path for path in sorted(folder.iterdir()) if path.is_file()]


@pytest.mark.parametrize("path", cases(), ids=lambda path: path.name)
def test_only_one_importer_recognises_a_file(path):
    """Special ones exclude each other; the general one is asked only where none of them knows a file."""
    with opened(path) as source:
        sample = sample_of(source)
        found = [i.name for i in BUILTIN_IMPORTERS if i.format.recognises(sample)]
    special = [name for name in found if name != "openai-chat"]
    assert len(special or found) == 1


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.traj", "x", "x.gz", "x.xz"])
def test_formats_are_told_by_content_not_by_name(tmp_path, name):
    path = tmp_path / name
    assert detected(write(path, [tau_entry()])) == "tau-bench"
    assert detected(write(path, swe_run())) == "swe-agent"
    assert detected(write(path, {"history": swe_run()["history"]})) == "swe-agent"
    assert detected(write_lines(path, [chat_entry()])) == "openai-chat"
    assert detected(write(path, [chat_entry(), chat_entry()])) == "openai-chat"
    assert detected(write(path, chat_entry()["messages"])) == "openai-chat"
    assert detected(write_lines(path, claude_session())) == "claude-code"


def test_entries_longer_than_the_head_are_detected(tmp_path):
    long = {"role": "user", "content": "word " * 50_000}
    assert detected(write(tmp_path / "a", [tau_entry(traj=[long])])) == "tau-bench"
    assert detected(write(tmp_path / "b", {"messages": [long]})) == "openai-chat"
    steps = [{"action": "ls", "observation": "x" * 200_000}]
    assert detected(write(tmp_path / "c", {"environment": "m", "trajectory": steps})) == "swe-agent"
    info = {"task": {"instruction": "word " * 50_000}}
    entry = {"task_id": 1, "reward": 0.0, "info": info, "traj": []}
    assert detected(write(tmp_path / "d", [entry])) == "tau-bench"


def test_a_session_that_begins_with_a_large_image_is_detected(tmp_path):
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo" + "A" * 2_000_000}
    prompt = [{"type": "text", "text": "What is wrong?"}, {"type": "image", "source": source}]
    line = claude_line("user", 1, prompt)
    # Newer versions write the message first.
    first = {"message": line.pop("message"), **line}
    assert detected(write_lines(tmp_path / "a", [first, *claude_session()])) == "claude-code"


def test_bookkeeping_before_the_first_turn_is_still_claude_code(tmp_path):
    summary = {"type": "summary", "summary": "Clock", "leafUuid": "x"}
    assert detected(write_lines(tmp_path / "a.jsonl", [summary])) == "claude-code"
    odd = [{"type": "future-thing"}, "not json", *claude_session()]
    assert detected(write_lines(tmp_path / "b.jsonl", odd)) == "claude-code"


@pytest.mark.parametrize(
    "data",
    [
        b'["client.beta.sessions.create", {"id": "s"}]\n[[1], {"role": "user", "content": "x"}]\n',
        b"hello",
        b"[]",
        b"{}",
        b"[1, 2]",
        b"\x00\x01\x02",
        b'"text"',
        b'{"type": "x"}',
        b"null",
    ],
)
def test_an_unknown_format_lists_what_was_tried(tmp_path, data):
    with pytest.raises(ImportFormatError) as caught:
        detected(write_bytes(tmp_path / "x", data))
    assert "tau-bench, swe-agent, openai-chat, claude-code" in caught.value.reason
    assert caught.value.file == str(tmp_path / "x")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\n# aider chat started at 2026-03-01\n", "an Aider chat history"),
        (b'[{"ts": 1, "type": "say", "say": "text", "text": "x"}]', "what Cline shows"),
        (
            b'{"history": [{"model_output": {}, "result": [], "state": {}}]}',
            "a browser-use history",
        ),
        (b'{"index": 0, "output": {"history": []}}', "an AgentBench run"),
    ],
)
def test_what_no_importer_reads_is_refused_by_name(tmp_path, data, what):
    with pytest.raises(ImportFormatError, match=f"looks like {what}"):
        detected(write_bytes(tmp_path / "x", data))


@pytest.mark.parametrize("data", [b"", b"  \n\n"])
def test_an_empty_file_is_said_to_be_empty(tmp_path, data):
    with pytest.raises(ImportFormatError, match="is empty"):
        detected(write_bytes(tmp_path / "x", data))


def test_two_importers_that_claim_a_file_are_both_named(tmp_path):
    class Greedy:
        name = "greedy"
        summary = "takes all"

        def sniff(self, head, path, /):
            assert json.loads(head)
            return path.name == "x"

        def read(self, path, *, keep_going=False):
            return iter(())

    path = write(tmp_path / "x", [tau_entry()])
    with pytest.raises(ImportFormatError, match="any of tau-bench, greedy: name the format"):
        detect(path, [*BUILTIN_IMPORTERS, Greedy()])
    assert detect(path, [Greedy()]).name == "greedy"


class Plugin:
    """An importer as plugins write it."""

    name = "plugin"
    summary = "a plugin's"

    def __init__(self):
        self.seen = []

    def sniff(self, head, path, /):
        self.seen.append(head)
        return head.startswith(b"mine")

    def read(self, path, *, keep_going=False):
        self.seen.append(path.read_bytes())
        self.name_read = path.name
        yield Episode(task_description="x")
        raise LookupError("oops")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "marked"])
@pytest.mark.parametrize(
    ("name", "inner"),
    [("x.csv", "x.csv"), ("x.csv.gz", "x.csv"), ("X.CSV.XZ", "X.CSV"), ("x.zst", "x")],
)
def test_a_plugin_reads_the_content_that_it_sniffed_and_fails_alone(tmp_path, name, inner, mark):
    plugin, log = Plugin(), Log(name)
    path = write_bytes(tmp_path / name, mark + b"mine, and more")
    with opened(path) as source:
        assert recognised(source, [*BUILTIN_IMPORTERS, plugin]) is plugin
        found = found_in(plugin, source, log)
        assert next(found).episode.task_description == "x"
        with pytest.raises(
            ImportFormatError, match="the importer plugin failed: LookupError: oops"
        ):
            next(found)
    assert plugin.seen == [b"mine, and more"] * 2
    assert plugin.name_read == inner


def test_a_general_format_is_asked_only_where_no_special_one_knows_the_file(tmp_path):
    def importer(name, *, general):
        described = Format(
            name=name,
            summary=name,
            recognises=lambda _: True,
            read=lambda *_: iter(()),
            general=general,
        )
        return type(name, (FormatImporter,), {"format": described})()

    path = write(tmp_path / "any.json", {"any": 1})
    general, special = importer("general", general=True), importer("special", general=False)
    assert detect(path, [general, special]) is special
    assert detect(path, [general]) is general


class Broken:
    """A plugin's importer that fails in the way that it is told."""

    name = "broken"
    summary = "a broken one"

    def __init__(self, *, sniffed=None, gives=()):
        self.sniffed, self.gives = sniffed, gives

    def sniff(self, head, path, /):
        if self.sniffed is not None:
            raise self.sniffed
        return head.startswith(b"broken")

    def read(self, path, *, keep_going=False):
        yield from self.gives
        raise SystemExit(7)


@pytest.mark.parametrize("failure", [ValueError("oops"), SystemExit(7), RecursionError("oops")])
def test_an_importer_that_fails_to_sniff_spoils_no_file_of_another(tmp_path, failure):
    broken = Broken(sniffed=failure)
    reason = f"the importer broken failed: {type(failure).__name__}: {failure}"
    log = Log("chat.json")
    with opened(write(tmp_path / "chat.json", chat_entry())) as source:
        assert recognised(source, [broken, *BUILTIN_IMPORTERS], log).name == "openai-chat"
    assert [note.reason for note in log.notes] == [reason]
    with (
        opened(write_bytes(tmp_path / "x.csv", b"broken")) as source,
        pytest.raises(ImportFormatError, match=re.escape(reason)),
    ):
        recognised(source, [broken, *BUILTIN_IMPORTERS])


@pytest.mark.parametrize(
    ("gives", "reason"),
    [
        (["text"], "TypeError: it gave str, no episode"),
        ([None], "TypeError: it gave NoneType"),
        ([], "SystemExit: 7"),
    ],
)
def test_an_importer_that_gives_anything_else_or_ends_the_program_fails_alone(
    tmp_path, gives, reason
):
    with (
        opened(write_bytes(tmp_path / "x.csv", b"broken")) as source,
        pytest.raises(ImportFormatError, match=f"the importer broken failed: {reason}"),
    ):
        list(found_in(Broken(gives=gives), source, Log("x.csv")))
