"""Transcripts with anything anywhere: an import ends soon, in valid episodes and a list of the rest.

The inputs start from the cases of every format. `pytest -m long` tries 100,000 of them.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import time
import zipfile
from pathlib import Path

import pytest

from memory_core.codec import Codec
from memory_core.errors import ImportFormatError, RecordTooLargeError
from memory_core.importers import BUILTIN_IMPORTERS
from memory_core.importers.base import found_in, recognised
from memory_core.importers.log import Log
from memory_core.importers.source import Source
from memory_core.records import CORE_RECORD_TYPES, Limits, RecordTypes
from tests.unit.importers.transcripts import chat_entry, claude_session, swe_run, tau_entry

FOLDER = Path(__file__).parent / "cases"
CODEC = Codec(RecordTypes(CORE_RECORD_TYPES), Limits())
BY_NAME = {importer.name: importer for importer in BUILTIN_IMPORTERS}
SLOWEST = 5.0  # seconds for one input, on a busy machine; each has a few kilobytes

ODD = [
    None, True, False, 0, -1, 1, 2**63, 2**64, -(2**63) - 1, 10**30, 1e308, -0.5, float("nan"), float("inf"),
    "", " ", "\0", "a\0b", "\ud800", "\U0001f600", "9" * 5000, "x" * 500, "user", "assistant", "tool", "null",
    "2025-13-01", "2025-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "1e999", "data:image/png;base64,AAAA",
    "[", '{"a": NaN}', [], {}, [[]], [None], {"": None}, {"type": "text"}, {"type": "text", "text": None},
    {"type": ["x"]}, [{"type": "tool_use"}], {"role": "user", "content": "x"}, ["a", 1, None, {}],
]  # fmt: skip


def deep(rng):
    depth = rng.choice([50, 65, 200, 900, 2000])
    return ("[" if rng.random() < 0.5 else '{"a":') * depth


def seeds():
    """Every case and the transcripts of the tests, as lists of lines or as documents."""
    found = {
        "claude": claude_session(),
        "tau": [[tau_entry(), tau_entry(trial=3)]],
        "swe": [swe_run()],
        "chat": [
            chat_entry(created=1, metadata={"domain": "x", "tags": ["y"], "score": 1}, usage={})
        ],
    }
    for path in sorted(FOLDER.iterdir()):
        if path.suffix == ".eval":
            with zipfile.ZipFile(path) as archive:
                found[path.name] = {n: json.loads(archive.read(n)) for n in archive.namelist()}
        elif path.suffix == ".jsonl":
            found[path.name] = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        elif path.suffix in {".json", ".traj"}:
            found[path.name] = [json.loads(path.read_text("utf-8"))]
    return found


def places(value, path=()):
    yield path
    items = enumerate(value) if isinstance(value, list) else ()
    for key, inner in value.items() if isinstance(value, dict) else items:
        yield from places(inner, (*path, key))


def mutated(rng, value):
    """The value with something at one of its places replaced, removed, repeated or moved."""
    result = copy.deepcopy(value)
    path = rng.choice([path for path in places(result) if path])
    inside = result
    for key in path[:-1]:
        inside = inside[key]
    key = path[-1]
    match rng.randrange(6):
        case 0 if isinstance(inside, dict):
            del inside[key]
        case 1 if isinstance(inside, list):
            inside.insert(rng.randrange(len(inside) + 1), copy.deepcopy(inside[key]))
        case 2 if isinstance(inside, dict):
            inside[rng.choice(["role", "type", "content", "id", "parts", key.upper()])] = (
                inside.pop(key)
            )
        case 3:
            inside[key] = [inside[key]]
        case 4:
            inside[key] = {"value": inside[key]}
        case _:
            inside[key] = copy.deepcopy(rng.choice(ODD))
    return result


def encoded(rng, value):
    if isinstance(value, dict):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in value.items():
                archive.writestr(str(name) or "x", json.dumps(content))
        return buffer.getvalue()
    data = "\n".join(json.dumps(line) for line in value)
    if rng.random() < 0.1:
        place = rng.randrange(len(data) + 1)
        data = data[:place] + deep(rng) + data[place:]
    if rng.random() < 0.1:
        # Names that are repeated.
        data = data.replace('"content":', '"content": 1, "content":', 1)
    return data.encode()


def damaged(rng, data):
    raw = bytearray(data)
    match rng.randrange(12):
        case 0:
            del raw[rng.randrange(len(raw) + 1) :]
        case 1 if raw:
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        case 2:
            raw = bytearray(gzip.compress(bytes(raw), 1))
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        case 3:
            raw += b"\n{"
    return bytes(raw)


def check(path, form):
    """Import a file; whatever is in it, this ends in valid episodes and typed errors."""
    log = Log(path.name)
    source = Source(path.name, path)
    began = time.monotonic()
    try:
        importer = BY_NAME[form] if form else recognised(source, BUILTIN_IMPORTERS)
        found = [item.episode for item in found_in(importer, source, log)]
    except ImportFormatError as error:
        assert error.reason  # noqa: PT017  # any of them is right
        if error.reason.startswith("the importer"):
            raise
        found = []
    assert time.monotonic() - began < SLOWEST
    for episode in found:
        try:
            data = CODEC.encode(episode)
        except RecordTooLargeError:
            continue
        assert CODEC.decode("episode", data, episode.id) == episode
    return len(found)


def fuzz(folder, count, seed):
    rng = random.Random(seed)
    known = seeds()
    names = sorted(known)
    path = folder / "input"
    read = 0
    for number in range(count):
        value = known[rng.choice(names)]
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            if len(value) and any(True for path in places(value) if path):
                value = mutated(rng, value)
        data = damaged(rng, encoded(rng, value))
        path.write_bytes(data)
        form = None if rng.random() < 0.5 else rng.choice([*BY_NAME])
        try:
            read += check(path, form)
        except Exception as error:
            note = f"input {number} of seed {seed}, format {form}: {data[:2000]!r}"
            error.add_note(note)
            raise
    return read


@pytest.mark.parametrize("seed", range(2))
def test_a_thousand_inputs(tmp_path, seed):
    assert fuzz(tmp_path, 500, seed) > 100


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 110))
def test_a_hundred_thousand_inputs(tmp_path, seed):
    assert fuzz(tmp_path, 10_000, seed) > 1_000
