"""The contract of a calculator: what an episode lacks, computed from the rest of it.

A calculated value is marked: the episode's metadata ``calculated_reward`` (``calculated_reflection``,
``calculated_salient_features``) has the name of the calculator, a digest of the value, and why it has this
value. What is not marked, or differs from the digest, was recorded or changed by a person, and is never
replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from typing import ClassVar, Protocol, TypeAlias

import msgspec
from attrs import evolve, frozen

from memory_core.errors import ConflictError, PluginError
from memory_core.query import Query
from memory_core.records import Episode, Reflection, RewardScore, SalientFeatures
from memory_core.records.calculated import CALCULATED_FIELDS, mark_of
from memory_core.storage import CommitResult, Receipt, Storage, WriteBatch

__all__ = ["Calculated", "Calculation", "Calculator", "calculate", "completed", "is_calculated"]

Value: TypeAlias = RewardScore | Reflection | SalientFeatures

_TYPES: dict[str, type[Value]] = {
    "reward": RewardScore,
    "reflection": Reflection,
    "salient_features": SalientFeatures,
}
_AT_ONCE = 200
_DIGITS = 12
_OF_A_REASON = 200


@frozen
class Calculated:
    """What a calculator found.

    Attributes:
        value: the field's value.
        why: how it came about, in one line.
    """

    value: Value
    why: str


class Calculator(Protocol):
    """Computes one field that an episode lacks: a pure function of the episode.

    Attributes:
        name: its name; the mark says it.
        field: ``reward``, ``reflection`` or ``salient_features``.
    """

    name: ClassVar[str]
    field: ClassVar[str]

    def calculate(self, episode: Episode) -> Calculated | None:
        """The field's value; ``None`` where the episode does not tell it.

        Args:
            episode: a complete episode, of whose calculated fields only those before this one are set.
        """
        ...


@frozen(kw_only=True)
class Calculation:
    """What was calculated.

    Attributes:
        episodes: how many episodes have ended, and were looked at.
        rewards: how many of them have a calculated reward now.
        reflections: how many have a calculated reflection.
        salient_features: how many have calculated features.
        written: how many have changed.
    """

    episodes: int
    rewards: int
    reflections: int
    salient_features: int
    written: int


def is_calculated(episode: Episode, field: str) -> bool:
    """Whether a field was calculated, and nobody has changed it since."""
    value = getattr(episode, field)
    mark = episode.metadata.get(mark_of(field), "")
    return value is not None and _digest(value) in mark.partition(":")[0].split()[1:]


def completed(episode: Episode, calculators: Sequence[Calculator]) -> Episode:
    """An episode with what it lacks, as far as the calculators can tell; of a field's calculators the last
    that can. What was calculated before is calculated again.

    Raises:
        PluginError: a calculator fails, or returns another value than its field's.
    """
    own = {name for name in CALCULATED_FIELDS if is_calculated(episode, name)}
    metadata = {
        key: value
        for key, value in episode.metadata.items()
        if key not in map(mark_of, CALCULATED_FIELDS)
    }
    result = evolve(episode, metadata=metadata, **dict.fromkeys(own))
    for name in CALCULATED_FIELDS:
        if getattr(result, name) is not None:
            continue
        for calculator in reversed(calculators):
            if calculator.field == name and (found := _found(calculator, result)) is not None:
                why = " ".join(found.why.split())[:_OF_A_REASON]
                metadata[mark_of(name)] = f"{calculator.name} {_digest(found.value)}: {why}"
                result = evolve(result, **{name: found.value}, metadata=metadata)
                break
    return episode if result == episode else result


def _all_completed(episodes: Sequence[Episode], calculators: Sequence[Calculator]) -> list[Episode]:
    return [completed(episode, calculators) for episode in episodes]


def _found(calculator: Calculator, episode: Episode) -> Calculated | None:
    try:
        found = calculator.calculate(episode)
    except Exception as error:
        raise PluginError(
            f"the calculator {calculator.name!r} fails on episode {episode.id}: {error!r}"
        ) from error
    if found is not None and not isinstance(found.value, _TYPES[calculator.field]):
        raise PluginError(
            f"the calculator {calculator.name!r} returned {found.value!r} as {calculator.field}"
        )
    return found


def _digest(value: Value) -> str:
    return sha256(msgspec.json.encode(value)).hexdigest()[:_DIGITS]


async def calculate(storage: Storage, calculators: Sequence[Calculator]) -> Calculation:
    """See ``Memory.calculate``. An episode that changes meanwhile is calculated as it is stored then."""
    query = Query(Episode).order_by("id").limit(_AT_ONCE)
    counts = dict.fromkeys(("episodes", "written", *CALCULATED_FIELDS), 0)
    while True:
        page = await storage.query(query)
        old = [episode for episode in page.records if episode.end_time is not None]
        # Long episodes take a while, in which other tasks run.
        new = await asyncio.to_thread(_all_completed, old, calculators)
        counts["written"] += await _write(storage, list(zip(old, new, strict=True)), calculators)
        counts["episodes"] += len(old)
        for name in CALCULATED_FIELDS:
            counts[name] += sum(mark_of(name) in episode.metadata for episode in new)
        if page.next_cursor is None:
            break
        query = query.after(page.next_cursor)
    return Calculation(
        episodes=counts["episodes"],
        rewards=counts["reward"],
        reflections=counts["reflection"],
        salient_features=counts["salient_features"],
        written=counts["written"],
    )


async def _write(
    storage: Storage, pairs: list[tuple[Episode, Episode]], calculators: Sequence[Calculator]
) -> int:
    """Store the episodes that differ; return how many."""
    written = 0
    changed = [(old, new) for old, new in pairs if new != old]
    while changed:
        batches = [WriteBatch().expect(old).put(new) for old, new in changed]
        results = await storage.commit(batches)
        written += sum(isinstance(result, Receipt) for result in results)
        stored = [episode for result in results if (episode := _instead(result)) is not None]
        again = [(old, completed(old, calculators)) for old in stored]
        changed = [(old, new) for old, new in again if new != old]
    return written


def _instead(result: CommitResult) -> Episode | None:
    """The episode that is stored instead of the expected one, if it has ended; raises any other error."""
    if isinstance(result, Receipt):
        return None
    if not isinstance(result, ConflictError):
        raise result
    stored = result.stored
    return stored if isinstance(stored, Episode) and stored.end_time is not None else None
