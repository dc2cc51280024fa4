"""What values of a transcript are taken for."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from memory_core.importers import OpenAIChatImporter
from memory_core.importers.fields import time_of
from memory_core.importers.language import language_of
from tests.unit.importers.transcripts import chat_entry, write_lines


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process cannot be changed")
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_a_time_without_a_zone_is_in_utc_wherever_the_machine_is(monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        found = time_of("2026-03-01T10:00:00")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found == datetime(2026, 3, 1, 10, tzinfo=UTC)


def test_the_language_of_files_with_upper_case_suffixes():
    assert language_of(["MAIN.PY", "README.MD"]) == "python"


def test_a_reward_that_is_true_is_no_number(tmp_path):
    path = write_lines(tmp_path / "log.jsonl", [chat_entry(metadata={"reward": True})])
    (episode,) = OpenAIChatImporter().read(path)
    assert episode.reward is None


@pytest.mark.parametrize(
    ("answer", "status"),
    [("2 tests ran\nError: none", "success"), ("Error: no such file\nstop", "error")],
)
def test_only_an_answer_that_begins_with_an_error_is_one(tmp_path, answer, status):
    messages = [
        {"role": "user", "content": "Run it"},
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "run"}}]},
        {"role": "tool", "tool_call_id": "c", "content": answer},
    ]
    path = write_lines(tmp_path / "log.jsonl", [{"messages": messages}])
    (episode,) = OpenAIChatImporter().read(path)
    assert [step.result.status.value for step in episode.steps if step.result] == [status]
