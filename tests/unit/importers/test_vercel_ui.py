from __future__ import annotations

import pytest

from memory_core.records import StepResult
from tests.unit.importers.transcripts import case, read, shape, write, write_lines

ASKED = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "Weather?"}]}


def answered(*parts, **fields):
    return {"id": "2", "role": "assistant", "parts": list(parts), **fields}


def tool(**fields):
    return {"type": "tool-getWeather", "toolCallId": "c1", "input": {"city": "Oslo"}, **fields}


def test_a_chat():
    form, episode = case("vercel_ui_messages.json")
    assert form == "vercel-ui"
    assert shape(episode) == [
        ("message", "user", None),
        ("getWeather", "call", "success"),
        ("message", "assistant", None),
    ]
    assert episode.task_description == "Weather?"
    assert episode.steps[1].parameters == {"city": "Oslo"}
    assert episode.steps[1].result.output == "4 C"
    assert episode.metadata == {"source": "vercel-ui", "chat_id": "c", "timing": "none"}


def test_chats_with_one_id_are_told_apart_and_grow(tmp_path):
    other = {**ASKED, "parts": [{"type": "text", "text": "Time?"}]}
    more = answered({"type": "text", "text": "4 C"})
    chats = [[ASKED], [other], [ASKED, more]]
    lines = [{"id": 1, "messages": chat} for chat in chats]
    _, (one, two, longer), _ = read(write_lines(tmp_path / "a.jsonl", lines))
    assert one.id == longer.id != two.id


@pytest.mark.parametrize(
    ("part", "result"),
    [
        (tool(state="output-available", output={"t": 4}), StepResult.success('{"t":4}')),
        (tool(state="output-error", errorText="No"), StepResult.error("No")),
        (tool(state="output-denied"), StepResult.error("output-denied")),
        (tool(state="input-available"), None),
        (tool(type="dynamic-tool", toolName="getWeather", state="output-available", output="4"),
         StepResult.success("4")),
        ({"type": "tool-invocation", "toolInvocation": {
            "toolCallId": "c1", "toolName": "getWeather", "args": {"city": "Oslo"},
            "state": "result", "result": "4"}}, StepResult.success("4")),
    ],
)  # fmt: skip
def test_tools(tmp_path, part, result):
    form, (episode,), _ = read(write(tmp_path / "a.json", [ASKED, answered(part)]))
    assert form == "vercel-ui"
    step = episode.steps[1]
    assert (step.tool, step.parameters, step.result) == ("getWeather", {"city": "Oslo"}, result)


def test_invocations_beside_the_content(tmp_path):
    invocation = {"toolCallId": "c", "toolName": "f", "args": {}, "state": "result", "result": 1}
    messages = [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": "Done", "toolInvocations": [invocation]},
    ]
    form, (episode,), _ = read(write(tmp_path / "a.json", {"messages": messages}))
    assert form == "vercel-ui"
    assert shape(episode) == [
        ("message", "user", None),
        ("f", "call", "success"),
        ("message", "assistant", None),
    ]


def test_thoughts_files_times_and_tokens(tmp_path):
    url = "data:image/png;base64," + "A" * 400
    message = answered(
        {"type": "step-start"},
        {"type": "reasoning", "text": "Look."},
        {"type": "file", "mediaType": "image/png", "url": url},
        metadata={
            "createdAt": "2026-01-01T00:00:00Z",
            "totalUsage": {"totalTokens": 9},
            "model": "m",
        },
    )
    _, (episode,), log = read(write(tmp_path / "a.json", [ASKED, message]))
    assert [step.action for step in episode.steps] == ["user", "reasoning", "assistant"]
    assert episode.steps[1].timestamp.year == 2026
    assert episode.steps[1].tokens_used == 9
    assert episode.metadata["model"] == "m"
    assert "image/png, 300 bytes, sha256 " in episode.steps[2].parameters["content"]
    assert len(log.notes) == 1
