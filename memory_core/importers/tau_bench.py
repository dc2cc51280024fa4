"""tau-bench result files: a JSON array of ``{task_id, trial, reward, info, traj}``.

- **Id**: of task, trial and trajectory; the same task of another run or model is another episode.
- **Description**: the simulated user's instruction. **Domain**: from the agent's policy ("airline").
- **Steps**: ``traj`` as in ``chat``; the policy (system message) is the first.
- **Outcome**: reward 1 is a success; anything less a failure whose reason is read from
  ``reward_info``. Without a reward the outcome is unknown.
- **Times**: the policy's "current time", a second for every task and step, so that the order of
  episodes is that of trial and task; the epoch where the policy names none.
- **Metadata**: source, task_id, trial, user_id, user_cost, expected_actions, timing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, cast

import msgspec

from memory_core.errors import ImportFormatError, InvalidValueError
from memory_core.importers.base import strict_unless
from memory_core.importers.chat import ChatMessage, first_text, turns
from memory_core.importers.draft import (
    EPOCH,
    content_digest,
    converting,
    numbered,
    object_or_empty,
    plain_metadata,
    plain_text,
    spread,
    stable_id,
    verified,
)
from memory_core.importers.source import Entry, decoded, entries, first_keys
from memory_core.records import Episode, Outcome, RewardScore, TaskContext

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["TauBenchImporter"]

_NOW = re.compile(r"current time is (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?: ([A-Z]{2,4}))?")
_DOMAIN = re.compile(r"^#+ ([A-Z][a-z]+) agent policy", re.IGNORECASE | re.MULTILINE)
_HOURS = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}
_TRIAL = 1_000
_ORDINALS = range(100_000)


class TauBenchImporter:
    """Reads the result files of tau-bench."""

    name = "tau-bench"
    summary = "tau-bench result files: a JSON array of tasks, rewards and trajectories"

    def sniff(self, head: bytes, _path: Path, /) -> bool:
        """Whether the first entry has a ``traj`` or what comes before it in such a file."""
        _, keys = first_keys(head)
        return "traj" in keys or {"task_id", "reward", "info"} <= keys

    def read(
        self, path: Path, *, keep_going: bool = False
    ) -> Iterator[Episode | ImportFormatError]:
        """Read a result file; one entry is one episode."""
        return strict_unless(keep_going, _episodes(path))


def _episodes(path: Path) -> Iterator[Episode | ImportFormatError]:
    for entry in entries(path):
        try:
            yield _episode(path, entry)
        except ImportFormatError as error:
            yield error


def _episode(path: Path, entry: Entry) -> Episode:
    fields = decoded(path, entry, dict[str, Any])
    with converting(path, entry.where):
        trajectory = _trajectory(fields)
        drafts = turns(trajectory)
        info = object_or_empty(fields.get("info"))
        task = object_or_empty(info.get("task"))
        policy = first_text(drafts, "system") or ""
        named_time = _named_time(policy)
        start = (named_time or EPOCH) + _place(fields)
        spread(drafts, start)
        domain = _DOMAIN.search(policy)
        name = domain[1].lower() if domain else ""
        ids = {key: plain_text(fields.get(key)) for key in ("task_id", "trial")}
        instruction = plain_text(task.get("instruction")) or ""
    steps = numbered(drafts, path)
    with converting(path, entry.where):
        return verified(
            Episode(
                id=stable_id("tau-bench", *ids.values(), content_digest(fields["traj"])),
                task_description=instruction.strip()
                or first_text(drafts, "user")
                or "tau-bench task",
                context=TaskContext(domain=name),
                start_time=start,
                end_time=steps[-1].timestamp if steps else start,
                steps=steps,
                outcome=_outcome(fields, info),
                reward=_reward(fields),
                tags=tuple(filter(None, ("tau-bench", name))),
                metadata=plain_metadata(
                    {
                        "source": "tau-bench",
                        **ids,
                        "user_id": task.get("user_id"),
                        "user_cost": info.get("user_cost"),
                        "expected_actions": ",".join(_names(task.get("actions"))),
                        "timing": "start" if named_time else "none",
                    }
                ),
            )
        )


def _trajectory(fields: Mapping[str, Any]) -> list[ChatMessage]:
    if "traj" not in fields:
        raise InvalidValueError("traj", "a list of messages", None)
    try:
        return msgspec.convert(fields["traj"], list[ChatMessage])
    except msgspec.ValidationError as error:
        raise InvalidValueError("traj", f"chat messages ({error})", fields["traj"]) from error


def _names(actions: object) -> list[str]:
    if not isinstance(actions, list):
        return []
    names = (
        plain_text(object_or_empty(action).get("name")) for action in cast("list[object]", actions)
    )
    return [name for name in names if name]


def _named_time(policy: str) -> datetime | None:
    match = _NOW.search(policy)
    if match is None:
        return None
    try:
        zone = timezone(timedelta(hours=_HOURS.get(match[2] or "", 0)))
        return datetime.fromisoformat(match[1]).replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _place(fields: Mapping[str, Any]) -> timedelta:
    """A second for each task of each trial, so that not all episodes start at the same time."""
    task, trial = (
        value if isinstance(value, int) and value in _ORDINALS else 0
        for value in (fields.get("task_id"), fields.get("trial"))
    )
    return timedelta(seconds=trial * _TRIAL + task)


def _reward(fields: Mapping[str, Any]) -> RewardScore | None:
    reward = fields.get("reward")
    return None if reward is None else RewardScore(total=reward, base=reward)


def _outcome(fields: Mapping[str, Any], info: Mapping[str, Any]) -> Outcome | None:
    reward = fields.get("reward")
    if reward is None:
        return None
    if reward == 1:
        return Outcome.success("The database and the answers are as expected.")
    given = info.get("reward_info")
    if not isinstance(given, Mapping):
        return Outcome.failure("The conversation did not come to an end.")
    details = object_or_empty(cast("Mapping[str, Any]", given).get("info"))
    outputs = object_or_empty(details.get("outputs"))
    missing = [output for output, found in outputs.items() if not found]
    if missing:
        reason = f"The user was not told: {', '.join(missing)}."
    elif details.get("r_actions") == 0:
        reason = "The database is not as expected."
    else:
        reason = "The reward is less than 1."
    return Outcome.failure(reason, msgspec.json.encode(details).decode() if details else None)
