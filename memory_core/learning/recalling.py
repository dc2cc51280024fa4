"""Recalling: search finds candidates, a close comparison says how well they fit, and what is known of their
success orders them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from attrs import evolve, frozen

from memory_core.errors import CodecError, QueryError
from memory_core.learning.config import RecallConfig
from memory_core.learning.recall import Recall, RecalledEpisode
from memory_core.learning.relevance import (
    Candidate,
    Likeness,
    Relevance,
    confidence_of,
    lead_of,
    relevances,
)
from memory_core.learning.rules import rules_of
from memory_core.learning.usefulness import (
    FEEDBACK,
    OF_SIMILAR,
    OWN,
    SIMILAR,
    Belief,
    Observation,
    age_weight,
    by_novelty,
    success_of,
    success_of_episode,
)
from memory_core.query import Query, any_of
from memory_core.records import Episode, Feedback, Heuristic, Pattern
from memory_core.records.fields import now
from memory_core.search import Searcher, SearchHit, SearchHits
from memory_core.storage import Storage

__all__ = ["Recaller"]

_FEEDBACKS = 1_000
_OF_A_TASK = 64_000
_OF_A_FEEDBACK = 2_000
_SHARPNESS = 4
_FAR = 0.25
"""An episode that is less relevant than this share of the most relevant one is not shown."""
_OF_THE_TASK = 0.5
"""The part of a feedback that concerns similar episodes as well: an episode did not help because the task was
another, which they have in common, or for a reason of its own. Neither is more likely.
"""
_LEAST = 0.01
"""An observation that counts less is left out."""


@frozen(kw_only=True)
class Recaller:
    """Recalls from one namespace.

    Attributes:
        storage: the namespace.
        searcher: searches it.
        config: how to recall.
        complete: adds logged steps to running episodes.
    """

    storage: Storage
    searcher: Searcher
    config: RecallConfig
    complete: Callable[[Sequence[Any]], Awaitable[list[Any]]]

    async def recall(
        self,
        task: str,
        where: Query[Episode] | None,
        limit: int,
        *,
        leave_out: Collection[UUID] = (),
    ) -> Recall:
        """What helps with a task; see ``Memory.recall``.

        Args:
            task: the task.
            where: conditions for the episodes.
            limit: at most so many of each sequence.
            leave_out: ids of episodes that are not looked at.
        """
        hits = await self._hits(task, where, len(leave_out))
        found_hits = [
            hit for hit in hits if hit.record.id not in leave_out and not _is_running(hit.record)
        ][: self.config.candidates]
        asked = self.searcher.analyzer.question(task[:_OF_A_TASK])
        candidates = await self._analyzed(asked, found_hits)
        likeness = Likeness([candidate.terms for candidate in candidates])
        alike = likeness.pairs()
        found = relevances(asked, candidates, alike, self.config)
        at = now()
        told = await self._feedback(task, candidates, found, likeness, at)
        beliefs = self._beliefs(candidates, told, alike, at)
        items = [
            _item(candidate.episode, relevance, belief)
            for candidate, relevance, belief in zip(candidates, found, beliefs, strict=True)
        ]
        least = _FAR * max((relevance.total for relevance in found), default=0.0)
        lead = lead_of(found)
        confidence = confidence_of(lead)
        patterns = await self._searched(task, Query(Pattern).limit(4 * limit))
        heuristics = await self._searched(task, Query(Heuristic).limit(4 * limit))
        return Recall(
            task=task,
            worked=self._chosen(items, alike, limit, least, _worked),
            failed=self._chosen(items, alike, limit, least, _failed),
            unjudged=self._chosen(items, alike, limit, least, _unjudged),
            patterns=rules_of(patterns, limit),
            heuristics=rules_of(heuristics, limit),
            confidence=confidence,
            known=confidence >= self.config.known,
            lead=lead,
            created_at=at,
            namespace=self.storage.namespace,
        )

    async def _hits(
        self, task: str, where: Query[Episode] | None, more: int
    ) -> SearchHits[Episode]:
        query = Query(Episode) if where is None else where
        if query.start is not None:
            raise QueryError("a recall has no cursor: ask for a larger limit")
        query = query.limit(self.config.candidates + more)
        return await self._searched(task, query)

    async def _searched(self, task: str, query: Query[Any]) -> SearchHits[Any]:
        return await self.searcher.search(task, query, complete=self.complete)

    async def _analyzed(
        self, asked: Sequence[str], hits: Iterable[SearchHit[Episode]]
    ) -> list[Candidate]:
        terms = frozenset(asked)
        candidates: list[Candidate] = []
        for hit in hits:
            try:
                candidate = Candidate.of(hit.record, terms, self.searcher.analyzer, hit.closeness)
            except CodecError:
                # Its steps are damaged: a read of them raises it. Others can still be recalled.
                continue
            candidates.append(candidate)
            # A long episode takes milliseconds: other tasks come between two.
            await asyncio.sleep(0)
        return candidates

    # What is known of success

    def _beliefs(
        self,
        candidates: Sequence[Candidate],
        told: Sequence[Sequence[Observation]],
        alike: Sequence[Sequence[float]],
        at: datetime,
    ) -> list[Belief]:
        own = [self._own(candidate.episode, at) for candidate in candidates]
        beliefs: list[Belief] = []
        for place, (mine, given) in enumerate(zip(own, told, strict=True)):
            near = [
                (other, weight)
                for other in range(len(candidates))
                if other != place and (weight := alike[place][other] ** _SHARPNESS) >= _LEAST
            ]
            similar = [(weight, own[other]) for other, weight in near]
            spread = [
                evolve(one, what=OF_SIMILAR, weight=_OF_THE_TASK * one.weight * weight)
                for other, weight in near
                for one in told[other]
            ]
            observations = [
                *((evolve(mine, weight=mine.weight * self.config.own),) if mine else ()),
                *_mean_of(similar),
                *given,
                *(one for one in spread if one.weight >= _LEAST),
            ]
            beliefs.append(Belief(tuple(observations)))
        return beliefs

    def _own(self, episode: Episode, at: datetime) -> Observation | None:
        """How an episode ended, as one observation that has aged."""
        success = success_of_episode(episode)
        if success is None:
            return None
        ended = episode.end_time or episode.start_time
        return Observation(OWN, success, age_weight(ended, at, self.config.half_life))

    async def _feedback(
        self,
        task: str,
        candidates: Sequence[Candidate],
        found: Sequence[Relevance],
        likeness: Likeness,
        at: datetime,
    ) -> list[list[Observation]]:
        """What was told of each episode for tasks like this one. It counts by the square of their similarity,
        because tasks that have a little in common are many, and by the square of the share that the words of
        the other task have in the relevance of the episode: where an episode fits by other words than it did
        then, it is recalled for another reason. Of one recall only the newest feedback on an episode counts:
        it corrects those before.
        """
        if not candidates:
            return []
        places = {candidate.episode.id: place for place, candidate in enumerate(candidates)}
        query = Query(Feedback).where(used=any_of(*places)).limit(_FEEDBACKS)
        page = await self.storage.query(query)
        told: list[list[Observation]] = [[] for _ in candidates]
        asked = self._counts(task)
        newest: set[tuple[UUID, UUID]] = set()
        for feedback in page.records:  # newest first
            terms = self._counts(feedback.task)
            age = age_weight(feedback.created_at, at, self.config.half_life)
            alike = likeness.of(asked, terms)
            for used in places.keys() & frozenset(feedback.used):
                if (feedback.recall_id, used) in newest:
                    continue
                newest.add((feedback.recall_id, used))
                place = places[used]
                weight = (alike * found[place].shared_with(terms, asked)) ** 2 * age
                if weight >= _LEAST:
                    told[place].append(Observation(FEEDBACK, success_of(feedback.outcome), weight))
        return told

    def _counts(self, text: str) -> Counter[str]:
        return Counter(self.searcher.analyzer.terms(text[:_OF_A_FEEDBACK]))

    def _chosen(
        self,
        items: Sequence[RecalledEpisode],
        alike: Sequence[Sequence[float]],
        limit: int,
        least: float,
        belongs: Callable[[RecalledEpisode], bool],
    ) -> tuple[RecalledEpisode, ...]:
        places = [
            place
            for place, item in enumerate(items)
            if item.relevance.total >= least and belongs(item)
        ]
        scores = [items[place].score for place in places]
        near = [[alike[place][other] for other in places] for place in places]
        return tuple(
            RecalledEpisode(
                record=item.record,
                score=score,
                relevance=item.relevance,
                belief=item.belief,
                novelty=score / item.score if item.score else 1.0,
            )
            for place, score in by_novelty(scores, near, self.config.novelty, limit)
            for item in (items[places[place]],)
        )


def _mean_of(similar: Iterable[tuple[float, Observation | None]]) -> Iterator[Observation]:
    """The outcomes of similar episodes as one observation, which counts one at most."""
    known = [(weight * o.weight, o.success) for weight, o in similar if o is not None]
    total = sum(weight for weight, _ in known)
    if total >= _LEAST:
        rate = sum(weight * success for weight, success in known) / total
        yield Observation(SIMILAR, rate, min(1.0, total))


def _is_running(episode: Episode) -> bool:
    """Whether it is under way: the agent that asks may be in the middle of it."""
    return episode.end_time is None and episode.outcome is None


def _item(episode: Episode, relevance: Relevance, belief: Belief) -> RecalledEpisode:
    item = RecalledEpisode(record=episode, score=0.0, relevance=relevance, belief=belief)
    likely = belief.mean if not _failed(item) else 1 - belief.mean
    return RecalledEpisode(
        record=episode, score=relevance.total * likely, relevance=relevance, belief=belief
    )


def _worked(item: RecalledEpisode) -> bool:
    success = success_of_episode(item.record)
    return success >= 0.5 if success is not None else item.belief.mean > 0.5 and _told(item)


def _failed(item: RecalledEpisode) -> bool:
    success = success_of_episode(item.record)
    return success < 0.5 if success is not None else item.belief.mean < 0.5 and _told(item)


def _unjudged(item: RecalledEpisode) -> bool:
    return not _worked(item) and not _failed(item)


def _told(item: RecalledEpisode) -> bool:
    return any(observation.what == FEEDBACK for observation in item.belief.observations)
