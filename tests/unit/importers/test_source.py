from __future__ import annotations

import gzip
import json
import lzma
import os
import threading
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from memory_core.errors import ImportFormatError
from memory_core.importers import ClaudeCodeImporter, source
from memory_core.importers.base import found_in
from memory_core.importers.json_text import NotJsonError, loads
from memory_core.importers.log import Log
from memory_core.importers.reading import values as read_values
from memory_core.importers.sample import Layout, sample_of
from memory_core.importers.source import Source, opened
from tests.unit.importers.transcripts import claude_line, write_bytes, write_lines

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def source_of(path):
    return Source(str(path), path)


def read(path):
    """What is read of a file: places and values; and what is skipped."""
    log = Log(str(path))
    return list(read_values(source_of(path), log)), log


@pytest.fixture(params=[1, 3, 64])
def small_chunks(request, monkeypatch):
    monkeypatch.setattr(source, "_CHUNK", request.param)
    monkeypatch.setattr(source, "_WHOLE", 1)


@pytest.mark.usefixtures("small_chunks")
def test_an_array_is_split_into_its_elements_wherever_a_chunk_ends():
    @given(st.lists(values, max_size=6), st.sampled_from([None, 1]), st.booleans())
    def check(elements, indent, ascii_only):
        data = json.dumps(elements, indent=indent, ensure_ascii=ascii_only)
        with TemporaryDirectory() as folder:
            path = write_bytes(Path(folder, "array.json"), data.encode("utf-8", "surrogatepass"))
            entries = list(source_of(path).elements())
        assert [json.loads(entry.data) for entry in entries] == elements
        assert [entry.where for entry in entries] == [f"index {i}" for i in range(len(elements))]

    check()


@pytest.mark.usefixtures("small_chunks")
def test_lines_are_whole_wherever_a_chunk_ends(tmp_path):
    path = write_bytes(tmp_path / "a.jsonl", b"\n\n[1, 2]\r\n \n{}\n\n\n[3]")
    entries = list(source_of(path).lines())
    assert entries == [
        ("line 3", b"[1, 2]", True),
        ("line 5", b"{}", True),
        ("line 8", b"[3]", False),
    ]


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_packing_and_byte_order_mark_make_no_difference(tmp_path, suffix, bom):
    path = write_bytes(tmp_path / f"log.jsonl{suffix}", bom + b'\n{"a": 1}\n\n  \n{"a": 2}')
    assert source_of(path).head(100) == b'\n{"a": 1}\n\n  \n{"a": 2}'
    assert read(path)[0] == [("line 2", {"a": 1}), ("line 5", {"a": 2})]


def test_packing_is_told_by_content_not_by_name(tmp_path):
    (tmp_path / "packed.json").write_bytes(gzip.compress(b"[1]"))
    (tmp_path / "plain.json.gz").write_bytes(b"[2]")
    assert read(tmp_path / "packed.json")[0] == [("index 0", 1)]
    assert read(tmp_path / "plain.json.gz")[0] == [("index 0", 2)]


def test_several_frames_of_zstd_are_read_to_the_end(tmp_path):
    pack = zstandard.ZstdCompressor().compress
    (tmp_path / "x.jsonl.zst").write_bytes(pack(b'{"a": 1}\n') + pack(b'{"a": 2}\n'))
    assert [value for _, value in read(tmp_path / "x.jsonl.zst")[0]] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("data", "layout"),
    [
        (b'{\n  "a": [1,\n 2]\n}\n', Layout.DOCUMENT),
        (b'{"a": 1}', Layout.DOCUMENT),
        (b'{"a": 1}\n{"a": 2}\n', Layout.LINES),
        (b"[1, 2]", Layout.ARRAY),
        (b"[\n1,\n2]", Layout.ARRAY),
        (b"[1]\n[2]\n", Layout.LINES),
        (b'{"a": \n{"a": 2}\n', Layout.LINES),
        (b"", Layout.EMPTY),
        (b" \n\n ", Layout.EMPTY),
        (b"hello\nworld", Layout.TEXT),
        (b'hello\n{"a": 1}', Layout.LINES),
        (b'{"a": NaN}', Layout.DOCUMENT),
    ],
)
def test_the_layout_is_told_by_content(tmp_path, data, layout):
    assert sample_of(source_of(write_bytes(tmp_path / "x", data))).layout is layout


def test_lines_by_name_are_lines_though_the_first_is_broken(tmp_path):
    path = write_bytes(tmp_path / "log.jsonl", b'{"a": \n{"a": 2}\n')
    found, log = read(path)
    assert found == [("line 2", {"a": 2})]
    assert [error.entry for error in log.skipped] == ["line 1"]


