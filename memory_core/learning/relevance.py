"""Relevance: how closely an episode's texts fit a task, compared among the candidates of one recall.

A search ranks whole records, and an episode is long: what a new task has in common with it is often one
passage, such as what the user asked for first. So the best passage of each candidate is scored (*MaxP*:
Callan, "Passage-level evidence in document retrieval", SIGIR 1994), each by BM25 (Robertson and Zaragoza,
2009) with statistics of the candidates themselves, and divided by what a passage with every word of the task
once would have: 1 means that. The description counts once more, as a whole.

Episodes of one task tend to be similar to each other and relevant together (the cluster hypothesis: van
Rijsbergen, 1979). So the relevance of an episode is raised by that of its neighbours (Diaz, "Regularizing ad
hoc retrieval scores", CIKM 2005), whether these succeeded or not.

The confidence that the task is known is a logistic function of the *lead*: how far the best candidate is
above the median one. A task that is new shares common words with all candidates alike.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from statistics import median

from attrs import field, frozen

from memory_core.learning.config import RecallConfig
from memory_core.records import Episode
from memory_core.records.words import of_steps
from memory_core.search import Analyzer

__all__ = ["Candidate", "Likeness", "Relevance", "confidence_of", "lead_of", "relevances"]

_K1, _B = 1.2, 0.75
_OF_A_DESCRIPTION = 4_000
_OF_ALL_PASSAGES = 64_000
_FEWEST = 20
"""Fewer candidates are filled up with episodes that fit not at all: three episodes have no statistics."""
_COMPARED = 50
"""The best candidate is compared with the median of so many."""
_SHARPNESS = 4
"""The power of a similarity by which neighbours count: .5 is a sixteenth."""
# Fitted by logistic regression to the leads of tasks that were seen before and were not; docs/recall.md.
_SLOPE, _THRESHOLD = 6.0, 0.43


@frozen
class Passage:
    """A part of a text.

    Attributes:
        step: the number of the step that it is from; 0 for the description.
        length: how many terms it has.
        counts: how often it has each term of the task.
    """

    step: int
    length: int
    counts: Mapping[str, int]


@frozen(eq=False)
class Candidate:
    """An episode, analysed for one task.

    Attributes:
        episode: the episode.
        description: its description.
        passages: the description and the steps.
        terms: how often the description has each of its terms.
        closeness: how close it is in meaning, as a search says; ``None`` where meanings are not compared.
    """

    episode: Episode
    description: Passage
    passages: tuple[Passage, ...]
    terms: Mapping[str, int]
    closeness: float | None = None

    @classmethod
    def of(
        cls,
        episode: Episode,
        asked: frozenset[str],
        analyzer: Analyzer,
        closeness: float | None = None,
    ) -> Candidate:
        """Analyse an episode.

        Args:
            episode: the episode.
            asked: the terms of the task.
            analyzer: makes the terms.
            closeness: how close it is in meaning.
        """
        terms = analyzer.terms(episode.task_description[:_OF_A_DESCRIPTION])
        description = _passage(0, terms, asked)
        passages = [description]
        passages += (
            _passage(number, found, asked)
            for number, text in _texts_of_steps(episode)
            if (found := analyzer.terms(text))
        )
        return cls(episode, description, tuple(passages), Counter(terms), closeness)


@frozen
class Relevance:
    """How closely an episode fits a task.

    Attributes:
        passage: the share of the task that its best passage has; 1 is every word once.
        description: the share that its description has.
        neighbours: what similar episodes add.
        step: the number of the step that fits best; 0 for the description.
        total: the weighted mean of passage and description, with what meaning and the neighbours add.
        meaning: a quarter of the standard deviations by which it is closer in meaning than the mean; 0 where
            meanings are not compared.
        words: what each of the task's words adds to passage and description together.
    """

    passage: float
    description: float
    neighbours: float
    step: int
    total: float
    meaning: float = 0.0
    words: Mapping[str, float] = field(factory=dict[str, float], repr=False)

    def shared_with(self, terms: Container[str], asked: Container[str]) -> float:
        """Of what some of the task's words add, the share of those that another task has, too; 1 if none of
        them adds anything.

        Args:
            terms: the terms of the other task.
            asked: the terms of this one that are looked at.
        """
        words = {word: value for word, value in self.words.items() if word in asked}
        added = sum(words.values())
        return sum(v for word, v in words.items() if word in terms) / added if added else 1.0


def relevances(
    asked: Sequence[str],
    candidates: Sequence[Candidate],
    alike: Sequence[Sequence[float]],
    config: RecallConfig,
) -> list[Relevance]:
    """How closely each candidate fits.

    Args:
        asked: the distinct terms of the task.
        candidates: the analysed episodes.
        alike: how similar their descriptions are to each other.
        config: the weights.
    """
    of_descriptions = _Statistics(asked, [candidate.description for candidate in candidates])
    of_passages = _Statistics(asked, [p for c in candidates for p in c.passages])
    weight = config.description
    of_description = [of_descriptions.parts(candidate.description) for candidate in candidates]
    described = [sum(parts.values()) for parts in of_description]
    best = [max(c.passages, key=lambda p: (of_passages.share(p), -p.step)) for c in candidates]
    of_passage = [of_passages.parts(passage) for passage in best]
    fitting = [sum(parts.values()) for parts in of_passage]
    meant = [max(0.0, candidate.closeness or 0.0) / 4 for candidate in candidates]
    own = [
        (p + weight * d) / (1 + weight) + config.meaning * m
        for p, d, m in zip(fitting, described, meant, strict=True)
    ]
    middle = _median(own)
    above = [max(0.0, value - middle) for value in own]
    found: list[Relevance] = []
    for place, passage in enumerate(best):
        weights = [s**_SHARPNESS for s in alike[place]]
        weights[place] = 0.0
        raised = sum(w * value for w, value in zip(weights, above, strict=True))
        added = config.neighbours * raised / (sum(weights) or 1.0)
        total = own[place] + added
        words = of_passage[place]
        for term, part in of_description[place].items():
            words[term] = words.get(term, 0.0) + weight * part
        found.append(
            Relevance(
                fitting[place], described[place], added, passage.step, total, meant[place], words
            )
        )
    return found


def lead_of(found: Sequence[Relevance]) -> float:
    """How far the best candidate is above the median one."""
    totals = [relevance.total for relevance in found]
    return max(totals, default=0.0) - _median(totals)


def confidence_of(lead: float) -> float:
    """The probability that a task with this lead was seen before, where half of the tasks were."""
    return 1 / (1 + math.exp(-_SLOPE * (lead - _THRESHOLD)))


class Likeness:
    """How similar some texts are to each other, and to further ones: the cosine of their tf-idf vectors.

    Args:
        texts: how often each has each of its terms.
    """

    def __init__(self, texts: Sequence[Mapping[str, int]]) -> None:
        having = Counter[str]()
        for text in texts:
            having.update(text.keys())
        number = max(_FEWEST, len(texts))
        self._idf = {term: math.log((number + 1) / (count + 0.5)) for term, count in having.items()}
        self._of_others = math.log(2 * (number + 1))
        self._vectors = [self._vector(text) for text in texts]

    def pairs(self) -> list[list[float]]:
        """The similarity of each text to each, from 0 to 1."""
        alike = [[1.0] * len(self._vectors) for _ in self._vectors]
        for place, one in enumerate(self._vectors):
            for other in range(place):
                alike[place][other] = alike[other][place] = _cosine(one, self._vectors[other])
        return alike

    def of(self, left: Mapping[str, int], right: Mapping[str, int]) -> float:
        """The similarity of two further texts, weighted by the statistics of these."""
        return _cosine(self._vector(left), self._vector(right))

    def _vector(self, counts: Mapping[str, int]) -> dict[str, float]:
        weighted = {
            term: (1 + math.log(count)) * self._idf.get(term, self._of_others)
            for term, count in counts.items()
        }
        length = math.sqrt(sum(value * value for value in weighted.values())) or 1.0
        return {term: value / length for term, value in weighted.items()}


class _Statistics:
    """BM25 among some passages, as a share of what a passage with every term once has."""

    def __init__(self, asked: Sequence[str], passages: Sequence[Passage]) -> None:
        having = Counter[str]()
        for passage in passages:
            having.update(passage.counts.keys())
        number = max(_FEWEST, len(passages))
        self._idf = {
            term: math.log(1 + (number - having[term] + 0.5) / (having[term] + 0.5))
            for term in asked
        }
        self._all = sum(self._idf.values()) or 1.0
        self._mean = max(1.0, sum(passage.length for passage in passages) / max(1, len(passages)))

    def share(self, passage: Passage) -> float:
        return sum(self.parts(passage).values())

    def parts(self, passage: Passage) -> dict[str, float]:
        """The share by term."""
        norm = _K1 * (1 - _B + _B * passage.length / self._mean)
        return {
            term: self._idf[term] * count * (_K1 + 1) / (count + norm) / self._all
            for term, count in passage.counts.items()
        }


def _cosine(left: Mapping[str, float], right: Mapping[str, float]) -> float:
    if len(left) > len(right):
        left, right = right, left
    return sum(value * right[term] for term, value in left.items() if term in right)


def _median(values: Sequence[float]) -> float:
    """The median of the best values: however many candidates there are, these are what the best is above."""
    best = sorted(values, reverse=True)[:_COMPARED]
    return median([*best, *[0.0] * (_FEWEST - len(best))])


def _passage(step: int, terms: Sequence[str], asked: frozenset[str]) -> Passage:
    return Passage(step, len(terms), Counter(filter(asked.__contains__, terms)))


def _texts_of_steps(episode: Episode) -> Iterator[tuple[int, str]]:
    """The texts of steps by number, up to a bound for all."""
    left = _OF_ALL_PASSAGES
    for step in episode.steps:
        text = of_steps((step,))[:left]
        yield step.number, text
        left -= len(text)
        if left <= 0:
            return
