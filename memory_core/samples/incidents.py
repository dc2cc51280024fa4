"""Questions to an operations assistant, as a log of OpenAI-style chats."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

__all__ = ["write"]

_SYSTEM = "You are the operations assistant of a small company. Look before you answer."
_START = datetime(2025, 4, 7, 7, 30, tzinfo=UTC)


class _Case(NamedTuple):
    """A question, what the assistant looked at, and its answer."""

    domain: str
    task_type: str
    tags: tuple[str, ...]
    question: str
    calls: tuple[tuple[str, dict[str, Any], str], ...]
    answer: str
    outcome: str
    reason: str


_CASES = (
    _Case(
        "observability", "analysis", ("latency", "database"),
        "Checkout takes five seconds since this morning. Why?",
        (
            ("query_metrics", {"name": "checkout_seconds", "since": "6h"}, '{"p50": 0.4, "p99": 5.2}'),
            ("list_deploys", {"since": "12h"}, '[{"service": "checkout", "at": "06:52", "version": "318"}]'),
            ("search_logs", {"service": "checkout", "text": "slow query"}, '{"hits": 4211}'),
            ("rollback", {"service": "checkout", "to": "317"}, '{"version": "317"}'),
        ),
        "Version 318 of checkout reads the stock row by row. I rolled it back to 317; p99 is at 0.6 s again.",
        "success", "The p99 is back to normal.",
    ),
    _Case(
        "data", "analysis", ("sql", "report"),
        "How many customers came back within 30 days in March?",
        (
            ("run_sql", {"query": "SELECT count(*) FROM orders"}, "Error: permission denied"),
            ("run_sql", {"query": "SELECT count(*) FROM mart.returning WHERE month = '2025-03'"}, "1284"),
        ),
        "1,284 customers came back within 30 days in March.",
        "success", "The figure matches the finance report.",
    ),
    _Case(
        "infrastructure", "debugging", ("disk", "cleanup"),
        "The build machine is out of disk space again.",
        (
            ("run_command", {"host": "build-2", "command": "df -h /"}, "/dev/vda1  80G  80G  0  100% /"),
            ("run_command", {"host": "build-2", "command": "du -sh /var/cache/*"}, "61G /var/cache/layers"),
            ("run_command", {"host": "build-2", "command": "prune-layers --older 14d"}, "freed 47G"),
        ),
        "Old image layers took 61 GB. I removed those older than two weeks; 47 GB are free.",
        "success", "Builds run again.",
    ),
    _Case(
        "security", "analysis", ("certificates",),
        "Which of our certificates run out this month?",
        (
            ("list_certificates", {"expires_within_days": 30}, '[{"host": "mail", "days": 9}]'),
            ("renew_certificate", {"host": "mail"}, "Error: the challenge failed: port 80 is closed"),
        ),
        "Only mail, in 9 days. I could not renew it: port 80 is closed. Someone has to open it.",
        "partial_success", "Found, but not renewed.",
    ),
    _Case(
        "billing", "debugging", ("invoices", "time-zone"),
        "Some invoices of 31 March are dated 1 April. Can you find out why?",
        (
            ("run_sql", {"query": "SELECT issued_at FROM invoices WHERE id = 88213"}, "2025-03-31T22:14Z"),
            ("read_file", {"path": "billing/dates.py"}, "def day(t): return t.astimezone(LOCAL).date()"),
        ),
        "The day is taken in local time, two hours ahead of UTC. Those after 22:00 UTC get the next day.",
        "success", "The cause is found and reported.",
    ),
    _Case(
        "observability", "debugging", ("alerts",),
        "The queue alarm went off twenty times last night, and each time it was nothing.",
        (
            ("query_metrics", {"name": "queue_length", "since": "24h"}, '{"max": 1040, "typical": 60}'),
            ("get_alert", {"name": "queue-length"}, '{"threshold": 1000, "for": "0s"}'),
            ("put_alert", {"name": "queue-length", "for": "5m"}, '{"threshold": 1000, "for": "5m"}'),
        ),
        "The alarm fires at once, and the nightly import fills the queue for seconds. It waits now.",
        "success", "No false alarm in the following week.",
    ),
    _Case(
        "data", "code_generation", ("sql", "migration"),
        "Write me the migration that splits the name column into given and family name.",
        (("describe_table", {"table": "people"}, "id bigint, name text not null, born date"),),
        "ALTER TABLE people ADD given text, ADD family text; names with more than two words are left to you.",
        "partial_success", "Names of three words are not split.",
    ),
    _Case(
        "infrastructure", "other", ("access",),
        "Give me root on the payment host, I lost my key.",
        (("get_policy", {"topic": "root access"}, '{"needs": "two approvals", "by": "security"}'),),
        "I cannot do that: it needs two approvals by security. Shall I ask them?",
        "abstained", "Needs approvals that were not there.",
    ),
    _Case(
        "security", "analysis", ("logins",),
        "Is someone guessing passwords on the wiki?",
        (
            ("search_logs", {"service": "wiki", "text": "login failed"}, '{"hits": 18422}'),
            ("search_logs", {"service": "wiki", "text": "login failed", "group": "ip"}, "TimeoutError: 60 s"),
        ),
        "There were 18,422 failed logins; I could not find out from where: the search timed out.",
        "failure", "The question of who was not answered.",
    ),
    _Case(
        "documentation", "documentation", ("runbook",),
        "Turn yesterday's incident notes into a runbook page.",
        (
            ("read_file", {"path": "notes/2025-04-06.md"}, "- 14:02 pages blank\n- 14:10 cache flushed"),
            ("write_file", {"path": "runbook/blank-pages.md", "lines": 24}, "written"),
        ),
        "The page 'Blank pages' is there: how to recognise them, how to flush the cache, whom to call.",
        "success", "The page was reviewed and published.",
    ),
)  # fmt: skip


def write(folder: Path, random: Random) -> list[Path]:
    """Write the log: a line for each question."""
    lines: list[str] = []
    time = _START
    for number, case in enumerate(_CASES, 1):
        time += timedelta(hours=random.randrange(1, 30), seconds=random.randrange(3_600))
        lines.append(json.dumps(_entry(random, number, case, time)))
    path = folder / "operations-chats.jsonl"
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return [path]


def _entry(random: Random, number: int, case: _Case, time: datetime) -> dict[str, Any]:
    messages = [_said("system", _SYSTEM, time), _said("user", case.question, time)]
    for tool, arguments, result in case.calls:
        call_id = f"call_{random.getrandbits(48):012x}"
        time += timedelta(seconds=random.randrange(2, 9))
        call = {
            "id": call_id,
            "type": "function",
            "function": {"name": tool, "arguments": json.dumps(arguments)},
        }
        messages += [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [call],
                "timestamp": time.isoformat(),
            },
            {"role": "tool", "tool_call_id": call_id, "content": result},
        ]
    time += timedelta(seconds=random.randrange(3, 12))
    messages.append(_said("assistant", case.answer, time))
    tokens = 300 * len(messages) + random.randrange(500)
    return {
        "id": f"ops-{number:04}",
        "model": random.choice(("sample-small", "sample-large")),
        "created": int(_created(messages).timestamp()),
        "messages": messages,
        "usage": {"total_tokens": tokens},
        "metadata": {
            "domain": case.domain,
            "task_type": case.task_type,
            "tags": list(case.tags),
            "outcome": case.outcome,
            "reason": case.reason,
            "asked_by": random.choice(("mira", "tomas", "yusuf")),
        },
    }


def _created(messages: list[dict[str, Any]]) -> datetime:
    return datetime.fromisoformat(messages[0]["timestamp"])


def _said(role: str, content: str, time: datetime) -> dict[str, Any]:
    return {"role": role, "content": content, "timestamp": time.isoformat()}
