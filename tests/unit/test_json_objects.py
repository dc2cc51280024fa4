"""A record is read from JSON exactly as it was written, or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import math

import pytest

from memory_core.codec.json_objects import record_from_json, record_to_json
from memory_core.errors import CodecError
from memory_core.inmemory import InMemoryStorage
from memory_core.records import CORE_RECORD_TYPES, RecordTypes
from memory_core.testing.data.kinds import KIT_RECORD_TYPES, Specimen, kit_context
from memory_core.testing.data.samples import every_kind, sample_id
from memory_core.transfer import load_records

TYPES = RecordTypes(KIT_RECORD_TYPES)
WRONG = [
    ("task_description", None, "task_description: expected text, got None"),
    ("task_description", {"a": 1}, "task_description: expected text"),
    ("task_description", 3, "task_description: expected text, got 3"),
    ("metadata", {"a": {"b": 1}}, r"metadata\['a'\]: expected text"),
    ("metadata", 3, "metadata: expected a mapping"),
    ("tags", [1, None], r"tags\[0\]: expected text, got 1; tags\[1\]: expected text, got None"),
    ("tags", "ab", "tags: expected an array"),
    ("checkpoints", [{"step_number": 5.9}], "step_number: expected a whole number, got 5.9"),
    ("checkpoints", [{"step_number": True}], "step_number: expected a whole number, got True"),
    ("id", 5, "id: expected an id, got 5"),
    ("variant", ["x"], "the variant is not text"),
    ("schema_version", 2.5, "schema version 2.5 is not a number"),
]


@pytest.mark.parametrize(("field", "value", "words"), WRONG)
def test_a_value_of_another_type_is_named(field, value, words):
    body = {"kind": "episode", "id": str(sample_id("episode", 1)), "task_description": "x"}
    with pytest.raises(CodecError, match=words):
        record_from_json(TYPES, body | {field: value})


@pytest.mark.parametrize("record", every_kind(), ids=lambda record: record.kind)
def test_what_was_written_is_read(record):
    body = json.loads(json.dumps(record_to_json(record), default=str))
    assert record_from_json(TYPES, body) == record


def test_infinite_numbers_are_read():
    record = Specimen(id=sample_id("specimen", 1), ratio=math.inf, scores=(-math.inf, 1.5))
    body = json.loads(json.dumps(record_to_json(record), default=str))
    assert record_from_json(TYPES, body) == record


def export(line: str, header: str | None = None) -> io.BytesIO:
    """An export of one line that has the right checksum."""
    header = header or json.dumps(
        {
            "format": "memory-core export",
            "version": 1,
            "store_id": str(sample_id("store", 1)),
            "position": 1,
            "created_at": "2026-01-01T00:00:00Z",
            "namespaces": ["default"],
            "kinds": {},
        }
    )
    data = f"{header}\n{line}\n".encode()
    trailer = {
        "end": True,
        "lines": 1,
        "counts": {"episode": 1},
        "deletes": 0,
        "settled": True,
        "position": 1,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return io.BytesIO(data + json.dumps(trailer).encode() + b"\n")


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            f'{{"namespace":"default","record":{{"kind":"episode","metadata":{DEEP}}}}}',
            "line 2: .*nested",
        ),
        (f'{{"namespace":"default","x":{DEEP}}}', "line 2: .*nested"),
        (
            '{"namespace":"default","record":{"kind":"episode","task_description":7}}',
            "line 2: episode: task_description: expected text, got 7",
        ),
    ],
)
async def test_a_line_that_cannot_be_loaded_is_named(line, words):
    store = InMemoryStorage(kit_context())
    with pytest.raises(CodecError, match=words):
        await load_records(store, RecordTypes(CORE_RECORD_TYPES), export(line))
    assert store.position() == 0


async def test_a_header_that_is_nested_too_deeply_is_not_one():
    store = InMemoryStorage(kit_context())
    header = f'{{"format":"memory-core export","x":{DEEP}}}'
    with pytest.raises(CodecError, match="not an export"):
        await load_records(store, TYPES, export("{}", header))
