from __future__ import annotations

import pytest

from memory_core.records import StepResult
from tests.unit.importers.transcripts import case, read, shape, write, write_lines


def message(kind, content, source="coder", **fields):
    return {"source": source, "type": kind, "content": content, "metadata": {}, **fields}


def test_messages_of_version_0_4():
    form, episode = case("autogen_04.json")
    assert form == "autogen"
    assert shape(episode) == [("message", "user", None), ("plot", "call", "success")]
    assert episode.task_description == "Plot"
    assert episode.steps[1].result.output == "ok"
    assert episode.steps[1].tokens_used == 13
    assert episode.steps[1].metadata == {"call_id": "c1", "agent": "coder"}
    assert episode.outcome is None
    assert episode.metadata == {
        "source": "autogen",
        "stop_reason": "Maximum messages",
        "timing": "none",
    }


def test_a_chat_of_version_0_2():
    form, episode = case("autogen_old.json")
    assert form == "autogen"
    assert shape(episode) == [
        ("message", "user", None),
        ("message", "assistant", None),
        ("python", "call", "error"),
    ]
    assert episode.steps[1].metadata == {"name": "coder"}
    assert episode.steps[2].parameters == {"code": "print(1)\n"}
    assert episode.steps[2].result == StepResult.error("NameError")
    assert episode.steps[2].metadata == {"exit_code": "1", "agent": "executor"}


def test_lines_of_events_are_one_conversation(tmp_path):
    failed = {"call_id": "c", "name": "f", "content": "no", "is_error": True}
    lines = [
        message("TextMessage", "Go", "user", created_at="2026-01-01T00:00:00Z"),
        message("ThoughtEvent", "Hm."),
        message("ToolCallRequestEvent", [{"id": "c", "name": "f", "arguments": '{"a": 1}'}]),
        message("ToolCallExecutionEvent", [failed]),
        message("MultiModalMessage", ["See", {"data": "x"}]),
        message("HandoffMessage", "To b", target="b"),
    ]
    form, (episode,), _ = read(write_lines(tmp_path / "a.jsonl", lines))
    assert form == "autogen"
    assert shape(episode) == [
        ("message", "user", None),
        ("message", "thinking", None),
        ("f", "call", "error"),
        ("message", "assistant", None),
        ("message", "assistant", None),
    ]
    assert episode.steps[2].parameters == {"a": 1}
    assert episode.steps[4].metadata == {"agent": "coder", "kind": "HandoffMessage"}
    assert episode.start_time.year == 2026


@pytest.mark.parametrize(
    ("printed", "result"),
    [
        ("exitcode: 0 (execution succeeded)\nCode output: \n1", StepResult.success("1")),
        ("exitcode: 2 (execution failed)\nCode output: x", StepResult.error("x")),
    ],
)
def test_programs_that_ran(tmp_path, printed, result):
    history = [
        {"role": "assistant", "content": "```sh -x\nls\n```\nor\n```\npwd\n```", "name": "a"},
        {"role": "user", "content": printed, "name": "b"},
        {"role": "user", "content": printed, "name": "b"},
    ]
    _, (episode,), _ = read(write(tmp_path / "a.json", {"chat_history": history, "summary": ""}))
    assert [(s.tool, s.parameters, s.result) for s in episode.steps[1:]] == [
        ("sh", {"code": "ls\n\npwd\n"}, result),
        ("code", {}, result),
    ]


def test_tools_of_version_0_2(tmp_path):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    responses = [{"tool_call_id": "c", "role": "tool", "content": "1"}]
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "1", "tool_responses": responses},
    ]
    form, (episode,), _ = read(write(tmp_path / "a.json", messages))
    assert form == "autogen"
    assert shape(episode) == [("f", "call", "success")]


def test_a_saved_state_of_a_team(tmp_path):
    thread = [message("TextMessage", "Go", "user"), message("TextMessage", "Done")]
    states = {"a": {"agent_state": {}}, "manager": {"message_thread": thread}}
    form, (episode,), _ = read(
        write(tmp_path / "a.json", {"type": "TeamState", "agent_states": states})
    )
    assert form == "autogen"
    assert [step.action for step in episode.steps] == ["user", "assistant"]


def test_the_messages_of_an_agent_that_was_saved(tmp_path):
    call = {"id": "c", "name": "f", "arguments": "{}"}
    answer = {"call_id": "c", "name": "f", "content": "1", "is_error": False}
    messages = [
        {"type": "SystemMessage", "content": "S"},
        {"type": "UserMessage", "source": "user", "content": "Go"},
        {"type": "AssistantMessage", "source": "a", "content": [call], "thought": "Hm."},
        {"type": "FunctionExecutionResultMessage", "content": [answer]},
    ]
    state = {"type": "AssistantAgentState", "llm_context": {"messages": messages}}
    team = {"agent_states": {"a": {"agent_state": state}}}
    for number, saved in enumerate((state, team)):
        form, (episode,), _ = read(write(tmp_path / f"{number}.json", saved))
        assert form == "autogen"
        assert shape(episode) == [
            ("message", "system", None),
            ("message", "user", None),
            ("message", "thinking", None),
            ("f", "call", "success"),
        ]


@pytest.mark.timeout(20)
def test_fences_without_an_end_take_no_time(tmp_path):
    messages = [
        {"role": "assistant", "content": "```" * 100_001},
        {"role": "user", "content": "exitcode: 0 (execution succeeded)\nCode output: 1"},
    ]
    _, (episode,), _ = read(write(tmp_path / "a.json", messages))
    assert episode.steps[1].result == StepResult.success("1")


def said(source, content):
    return {"source": source, "content": content, "type": "TextMessage"}


def team_state(thread, *contexts):
    states = {"manager": {"type": "RoundRobinManagerState", "message_thread": thread}}
    for number, messages in enumerate(contexts):
        states[f"agent {number}"] = {"agent_state": {"llm_context": {"messages": messages}}}
    return {"type": "TeamState", "agent_states": states}


def test_what_agents_remember_of_earlier_tasks_comes_before_the_thread(tmp_path):
    earlier = [said("user", "Describe a lake"), said("poet", "Still water")]
    thread = [said("user", "Describe the sea"), said("poet", "Waves"), said("critic", "Good")]
    state = team_state(thread, [*earlier, *thread[:2]], [earlier[1], *thread])
    _, (episode,), _ = read(write(tmp_path / "team_state.json", state))
    assert [step.parameters["content"] for step in episode.steps] == [
        "Describe a lake",
        "Still water",
        "Describe the sea",
        "Waves",
        "Good",
    ]
