"""What is kept of each episode to learn from: its facts, as numbers of a vocabulary.

The counts are those of the stored episodes, whatever was stored, changed and deleted before. An episode takes
about 150 bytes; what it shows takes 4 for each fact and about 100, however many episodes show the same; a
distinct fact takes about 150. Up to a quarter as much is kept of episodes that were deleted.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from uuid import UUID

from memory_core.errors import CodecError, PluginError
from memory_core.following import Bookmark
from memory_core.learning.extracting import (
    Counts,
    Extractor,
    Fact,
    Finding,
    Tally,
    settled,
    succeeded,
    tally_of,
)
from memory_core.learning.kept import Kept, facts_of, program_of, read_facts, write_facts
from memory_core.learning.vocabulary import Key, Vocabulary
from memory_core.records import Episode, Pattern, Record

__all__ = ["LearnedFacts"]

_FACTS = 256
_OF_A_TEXT = 100
_FOUND = 20
_EXAMPLES = 10

_KEPT_AGAIN = 20
"""Facts are written once one in so many episodes has changed: a file may be large."""


class LearnedFacts:
    """The facts of one namespace's episodes, as `Derived` data in memory, and in a file from one process to
    the next.

    Args:
        extractors: what facts are looked for, and what is found in them.
        file: where they are kept; ``None`` for memory alone.
    """

    def __init__(self, extractors: Iterable[Extractor], file: Path | None = None) -> None:
        self._extractors = tuple(extractors)
        self._file = file
        self._program = None if file is None else program_of(self._extractors)
        self._loaded = False
        self._unwritten, self._erased = 0, False
        self._reset()

    def _reset(self) -> None:
        self._bookmark: Bookmark | None = None
        # By the number that an id is: whether the episode succeeded, and the numbers of its facts.
        self._episodes: dict[int, bytes] = {}
        # Episodes that show the same are one object.
        self._shown: dict[bytes, bytes] = {}
        self._vocabulary = Vocabulary()
        self._last: tuple[int, dict[UUID, Finding]] | None = None

    def __len__(self) -> int:
        return len(self._episodes)

    async def bookmark(self) -> Bookmark | None:
        """How far the facts have come; those of an earlier process are read first."""
        if not self._loaded:
            self._loaded = True
            await asyncio.to_thread(self._read)
        return self._bookmark

    async def apply(
        self,
        changed: Sequence[Record],
        deleted: Sequence[tuple[str, UUID]],
        bookmark: Bookmark | None,
    ) -> None:
        """Take in episodes as they are now, and remove those that are gone."""
        if changed or deleted:
            self._last = None
        for _, episode_id in deleted:
            self._forget(episode_id)
        for record in changed:
            self._forget(record.id)
            if isinstance(record, Episode):
                self._observe(record)
            # An episode may be long: other tasks come between two.
            await asyncio.sleep(0)
        self._vocabulary.tidy()
        if 4 * len(self._shown) > 5 * len(self._episodes):
            self._shown = {shown: shown for shown in self._episodes.values()}
        self._unwritten += len(changed)
        self._erased |= bool(deleted)
        self._bookmark = bookmark or self._bookmark

    async def clear(self) -> None:
        """Remove everything; the file is written when the facts are complete again."""
        self._loaded = self._erased = True
        self._reset()

    def keep(self) -> None:
        """Write the facts to their file, if enough of them have changed, or an episode was deleted: then
        nothing of it may stay.
        """
        if self._file is None or self._program is None or self._bookmark is None:
            return
        enough = self._unwritten and self._unwritten * _KEPT_AGAIN >= len(self._episodes)
        if enough or self._erased:
            kept = Kept(self._bookmark, self._vocabulary, self._episodes, self._shown)
            # Else the file may still have what was deleted, and the next call tries again.
            if write_facts(self._file, self._program, kept):
                self._unwritten, self._erased = 0, False

    def _read(self) -> None:
        if self._file is None or self._program is None:
            return
        kept = read_facts(self._file, self._program)
        if kept is not None:
            self._bookmark, self._vocabulary = kept.bookmark, kept.vocabulary
            self._episodes, self._shown = kept.episodes, kept.shown

    def findings(self, min_support: int) -> dict[UUID, Finding]:
        """What is found in the facts that hold in so many episodes, by id, in the order of ids."""
        if self._last is None or self._last[0] != min_support:
            self._last = min_support, self._find(min_support)
        return self._last[1]

    def _find(self, min_support: int) -> dict[UUID, Finding]:
        tallies: dict[tuple[str, str], dict[Fact, Tally]] = {}
        for (name, domain, fact), tally in self._vocabulary.held_in(min_support):
            tallies.setdefault((name, domain), {})[fact] = tally
        ordered = sorted(self._episodes, reverse=True)
        newest = self._newest(ordered, min_support)
        found: dict[UUID, Finding] = {}
        for extractor in self._extractors:
            for domain in sorted(domain for name, domain in tallies if name == extractor.name):
                known = tallies.pop((extractor.name, domain))
                # A fact holds in no more episodes than the domain has.
                counts = Counts(
                    domain=domain,
                    total=known[()],
                    tallies={fact: known[fact] for fact in sorted(known) if fact},
                    of=partial(self._tally_of, (extractor.name, domain)),
                    find=partial(self._having, (extractor.name, domain), ordered, newest),
                )
                with _failing(extractor):
                    findings = [settled(finding) for finding in extractor.findings(counts)]
                for finding in _best(findings, min_support):
                    found.setdefault(finding.id, finding)
        return dict(sorted(found.items()))

    def _observe(self, episode: Episode) -> None:
        success = succeeded(episode)
        if success is None:
            return
        domain = episode.context.domain
        keys: list[Key] = []
        for extractor in self._extractors:
            with _failing(extractor, episode):
                shown = islice(extractor.facts(episode), 4 * _FACTS)
                seen = dict.fromkeys(_short(fact) for fact in shown if fact)
            keys += [(extractor.name, domain, fact) for fact in ((), *islice(seen, _FACTS))]
        facts = array("I", map(self._vocabulary.add, keys))
        self._vocabulary.count(facts, success=success)
        shown = bytes((success,)) + facts.tobytes()
        self._episodes[episode.id.int] = self._shown.setdefault(shown, shown)

    def _tally_of(self, of: tuple[str, str], fact: Fact) -> Tally:
        return self._vocabulary.tally((*of, fact))

    def _forget(self, episode_id: UUID) -> None:
        shown = self._episodes.pop(episode_id.int, None)
        if shown is not None:
            self._vocabulary.uncount(facts_of(shown), success=bool(shown[0]))

    def _newest(self, ordered: Sequence[int], min_support: int) -> _Newest:
        """The first episodes of an order in which each key holds, of the keys that hold in so many."""
        newest = _Newest(self._vocabulary.uses, max(2, min_support))
        for place, episode_id in enumerate(ordered):
            newest.see(place, facts_of(self._episodes[episode_id]))
        return newest

    def _having(
        self,
        of: tuple[str, str],
        ordered: Sequence[int],
        newest: _Newest,
        having: Fact,
        lacking: Fact | None,
    ) -> tuple[UUID, ...]:
        number = self._vocabulary.number((*of, having))
        other = None if lacking is None else self._vocabulary.number((*of, lacking))
        if number is None:
            return ()
        places = newest.of(number) if other is None else None
        if places is None:
            places = islice(self._places(ordered, number, other), _EXAMPLES)
        return tuple(UUID(int=ordered[place]) for place in places)

    def _places(self, ordered: Sequence[int], number: int, other: int | None) -> Iterator[int]:
        for place, episode_id in enumerate(ordered):
            facts = facts_of(self._episodes[episode_id])
            if number in facts and (other is None or other not in facts):
                yield place


class _Newest:
    """The places of the first episodes in which each key holds, ten for a key.

    Args:
        uses: in how many episodes each key holds.
        least: keys that hold in fewer are left out.
    """

    def __init__(self, uses: Sequence[int], least: int) -> None:
        # The lists of all keys are one array: a list for each would take ten times as much.
        self._rows = array("I", bytes(4 * len(uses)))
        rows = 0
        for number, count in enumerate(uses):
            if count >= least:
                rows += 1
                self._rows[number] = rows
        self._places = array("I", bytes(4 * _EXAMPLES * rows))
        self._filled = bytearray(rows)

    def see(self, place: int, facts: Iterable[int]) -> None:
        """Take in the next episode of the order."""
        for number in facts:
            row = self._rows[number]
            if row and (filled := self._filled[row - 1]) < _EXAMPLES:
                self._places[(row - 1) * _EXAMPLES + filled] = place
                self._filled[row - 1] = filled + 1

    def of(self, number: int) -> Sequence[int] | None:
        """The places of a key; ``None`` if it is left out."""
        row = self._rows[number]
        if not row:
            return None
        start = (row - 1) * _EXAMPLES
        return self._places[start : start + self._filled[row - 1]]


@contextmanager
def _failing(extractor: Extractor, episode: Episode | None = None) -> Generator[None]:
    """Errors of an extractor, which may be a plugin's, as errors that name it."""
    try:
        yield
    except Exception as error:
        if episode is not None and isinstance(error, CodecError) and error.record_id == episode.id:
            # The episode is at fault: it is damaged.
            raise
        where = "" if episode is None else f" on episode {episode.id}"
        raise PluginError(f"the extractor {extractor.name!r} fails{where}: {error!r}") from error


def _short(fact: Fact) -> Fact:
    return tuple(text[:_OF_A_TEXT] for text in fact)


def _best(findings: Iterable[Finding], min_support: int) -> Iterator[Finding]:
    """The patterns and heuristics with the highest lower bounds."""
    counted = [(tally_of(finding), finding) for finding in findings]
    ordered = sorted(
        (item for item in counted if item[0].support >= min_support),
        key=lambda item: (-item[0].bounds[0], item[1].id),
    )
    kept = {True: 0, False: 0}
    for _, finding in ordered:
        pattern = isinstance(finding, Pattern)
        kept[pattern] += 1
        if kept[pattern] <= _FOUND:
            yield finding
