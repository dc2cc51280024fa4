from __future__ import annotations

import base64

import pytest

from memory_core.importers import OpenAIResponsesImporter
from memory_core.importers.base import found_in
from memory_core.importers.log import Log
from memory_core.importers.source import Source
from memory_core.records import OutcomeStatus, StepResult
from tests.unit.importers.transcripts import case, read, shape, write, write_lines


def response(*output, **changes):
    return {"id": "resp_1", "object": "response", "output": list(output), **changes}


def text(said):
    content = [{"type": "output_text", "text": said}]
    return {"type": "message", "role": "assistant", "content": content}


def test_a_list_of_items():
    form, episode = case("openai_responses_items.json")
    assert form == "openai-responses"
    assert shape(episode) == [
        ("message", "user", None),
        ("message", "reasoning", None),
        ("get_weather", "call", "success"),
        ("message", "assistant", None),
    ]
    assert episode.task_description == "What is the weather?"
    assert episode.steps[1].parameters == {"content": "I need the tool."}
    assert episode.steps[2].parameters == {"city": "Oslo"}
    assert episode.steps[2].result.output == "4 C"
    assert episode.steps[3].parameters == {"content": "4 degrees."}


def test_a_response_object():
    form, episode = case("openai_response_object.json")
    assert form == "openai-responses"
    assert shape(episode) == [("get_weather", "call", None), ("message", "assistant", None)]
    assert episode.steps[1].tokens_used == 12
    assert episode.start_time.timestamp() == 1_772_000_000
    assert episode.outcome is None
    assert episode.metadata == {
        "source": "openai-responses",
        "response_id": "resp_1",
        "status": "completed",
        "model": "gpt-5",
        "timing": "start",
    }


def test_a_logged_call(tmp_path):
    entry = {"request": {"instructions": "S", "input": "Hi"}, "response": response(text("Hello"))}
    form, (episode,), _ = read(write_lines(tmp_path / "a.jsonl", [entry]))
    assert form == "openai-responses"
    assert [step.action for step in episode.steps] == ["system", "user", "assistant"]


def test_of_a_stream_the_last_event_counts(tmp_path):
    events = [
        {"type": "response.created", "response": response(status="in_progress")},
        {"type": "response.output_text.delta", "delta": "Hel"},
        {"type": "response.completed", "response": response(text("Hello"), status="completed")},
    ]
    _, (episode,), log = read(write_lines(tmp_path / "a.jsonl", events))
    assert [step.parameters["content"] for step in episode.steps] == ["Hello"]
    assert log.left_out == {"events before a stream's last": 2}


@pytest.mark.parametrize(
    ("item", "tool", "parameters", "result"),
    [
        (
            {"type": "web_search_call", "status": "completed", "action": {"query": "x"}},
            "web_search", {"query": "x"}, StepResult.success("completed"),
        ),
        (
            {"type": "file_search_call", "status": "completed", "queries": ["q"], "results": [{"text": "r"}]},
            "file_search", {"queries": ["q"]}, StepResult.success("r"),
        ),
        (
            {"type": "code_interpreter_call", "code": "1+1", "outputs": [{"type": "logs", "logs": "2"}],
             "status": "completed"},
            "code_interpreter", {"code": "1+1"}, StepResult.success('[logs: {"logs":"2"}]'),
        ),
        (
            {"type": "mcp_call", "name": "find", "arguments": '{"a":1}', "error": "no such tool"},
            "find", {"a": 1}, StepResult.error("no such tool"),
        ),
        (
            {"type": "web_search_call", "status": "failed", "action": {}},
            "web_search", {}, StepResult.error("failed"),
        ),
    ],
)  # fmt: skip
def test_tools_that_the_provider_runs(tmp_path, item, tool, parameters, result):
    _, (episode,), _ = read(write(tmp_path / "a.json", response(item)))
    (step,) = episode.steps
    assert (step.tool, step.parameters, step.result) == (tool, parameters, result)


def test_an_exit_code_other_than_0_is_an_error(tmp_path):
    items = [
        {
            "type": "shell_call",
            "call_id": "c",
            "action": {"commands": ["x"]},
            "status": "completed",
        },
        {
            "type": "shell_call_output",
            "call_id": "c",
            "output": [{"stdout": "", "stderr": "no", "outcome": {"type": "exit", "exit_code": 2}}],
        },
    ]
    _, (episode,), _ = read(write(tmp_path / "a.json", response(*items)))
    assert shape(episode) == [("shell", "call", "error")]


def test_an_image_is_noted_with_its_type_and_size(tmp_path):
    image = base64.b64encode(bytes(3000)).decode()
    item = {"type": "image_generation_call", "status": "completed", "result": image}
    _, (episode,), log = read(write(tmp_path / "a.json", response(item)))
    assert "3000 bytes, sha256 " in episode.steps[0].result.output
    assert "media left out" in log.notes[0].reason


def test_a_response_that_failed_is_a_failure(tmp_path):
    failed = response(status="failed", error={"code": "x", "message": "No quota\nleft"})
    _, (episode,), _ = read(write(tmp_path / "a.json", failed))
    assert episode.outcome.status is OutcomeStatus.FAILURE
    assert episode.outcome.reason == "No quota"
    assert episode.metadata["status"] == "failed"


def test_what_only_the_provider_can_read_is_noted(tmp_path):
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": "x" * 300}
    _, (episode,), log = read(write(tmp_path / "a.json", response(sealed, text("4"))))
    assert len(episode.steps) == 1
    assert log.notes[0].reason == "reasoning left out, as only the provider can read it"


def test_a_search_of_tools_gets_the_output_after_it(tmp_path):
    searched = {
        "type": "tool_search_call",
        "id": "tsc_1",
        "call_id": None,
        "arguments": {"paths": ["weather"]},
        "status": "completed",
    }
    found = {
        "type": "tool_search_output",
        "call_id": None,
        "status": "completed",
        "tools": [{"name": "get_weather"}],
    }
    _, (episode,), _ = read(write(tmp_path / "response.json", response(searched, found)))
    (step,) = episode.steps
    assert (step.tool, step.parameters) == ("tool_search", {"paths": ["weather"]})
    assert "get_weather" in step.result.output


def test_a_response_follows_the_one_that_it_names(tmp_path):
    lines = [
        response(text("one")),
        response(text("two"), id="resp_2", previous_response_id="resp_1"),
        {
            "response": response(text("3"), id="resp_3", previous_response_id="resp_2"),
            "request": {},
        },
    ]
    path = write_lines(tmp_path / "log.jsonl", lines)
    one, two, three = found_in(OpenAIResponsesImporter(), Source("log", path), Log("log"))
    assert one.follows is None
    assert two.follows == one.episode.id
    assert three.follows == two.episode.id
    assert two.episode.metadata["previous_response_id"] == "resp_1"
