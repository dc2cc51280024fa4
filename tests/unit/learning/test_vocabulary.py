"""The vocabulary of learned facts: numbers, codes of texts, and what is removed."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from memory_core.learning import Tally
from memory_core.learning.vocabulary import Vocabulary

TEXTS = [f"tool{number}" for number in range(300)]
KEYS = st.tuples(
    st.sampled_from(["sequences", "points"]),
    st.sampled_from(["", "travel"]),
    st.lists(st.sampled_from(TEXTS), max_size=4).map(tuple),
)
EPISODES = st.lists(st.tuples(st.sets(KEYS, max_size=8), st.booleans()), max_size=30)


@given(EPISODES, st.integers(0, 30), st.booleans())
def test_it_counts_the_episodes_that_are_left(episodes, gone, fully):
    vocabulary = Vocabulary(TEXTS)
    numbers = []
    for keys, success in episodes:
        numbers.append([vocabulary.add(key) for key in keys])
        vocabulary.count(numbers[-1], success=success)
    for (_, success), shown in zip(episodes[:gone], numbers, strict=False):
        vocabulary.uncount(shown, success=success)
        vocabulary.tidy(fully=fully)
    won = Counter(key for keys, success in episodes[gone:] if success for key in keys)
    lost = Counter(key for keys, success in episodes[gone:] if not success for key in keys)
    expected = {key: Tally(won[key], lost[key]) for key in won | lost}
    assert dict(vocabulary.held_in(1)) == expected
    assert {key: vocabulary.tally(key) for keys, _ in episodes for key in keys} == {
        key: expected.get(key, Tally()) for keys, _ in episodes for key in keys
    }
    assert len(vocabulary) <= 1.25 * len(expected)


def test_texts_have_codes_that_can_be_told_apart():
    vocabulary = Vocabulary()
    keys = [("", "", (f"text{number}", f"text{number // 7}")) for number in range(20_000)]
    numbers = [vocabulary.add(key) for key in keys]
    vocabulary.count(numbers, success=True)
    assert len(set(numbers)) == len(keys)
    assert [key for key, _ in vocabulary.held_in(1)] == keys
    assert max(map(len, vocabulary.codes)) == 1 + 1 + 3 + 2


def test_asking_for_a_key_does_not_add_it():
    vocabulary = Vocabulary()
    vocabulary.count([vocabulary.add(("a", "b", ("c",)))], success=True)
    assert vocabulary.tally(("a", "b", ("d",))) == Tally()
    assert vocabulary.number(("a", "b", ("c", "d"))) is None
    assert list(vocabulary.texts) == ["a", "b", "c"]


def test_a_number_is_used_again_once_its_key_is_removed():
    vocabulary = Vocabulary()
    first = vocabulary.add(("a", "", ("x",)))
    vocabulary.count([first], success=True)
    vocabulary.uncount([first], success=True)
    vocabulary.tidy()
    assert not len(vocabulary)
    assert not vocabulary.texts
    assert vocabulary.add(("a", "", ("y",))) == first