def test_a_last_line_that_is_cut_is_noted_and_not_an_error(tmp_path):
    found, log = read(write_bytes(tmp_path / "log.jsonl", b'{"a": 1}\n{"a": 2}\n{"a'))
    assert len(found) == 2
    assert log.lost == 0
    assert log.notes[0].entry == "line 3"
    assert "cut" in log.notes[0].reason


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
    found = []
    with pytest.raises(ImportFormatError) as caught:
        found.extend(entry.data for entry in source_of(path).elements())
    assert found == before
    assert str(caught.value) in {f"{path}: {reason}", f"{path}, {reason}"}


PACKERS = [gzip.compress, lzma.compress, zstandard.ZstdCompressor(write_checksum=True).compress]


@pytest.mark.parametrize("pack", PACKERS)
def test_a_damaged_archive_is_an_error_that_says_so(tmp_path, pack):
    packed = bytearray(pack(json.dumps([os.urandom(4).hex() for _ in range(5000)]).encode()))
    packed[len(packed) // 2] ^= 255
    (tmp_path / "damaged").write_bytes(packed)
    with pytest.raises(ImportFormatError):
        list(source_of(tmp_path / "damaged").elements())


@pytest.mark.parametrize("pack", PACKERS)
def test_a_cut_archive_is_an_error_that_says_so(tmp_path, pack):
    packed = pack(json.dumps(list(range(5000))).encode())
    path = tmp_path / "cut"
    for cut in (12, len(packed) // 2, len(packed) - 1):
        path.write_bytes(packed[:cut])
        with pytest.raises(ImportFormatError, match="cannot be decompressed"):
            list(source_of(path).elements())


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("is_array", [False, True])
def test_what_comes_before_the_cut_of_an_archive_is_read_and_the_cut_is_listed(
    tmp_path, pack, is_array
):
    entries = [{"n": number, "x": os.urandom(40).hex()} for number in range(3_000)]
    lines = "\n".join([*map(json.dumps, entries), ""])
    packed = pack((json.dumps(entries) if is_array else lines).encode())
    path = tmp_path / ("cut.json" if is_array else "cut.jsonl")
    for cut, least in ((len(packed) // 2, 800), (len(packed) - 1, 3_000)):
        path.write_bytes(packed[:cut])
        found, log = read(path)
        assert [value for _, value in found] == entries[: len(found)]
        assert len(found) >= least
        (error,) = log.skipped
        assert "cannot be decompressed any further" in error.reason
        places = {None, f"index {len(found)}", f"line {len(found) + 1}", f"after line {len(found)}"}
        assert error.entry in places


@pytest.mark.parametrize("pack", PACKERS)
def test_a_document_in_an_archive_without_its_last_bytes_is_read(tmp_path, pack):
    for indent in (None, 1):
        packed = pack(json.dumps({"a": [1, 2]}, indent=indent).encode())
        found, log = read(write_bytes(tmp_path / "document", packed[:-1]))
        assert found == [("", {"a": [1, 2]})]
        assert len(log.skipped) == 1


def test_the_elements_before_a_broken_end_of_an_array_are_read_and_it_is_listed(tmp_path):
    found, log = read(write_bytes(tmp_path / "array.json", b'[{"a": 1}, {"a": 2}, {"a": "b'))
    assert [value for _, value in found] == [{"a": 1}, {"a": 2}]
    assert [error.entry for error in log.skipped] == ["index 2"]


def test_a_file_that_grows_while_it_is_read_is_read_as_it_was_at_first(tmp_path):
    """Sessions are read twice: what is new would be a session of its own, with the same id."""
    path, log = tmp_path / "log.jsonl", Log("log")
    write_lines(path, [claude_line("user", 1, "before", uuid="1")])
    with opened(path) as growing:
        assert ClaudeCodeImporter.format.recognises(sample_of(growing))
        with path.open("a") as more:
            more.write(json.dumps(claude_line("user", 2, "meanwhile", uuid="2")) + "\n")
        (found,) = found_in(ClaudeCodeImporter(), growing, log)
    assert [step.parameters["content"] for step in found.episode.steps] == ["before"]
    assert log.skipped == []


@pytest.mark.parametrize("change", ["cut", "replaced"])
def test_a_file_that_is_cut_or_replaced_while_it_is_read_is_an_error_that_says_so(tmp_path, change):
    path = write_lines(tmp_path / "log.jsonl", [claude_line("user", 1, "x" * 100)])
    with opened(path) as source:
        sample_of(source)
        if change == "cut":
            os.truncate(path, 50)
        else:
            write_lines(tmp_path / "new", [claude_line("user", 1, "y" * 200)]).replace(path)
        with pytest.raises(ImportFormatError, match=f"was {change} while it was read"):
            list(found_in(ClaudeCodeImporter(), source, Log("log")))


@pytest.mark.parametrize("unit", [b" ", b"\n", b'{"a": 1}\n', b"[", b'"'])
@pytest.mark.parametrize("pack", PACKERS)
def test_what_expands_without_end_is_stopped(tmp_path, monkeypatch, pack, unit):
    monkeypatch.setattr(source, "EXPANDS_FREELY", 2**20)
    monkeypatch.setattr(source, "EXPANSION", 10)
    path = tmp_path / "bomb.jsonl"
    path.write_bytes(pack(unit * (2**24 // len(unit))))
    with pytest.raises(ImportFormatError, match="expands to more than 10 times"):
        read(path)


def test_an_archive_that_expands_without_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "EXPANDS_FREELY", 2**20)
    monkeypatch.setattr(source, "EXPANSION", 10)
    path = tmp_path / "bomb.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", "{}")
        for number in range(4):
            archive.writestr(f"samples/{number}.json", " " * 2**19)
    with pytest.raises(ImportFormatError, match="expands to more than 10 times"):
        sample_of(source_of(path))


def test_what_is_not_a_readable_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ImportFormatError, match="Is a directory") as caught:
        source_of(tmp_path).head(1)
    assert caught.value.file == str(tmp_path)
    with pytest.raises(ImportFormatError, match="No such file"), opened(tmp_path / "missing"):
        pass


def test_utf16_is_named_as_the_problem(tmp_path):
    path = write_bytes(tmp_path / "windows.json", '[{"a": 1}]'.encode("utf-16"))
    with pytest.raises(ImportFormatError, match="UTF-16"):
        source_of(path).head(1)


@pytest.mark.parametrize(
    "data",
    [
        b'["' + b"x" * 100 + b'"]',
        b"[1, " + b" " * 100 + b"2]",
        b'{\n"b": "' + b"x" * 100 + b'"}',
    ],
)
def test_an_entry_over_the_limit_is_refused(tmp_path, monkeypatch, data):
    monkeypatch.setattr(source, "MAX_ENTRY_BYTES", 60)
    monkeypatch.setattr(source, "_CHUNK", 16)
    monkeypatch.setattr(source, "_WHOLE", 16)
    path = source_of(write_bytes(tmp_path / "large", data))
    with pytest.raises(ImportFormatError, match="larger than 60 bytes"):
        list(path.elements() if data[:1] == b"[" else [path.document()])


def test_a_line_over_the_limit_is_skipped_and_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_ENTRY_BYTES", 60)
    monkeypatch.setattr(source, "_CHUNK", 16)
    data = b'{"a": 1}\n{"b": "' + b"x" * 100 + b'"}\n{"c": 3}\n'
    found, log = read(write_bytes(tmp_path / "large.jsonl", data))
    assert found == [("line 1", {"a": 1}), ("line 3", {"c": 3})]
    assert [error.entry for error in log.skipped] == ["line 2"]
    assert "larger than 60 bytes" in log.skipped[0].reason


def test_many_entries_may_be_larger_than_the_limit_together(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_ENTRY_BYTES", 60)
    monkeypatch.setattr(source, "_CHUNK", 16)
    monkeypatch.setattr(source, "_WHOLE", 16)
    elements = [{"n": number} for number in range(500)]
    path = write_bytes(tmp_path / "array.gz", json.dumps(elements).encode())
    assert [json.loads(entry.data) for entry in source_of(path).elements()] == elements


def test_a_pipe_can_be_read_as_often_as_a_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(gzip.compress(b'{"a": 1}\n[2]'),))
    writer.start()
    with opened(pipe) as found:
        assert found.head(3) == b'{"a'
        assert [entry.data for entry in found.lines()] == [b'{"a": 1}', b"[2]"]
    writer.join()


def test_a_pipe_without_an_end_is_stopped(monkeypatch):
    monkeypatch.setattr(source, "MAX_PIPE_BYTES", 2**21)
    with pytest.raises(ImportFormatError, match="through a pipe"), opened(Path("/dev/zero")):
        pass


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": tru}', "Expecting value: line 1 column 7"),
        (b"[" * 100_000, "nested too deeply"),
        (b"", "is not JSON"),
        (b"\x00\x01", "is not JSON"),
    ],
)
def test_why_a_text_is_not_json_is_said_with_its_place(data, reason):
    with pytest.raises(NotJsonError, match=reason):
        loads(data)


@pytest.mark.parametrize(
    ("data", "value", "repair"),
    [
        (b'{"a": NaN}', {"a": "NaN"}, "number"),
        (b"[-Infinity, 1e999]", ["-Infinity", "1e999"], "number"),
        (b"[" + b"9" * 5000 + b", NaN]", ["9" * 5000, "NaN"], "number"),
        (b'"cut \\ud83d"', "cut \ufffd", "surrogate"),
        (b'["\\ud83d\\ude00", "\\ude00"]', ["\U0001f600", "\ufffd"], "surrogate"),
        (b'"\xff"', "\ufffd", "not UTF-8"),
    ],
)
def test_what_json_cannot_hold_is_kept_as_text(data, value, repair):
    found, repairs = loads(data)
    assert found == value
    assert repair in " ".join(repairs)
