from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_core.errors import ImportFormatError
from memory_core.importers import source
from tests.unit.importers.transcripts import write_bytes

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)

# Those that JSON does not escape: keys are given as they are written.
names = st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters='"\\')


@pytest.fixture(params=[1, 3, 64])
def small_chunks(request, monkeypatch):
    monkeypatch.setattr(source, "_CHUNK", request.param)


@pytest.mark.usefixtures("small_chunks")
def test_an_array_is_split_into_its_elements_wherever_a_chunk_ends():
    @given(st.lists(values, max_size=6), st.sampled_from([None, 1]), st.booleans())
    def check(elements, indent, ascii_only):
        data = json.dumps(elements, indent=indent, ensure_ascii=ascii_only)
        with TemporaryDirectory() as folder:
            path = write_bytes(Path(folder, "array.json"), data.encode())
            entries = list(source.entries(path))
        assert [json.loads(entry.data) for entry in entries] == elements
        assert [entry.where for entry in entries] == [f"index {i}" for i in range(len(elements))]

    check()


@given(st.dictionaries(st.text(names), values), st.integers(0, 400))
def test_first_keys_are_those_of_the_first_object_even_of_a_cut_text(value, cut):
    data = json.dumps([value, {"another": 1}], ensure_ascii=False).encode()
    assert source.first_keys(data) == ("[", frozenset(value))
    opener, keys = source.first_keys(data[:cut])
    assert opener in {"[", ""}
    assert keys <= frozenset(value)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_compression_and_byte_order_mark_make_no_difference(tmp_path, suffix, bom):
    path = write_bytes(tmp_path / f"log.jsonl{suffix}", bom + b'\n{"a": 1}\n\n  \n{"a": 2}')
    assert source.head(path) == b'\n{"a": 1}\n\n  \n{"a": 2}'
    assert source.is_lines(path)
    assert [(e.where, json.loads(e.data)) for e in source.entries(path)] == [
        ("line 2", {"a": 1}),
        ("line 5", {"a": 2}),
    ]


def test_compression_is_told_by_content_not_by_name(tmp_path):
    (tmp_path / "packed.json").write_bytes(gzip.compress(b"[1]"))
    (tmp_path / "plain.json.gz").write_bytes(b"[2]")
    assert [entry.data for entry in source.entries(tmp_path / "packed.json")] == [b"1"]
    assert [entry.data for entry in source.entries(tmp_path / "plain.json.gz")] == [b"2"]


def test_an_indented_object_is_one_document(tmp_path):
    path = write_bytes(tmp_path / "one.json", b'{\n  "a": [1,\n 2]\n}\n')
    assert [(e.where, json.loads(e.data)) for e in source.entries(path)] == [("", {"a": [1, 2]})]


def test_lines_by_name_are_lines_though_the_first_is_broken(tmp_path):
    path = write_bytes(tmp_path / "log.jsonl", b'{"a": \n{"a": 2}\n')
    assert [entry.where for entry in source.entries(path)] == ["line 1", "line 2"]


@pytest.mark.parametrize(
    ("data", "before", "reason"),
    [
        (b'[1, {"a": "b', [b"1"], "index 1: the file ends inside of its array"),
        (b"[1, 2", [b"1"], "index 1: the file ends inside of its array"),
        (b"[1}", [], "index 0: is not JSON: an array closed by '}'"),
        (b"[1] [2]", [b"1"], "has more after the end of its array"),
        (b'[1]\n\n"', [b"1"], "has more after the end of its array"),
    ],
)
def test_what_comes_before_a_broken_end_of_an_array_is_read(tmp_path, data, before, reason):
    path = write_bytes(tmp_path / "array.json", data)
    read = []
    with pytest.raises(ImportFormatError) as caught:
        read.extend(entry.data for entry in source.entries(path))
    assert read == before
    assert str(caught.value) in {f"{path}: {reason}", f"{path}, {reason}"}


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_cut_archive_is_an_error_that_says_so(tmp_path, pack):
    packed = pack(json.dumps(list(range(5000))).encode())
    path = tmp_path / "cut"
    for cut in (12, len(packed) // 2, len(packed) - 1):
        path.write_bytes(packed[:cut])
        with pytest.raises(ImportFormatError, match="cannot be decompressed"):
            list(source.entries(path))


def test_a_damaged_archive_is_an_error_that_says_so(tmp_path):
    packed = bytearray(gzip.compress(json.dumps(list(range(5000))).encode()))
    packed[len(packed) // 2] ^= 255
    (tmp_path / "damaged").write_bytes(packed)
    with pytest.raises(ImportFormatError, match="cannot be decompressed"):
        list(source.entries(tmp_path / "damaged"))


def test_what_is_no_readable_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ImportFormatError, match="Is a directory") as caught:
        source.head(tmp_path)
    assert caught.value.file == str(tmp_path)
    with pytest.raises(ImportFormatError, match="No such file"):
        list(source.json_lines(tmp_path / "missing"))


def test_utf16_is_named_as_the_problem(tmp_path):
    path = write_bytes(tmp_path / "windows.json", '[{"a": 1}]'.encode("utf-16"))
    with pytest.raises(ImportFormatError, match="UTF-16"):
        source.head(path)


@pytest.mark.parametrize(
    "data",
    [
        b'["' + b"x" * 100 + b'"]',
        b"[1, " + b" " * 100 + b"2]",
        b'{"a": 1}\n{"b": "' + b"x" * 100 + b'"}',
        b'{\n"b": "' + b"x" * 100 + b'"}',
    ],
)
def test_an_entry_over_the_limit_is_refused(tmp_path, monkeypatch, data):
    monkeypatch.setattr(source, "MAX_ENTRY_BYTES", 60)
    monkeypatch.setattr(source, "_CHUNK", 16)
    with pytest.raises(ImportFormatError, match="larger than 60 bytes"):
        list(source.entries(write_bytes(tmp_path / "large", data)))


def test_many_entries_may_be_larger_than_the_limit_together(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_ENTRY_BYTES", 60)
    monkeypatch.setattr(source, "_CHUNK", 16)
    elements = [{"n": number} for number in range(500)]
    path = write_bytes(tmp_path / "array.gz", json.dumps(elements).encode())
    assert [json.loads(entry.data) for entry in source.entries(path)] == elements


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": tru}', "Expecting value: line 1 column 7"),
        (b'{"a": "\xff"}', "is not UTF-8: invalid start byte at byte 7"),
        (b'{"a": NaN}', "NaN, Infinity, a lone surrogate"),
        (b'{"a": "\\ud800"}', "a lone surrogate"),
        (b"[" * 100_000, "nested too deeply"),
        (b"", "is not JSON"),
    ],
)
def test_why_an_entry_is_not_json_is_said_with_its_place(tmp_path, data, reason):
    entry = source.Entry("line 3", data)
    with pytest.raises(ImportFormatError) as caught:
        source.decoded(tmp_path, entry)
    assert caught.value.entry == "line 3"
    assert reason in caught.value.reason
