from __future__ import annotations

import json
import re

import pytest

from memory_core.records import OutcomeStatus, StepResult
from tests.unit.importers.transcripts import case, read, shape, write, write_lines

START = 1_772_359_200
NANO = 10**9


def typed(value):
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [typed(item) for item in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": pairs(value)}}
    return {"stringValue": value}


def pairs(values):
    return [{"key": key, "value": typed(value)} for key, value in values.items()]


def span(number, start, end, attributes, **fields):
    return {
        "traceId": "t1",
        "spanId": f"s{number}",
        "parentSpanId": None if number == 0 else "s0",
        "name": f"span {number}",
        "startTimeUnixNano": str((START + start) * NANO),
        "endTimeUnixNano": str((START + end) * NANO),
        "attributes": pairs(attributes),
        **fields,
    }


def export(*spans):
    resource = {"attributes": pairs({"service.name": "agent"})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]}


def logs(*records):
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": list(records)}]}]}


def operation(name, **attributes):
    named = {f"gen_ai.{key.replace('__', '.')}": value for key, value in attributes.items()}
    return {"gen_ai.operation.name": name, **named}


def text(role, said):
    return {"role": role, "parts": [{"type": "text", "content": said}]}


ASKED = text("user", "Weather?")
CALLED = {
    "role": "assistant",
    "parts": [{"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Oslo"}}],
}
RESPONSE = {
    "role": "tool",
    "parts": [{"type": "tool_call_response", "id": "c1", "response": "4 C"}],
}


def test_a_trace():
    form, episode = case("otel_genai_spans.json")
    assert form == "otel-genai"
    assert shape(episode) == [("get_weather", "call", "error")]
    (step,) = episode.steps
    assert step.result == StepResult.error("timeout")
    assert step.latency_ms == 1000
    assert episode.task_description == "invoke_agent helper"
    assert (episode.end_time - episode.start_time).total_seconds() == 5
    assert episode.outcome is None
    assert episode.metadata == {
        "source": "otel-genai",
        "trace_id": "5b8efff798038103d269b633813fc60c",
        "service": "agent",
        "timing": "steps",
    }


def agent_spans(encode):
    instructions = encode([{"type": "text", "content": "Be brief."}])
    first = operation(
        "chat",
        system_instructions=instructions,
        input__messages=encode([ASKED]),
        output__messages=encode([CALLED]),
        usage__input_tokens=10,
        usage__output_tokens=5,
        request__model="m",
    )
    tool = operation(
        "execute_tool", tool__name="weather", tool__call__id="c1", tool__call__result="4 C"
    )
    second = operation(
        "chat",
        system_instructions=instructions,
        input__messages=encode([ASKED, CALLED, RESPONSE]),
        output__messages=encode([{**text("assistant", "4 degrees."), "finish_reason": "stop"}]),
    )
    agent = operation(
        "invoke_agent",
        agent__name="helper",
        input__messages=encode([ASKED]),
        output__messages=encode([text("assistant", "4 degrees.")]),
    )
    return [
        span(0, 0, 9, agent),
        span(1, 1, 2, first),
        span(2, 3, 5, tool),
        span(3, 6, 8, second),
        span(4, 6, 7, {"http.method": "POST"}),
    ]


@pytest.mark.parametrize("encode", [json.dumps, list])
def test_an_agent_says_each_message_once(tmp_path, encode):
    path = write_lines(tmp_path / "a.jsonl", [export(item) for item in agent_spans(encode)[::-1]])
    _, (episode,), log = read(path)
    assert shape(episode) == [
        ("message", "user", None),
        ("message", "system", None),
        ("weather", "call", "success"),
        ("message", "assistant", None),
    ]
    call = episode.steps[2]
    assert call.parameters == {"city": "Oslo"}
    assert call.result.output == "4 C"
    assert (call.latency_ms, call.tokens_used) == (2000, 15)
    assert call.metadata == {"call_id": "c1", "model": "m"}
    assert episode.steps[3].parameters == {"content": "4 degrees."}
    assert episode.metadata["agent_name"] == "helper"
    assert log.left_out == {"spans without GenAI attributes": 1}


def snake(value):
    if isinstance(value, list):
        return [snake(item) for item in value]
    if isinstance(value, dict):
        return {re.sub("([A-Z])", r"_\1", key).lower(): snake(item) for key, item in value.items()}
    return value


def test_names_as_protobuf_has_them(tmp_path):
    spans = export(*agent_spans(json.dumps))
    _, (one,), _ = read(write(tmp_path / "a.json", spans))
    _, (two,), _ = read(write(tmp_path / "b.json", snake(spans)))
    assert one == two


def test_what_is_said_twice_is_there_twice(tmp_path):
    yes = text("user", "Yes")
    asked = operation(
        "chat", input__messages=json.dumps([ASKED, yes, text("assistant", "Sure?"), yes])
    )
    _, (episode,), _ = read(write(tmp_path / "a.json", export(span(0, 0, 1, asked))))
    assert [step.action for step in episode.steps] == [
        "user", "user", "assistant", "user", "assistant",
    ]  # fmt: skip


def test_events_of_older_versions(tmp_path):
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    events = [
        {"name": "gen_ai.system.message", "attributes": pairs({"content": "S"})},
        {"name": "gen_ai.user.message", "attributes": pairs({"content": "Q"})},
        {
            "name": "gen_ai.assistant.message",
            "attributes": pairs({"tool_calls": json.dumps([call])}),
        },
        {"name": "gen_ai.tool.message", "attributes": pairs({"id": "c1", "content": "Error: no"})},
        {"name": "gen_ai.choice", "attributes": pairs({"message": json.dumps({"content": "A"})})},
    ]
    item = span(0, 0, 1, operation("chat"), events=events)
    _, (episode,), _ = read(write(tmp_path / "a.json", export(item)))
    assert shape(episode) == [
        ("message", "system", None),
        ("message", "user", None),
        ("weather", "call", "error"),
        ("message", "assistant", None),
    ]
    assert episode.steps[3].parameters == {"content": "A"}


