import fcntl
import json
import os
import resource
import stat
import subprocess
import sys
import textwrap

import pytest

from memory_core.errors import (
    CodecError,
    ConfigurationError,
    NotAStoreError,
    OutcomeUnknownError,
    SchemaVersionError,
    StorageFullError,
    StorageUnavailableError,
)
from memory_storage_jsonl.log import Log


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.jsonl"


def opened(path, *, sync=True):
    log = Log(path, sync=sync)
    try:
        return log, list(log.frames())
    except BaseException:
        log.close()
        raise


def written(path, frames):
    """A closed log with these frames; each is a list of texts."""
    log, _ = opened(path)
    for position, texts in enumerate(frames, 1):
        log.append([json.dumps(text).encode() + b"\n" for text in texts], position)
    log.close()
    return path.read_bytes()


def texts(frames):
    return [[json.loads(line) for line in frame.lines] for frame in frames]


def test_frames_come_back(path):
    written(path, [["a"], ["b", "ü\n"], ["c" * 5_000]])
    log, frames = opened(path)
    assert texts(frames) == [["a"], ["b", "ü\n"], ["c" * 5_000]]
    assert [frame.position for frame in frames] == [1, 2, 3]
    assert [frame.first_line for frame in frames] == [2, 4, 7]
    data = path.read_bytes()
    assert all(data[frame.offset :].startswith(frame.lines[0]) for frame in frames)
    assert log.torn_bytes == 0
    assert log.size == len(data)
    log.close()


def test_identity_is_kept(path):
    first, _ = opened(path)
    first.close()
    again, _ = opened(path)
    assert again.store_id == first.store_id
    again.close()


def test_every_torn_tail_is_cut_off(path):
    """Whatever prefix of the last frame a crash leaves, the frames before it are what is read."""
    written(path, [["a"], ["b"]])
    before = path.stat().st_size
    whole = written(path, [["c", "d"]])
    for end in range(before + 1, len(whole) - 1):
        path.write_bytes(whole[:end])
        log, frames = opened(path)
        assert texts(frames) == [["a"], ["b"]], end
        assert log.torn_bytes == end - before
        assert path.stat().st_size == before
        log.append([b'"e"\n'], 3)
        log.close()
        assert texts(opened_and_closed(path)) == [["a"], ["b"], ["e"]]


def opened_and_closed(path):
    log, frames = opened(path)
    log.close()
    return frames


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"garbage", b'{"commit":{"lines":1,"posi'])
def test_what_an_interrupted_commit_left_is_cut_off(path, tail):
    whole = written(path, [["a"]])
    path.write_bytes(whole + tail)
    assert texts(opened_and_closed(path)) == [["a"]]
    assert path.read_bytes() == whole


def test_a_last_frame_that_is_whole_but_damaged_is_an_error(path):
    """It was acknowledged once; only what a commit left unfinished may be cut off."""
    header = len(written(path, []))
    whole = written(path, [["a", "b"]])
    for place in range(header, len(whole) - 1):
        damaged = whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :]
        path.write_bytes(damaged)
        with pytest.raises(CodecError, match="line"):
            opened_and_closed(path)
        assert path.read_bytes() == damaged


def test_what_is_no_regular_file_is_left_alone(path):
    import os

    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match="regular"):
        opened(path)
    assert path.is_fifo()


def test_damage_in_the_middle_is_an_error_that_says_where(path):
    """Any flipped byte of a frame that others follow is found, and nothing is changed."""
    header = len(written(path, []))
    written(path, [["a"], ["bb", "cc"]])
    end = path.stat().st_size
    whole = written(path, [["d"], ["e"]])
    for place in range(header, end):
        damaged = whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :]
        path.write_bytes(damaged)
        log = Log(path, sync=True)
        with pytest.raises(CodecError, match=r"line \d+ \(offset \d+\): damaged"):
            list(log.frames())
        log.close()
        assert path.read_bytes() == damaged


def test_the_error_names_the_bad_line(path):
    whole = written(path, [["a"], ["b", "c"], ["d"]])
    place = whole.index(b'"c"')
    path.write_bytes(whole[:place] + b"???" + whole[place + 3 :])
    log = Log(path, sync=True)
    with pytest.raises(CodecError) as caught:
        list(log.frames())
    log.close()
    assert f"line 5 (offset {place})" in str(caught.value)


def test_a_frame_that_was_lost_in_the_middle_is_damage(path):
    whole = written(path, [["a"], ["b"], ["c"]])
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4] + lines[5:]))  # without the second commit line
    log = Log(path, sync=True)
    with pytest.raises(CodecError, match="line 4 "):
        list(log.frames())
    log.close()


@pytest.mark.parametrize(
    "content", [b"hello\n", b"\x00\xff" * 100, b'{"a": 1}\n', b"[]\n", b'{"format":"memory-core-']
)
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(NotAStoreError, match="not the header of a JSON-lines store"):
        Log(path, sync=True)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_an_empty_file_becomes_a_log(path):
    path.touch()
    assert opened_and_closed(path) == []
    assert path.read_bytes().startswith(b'{"format":"memory-core-jsonl","version":2')


