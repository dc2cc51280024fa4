from __future__ import annotations

import json

import pytest

from memory_core.records import OutcomeStatus, StepResult
from tests.unit.importers.transcripts import CASES, case, read, shape, write, write_lines

USE = {"type": "tool_use", "id": "t1", "name": "read_file", "input": {"path": "/a"}}
ANSWER = {"type": "tool_result", "tool_use_id": "t1", "content": "x" * 50_000}
ASKED = {"role": "user", "content": "Read"}


def test_a_request_log():
    form, episode = case("anthropic_messages_log.jsonl")
    assert form == "anthropic"
    assert shape(episode) == [
        ("message", "system", None),
        ("message", "user", None),
        ("message", "assistant", None),
        ("read_file", "call", "error"),
        ("message", "thinking", None),
        ("message", "assistant", None),
    ]
    assert episode.task_description == "Read the config"
    assert episode.steps[0].parameters == {"content": "Be brief."}
    assert episode.steps[3].parameters == {"path": "/etc/app.toml"}
    assert episode.steps[3].result == StepResult.error("Error: no such file")
    assert episode.outcome is None
    assert episode.metadata == {
        "source": "anthropic",
        "model": "claude-sonnet-4-5",
        "timing": "none",
    }


def test_a_conversation_of_cline():
    form, episode = case("cline_api_conversation_history.json")
    assert form == "anthropic"
    assert shape(episode)[1:3] == [("message", "assistant", None), ("read_file", "call", "error")]
    assert episode.start_time.isoformat() == "2026-04-24T23:26:00.794000+00:00"
    assert [step.tokens_used for step in episode.steps] == [None, 10_689, None, None, None]
    assert episode.steps[2].latency_ms == 506
    assert episode.metadata == {
        "source": "anthropic",
        "model": "claude_4_5_opus",
        "provider": "openai",
        "mode": "act",
        "timing": "steps",
    }


def test_a_conversation_of_cline_that_goes_on_is_the_same_episode(tmp_path):
    messages = json.loads((CASES / "cline_api_conversation_history.json").read_text())
    _, (short,), _ = read(write(tmp_path / "a.json", messages[:2]))
    _, (longer,), _ = read(write(tmp_path / "b.json", messages))
    assert short.id == longer.id
    assert len(short.steps) < len(longer.steps)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("[bash for 'ls\n[x] y'] Result:\nok", "success"),
        ("[bash] Result:\nCommand failed with exit code 1.", "error"),
        ("[bash for 'ls'] Result:\nThe user denied this operation.", "error"),
        ("[bash for 'ls'] Result:\nCommand timed out after 30 seconds.", "timeout"),
    ],
)
def test_results_of_cline_that_are_texts(tmp_path, text, status):
    calls = [
        {"type": "tool_use", "id": f"t{number}", "name": name, "input": {}}
        for number, name in enumerate(("read_file", "bash"))
    ]
    answers = ["[read_file for 'a'] Result:\nA", text, "Go on", "[read_file for 'b'] Result:\nB"]
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "<task>\nRead\n</task>"}], "ts": 1},
        {"role": "assistant", "content": calls, "ts": 2, "modelInfo": {"modelId": "m"}},
        {"role": "user", "content": [{"type": "text", "text": said} for said in answers], "ts": 3},
    ]
    _, (episode,), _ = read(write(tmp_path / "a.json", messages))
    assert episode.task_description == "Read"
    assert shape(episode) == [
        ("message", "user", None),
        ("read_file", "call", "success"),
        ("bash", "call", status),
        ("message", "user", None),
    ]
    assert episode.steps[1].result.output == "A"
    assert episode.steps[2].latency_ms == 1000
    assert episode.steps[3].parameters == {"content": "\n".join(answers[2:])}


def test_costs_are_added_up(tmp_path):
    said = {"role": "assistant", "content": [USE], "metrics": {"cost": 0.25}, "modelInfo": {}}
    _, (episode,), _ = read(write(tmp_path / "a.json", [{**ASKED, "ts": 1}, said, said]))
    assert episode.metadata["cost"] == "0.5"


def test_a_long_result_is_whole(tmp_path):
    messages = [
        ASKED,
        {"role": "assistant", "content": [USE]},
        {"role": "user", "content": [ANSWER]},
    ]
    form, (episode,), log = read(write(tmp_path / "a.json", messages))
    assert form == "anthropic"
    assert shape(episode) == [("message", "user", None), ("read_file", "call", "success")]
    assert episode.steps[1].result.output == "x" * 50_000
    assert log.notes == []


def test_a_logged_call_with_its_answer(tmp_path):
    answer = {
        "model": "claude-x-1",
        "content": [{"type": "thinking", "thinking": "So."}, {"type": "text", "text": "4"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 2},
    }
    entry = {
        "request": {
            "model": "claude-x",
            "system": [{"type": "text", "text": "S"}],
            "messages": [ASKED],
        },
        "response": answer,
        "outcome": "failure",
        "reward": 0.5,
        "metadata": {"domain": "sums", "run": 3},
    }
    form, (episode,), _ = read(write_lines(tmp_path / "a.jsonl", [entry]))
    assert form == "anthropic"
    assert [step.action for step in episode.steps] == ["system", "user", "thinking", "assistant"]
    assert episode.steps[2].tokens_used == 12
    assert episode.outcome.status is OutcomeStatus.FAILURE
    assert episode.reward.total == 0.5
    assert episode.context.domain == "sums"
    assert episode.metadata["run"] == "3"
    assert episode.metadata["stop_reason"] == "end_turn"


def test_a_response_alone(tmp_path):
    code = {"type": "code_execution_result", "stdout": "", "stderr": "no", "return_code": 1}
    response = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "server_tool_use", "id": "s1", "name": "bash", "input": {"command": "x"}},
            {"type": "bash_code_execution_tool_result", "tool_use_id": "s1", "content": code},
        ],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    form, (episode,), _ = read(write(tmp_path / "a.json", response))
    assert form == "anthropic"
    assert shape(episode) == [("bash", "call", "error")]
    assert episode.metadata["entry_id"] == "msg_1"


def test_a_refusal_says_why(tmp_path):
    response = {
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": "refusal",
        "stop_details": {"type": "refusal", "category": "cyber"},
        "usage": {"input_tokens": 3, "output_tokens": 0},
    }
    _, (episode,), _ = read(write(tmp_path / "a.json", response))
    assert shape(episode) == [("message", "assistant", None)]
    assert (episode.metadata["stop_reason"], episode.metadata["refusal"]) == ("refusal", "cyber")
