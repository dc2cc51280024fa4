from __future__ import annotations

import pytest

from memory_core.records import StepResult
from tests.unit.importers.transcripts import case, read, shape, write, write_lines


def turn(role, text):
    return {"from": role, "value": text}


def episode_of(tmp_path, *turns, **fields):
    _, (episode,), _ = read(write(tmp_path / "a.json", [{"conversations": turns, **fields}]))
    return episode


def test_a_conversation():
    form, episode = case("sharegpt.jsonl")
    assert form == "sharegpt"
    assert shape(episode) == [
        ("message", "system", None),
        ("message", "user", None),
        ("add", "call", "success"),
        ("message", "assistant", None),
    ]
    assert episode.task_description == "Add"
    assert episode.steps[2].result.output == "5"
    assert episode.metadata == {"source": "sharegpt", "entry_id": "1", "timing": "none"}


def test_what_is_said_around_a_call_and_thought_is_kept(tmp_path):
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    episode = episode_of(
        tmp_path,
        turn("human", "Add <tool_call>1</tool_call>"),
        turn("gpt", f"<think>Sum.</think>First.\n{call}\nthen."),
        turn("tool", '<tool_response>\n{"name": "add", "content": 1}\n</tool_response>'),
    )
    assert shape(episode) == [
        ("message", "user", None),
        ("message", "thinking", None),
        ("message", "assistant", None),
        ("add", "call", "success"),
        ("message", "assistant", None),
    ]
    assert episode.steps[0].parameters == {"content": "Add <tool_call>1</tool_call>"}
    assert episode.steps[3].parameters == {"a": 1}


def test_turns_of_calls_and_observations_belong_together_in_order(tmp_path):
    episode = episode_of(
        tmp_path,
        turn("human", "Two"),
        turn(
            "function_call",
            '[{"name": "a", "arguments": {"x": 1}}, {"name": "b", "arguments": "{}"}]',
        ),
        turn("observation", "A"),
        turn("observation", '{"error": "no"}'),
        turn("observation", "nobody asked"),
        turn("function_call", "not JSON"),
        system="S",
    )
    assert shape(episode) == [
        ("message", "system", None),
        ("message", "user", None),
        ("a", "call", "success"),
        ("b", "call", "error"),
        ("unknown", "result", "success"),
        ("unknown", "call", None),
    ]
    assert episode.steps[2].result == StepResult.success("A")
    assert episode.steps[5].parameters == {"arguments": "not JSON"}


def test_answers_find_their_call_by_name(tmp_path):
    episode = episode_of(
        tmp_path,
        turn("function_call", '[{"name": "a"}, {"name": "b"}]'),
        turn("observation", '{"name": "b", "content": "B"}'),
        turn("observation", "A"),
    )
    assert [step.result.output for step in episode.steps] == ["A", '{"name": "b", "content": "B"}']


def test_preferences_are_kept(tmp_path):
    episode = episode_of(
        tmp_path, turn("human", "Q"), chosen=turn("gpt", "good"), rejected=turn("gpt", "bad")
    )
    assert [
        (step.parameters["content"], step.metadata.get("preference")) for step in episode.steps
    ] == [("Q", None), ("good", "chosen"), ("bad", "rejected")]


@pytest.mark.parametrize("field", ["tools", "images"])
def test_definitions_and_names_of_files_are_counted(tmp_path, field):
    entry = {"conversations": [turn("human", "Q")], field: ["x"]}
    _, _, log = read(write_lines(tmp_path / "a.jsonl", [entry]))
    assert log.left_out == {field: 1}


def test_turns_of_role_and_content(tmp_path):
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    assert shape(episode_of(tmp_path, *turns)) == [
        ("message", "user", None),
        ("message", "assistant", None),
    ]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("tag", ["<tool_call>", "<think>", "<tool_call> ", "</tool_call>"])
def test_tags_that_do_not_end_are_text_and_take_no_time(tmp_path, tag):
    text = f"{tag * 100_000}{' ' * 100_000}."
    episode = episode_of(tmp_path, turn("human", "Q"), turn("gpt", text))
    assert episode.steps[1].parameters == {"content": text}


def test_a_turn_without_a_value_is_noted_and_is_not_a_step(tmp_path):
    turns = [turn("human", "Hi"), turn("gpt", None), {"from": "human"}, turn("function_call", None)]
    _, (episode,), log = read(write(tmp_path / "a.json", [{"conversations": turns}]))
    assert shape(episode) == [("message", "user", None)]
    assert len(log.notes) == 3
    assert log.notes[0].reason == "the turn of gpt has no value, and is left out"
