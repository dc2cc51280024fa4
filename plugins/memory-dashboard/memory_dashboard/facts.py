"""What the statistics are made of: a row of numbers for each episode, each of its tools, tags and errors.

An episode of 25 steps takes about 500 bytes. Beyond ``EPISODES`` episodes, those that began first are left
out. A vocabulary that is full tells only its commoner texts apart.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from uuid import UUID

import numpy as np

from memory_core.errors import CodecError
from memory_core.following import Bookmark
from memory_core.importers.timing import has_start, has_times
from memory_core.records import Episode, ExecutionStep, Record, ResultStatus
from memory_dashboard.columns import NOTHING, OTHERS, Array, Columns, Vocabulary

__all__ = [
    "EPISODES",
    "FAILED",
    "PARTIAL",
    "RUNNING",
    "SUCCEEDED",
    "EpisodeFacts",
    "last_error",
    "reason",
    "signature",
    "telling_line",
]

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

_TALK = frozenset({"message", "think"})
"""Tools that change nothing: what was said in imported conversations, and thinking aloud."""
_TIMELESS = 365 * 86_400.0
_VARYING = re.compile(r"\b(?:0x)?(?=[0-9a-fA-F-]*[0-9])[0-9a-fA-F]{2,}(?:-[0-9a-fA-F]+)*\b|\d+")
_LISTED = re.compile(r"#(?:(?:, and |, |; | and )#)+")


def signature(message: str) -> str:
    """The line of an error's message that says most, with numbers and ids replaced, and so lists of them: the
    same for errors that are alike.
    """
    return _LISTED.sub("#", _VARYING.sub("#", telling_line(message)[:300]))[:160]


def telling_line(message: str) -> str:
    """The line of an error's message that says most."""
    line = _first(message[:2_000].splitlines())
    if line.lstrip().startswith("Traceback"):
        # The last line says what went wrong, unless the message was cut and its end is blank.
        line = _first(reversed(message[-2_000:].splitlines())) or line
    return " ".join(line.split())


def task_number(episode: Episode) -> int:
    """The same for episodes with the same description: they are trials of one task."""
    text = episode.task_description.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest())


def reason(episode: Episode) -> str:
    """What an episode's outcome says of why it ended so; "" if it says nothing."""
    outcome = episode.outcome
    if outcome is None:
        return ""
    said = outcome.reason or outcome.error_details or next(iter(outcome.failed), "")
    return said or outcome.verdict or ""


def last_error(episode: Episode) -> str:
    """The last error of an episode's steps; "" if no step failed."""
    step = next(filter(_failed, reversed(episode.steps)), None)
    return "" if step is None else f"{step.tool}: {_said(step)}"


def _first(lines: Iterable[str]) -> str:
    """The first line that is not blank."""
    return next((line for line in lines if line.strip()), "")


