from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from memory_storage_lmdb.store.encoding import (
    AFTER_ID,
    encoded_width,
    encoder,
    is_digest,
    scalar_length,
    unique_key,
)

INTS = st.none() | st.integers(-(2**63), 2**63 - 1)
FLOATS = st.none() | st.floats(allow_nan=False).map(lambda value: value + 0.0)
IDS = st.none() | st.binary(min_size=16, max_size=16)
TEXTS = st.none() | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=100
)
KINDS = {"int": INTS, "float": FLOATS, "bytes": IDS, "text": TEXTS}
PAIRS = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.tuples(st.just(kind), KINDS[kind], KINDS[kind])
)


def order(value):
    return (value is not None, value if value is not None else 0)


@given(PAIRS)
def test_keys_order_like_values(pair):
    kind, one, other = pair
    encode = encoder(kind)
    assert (encode(one) < encode(other)) == (order(one) < order(other))
    assert (encode(one) == encode(other)) == (one == other)


@given(PAIRS, st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_what_follows_a_value_breaks_only_ties(pair, first_id, second_id):
    kind, one, other = pair
    encode = encoder(kind)
    left, right = encode(one) + first_id, encode(other) + second_id
    assert (left < right) == ((order(one), first_id) < (order(other), second_id))
    # An excluded bound is after all records with its value, and before any with a greater one.
    if one != other and order(one) < order(other):
        assert left < encode(one) + AFTER_ID < right


@given(PAIRS)
def test_a_value_can_be_cut_off_a_key(pair):
    kind, value, _ = pair
    encoded = encoder(kind)(value)
    assert scalar_length(kind, encoded + UUID(int=1).bytes) == len(encoded)
    assert encoded_width(kind) in {None, len(encoded)}


def test_long_text_becomes_a_digest_that_fits():
    one, other = encoder("text")("x" * 500 + "1"), encoder("text")("x" * 500 + "2")
    assert one != other
    assert is_digest(one)
    assert len(one) < 64
    longest = encoder("text")("é" * 200)
    assert not is_digest(longest)
    assert len(longest) + 4 <= 511


@given(st.lists(TEXTS, min_size=1, max_size=3), st.lists(TEXTS, min_size=1, max_size=3))
def test_unique_keys_are_equal_for_equal_values_only(one, other):
    encode = encoder("text")
    keys = [unique_key([encode(value) for value in values]) for values in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


def test_unique_keys_fit():
    parts = [encoder("text")("a" * 400), encoder("text")("b" * 400)]
    key = unique_key(parts)
    assert len(key) + 4 <= 511
    assert key != unique_key([parts[1], parts[0]])
