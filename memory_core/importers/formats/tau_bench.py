"""tau-bench result files: a JSON array of ``{task_id, trial, reward, info, traj}``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.chat import add_messages
from memory_core.importers.draft import EPOCH, EpisodeDraft, content_digest
from memory_core.importers.fields import Fields, plain_text
from memory_core.importers.reading import entries
from memory_core.importers.tau_outcomes import expected_calls, outcome_of_reward

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "TauBenchImporter"]

_NOW = re.compile(r"current time is (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?: ([A-Z]{2,4}))?")
_DOMAIN = re.compile(r"^#+ ([A-Z][a-z]+) agent policy", re.IGNORECASE | re.MULTILINE)
_HOURS = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}
_TRIAL = 1_000
_ORDINALS = range(100_000)


def _recognises(sample: Sample) -> bool:
    return sample.any("traj") or sample.any("task_id", "reward", "info")


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    for entry in entries(source, log):
        if isinstance(entry.get("traj"), list):
            yield _draft(entry)
        else:
            log.skip(entry.place, "traj: expected a list of messages")


def _draft(entry: Fields) -> EpisodeDraft:
    trajectory = entry.list("traj")
    ids = {key: plain_text(entry.get(key)) for key in ("task_id", "trial")}
    task = entry.object("info.task")
    draft = EpisodeDraft(
        source="tau-bench",
        key=(*ids.values(), content_digest(trajectory)),
        log=entry.log,
        place=entry.place,
        description=task.text("instruction"),
        unnamed="tau-bench task",
    )
    add_messages(draft, trajectory, entry.place)
    policy = draft.first_said("system") or ""
    named = _named_time(policy)
    draft.start = (named or EPOCH) + _place(entry)
    draft.timing = "start" if named else "none"
    for offset, step in enumerate(draft.steps):
        step.timestamp = draft.start + timedelta(seconds=offset)
    domain = _DOMAIN.search(policy)
    if domain:
        draft.domain = domain[1].lower()
        draft.tags.append(domain[1].lower())
    draft.reward = entry.number("reward")
    draft.outcome = outcome_of_reward(entry, draft.reward)
    actions = [action.text("name") for action in task.objects("actions")]
    draft.metadata = {
        **ids,
        "user_id": task.text("user_id"),
        "user_cost": entry.get("info.user_cost"),
        "expected_actions": ",".join(name for name in actions if name),
        "expected_calls": expected_calls(task.objects("actions"), "kwargs"),
    }
    if draft.outcome is None or draft.outcome.reason != entry.get("info.error"):
        draft.metadata |= {name: entry.text(f"info.{name}") for name in ("error", "traceback")}
    return draft


def _named_time(policy: str) -> datetime | None:
    match = _NOW.search(policy)
    if match is None:
        return None
    try:
        zone = timezone(timedelta(hours=_HOURS.get(match[2] or "", 0)))
        return datetime.fromisoformat(match[1]).replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _place(entry: Fields) -> timedelta:
    """A second for each task of each trial, so that not all episodes start at the same time."""
    task, trial = (
        value if isinstance(value, int) and value in _ORDINALS else 0
        for value in (entry.get("task_id"), entry.get("trial"))
    )
    return timedelta(seconds=trial * _TRIAL + task)


FORMAT = Format(
    name="tau-bench",
    summary="tau-bench result files: a JSON array of tasks, rewards and trajectories",
    recognises=_recognises,
    read=_read,
    table={
        "task_id, trial, traj": "id; metadata task_id, trial",
        "info.task.instruction": "description",
        "the policy (system message)": "domain; start, from its “current time”",
        "traj": "steps, a second each",
        "reward": "reward; outcome: 1 is a success, less a failure",
        "info.reward_info; error, traceback": "why it failed; else metadata error, traceback",
        "info.task.user_id, info.user_cost": "metadata user_id, user_cost",
        "info.task.actions": "metadata expected_actions, expected_calls (with the arguments, a line each)",
    },
)


class TauBenchImporter(FormatImporter):
    """Reads the result files of tau-bench."""

    format = FORMAT
