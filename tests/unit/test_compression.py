import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_core.codec.compression import CompressionConfig, Compressor, DictionaryMissingError
from memory_core.errors import CodecError

LIMIT = 1_000_000


def compressor(**options):
    return Compressor(CompressionConfig(**options), LIMIT)


def transcripts(count, size=2_000):
    """Bodies that have much in common."""
    lines = [f"step {number}: tool=search query=flights from {number % 7}" for number in range(200)]
    return [
        (f"run {number}\n" + "\n".join(lines[number % 50 : number % 50 + 60])).encode()[:size]
        for number in range(count)
    ]


@settings(deadline=None)
@given(body=st.binary(max_size=3_000), repeat=st.integers(1, 20), level=st.integers(1, 5))
def test_what_was_compressed_comes_back(body, repeat, level):
    body *= repeat
    tested = compressor(threshold=0, level=level)
    frame = tested.compress("episode", body)
    if frame is not None:
        assert len(frame) < len(body)
        assert tested.decompress(frame) == body


def test_never_larger():
    """What zstd cannot make smaller stays as it is."""
    tested = compressor(threshold=0)
    for size in (0, 1, 10, 100, 5_000):
        assert tested.compress("episode", os.urandom(size)) is None
    assert tested.stats()["compressed"] == 0
    assert tested.stats()["stored_bytes"] == tested.stats()["raw_bytes"]


def test_small_bodies_are_left_alone():
    tested = compressor(threshold=100)
    assert tested.compress("episode", b"a" * 99) is None
    assert tested.compress("episode", b"a" * 100) is not None


def test_switched_off_it_still_reads():
    frame = compressor(threshold=0).compress("episode", b"a" * 500)
    tested = compressor(enabled=False)
    assert tested.compress("episode", b"a" * 500) is None
    assert tested.decompress(frame) == b"a" * 500


@settings(deadline=None)
@given(st.lists(st.integers(0, 3_000), max_size=12))
def test_many_at_once_are_the_same_as_one_by_one(sizes):
    bodies = [b"ab" * size for size in sizes]
    together, single = compressor(dictionary=False), compressor(dictionary=False)
    frames = together.compress_all("episode", bodies)
    assert frames == [single.compress("episode", body) for body in bodies]
    assert together.stats() == single.stats()
    for body, frame in zip(bodies, frames, strict=True):
        assert frame is None or together.decompress(frame) == body


# Frames are not trusted


def test_a_bomb_is_not_inflated():
    bomb = zstandard.ZstdCompressor().compress(b"\0" * (100 * LIMIT))
    assert len(bomb) < 20_000
    with pytest.raises(CodecError, match="over 1000000"):
        compressor().decompress(bomb)


def test_a_frame_that_hides_its_size_is_refused():
    hidden = zstandard.ZstdCompressor(write_content_size=False).compress(b"\0" * (2 * LIMIT))
    with pytest.raises(CodecError):
        compressor().decompress(hidden)


def test_a_frame_that_lies_about_its_size_is_refused():
    frame = bytearray(compressor(threshold=0).compress("episode", b"a" * 70_000))
    # Descriptor 0xA0: one segment, its size in the next four bytes.
    assert frame[4] == 0xA0
    for claimed in (10, 69_999, 70_001, 900_000):
        frame[5:9] = claimed.to_bytes(4, "little")
        with pytest.raises(CodecError):
            compressor().decompress(bytes(frame))


def test_the_bound_is_the_bound():
    tested = Compressor(CompressionConfig(threshold=0), 1_000)
    assert tested.decompress(tested.compress("episode", b"a" * 1_000)) == b"a" * 1_000
    with pytest.raises(CodecError):
        tested.decompress(tested.compress("episode", b"a" * 1_001))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_garbage_is_refused(data):
    with pytest.raises(CodecError):
        compressor().decompress(data)


@pytest.mark.parametrize("end", [0, 1, 5, 20, -1])
def test_truncated_frames_are_refused(end):
    frame = compressor(threshold=0).compress("episode", transcripts(1)[0])
    with pytest.raises(CodecError):
        compressor().decompress(frame[:end])


# Dictionaries


def trained(tested, kind="episode", count=128):
    for body in transcripts(count):
        tested.compress(kind, body)
    assert tested.trainable() == [kind]
    return tested.train(kind)


def test_dictionaries_of_the_same_bodies_have_different_ids():
    """Else processes that train at the same time could compress with two dictionaries of one id."""
    ids = {zstandard.ZstdCompressionDict(trained(compressor())).dict_id() for _ in range(3)}
    assert len(ids) == 3
    assert all(32_768 <= each < 2**31 for each in ids)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5, 9])
def test_fast_levels_prepare_a_dictionary_with_small_tables(level):
    tested = compressor(level=level)
    small = tested._parameters(64 * 1024)
    usual = zstandard.ZstdCompressionParameters.from_level(level, dict_size=64 * 1024)
    assert small.strategy == usual.strategy
    if level <= 4:
        assert 4 * (2**small.hash_log + 2**small.chain_log) <= 96 * 1024
    else:
        assert (small.hash_log, small.chain_log) == (usual.hash_log, usual.chain_log)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5, 9])