class EpisodeFacts:
    """The facts of one namespace's episodes, as `Derived` data in memory.

    Attributes:
        episodes: a row for each episode. A row that is not ``alive`` counts no more. It is ``dated`` if it is
            known when it began; what it took is not a number where nobody knows. ``why`` it failed is what
            its outcome says, else its ``last`` error. Trials of the ``same`` task have the same number.
        tools: for each episode and tool the calls, the failed ones and their milliseconds.
        tags: a row for each episode and tag.
        errors: a row for each failed step, with the call that came ``next``, and whether the tool that failed
            worked later (1), did not (2), or was not called again (0).
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
                "errors": "i4", "why": "i4", "last": "i4", "dated": "?",
                "same": "u8",
            }
        )  # fmt: skip
        self.tools = Columns({"row": "i4", "tool": "i4", "calls": "i4", "errors": "i4", "ms": "f4"})
        self.tags = Columns({"row": "i4", "tag": "i4"})
        self.errors = Columns(
            {"row": "i4", "tool": "i4", "error": "i4", "next": "i4", "well": "i1", "step": "i4"}
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

    def task_of(self, text: str) -> int:
        """The number of the task of an episode, from the text of its id; 0 for one that is not here."""
        try:
            row = self._rows.get(UUID(text).bytes)
        except ValueError:
            return 0
        return 0 if row is None else int(self.episodes["same"][row])

    # Taking in

    def _forget(self, episode_id: UUID) -> None:
        row = self._rows.pop(episode_id.bytes, None)
        if row is not None:
            self.episodes["alive"][row] = False

    def _observe(self, episode: Episode) -> None:
        steps = episode.steps
        failed = [at for at, step in enumerate(steps) if _failed(step)]
        status = NAMES.index(episode.outcome.status) if episode.outcome else RUNNING
        number, timed = self.texts["error"].number, has_times(episode)
        why = last = NOTHING
        if status in {PARTIAL, FAILED}:
            if failed:
                last = number(f"{steps[failed[-1]].tool}: {_message(steps[failed[-1]])}")
            why = number(signature(reason(episode))) or last
        end, whole = episode.end_time, episode.id.int
        row = self.episodes.add(
            alive=True,
            high=whole >> 64,
            low=whole & (2**64 - 1),
            start=episode.start_time.timestamp(),
            seconds=np.nan
            if end is None or not timed
            else (end - episode.start_time).total_seconds(),
            domain=self.texts["domain"].number(episode.context.domain),
            task=self.texts["domain"].number(episode.task_type.value),
            outcome=status,
            reward=np.nan if episode.reward is None else _number(episode.reward.total),
            steps=len(steps),
            tokens=_tokens(steps),
            errors=len(failed),
            why=why,
            last=last,
            same=task_number(episode),
            dated=has_start(episode) and episode.start_time.timestamp() >= _TIMELESS,
        )
        self._rows[episode.id.bytes] = row
        self._observe_tools(row, steps, timed=timed)
        for tag in {*episode.tags, *episode.context.tags}:
            self.tags.add(row=row, tag=self.texts["tag"].number(tag))
        if failed:
            self._observe_errors(row, steps, failed[-_ERRORS_OF_ONE:])

    def _observe_tools(self, row: int, steps: Sequence[ExecutionStep], *, timed: bool) -> None:
        used: dict[int, list[float]] = {}
        for step in steps:
            counted = used.setdefault(self.texts["tool"].number(step.tool), [0, 0, 0.0])
            counted[0] += 1
            counted[1] += _failed(step)
            counted[2] += step.latency_ms
        for tool, (calls, errors, ms) in used.items():
            # A latency of 0 is one that nobody measured.
            known = _number(ms) if timed and ms else np.nan
            self.tools.add(row=row, tool=tool, calls=calls, errors=errors, ms=known)

    def _observe_errors(self, row: int, steps: Sequence[ExecutionStep], failed: list[int]) -> None:
        called = {step.tool: at for at, step in enumerate(steps)}
        worked = {step.tool: at for at, step in enumerate(steps) if _worked(step)}
        calls = [at for at, step in enumerate(steps) if step.tool not in _TALK]
        for at in failed:
            step, after = steps[at], bisect_right(calls, at)
            again = 1 if worked.get(step.tool, -1) > at else 2 if called[step.tool] > at else 0
            self.errors.add(
                row=row,
                tool=self.texts["tool"].number(step.tool),
                error=self.texts["error"].number(_message(step)),
                next=self.texts["tool"].number(steps[calls[after]].tool)
                if after < len(calls)
                else NOTHING,
                well=again,
                step=step.number,
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
            "error": (self.episodes["why"], self.episodes["last"], self.errors["error"]),
        }[name]


def _failed(step: ExecutionStep) -> bool:
    return step.result is not None and step.result.status is not ResultStatus.SUCCESS


def _worked(step: ExecutionStep) -> bool:
    return step.result is not None and step.result.status is ResultStatus.SUCCESS


def _message(step: ExecutionStep) -> str:
    return signature(_said(step)) or "error"


def _said(step: ExecutionStep) -> str:
    if step.result is None or step.result.status is ResultStatus.TIMEOUT:
        return "timeout"
    return step.result.message or "error"


def _tokens(steps: Sequence[ExecutionStep]) -> float:
    known = [step.tokens_used for step in steps if step.tokens_used is not None]
    return _number(float(sum(known))) if known else np.nan


def _number(value: float) -> float:
    """A number that a column of 32 bits can hold."""
    return min(max(value, -3e38), 3e38)
