"""What the statistics are made of: a row of numbers for each episode, each of its tools, tags and errors.

An episode of 25 steps takes about 500 bytes. Beyond ``EPISODES`` episodes, those that began first are left
out. A vocabulary that is full tells only its commoner texts apart.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from uuid import UUID

import numpy as np

from memory_core.errors import CodecError
from memory_core.following import Bookmark
from memory_core.records import Episode, ExecutionStep, Record, ResultStatus
from memory_dashboard.columns import NOTHING, OTHERS, Array, Columns, Vocabulary

__all__ = ["EPISODES", "FAILED", "PARTIAL", "RUNNING", "SUCCEEDED", "EpisodeFacts", "signature"]

EPISODES = 250_000
"""The most episodes of a namespace that the statistics cover, the newest."""
_TEXTS = 10_000
_DEAD = 1_000
_ERRORS_OF_ONE = 500

RUNNING, SUCCEEDED, PARTIAL, FAILED, ABSTAINED = range(5)
_OUTCOMES = {
    "success": SUCCEEDED,
    "partial_success": PARTIAL,
    "failure": FAILED,
    "abstained": ABSTAINED,
}
NAMES = ("running", *_OUTCOMES)
"""The outcome of each number."""

_VARYING = re.compile(r"\b(?:0x)?(?=[0-9a-fA-F-]*[0-9])[0-9a-fA-F]{2,}(?:-[0-9a-fA-F]+)*\b|\d+")


def signature(message: str) -> str:
    """The line of an error's message that says most, with numbers and ids replaced: the same for errors
    that are alike.
    """
    line = _first(message[:2_000].splitlines())
    if line.lstrip().startswith("Traceback"):
        # The last line says what went wrong, unless the message was cut and its end is blank.
        line = _first(reversed(message[-2_000:].splitlines())) or line
    return _VARYING.sub("#", " ".join(line.split())[:300])[:160]


def _first(lines: Iterable[str]) -> str:
    """The first line that is not blank."""
    return next((line for line in lines if line.strip()), "")


class EpisodeFacts:
    """The facts of one namespace's episodes, as `Derived` data in memory.

    Attributes:
        episodes: a row for each episode. A row that is not ``alive`` counts no more.
        tools: for each episode and tool the calls, the failed ones and their milliseconds.
        tags: a row for each episode and tag.
        errors: a row for each failed step, with what followed it.
        texts: the vocabularies: ``domain``, ``tool``, ``tag``, ``error``.
        left_out: whether there were more than ``limit`` episodes.
        unreadable: episodes whose steps are damaged.
    """

    def __init__(self, limit: int = EPISODES) -> None:
        self._limit = limit
        self._reset()

    def _reset(self) -> None:
        self._bookmark: Bookmark | None = None
        self._rows: dict[bytes, int] = {}
        self.left_out = False
        self.unreadable = 0
        self.version = 0
        self.texts = {name: Vocabulary(_TEXTS) for name in ("domain", "tool", "tag", "error")}
        self.episodes = Columns(
            {
                "alive": "?", "high": "u8", "low": "u8", "start": "f8", "seconds": "f4", "domain": "i4",
                "task": "i4", "outcome": "i1", "reward": "f4", "steps": "i4", "tokens": "f4",
                "errors": "i4", "why": "i4",
            }
        )  # fmt: skip
        self.tools = Columns({"row": "i4", "tool": "i4", "calls": "i4", "errors": "i4", "ms": "f4"})
        self.tags = Columns({"row": "i4", "tag": "i4"})
        self.errors = Columns(
            {"row": "i4", "tool": "i4", "error": "i4", "next": "i4", "well": "i1"}
        )

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """The bytes that the columns take."""
        return sum(t.nbytes for t in (self.episodes, self.tools, self.tags, self.errors))

    async def bookmark(self) -> Bookmark | None:
        """How far the facts have come."""
        return self._bookmark

    async def apply(
        self,
        changed: Sequence[Record],
        deleted: Sequence[tuple[str, UUID]],
        bookmark: Bookmark | None,
    ) -> None:
        """Take in episodes as they are now, and remove those that are gone."""
        for _, gone in deleted:
            self._forget(gone)
        for record in changed:
            self._forget(record.id)
            if isinstance(record, Episode):
                try:
                    self._observe(record)
                except CodecError:
                    # Reading the episode says so; the statistics are usable without it.
                    self.unreadable += 1
            # An episode may be long: other tasks come between two.
            await asyncio.sleep(0)
        if changed or deleted:
            self.version += 1
            self._tidy()
        self._bookmark = bookmark or self._bookmark

    async def clear(self) -> None:
        """Remove everything."""
        version = self.version
        self._reset()
        self.version = version + 1

    def id_of(self, row: int) -> UUID:
        """The id of the episode of a row."""
        high, low = self.episodes["high"][row], self.episodes["low"][row]
        return UUID(int=(int(high) << 64) | int(low))

    # Taking in

    def _forget(self, episode_id: UUID) -> None:
        row = self._rows.pop(episode_id.bytes, None)
        if row is not None:
            self.episodes["alive"][row] = False

    def _observe(self, episode: Episode) -> None:
        steps = episode.steps
        failed = [at for at, step in enumerate(steps) if _failed(step)]
        status = NAMES.index(episode.outcome.status) if episode.outcome else RUNNING
        why = NOTHING
        if status in {PARTIAL, FAILED} or (status == RUNNING and failed):
            why = self.texts["error"].number(_why(episode, [steps[at] for at in failed]))
        end, whole = episode.end_time, episode.id.int
        row = self.episodes.add(
            alive=True,
            high=whole >> 64,
            low=whole & (2**64 - 1),
            start=episode.start_time.timestamp(),
            seconds=np.nan if end is None else (end - episode.start_time).total_seconds(),
            domain=self.texts["domain"].number(episode.context.domain),
            task=self.texts["domain"].number(episode.task_type.value),
            outcome=status,
            reward=np.nan if episode.reward is None else _number(episode.reward.total),
            steps=len(steps),
            tokens=_tokens(steps),
            errors=len(failed),
            why=why,
        )
        self._rows[episode.id.bytes] = row
        self._observe_tools(row, steps)
        for tag in {*episode.tags, *episode.context.tags}:
            self.tags.add(row=row, tag=self.texts["tag"].number(tag))
        for at in failed[-_ERRORS_OF_ONE:]:
            self._observe_error(row, steps, at)

    def _observe_tools(self, row: int, steps: Sequence[ExecutionStep]) -> None:
        used: dict[int, list[float]] = {}
        for step in steps:
            counted = used.setdefault(self.texts["tool"].number(step.tool), [0, 0, 0.0])
            counted[0] += 1
            counted[1] += _failed(step)
            counted[2] += step.latency_ms
        for tool, (calls, errors, ms) in used.items():
            self.tools.add(row=row, tool=tool, calls=calls, errors=errors, ms=_number(ms))

    def _observe_error(self, row: int, steps: Sequence[ExecutionStep], at: int) -> None:
        step = steps[at]
        after = steps[at + 1] if at + 1 < len(steps) else None
        self.errors.add(
            row=row,
            tool=self.texts["tool"].number(step.tool),
            error=self.texts["error"].number(_message(step)),
            next=NOTHING if after is None else self.texts["tool"].number(after.tool),
            well=0 if after is None else (2 if _failed(after) else 1),
        )

    # Keeping to the bounds

    def _tidy(self) -> None:
        if len(self) > self._limit:
            self.left_out = True
            alive = np.flatnonzero(self.episodes["alive"])
            count = len(alive) - self._limit * 9 // 10
            oldest = alive[np.argpartition(self.episodes["start"][alive], count)[:count]]
            for row in oldest.tolist():
                self._forget(self.id_of(row))
        dead = len(self.episodes) - len(self)
        if dead > _DEAD and dead > len(self.episodes) // 4:
            self._remove_dead()
        for name in self.texts:
            if self.texts[name].full:
                self._keep_common(name)

    def _remove_dead(self) -> None:
        alive = self.episodes["alive"].copy()
        renumbered = np.cumsum(alive, dtype=np.int32) - 1
        for table in (self.tools, self.tags, self.errors):
            table.keep(alive[table["row"]])
            table["row"][:] = renumbered[table["row"]]
        self.episodes.keep(alive)
        self._rows = {one: int(renumbered[row]) for one, row in self._rows.items()}

    def _keep_common(self, name: str) -> None:
        """Make room in a full vocabulary: the rarer half of its texts becomes one."""
        columns = self._columns(name)
        counts = np.zeros(_TEXTS + 2, dtype=np.int64)
        for column in columns:
            counts += np.bincount(column, minlength=_TEXTS + 2)
        counts[: OTHERS + 1] = 0
        common = np.argsort(counts)[-(_TEXTS // 2) :]
        wanted = np.zeros(_TEXTS + 2, dtype=bool)
        wanted[common[counts[common] > 0]] = True
        renumbered = self.texts[name].keep(wanted)
        for column in columns:
            column[:] = renumbered[column]

    def _columns(self, name: str) -> Iterable[Array]:
        """The columns that hold numbers of a vocabulary."""
        return {
            "domain": (self.episodes["domain"], self.episodes["task"]),
            "tool": (self.tools["tool"], self.errors["tool"], self.errors["next"]),
            "tag": (self.tags["tag"],),
            "error": (self.episodes["why"], self.errors["error"]),
        }[name]


def _failed(step: ExecutionStep) -> bool:
    return step.result is not None and step.result.status is not ResultStatus.SUCCESS


def _message(step: ExecutionStep) -> str:
    if step.result is None or step.result.status is ResultStatus.TIMEOUT:
        return "timeout"
    return signature(step.result.message or "") or "error"


def _why(episode: Episode, failed: Sequence[ExecutionStep]) -> str:
    """What an episode failed of: its last error, else what its outcome says."""
    if failed:
        return f"{failed[-1].tool}: {_message(failed[-1])}"
    outcome = episode.outcome
    if outcome is None:
        return ""
    text = outcome.reason or outcome.error_details or next(iter(outcome.failed), "")
    return signature(text or outcome.verdict or "")


def _tokens(steps: Sequence[ExecutionStep]) -> float:
    known = [step.tokens_used for step in steps if step.tokens_used is not None]
    return _number(float(sum(known))) if known else np.nan


def _number(value: float) -> float:
    """A number that a column of 32 bits can hold."""
    return min(max(value, -3e38), 3e38)