def test_with_small_tables_a_dictionary_helps_as_much(level):
    tested = compressor(level=level)
    dictionary = trained(tested)
    tested.add("episode", dictionary)
    as_usual = zstandard.ZstdCompressionDict(dictionary)
    usual = zstandard.ZstdCompressor(level=level, dict_data=as_usual)
    reader = zstandard.ZstdDecompressor(dict_data=as_usual)
    bodies = transcripts(60, 4_000)[32:]
    frames = [tested.compress("episode", body) for body in bodies]
    assert [reader.decompress(frame) for frame in frames] == bodies
    assert sum(map(len, frames)) <= 1.1 * sum(len(usual.compress(body)) for body in bodies)


def test_a_dictionary_makes_frames_smaller_and_is_named_in_them():
    tested = compressor()
    body = transcripts(300)[-1]
    before = tested.compress("episode", body)
    tested = compressor()
    dictionary = trained(tested)
    dictionary_id = tested.add("episode", dictionary)
    frame = tested.compress("episode", body)
    assert len(frame) < len(before)
    assert zstandard.get_frame_parameters(frame).dict_id == dictionary_id
    assert tested.decompress(frame) == body
    assert tested.stats()["dictionaries"] == 1
    assert tested.stats()["with_dictionary"] == 1


def test_a_higher_level_makes_frames_smaller():
    lines = (f"step {n}: tool {n % 7} called with {n * n % 997}\n" for n in range(3_000))
    body = "".join(lines).encode()
    sizes = [
        len(Compressor(CompressionConfig(level=level), 2**20).compress("episode", body))
        for level in (1, 19)
    ]
    assert sizes[1] < 0.95 * sizes[0]


def test_trained_once_a_kind():
    tested = compressor(dictionary_samples=16)
    trained(tested, count=20)
    for body in transcripts(40):
        tested.compress("episode", body)
    assert tested.trainable() == []


def test_not_used_before_it_is_added():
    tested = compressor()
    dictionary = trained(tested)
    body = transcripts(200)[-1]
    other = compressor()
    assert other.decompress(tested.compress("episode", body)) == body
    tested.add("episode", dictionary)
    with pytest.raises(DictionaryMissingError) as caught:
        other.decompress(tested.compress("episode", body))
    assert other.add("episode", dictionary) == caught.value.dictionary_id
    assert other.decompress(tested.compress("episode", body)) == body


def test_frames_of_older_dictionaries_stay_readable():
    tested = compressor(dictionary_samples=32)
    first, body = trained(tested, count=40), transcripts(200)[-1]
    tested.add("episode", first)
    old = tested.compress("episode", body)
    other = compressor(dictionary_samples=32)
    for text in transcripts(40):
        other.compress("episode", text.replace(b"flights", b"hotels"))
    tested.add("episode", other.train("episode"))
    new = tested.compress("episode", body)
    ids = {zstandard.get_frame_parameters(frame).dict_id for frame in (old, new)}
    assert len(ids) == 2
    assert tested.decompress(old) == tested.decompress(new) == body


def test_kinds_have_dictionaries_of_their_own():
    tested = compressor(dictionary_samples=32)
    tested.add("episode", trained(tested, count=40))
    frame = tested.compress("pattern", transcripts(1)[0])
    assert zstandard.get_frame_parameters(frame).dict_id == 0


def test_bodies_with_nothing_in_common_give_none():
    tested = compressor(dictionary_samples=8, dictionary_bytes=1024, threshold=0)
    for number in range(8):
        tested.compress("episode", bytes([number]))
    assert tested.train("episode") is None
    assert tested.compress("episode", b"a" * 500) is not None
    assert tested.trainable() == []


@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_next_to_nothing_is_not_trained_on(size):
    """zstd's trainer crashes on it."""
    tested = compressor(dictionary_samples=8, threshold=0)
    for number in range(8):
        tested.compress("episode", bytes([number]) * size)
    assert tested.train("episode") is None


def test_no_more_samples_are_kept_than_training_takes():
    tested = compressor(dictionary_samples=8, threshold=0)
    for body in transcripts(100):
        tested.compress("episode", body)
    tested.compress_all("episode", transcripts(100))
    assert {kind: len(kept) for kind, kept in tested._samples.items()} == {"episode": 8}
    assert tested.trainable() == ["episode"]


def test_no_samples_are_kept_when_dictionaries_are_off():
    tested = compressor(dictionary=False)
    for body in transcripts(200):
        tested.compress("episode", body)
    assert tested.trainable() == []


def test_used_from_several_threads():
    tested = compressor()
    tested.add("episode", trained(tested))
    bodies = transcripts(200)
    barrier = threading.Barrier(4)

    def work(_):
        barrier.wait()
        return [tested.decompress(tested.compress("episode", body)) for body in bodies]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [bodies] * 4


def test_figures_add_up():
    tested = compressor(threshold=100)
    tested.compress("episode", b"a" * 50)
    frame = tested.compress("episode", b"a" * 1_000)
    figures = tested.stats()
    assert (figures["bodies"], figures["compressed"]) == (2, 1)
    assert (figures["raw_bytes"], figures["stored_bytes"]) == (1_050, 50 + len(frame))
    assert figures["ratio"] == round(1_050 / (50 + len(frame)), 3)
    assert compressor().stats()["ratio"] == 1.0


@pytest.mark.parametrize(
    "options", [{"level": 0}, {"level": 20}, {"threshold": -1}, {"dictionary_samples": 1}]
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        CompressionConfig(**options)
