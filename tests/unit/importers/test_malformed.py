"""Whatever is in a file, an importer gives episodes a store accepts, and errors of one type."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_core.errors import ImportFormatError
from memory_core.importers import BUILTIN_IMPORTERS, detect
from memory_core.records import Episode
from tests.unit.importers.transcripts import (
    chat_entry,
    claude_session,
    swe_run,
    tau_entry,
    write_bytes,
)

IMPORTERS = {importer.name: importer for importer in BUILTIN_IMPORTERS}
SAMPLES = {
    "tau-bench": [tau_entry(), tau_entry(trial=3)],
    "swe-agent": swe_run(),
    "openai-chat": [chat_entry(created=1, metadata={"domain": "x", "tags": ["y"]}, usage={})],
    "claude-code": claude_session(),
}
LINES = {"claude-code"}


def case(name, file):
    """A case as the sample of its format; an archive is not JSON, and damaged elsewhere."""
    path = Path(__file__).parent / "cases" / file
    text = path.read_text("utf-8")
    if path.suffix == ".jsonl":
        LINES.add(name)
        return [json.loads(line) for line in text.splitlines()]
    return json.loads(text)


SAMPLES |= {
    name: case(name, file)
    for name, file in {
        "anthropic": "cline_api_conversation_history.json",
        "atif": "atif_trajectory.json",
        "autogen": "autogen_04.json",
        "codex": "codex_rollout.jsonl",
        "gemini": "gemini_contents.json",
        "gemini-cli": "gemini_cli_chat.json",
        "inspect-ai": "inspect_log.json",
        "langchain": "langchain_messages.json",
        "langsmith": "langsmith_runs.jsonl",
        "mini-swe-agent": "mini_swe_agent_v2.traj.json",
        "openai-batch": "openai_batch_output.jsonl",
        "openai-responses": "openai_responses_items.json",
        "openhands": "openhands_output.jsonl",
        "otel-genai": "otel_genai_spans.json",
        "sharegpt": "sharegpt.jsonl",
        "tau2-bench": "tau2_results.json",
        "vercel-ui": "vercel_ui_messages.json",
    }.items()
}

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(st.characters(), max_size=8),
    st.sampled_from(["", " ", "\0", "a\0b", "\ud800", "9" * 40, "tool_use", "user", "2025-13-01"]),
    st.sampled_from([10**30, -(10**30), 1e308, 2**63, 2**64]),
    st.integers(60, 400).map(lambda depth: json.loads("[" * depth + "]" * depth)),
    st.integers(60, 400).map(lambda depth: json.loads('{"a":' * depth + "1" + "}" * depth)),
)
values = st.recursive(
    odd,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=4), inner)
    ),
    max_leaves=5,
)


def places(value, path=()):
    yield path
    items = enumerate(value) if isinstance(value, list) else ()
    for key, inner in value.items() if isinstance(value, dict) else items:
        yield from places(inner, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    result = copy.deepcopy(value)
    inside = result
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = new
    return result


def encoded(name, value):
    # Allows NaN, Infinity and lone surrogates, as some writers do.
    if name in LINES and isinstance(value, list):
        return "\n".join(json.dumps(line) for line in value).encode()
    return json.dumps(value).encode()


def checked(importer, data):
    """What is read of a file, having checked what holds for every file."""
    with TemporaryDirectory() as folder:
        path = write_bytes(Path(folder, "input"), data)
        read = list(importer.read(path, keep_going=True))
        again = list(importer.read(path, keep_going=True))
        try:
            strict = list(importer.read(path))
        except ImportFormatError as error:
            strict = str(error)
    episodes = [item for item in read if isinstance(item, Episode)]
    errors = [item for item in read if isinstance(item, ImportFormatError)]
    assert len(episodes) + len(errors) == len(read)
    assert [item for item in again if isinstance(item, Episode)] == episodes
    assert [str(e) for e in again if isinstance(e, ImportFormatError)] == [str(e) for e in errors]
    assert strict == (str(errors[0]) if errors else episodes)
    for error in errors:
        assert error.file == str(path)
        assert error.reason
    for episode in episodes:
        episode.index_values()
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(episode), type=Episode) == episode
    return episodes, errors


@pytest.mark.parametrize("name", IMPORTERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_transcript_with_anything_anywhere(name, data):
    sample = SAMPLES[name]
    path = data.draw(st.sampled_from(list(places(sample))))
    changed = replaced(sample, path, data.draw(values))
    checked(IMPORTERS[name], encoded(name, changed))


@pytest.mark.parametrize("name", IMPORTERS)
@settings(max_examples=20, deadline=None)
@given(value=st.lists(values, max_size=3) | values)
def test_any_json(name, value):
    checked(IMPORTERS[name], encoded(name, value))


@pytest.mark.parametrize("name", IMPORTERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damaged_bytes(name, data):
    whole = encoded(name, SAMPLES[name])
    packed = data.draw(st.booleans())
    raw = bytearray(gzip.compress(whole, mtime=0) if packed else whole)
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    checked(IMPORTERS[name], bytes(raw))


@settings(max_examples=200, deadline=None)
@given(st.binary() | values.map(lambda value: encoded("", value)))
def test_detection_of_any_file(data):
    with TemporaryDirectory() as folder:
        path = write_bytes(Path(folder, "input"), data)
        try:
            found = detect(path, BUILTIN_IMPORTERS).name
        except ImportFormatError as error:
            found = error.file
        assert found in {*IMPORTERS, str(path)}


@pytest.mark.parametrize("name", IMPORTERS)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp037"])
def test_wrong_encodings(name, encoding):
    text = encoded(name, SAMPLES[name]).decode().replace("a", "\\u00e4").encode()
    data = text.decode("unicode_escape").encode(encoding)
    episodes, errors = checked(IMPORTERS[name], data)
    assert errors or all("repaired" in episode.metadata for episode in episodes)


@pytest.mark.parametrize("name", IMPORTERS)
@pytest.mark.parametrize(
    "unit", ['{"a":', "[", '{"traj":[', '{"messages":[{"content":[', '{"message":']
)
@pytest.mark.parametrize("depth", [100, 900, 100_000])
def test_deep_nesting(name, unit, depth):
    _, errors = checked(IMPORTERS[name], (unit * depth + "\n").encode())
    assert errors


@pytest.mark.parametrize("name", IMPORTERS)
def test_samples_are_read_without_errors(name):
    episodes, errors = checked(IMPORTERS[name], encoded(name, SAMPLES[name]))
    assert episodes
    assert not errors
