"""Stores what transcripts hold: again and later, too.

The same episode is not written twice. Of two copies the longer one stays, whichever comes first, and what
only the stored one knows (an outcome, a reward, what was learnt from it) is kept. Parts of a session that
are episodes of their own are related to it as soon as both are there. A session that is too large for one
record becomes several, each following the one before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from attrs import define, evolve, field, frozen

from memory_core.errors import (
    ConflictError,
    ImportFormatError,
    MemoryCoreError,
    RecordTooLargeError,
)
from memory_core.importers.base import Format, FormatImporter, Found, Importer, found_in
from memory_core.importers.copies import are_pieces, says_less, united
from memory_core.importers.draft import stable_id
from memory_core.importers.log import Log
from memory_core.importers.sample import Layout, sample_of
from memory_core.query import Query, all_of
from memory_core.records import Episode, Relationship, RelationshipType
from memory_core.records.calculated import mark_of
from memory_core.storage import WriteBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memory_core.importers.source import Source
    from memory_core.storage import Storage

__all__ = ["FileReport", "Storing"]

_MOST_EPISODES, _MOST_STEPS = 500, 5_000
# After so many steps the loop runs, so that the batch before is written while this one is read.
_STEPS_AT_ONCE = 250
_KEPT = ("outcome", "reward", "reflection", "salient_features")
_KEPT_MANY = ("pattern_ids", "heuristic_ids", "applied_patterns", "checkpoints")
_ENCODER = msgspec.msgpack.Encoder(uuid_format="bytes")


@define
class FileReport:
    """What became of one file.

    Attributes:
        file: its path.
        format: the importer that read it; "" when none did.
        stored: episodes that were new or had changed.
        unchanged: episodes that were there already.
        kept: episodes of which a longer copy was there already, which stays.
        refused: episodes that the store refused; they are among what was skipped.
        related: relationships that were new.
        log: what was skipped or changed, by place.
    """

    file: str
    format: str = ""
    stored: int = 0
    unchanged: int = 0
    kept: int = 0
    refused: int = 0
    related: int = 0
    log: Log = field(factory=lambda: Log(""))

    @property
    def skipped(self) -> list[ImportFormatError]:
        """What was left out, and why."""
        return self.log.skipped

    @property
    def episodes(self) -> int:
        """How many episodes the file holds."""
        return self.stored + self.unchanged + self.kept


@frozen
class _Change:
    """An episode to store.

    Attributes:
        found: the episode.
        old: the stored copy that it replaces.
    """

    found: Found
    old: Episode | None

    @property
    def batch(self) -> WriteBatch:
        """The batch that stores it, unless somebody else has changed the stored copy meanwhile."""
        episode, batch = self.found.episode, WriteBatch()
        if self.old is None:
            return batch.expect_absent(Episode, episode.id).put(episode)
        return batch.expect(self.old).put(episode)


class Storing:
    """Stores the episodes of transcripts, file by file.

    Reading goes on while a batch is written. Nothing is half stored: each episode is there whole, or not.

    Args:
        storage: where to.
        on_progress: called with the number of episodes so far.
    """

    def __init__(
        self, storage: Storage, on_progress: Callable[[int], None] = lambda _: None
    ) -> None:
        self._storage = storage
        self._on_progress = on_progress
        self._writing: asyncio.Task[None] | None = None
        self._edges: dict[UUID, Relationship] = {}
        self._done = 0

    async def file(self, source: Source, importer: Importer) -> FileReport:
        """Store the episodes of one transcript.

        Returns:
            What became of it; it is complete when ``finish`` has returned.

        Raises:
            StorageError: the store cannot be written at all.
        """
        report = FileReport(source.name, importer.name, log=Log(source.name))
        form = importer.format if isinstance(importer, FormatImporter) else None
        try:
            async for batch in _batches(found_in(importer, source, report.log)):
                await self._written()
                self._writing = asyncio.create_task(self._store(batch, report, form))
                # Let it begin: the next batch is read while this one is written.
                await asyncio.sleep(0)
        except ImportFormatError as error:
            report.log.skip_error(error)
        except BaseException:
            # Nobody else waits for the write; the store may be closed before it ends.
            await self._stopped()
            raise
        await self._written()
        if not report.episodes and not report.log.lost:
            _nothing_found(source, importer, report.log)
        return report

    async def finish(self) -> int:
        """Store the relationships that are left, as far as both of their episodes are there.

        Returns:
            How many.
        """
        return await self._relate()

    async def _written(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await writing

    async def _stopped(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _store(self, batch: Sequence[Found], report: FileReport, form: Format | None) -> None:
        chosen, others = _distinct(batch, report, form)
        there = await self._storage.get(Episode, [found.episode.id for found in chosen])
        changed: list[_Change] = []
        for found, old in zip(chosen, there, strict=True):
            if old is not None and "part_limit" in old.metadata:
                await self._store_beside_parts(found, old, report)
            elif _is_another(old, found, form):
                others.append(found)
            elif (better := _better(old, found, report, form)) is not None:
                changed.append(_Change(better, old))
        await self._put(changed, report, form)
        for found in others:
            await self._put_again(found, None, report, form)
        self._expect(chosen)
        report.related += await self._relate()
        if form is not None and form.nested:
            new = [
                found.episode.id
                for found, old in zip(chosen, there, strict=True)
                if old is None and found.parent is None
            ]
            report.related += await self._adopt(new)
        self._done += len(batch)
        self._on_progress(self._done)

    async def _put(
        self, changed: Sequence[_Change], report: FileReport, form: Format | None
    ) -> None:
        if not changed:
            return
        new = (change.found.episode.id for change in changed if change.old is None)
        known = (change.old for change in changed if change.old is not None)
        whole = WriteBatch().expect_absent(Episode, *new).expect(*known)
        (result,) = await self._storage.commit(
            [whole.put(*(change.found.episode for change in changed))]
        )
        if not isinstance(result, MemoryCoreError):
            report.stored += len(changed)
            return
        # One of them spoilt it for all: apart, each gets its own answer.
        results = await self._storage.commit([change.batch for change in changed])
        for change, refused in zip(changed, results, strict=True):
            if not isinstance(refused, MemoryCoreError):
                report.stored += 1
            elif isinstance(refused, ConflictError):
                await self._put_again(change.found, refused.stored, report, form)
            else:
                await self._refused(change.found, refused, report)

    async def _put_again(
        self, found: Found, stored: Episode | None, report: FileReport, form: Format | None
    ) -> None:
        """Store an episode that somebody else has stored meanwhile, if it is still the better copy.

        Where the stored one is another with the same id, this one gets the next id that is free or its own.
        """
        while True:
            if (
                stored is not None
                and "part_limit" in stored.metadata
                and "part_limit" not in found.episode.metadata
            ):
                await self._store_beside_parts(found, stored, report)
                return
            if form is not None and _is_another(stored, found, form):
                found, stored = await self._another(found, report, form)
            better = _better(stored, found, report, form)
            if better is None:
                return
            (refused,) = await self._storage.commit([_Change(better, stored).batch])
            if not isinstance(refused, ConflictError):
                break
            stored = refused.stored
        if isinstance(refused, MemoryCoreError):
            await self._refused(better, refused, report)
        else:
            report.stored += 1

    async def _another(
        self, found: Found, report: FileReport, form: Format
    ) -> tuple[Found, Episode | None]:
        """Where to store an episode of which the id is taken by another, and what is there."""
        place = f"episode {found.episode.id}"
        first, other, number = None, found, 1
        while True:
            (there,) = await self._storage.get(Episode, [other.episode.id])
            if there is not None and not _is_another(there, other, form):
                return other, there
            if there is None:
                break
            first = first or there
            number += 1
            other = _renamed(found, number)
        instead = first and form.instead and form.instead(first, found.episode)
        if instead and number == 2:
            report.log.note(place, "replaces an answer that was there")
            return found, first
        report.log.note(place, f"has the id of another: stored as {other.episode.id}")
        return other, None

    async def _refused(self, found: Found, refused: MemoryCoreError, report: FileReport) -> None:
        whole = "part_limit" not in found.episode.metadata
        if isinstance(refused, RecordTooLargeError) and len(found.episode.steps) > 1 and whole:
            await self._put_in_parts(found, refused, report)
        else:
            _refuse(report, found.episode, refused)

    async def _put_in_parts(
        self, found: Found, refused: RecordTooLargeError, report: FileReport
    ) -> None:
        """Store an episode that one record cannot hold as several."""
        parts = _split(found, refused.limit_name, str(refused.limit * 3 // 4))
        if len(parts) < 2:
            _refuse(report, found.episode, refused)
            return
        report.log.note(
            f"episode {found.episode.id}",
            f"stored as {len(parts)} episodes that follow each other, "
            f"as it exceeds {refused.limit_name}={refused.limit}",
        )
        await self._store_parts(parts, report)

    async def _store_beside_parts(self, found: Found, first: Episode, report: FileReport) -> None:
        """Store a copy of an episode of which the parts are there, given the first of them."""
        limit = first.metadata["part_limit"].split("=")
        whole = await self._whole(first)
        if not found.replace and are_pieces(whole, found.episode):
            better = _better(whole, found, report, None)
            if better is None:
                return
            # Each of its parts may begin elsewhere than before.
            found = evolve(better, replace=True)
        elif not found.replace and (poorer := says_less(found.episode, whole)):
            report.kept += 1
            report.log.note(f"episode {first.id}", f"kept: {poorer}")
            return
        parts = _split(found, *limit)
        if len(parts) == 1:
            parts = [_part(found, 1, slice(None), first.metadata["part_limit"], last=True)]
        await self._store_parts(parts, report)

    async def _whole(self, first: Episode) -> Episode:
        """The episode that was stored in parts, given the first of them."""
        parts = [first]
        while True:
            number = len(parts) + 1
            (part,) = await self._storage.get(Episode, [_part_id(first.id, number)])
            if part is None:
                break
            parts.append(part)
        own = {k: v for k, v in first.metadata.items() if k not in {"part", "part_limit"}}
        last = parts[-1]
        return evolve(
            first,
            steps=tuple(step for part in parts for step in part.steps),
            end_time=last.end_time,
            outcome=last.outcome,
            reward=last.reward,
            metadata=own,
        )

    async def _store_parts(self, parts: Sequence[Found], report: FileReport) -> None:
        there = await self._storage.get(Episode, [part.episode.id for part in parts])
        counted = FileReport(report.file, log=report.log)
        pairs = list(zip(parts, there, strict=True))
        if there[0] is not None and "part_limit" not in there[0].metadata:
            # The first of them takes the place of a whole copy: when what it leaves out is there.
            pairs = [*pairs[1:], (evolve(parts[0], replace=True), there[0])]
        for part, old in pairs:
            await self._put_again(part, old, counted, None)
        self._expect(parts)
        report.refused += counted.refused
        # The parts are one episode of the transcript.
        report.stored += bool(counted.stored)
        report.kept += bool(counted.kept and not counted.stored)
        report.unchanged += not counted.stored and not counted.kept

    def _expect(self, stored: Iterable[Found]) -> None:
        for found in stored:
            if found.parent is None and found.follows is None:
                continue
            child, start = found.episode.id, found.episode.start_time
            for other, kind, why in (
                (found.parent, RelationshipType.PARENT_CHILD, "subagent"),
                (found.follows, RelationshipType.FOLLOWS, "goes on from it"),
            ):
                if other is None or other == child:
                    continue
                ends = (other, child) if kind is RelationshipType.PARENT_CHILD else (child, other)
                edge = _edge(*ends, kind, why)
                self._edges[edge.id] = evolve(edge, created_at=start)

    async def _relate(self) -> int:
        """Store the relationships whose episodes are both there."""
        if not self._edges:
            return 0
        edges = list(self._edges.values())
        ends = list({end for edge in edges for end in (edge.from_episode_id, edge.to_episode_id)})
        episodes = await self._storage.get(Episode, ends)
        there = {end for end, episode in zip(ends, episodes, strict=True) if episode is not None}
        ready = [e for e in edges if e.from_episode_id in there and e.to_episode_id in there]
        for edge in ready:
            del self._edges[edge.id]
        known = await self._storage.get(Relationship, [edge.id for edge in ready])
        new = [edge for edge, old in zip(ready, known, strict=True) if old is None]
        if not new:
            return 0
        results = await self._storage.commit(
            [WriteBatch().expect_absent(Relationship, edge.id).put(edge) for edge in new]
        )
        # What is refused is related already, by somebody else's record.
        return sum(not isinstance(result, MemoryCoreError) for result in results)

    async def _adopt(self, new: Sequence[UUID]) -> int:
        """Relate sessions to their subagents that were imported before them."""
        for parent in new:
            query = Query(Episode).where(metadata=all_of(f"parent_episode={parent}")).limit(1_000)
            for child in (await self._storage.query(query)).records:
                self._expect([Found(child, parent=parent)])
        return await self._relate()


def _nothing_found(source: Source, importer: Importer, log: Log) -> None:
    """List that a file has no episode: it says nothing, or it is of another format than was named."""
    sample = sample_of(source)
    reason = f"holds no episode of {importer.name}: {sample.described()}"
    known = not isinstance(importer, FormatImporter) or importer.format.recognises(sample)
    if known or sample.layout is Layout.EMPTY:
        log.note("", reason)
    else:
        log.skip("", reason)


async def _batches(found: Iterator[Found]) -> AsyncIterator[list[Found]]:
    """The episodes in batches; what was found before an error comes before it."""
    batch: list[Found] = []
    steps = at_once = 0
    while True:
        try:
            item = next(found, None)
        except ImportFormatError:
            if batch:
                yield batch
            raise
        if item is None:
            break
        batch.append(item)
        count = len(item.episode.steps)
        steps += count
        at_once += count
        if len(batch) >= _MOST_EPISODES or steps >= _MOST_STEPS:
            yield batch
            batch, steps, at_once = [], 0, 0
        elif at_once >= _STEPS_AT_ONCE:
            await asyncio.sleep(0)
            at_once = 0
    if batch:
        yield batch


def _distinct(
    batch: Sequence[Found], report: FileReport, form: Format | None
) -> tuple[list[Found], list[Found]]:
    """One of each id: of several copies the longest; and those that are others with the same id."""
    chosen: dict[UUID, Found] = {}
    others: list[Found] = []
    for found in batch:
        known = chosen.get(found.episode.id)
        if known is None:
            chosen[found.episode.id] = found
        elif _is_another(known.episode, found, form):
            others.append(found)
        elif (better := _better(known.episode, found, report, form)) is not None:
            chosen[found.episode.id] = better
    return list(chosen.values()), others


def _is_another(old: Episode | None, found: Found, form: Format | None) -> bool:
    """Whether an episode only has the same id as the stored one, and does not belong to it."""
    if old is None or form is None or form.joined is None:
        return False
    return form.joined(old, found.episode) is None


def _renamed(found: Found, number: int) -> Found:
    other = stable_id("another", str(found.episode.id), number)
    return evolve(found, episode=evolve(found.episode, id=other))


def _better(
    old: Episode | None, found: Found, report: FileReport, form: Format | None
) -> Found | None:
    """What to store of a new copy of an episode; ``None`` where the old one stays as it is."""
    if old is None:
        return found
    new = found.episode
    if form is not None and form.joined is not None:
        new = form.joined(old, new) or (form.instead and form.instead(old, new)) or new
    elif not found.replace and "part_limit" not in new.metadata and are_pieces(old, new):
        new = united(old, new)
    poorer = "" if found.replace or new is not found.episode else says_less(new, old)
    if new is old and found.episode != old:
        # A piece of it.
        poorer = says_less(found.episode, old) or "the stored copy has all that this one has"
    if poorer:
        report.kept += 1
        report.log.note(f"episode {old.id}", f"kept: {poorer}")
        return None
    new = _completed(new, old)
    if new == old:
        report.unchanged += 1
        return None
    return evolve(found, episode=new)


def _completed(new: Episode, old: Episode) -> Episode:
    """The new copy, with what only the old one knows."""
    known: dict[str, Any] = {
        name: value
        for name in (*_KEPT, *_KEPT_MANY)
        if (value := getattr(old, name)) and not getattr(new, name)
    }
    marks = {mark: old.metadata[mark] for mark in map(mark_of, known) if mark in old.metadata}
    if marks:
        known["metadata"] = {**new.metadata, **marks}
    return evolve(new, **known) if known else new


def _split(found: Found, limit_name: str, limit: str) -> list[Found]:
    """An episode in parts; the first has its id, and each of the others follows the one before.

    Where a session goes on, all parts but the last stay as they are.

    Args:
        found: the episode.
        limit_name: the setting that it exceeds, ``max_record_bytes`` or ``max_steps``; for another
            one it stays whole.
        limit: how much of that a part may have.
    """
    most = int(limit) if limit.isdigit() else 0
    if limit_name not in _SIZES or most < 1:
        return [found]
    size_of = _SIZES[limit_name]
    cuts, size = [0], 0
    for place, step in enumerate(found.episode.steps):
        more = size_of(step)
        if size and size + more > most:
            cuts.append(place)
            size = 0
        size += more
    ends = [*cuts[1:], len(found.episode.steps)]
    return (
        [
            _part(
                found, number, slice(start, end), f"{limit_name}={most}", last=number == len(cuts)
            )
            for number, (start, end) in enumerate(zip(cuts, ends, strict=True), 1)
        ]
        if len(cuts) > 1
        else [found]
    )


_SIZES: dict[str, Callable[[object], int]] = {
    "max_record_bytes": lambda step: len(_ENCODER.encode(step)),
    "max_steps": lambda _: 1,
}


def _part(found: Found, number: int, place: slice, limit: str, *, last: bool) -> Found:
    episode = found.episode
    steps = episode.steps[place]
    part = evolve(
        episode,
        id=_part_id(episode.id, number),
        steps=steps,
        start_time=episode.start_time if number == 1 else steps[0].timestamp,
        end_time=episode.end_time if last else max(step.timestamp for step in steps),
        outcome=episode.outcome if last else None,
        reward=episode.reward if last else None,
        metadata={**episode.metadata, "part": str(number), "part_limit": limit},
    )
    if number == 1:
        return evolve(found, episode=part)
    return Found(part, follows=_part_id(episode.id, number - 1), replace=found.replace)


def _part_id(whole: UUID, number: int) -> UUID:
    return whole if number == 1 else stable_id("part", str(whole), number)


def _edge(source: UUID, target: UUID, kind: RelationshipType, why: str) -> Relationship:
    return Relationship(
        id=stable_id("relationship", kind.value, str(source), str(target)),
        from_episode_id=source,
        to_episode_id=target,
        relationship_type=kind,
        reason=why,
        created_by="import",
    )


def _refuse(report: FileReport, episode: Episode, refused: MemoryCoreError) -> None:
    """List an episode that the store refused, and why, without saying again which one."""
    reason = str(refused).removeprefix(f"{episode.kind} {episode.id}: ")
    if isinstance(refused, RecordTooLargeError):
        reason += f"; the setting is limits.{refused.limit_name}"
    report.refused += 1
    report.log.skip(f"episode {episode.id}", reason)
