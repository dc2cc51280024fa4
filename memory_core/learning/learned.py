"""What is kept of each episode to learn from: its facts, as numbers of a vocabulary.

The counts are those of the stored episodes, whatever was stored, changed and deleted before. An episode takes
4 bytes for each fact and a few hundred for itself; the vocabulary has only the facts of the episodes that are
stored.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from uuid import UUID

from memory_core.errors import PluginError
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
from memory_core.learning.kept import Key, Shown, program_of, read_facts, write_facts
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
        self._episodes: dict[UUID, Shown] = {}
        self._numbers: dict[Key, int] = {}
        self._keys: list[Key | None] = []
        # In how many episodes each key holds, and in how many that succeeded; those of none are used again.
        self._uses = array("I")
        self._successes = array("I")
        self._free: list[int] = []
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
            write_facts(self._file, self._program, self._bookmark, self._keys, self._episodes)
            self._unwritten, self._erased = 0, False

    def _read(self) -> None:
        if self._file is None or self._program is None:
            return
        kept = read_facts(self._file, self._program)
        if kept is None:
            return
        self._bookmark, self._keys, self._episodes = kept
        self._uses = array("I", bytes(self._uses.itemsize * len(self._keys)))
        self._successes = array("I", self._uses)
        for number, key in enumerate(self._keys):
            if key is None:
                self._free.append(number)
            else:
                self._numbers[key] = number
        for shown in self._episodes.values():
            for number in shown.facts:
                self._uses[number] += 1
                self._successes[number] += shown.success

    def findings(self, min_support: int) -> dict[UUID, Finding]:
        """What is found in the facts that hold in so many episodes, by id, in the order of ids."""
        if self._last is None or self._last[0] != min_support:
            self._last = min_support, self._find(min_support)
        return self._last[1]

    def _find(self, min_support: int) -> dict[UUID, Finding]:
        tallies: dict[tuple[str, str], dict[Fact, Tally]] = {}
        for number, key in enumerate(self._keys):
            if key is not None and self._uses[number] >= min_support:
                tallies.setdefault(key[:2], {})[key[2]] = self._tally_of(number)
        ordered = sorted(self._episodes, reverse=True)
        newest = self._newest(ordered)
        found: dict[UUID, Finding] = {}
        for extractor in self._extractors:
            for domain in sorted(domain for name, domain in tallies if name == extractor.name):
                known = tallies[extractor.name, domain]
                # A fact holds in no more episodes than the domain has.
                counts = Counts(
                    domain=domain,
                    total=known[()],
                    tallies={fact: known[fact] for fact in sorted(known) if fact},
                    of=partial(self._tally, (extractor.name, domain)),
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
        facts = array("I", map(self._number, keys))
        for number in facts:
            self._uses[number] += 1
            self._successes[number] += success
        self._episodes[episode.id] = Shown(facts, success)

    def _forget(self, episode_id: UUID) -> None:
        shown = self._episodes.pop(episode_id, None)
        if shown is None:
            return
        for number in shown.facts:
            self._uses[number] -= 1
            self._successes[number] -= shown.success
            if not self._uses[number]:
                key = self._keys[number]
                if key is not None:
                    del self._numbers[key]
                self._keys[number] = None
                self._free.append(number)

    def _number(self, key: Key) -> int:
        number = self._numbers.get(key)
        if number is None:
            if self._free:
                number = self._free.pop()
                self._keys[number] = key
            else:
                number = len(self._keys)
                self._keys.append(key)
                self._uses.append(0)
                self._successes.append(0)
            self._numbers[key] = number
        return number

    def _tally_of(self, number: int) -> Tally:
        successes = self._successes[number]
        return Tally(successes, self._uses[number] - successes)

    def _tally(self, of: tuple[str, str], fact: Fact) -> Tally:
        number = self._numbers.get((*of, fact))
        return Tally() if number is None else self._tally_of(number)

    def _newest(self, ordered: Sequence[UUID]) -> dict[int, list[UUID]]:
        """The first episodes of an order in which each key holds, of the keys that hold in several."""
        newest: dict[int, list[UUID]] = {}
        room = bytearray(_EXAMPLES if uses > 1 else 0 for uses in self._uses)
        for episode_id in ordered:
            for number in self._episodes[episode_id].facts:
                if room[number]:
                    room[number] -= 1
                    newest.setdefault(number, []).append(episode_id)
        return newest

    def _having(
        self,
        of: tuple[str, str],
        ordered: Sequence[UUID],
        newest: Mapping[int, Sequence[UUID]],
        having: Fact,
        lacking: Fact | None,
    ) -> tuple[UUID, ...]:
        number = self._numbers.get((*of, having))
        other = None if lacking is None else self._numbers.get((*of, lacking))
        if number is None:
            return ()
        if other is None and number in newest:
            return tuple(newest[number])

        def matching() -> Iterator[UUID]:
            for episode_id in ordered:
                facts = self._episodes[episode_id].facts
                if number in facts and (other is None or other not in facts):
                    yield episode_id

        return tuple(islice(matching(), _EXAMPLES))


@contextmanager
def _failing(extractor: Extractor, episode: Episode | None = None) -> Generator[None]:
    """Errors of an extractor, which may be a plugin's, as errors that name it."""
    try:
        yield
    except Exception as error:
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