def test_a_newer_version_is_refused(path):
    path.write_text('{"format":"memory-core-jsonl","version":3,"stores":[]}\n')
    with pytest.raises(SchemaVersionError) as caught:
        Log(path, sync=True)
    assert (caught.value.found, caught.value.supported) == (3, 2)


def test_what_a_killed_rewrite_left_is_removed(path):
    whole = written(path, [["a"]])
    ours, theirs, other = (path.with_name(f".log.jsonl.{name}.new") for name in ("1", "2", "3"))
    ours.write_bytes(whole[:200])
    theirs.write_text("mine")
    path.with_name("log.jsonl.new").write_text("mine, too")
    written(other, [["b"]])
    assert texts(opened_and_closed(path)) == [["a"]]
    assert not ours.exists()
    assert theirs.read_text() == "mine"
    assert path.with_name("log.jsonl.new").read_text() == "mine, too"
    assert texts(opened_and_closed(other)) == [["b"]]


EDITS = {
    "the last line end is gone": lambda data: data[:-1],
    "a blank line at the end": lambda data: data + b"\n",
    "blank lines": lambda data: data.replace(b"\n", b"\n\n") + b" \n\n",
    "line ends of Windows": lambda data: data.replace(b"\n", b"\r\n"),
    "line ends of Windows, the last one gone": lambda data: data.replace(b"\n", b"\r\n")[:-2],
    "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("frames", [[], [["a"], ["b", "c"], ["d"]]])
def test_what_an_editor_does_loses_nothing(path, edit, frames):
    edited = EDITS[edit](written(path, frames))
    path.write_bytes(edited)
    log = Log(path, sync=True, read_only=True)
    assert texts(log.frames()) == frames
    log.close()
    assert path.read_bytes() == edited
    log, found = opened(path)
    assert texts(found) == frames
    assert log.torn_bytes == 0
    assert log.size == path.stat().st_size
    log.append([b'"e"\n'], len(frames) + 1)
    log.close()
    assert texts(opened_and_closed(path)) == [*frames, ["e"]]


def test_damage_in_an_edited_file_is_named(path):
    whole = written(path, [["a"], ["b", "c"], ["d"]])
    edited = whole.replace(b"\n", b"\r\n\r\n").replace(b'"c"', b"???")
    path.write_bytes(edited)
    with pytest.raises(CodecError) as caught:
        opened_and_closed(path)
    # Every second line is blank.
    assert f"line 9 (offset {edited.index(b'???')})" in str(caught.value)


@pytest.mark.parametrize("linked", [False, True])
def test_one_file_has_one_user_whatever_its_name(path, linked):
    log, _ = opened(path)
    other = path.with_name("other.jsonl")
    if linked:
        os.link(path, other)
    else:
        other = path
    with pytest.raises(StorageUnavailableError, match=f"process {os.getpid()}"):
        Log(other, sync=True)
    log.append([b'"a"\n'], 1)
    assert log.has_other_names == linked
    log.close()
    assert texts(opened_and_closed(other)) == [["a"]]


def test_readers_share_and_a_writer_does_not(path):
    whole = written(path, [["a"]])
    path.write_bytes(whole + b"torn")
    readers = [Log(path, sync=True, read_only=True) for _ in range(2)]
    for reader in readers:
        assert texts(reader.frames()) == [["a"]]
        assert reader.torn_bytes == 4
    with pytest.raises(StorageUnavailableError):
        Log(path, sync=True)
    for reader in readers:
        reader.close()
    assert path.read_bytes() == whole + b"torn"
    writer, _ = opened(path)
    with pytest.raises(StorageUnavailableError):
        Log(path, sync=True, read_only=True)
    writer.close()


def test_files_beside_the_log_are_not_ours(path):
    victim = path.with_name("victim")
    victim.write_text("precious")
    for name in ("log.jsonl.lock", ".log.jsonl.0.new"):
        path.with_name(name).symlink_to(victim)
    path.with_name("log.jsonl.new").write_text("mine")
    log, _ = opened(path)
    log.append([b'"a"\n'], 1)
    log.rewrite([b'"a"\n'], 1)
    log.close()
    assert texts(opened_and_closed(path)) == [["a"]]
    assert victim.read_text() == "precious"
    assert path.with_name("log.jsonl.new").read_text() == "mine"
    assert path.with_name(".log.jsonl.0.new").is_symlink()


def as_version_1(path):
    data = path.read_bytes().replace(b'"version":2', b'"version":1', 1)
    path.write_bytes(data)
    return data


def test_a_log_of_version_1_is_locked_as_it_was_and_raised(path):
    written(path, [["a"]])
    before = as_version_1(path)
    beside = path.with_name("log.jsonl.lock")
    beside.write_text("4711\n")
    with beside.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for read_only in (False, True):
            with pytest.raises(StorageUnavailableError, match="is open in process"):
                Log(path, sync=True, read_only=read_only)
    reader = Log(path, sync=True, read_only=True)
    assert texts(reader.frames()) == [["a"]]
    with beside.open() as taken, pytest.raises(BlockingIOError):
        fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
    reader.close()
    assert path.read_bytes() == before
    assert texts(opened_and_closed(path)) == [["a"]]
    assert path.read_bytes() == before.replace(b'"version":1', b'"version":2')
    assert beside.read_text() == "4711\n"


def test_a_log_of_version_1_without_a_lock_file_gets_one(path):
    written(path, [["a"]])
    as_version_1(path)
    log = Log(path, sync=True)
    with path.with_name("log.jsonl.lock").open() as taken:
        with pytest.raises(BlockingIOError):
            fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert texts(log.frames()) == [["a"]]
        # From now on the version keeps earlier processes out.
        fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
    log.close()


def test_a_damaged_log_of_version_1_stays_one(path):
    written(path, [["a"], ["b"]])
    damaged = as_version_1(path).replace(b'"a"', b"???")
    path.write_bytes(damaged)
    with pytest.raises(CodecError):
        opened(path)
    assert path.read_bytes() == damaged


def test_files_are_for_their_owner_alone(path):
    log, _ = opened(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    log.rewrite([b'"a"\n'], 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    log.close()


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="is a directory"):
        Log(tmp_path, sync=True)


def test_rewriting_replaces_everything(path):
    written(path, [["a"], ["b"]])
    log, _ = opened(path)
    identity = log.store_id
    log.rewrite([b'"kept"\n'], 2)
    assert log.size == path.stat().st_size
    log.append([b'"new"\n'], 3)
    log.close()
    log, frames = opened(path)
    assert texts(frames) == [["kept"], ["new"]]
    assert log.store_id == identity
    log.close()


def test_an_interrupted_rewrite_leaves_the_old_log(path):
    written(path, [["a"]])
    log, _ = opened(path)

    def interrupted():
        yield b'"b"\n'
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log.rewrite(interrupted(), 2)
    log.append([b'"c"\n'], 2)
    log.close()
    assert texts(opened_and_closed(path)) == [["a"], ["c"]]
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture
def small_disk():
    """Lets no file grow beyond some size, which the kernel answers with an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_log_as_it_was(path, small_disk):
    before = written(path, [["a"]])
    log, _ = opened(path)
    small_disk(len(before) + 1_000)
    for _ in range(3):
        with pytest.raises(StorageFullError):
            log.append([json.dumps("x" * 2_000).encode() + b"\n"], 2)
        assert path.read_bytes() == before
    log.append([b'"fits"\n'], 2)
    with pytest.raises(StorageFullError):
        log.rewrite([json.dumps("x" * 3_000).encode() + b"\n"], 3)
    log.append([b'"again"\n'], 3)
    log.close()
    assert texts(opened_and_closed(path)) == [["a"], ["fits"], ["again"]]


def test_a_failed_sync_is_taken_back(path, monkeypatch):
    before = written(path, [["a"]])
    log, _ = opened(path)
    sync = os.fsync
    failures = iter([OSError(5, "Input/output error")])

    def fsync(fd):
        for failure in failures:
            raise failure
        sync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageUnavailableError, match="Input/output error"):
        log.append([b'"b"\n'], 2)
    assert path.read_bytes() == before
    log.append([b'"c"\n'], 2)
    log.close()
    assert texts(opened_and_closed(path)) == [["a"], ["c"]]


def test_what_cannot_be_taken_back_is_not_called_refused(path, monkeypatch):
    written(path, [["a"]])
    log, _ = opened(path)

    def fsync(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutcomeUnknownError):
        log.append([b'"b"\n'], 2)
    monkeypatch.undo()
    with pytest.raises(StorageUnavailableError, match="open it again"):
        log.append([b'"c"\n'], 3)
    log.close()


def test_sync_is_asked_for_once_a_frame(path, monkeypatch):
    log, _ = opened(path)
    calls = []
    monkeypatch.setattr(os, "fsync", calls.append)
    log.append([b'"a"\n'] * 100, 1)
    assert len(calls) == 1
    log.close()
    relaxed, _ = opened(path, sync=False)
    calls.clear()
    relaxed.append([b'"a"\n'], 2)
    assert calls == []
    relaxed.close()


def test_the_log_can_be_read_without_us(path):
    """The README's description of the file is enough to check it."""
    written(path, [["a", "b"], ["c"]])
    program = """
        import json, sys, zlib
        lines, pending = open(sys.argv[1], "rb").read().splitlines(keepends=True), []
        assert json.loads(lines[0])["format"] == "memory-core-jsonl"
        for line in lines[1:]:
            value = json.loads(line)
            if not isinstance(value, dict):
                pending.append(line)
                continue
            commit = value["commit"]
            data = b"".join(pending) + str(commit["position"]).encode()
            assert (commit["lines"], commit["crc32"]) == (len(pending), zlib.crc32(data))
            pending.clear()
        print("ok")
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "ok\n"