def test_log_records_belong_to_their_span(tmp_path):
    def record(name, body):
        return {
            "traceId": "t1",
            "spanId": "s0",
            "timeUnixNano": str(START * NANO),
            "eventName": name,
            "body": typed(body),
        }

    lines = [
        export(span(0, 0, 1, operation("chat", usage__prompt_tokens=3))),
        logs(
            record("gen_ai.user.message", {"content": "Q"}),
            record("gen_ai.choice", {"index": 0, "message": {"role": "assistant", "content": "A"}}),
            {"traceId": "t1", "spanId": "s0", "body": typed("a line of a log")},
        ),
    ]
    _, (episode,), log = read(write_lines(tmp_path / "a.jsonl", lines))
    assert [(s.action, s.parameters["content"]) for s in episode.steps] == [
        ("user", "Q"),
        ("assistant", "A"),
    ]
    assert episode.steps[1].tokens_used == 3
    assert log.left_out == {"spans without GenAI attributes": 1}


def test_numbered_attributes_of_openllmetry(tmp_path):
    attributes = {
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": "Q",
        "gen_ai.prompt.1.role": "assistant",
        "gen_ai.prompt.1.tool_calls.0.id": "c1",
        "gen_ai.prompt.1.tool_calls.0.name": "weather",
        "gen_ai.prompt.1.tool_calls.0.arguments": '{"city": "Oslo"}',
        "gen_ai.prompt.2.role": "tool",
        "gen_ai.prompt.2.tool_call_id": "c1",
        "gen_ai.prompt.2.content": "4 C",
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": "A",
        "gen_ai.usage.prompt_tokens": 1,
        "gen_ai.usage.completion_tokens": 2,
    }
    _, (episode,), _ = read(write(tmp_path / "a.json", export(span(0, 0, 1, attributes))))
    assert shape(episode) == [
        ("message", "user", None),
        ("weather", "call", "success"),
        ("message", "assistant", None),
    ]
    assert episode.steps[1].parameters == {"city": "Oslo"}
    assert episode.steps[2].tokens_used == 3


def test_errors_of_models_and_of_the_trace(tmp_path):
    failed = {"status": {"code": "STATUS_CODE_ERROR", "message": "quota"}}
    spans = [
        span(0, 0, 3, operation("invoke_agent"), **failed),
        span(1, 1, 2, operation("chat"), **failed),
    ]
    _, (episode,), _ = read(write(tmp_path / "a.json", export(*spans)))
    assert shape(episode) == [("message", "assistant", "error")]
    assert episode.outcome.status is OutcomeStatus.FAILURE
    assert episode.outcome.reason == "quota"


def test_other_operations_are_steps(tmp_path):
    embedded = operation("embeddings", request__model="e", usage__input_tokens=4)
    _, (episode,), _ = read(write(tmp_path / "a.json", export(span(0, 0, 1, embedded))))
    assert shape(episode) == [("embeddings", "call", None)]
    assert episode.steps[0].tokens_used == 4


def test_a_trace_without_content_is_noted(tmp_path):
    path = write(tmp_path / "a.json", export(span(0, 0, 1, operation("invoke_agent"))))
    _, episodes, log = read(path)
    assert episodes == []
    assert log.notes[0].reason == "trace t1 has no content: its messages were not recorded"


def failed_tool(number, kind=None, status="deadline exceeded", result=None, events=()):
    attributes = {
        **operation("execute_tool", tool__name="search", tool__call__id=f"c{number}"),
        **({"error.type": kind} if kind else {}),
        **({"gen_ai.tool.call.result": result} if result else {}),
    }
    fields = {"status": {"code": 2, **({"message": status} if status else {})}}
    return span(number, number, number + 1, attributes, events=list(events), **fields)


def test_an_error_keeps_its_words_beside_the_result(tmp_path):
    spans = [
        span(0, 0, 9, operation("invoke_agent")),
        failed_tool(1, result="partial"),
        failed_tool(2, kind="LookupError", status=None, result="no such city"),
    ]
    _, (episode,), _ = read(write(tmp_path / "a.json", export(*spans)))
    one, two = episode.steps
    assert one.result == StepResult.error("deadline exceeded")
    assert one.metadata["output"] == "partial"
    assert two.result == StepResult.error("no such city")
    assert two.metadata["error_type"] == "LookupError"
    assert "output" not in two.metadata


def test_exceptions_and_timeouts(tmp_path):
    said = {
        "exception.type": "TimeoutError",
        "exception.message": "no answer in 5 s",
        "exception.stacktrace": "Traceback: here",
    }
    thrown = {"name": "exception", "attributes": pairs(said)}
    spans = [
        span(0, 0, 9, operation("invoke_agent"), events=[thrown, {"name": "retry"}]),
        failed_tool(1, kind="TimeoutError", result="partial"),
        failed_tool(2, events=[thrown]),
        failed_tool(3, kind="asyncio.CancelledError", events=[thrown]),
    ]
    _, (episode,), log = read(write(tmp_path / "a.json", export(*spans)))
    assert [step.result.status for step in episode.steps] == ["timeout", "timeout", "error"]
    assert episode.steps[0].metadata["output"] == "partial\ndeadline exceeded"
    for metadata in (episode.metadata, episode.steps[1].metadata, episode.steps[2].metadata):
        assert metadata["exception"] == "TimeoutError: no answer in 5 s"
        assert metadata["stacktrace"] == "Traceback: here"
    assert log.left_out["events that say nothing"] == 1
