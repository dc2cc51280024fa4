from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from memory_core.errors import ImportFormatError
from memory_core.importers import BUILTIN_IMPORTERS, OpenAIChatImporter
from memory_core.importers.base import detect, found_in
from memory_core.importers.log import Log
from memory_core.importers.source import Source
from memory_core.records import OutcomeStatus, StepResult, TaskType
from tests.unit.importers.transcripts import (
    answer,
    call,
    chat_entry,
    write,
    write_bytes,
    write_lines,
)

IMPORTER = OpenAIChatImporter()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_one(tmp_path, **changes):
    (episode,) = IMPORTER.read(write_lines(tmp_path / "log.jsonl", [chat_entry(**changes)]))
    return episode


def test_a_conversation_becomes_an_episode_of_unknown_outcome(tmp_path):
    episode = read_one(tmp_path)
    assert episode.task_description == "How warm is it in Oslo?"
    assert [(step.tool, step.action) for step in episode.steps] == [
        ("message", "system"),
        ("message", "user"),
        ("weather", "call"),
        ("message", "assistant"),
    ]
    assert episode.steps[2].parameters == {"city": "Oslo"}
    assert episode.steps[2].result == StepResult.success("4 degrees")
    assert episode.outcome is None
    assert not episode.is_complete
    assert (episode.start_time, episode.end_time) == (EPOCH, EPOCH + timedelta(seconds=3))
    assert episode.metadata == {"source": "openai-chat", "timing": "none"}


def test_all_layouts_give_the_same_episode(tmp_path):
    entry = chat_entry()
    paths = [
        write_lines(tmp_path / "lines.jsonl", [entry]),
        write_lines(tmp_path / "lines.txt.gz", [entry]),
        write(tmp_path / "array.json", [entry]),
        write_bytes(tmp_path / "object.json", json.dumps(entry, indent=2).encode()),
    ]
    (first,) = IMPORTER.read(paths[0])
    assert all(list(IMPORTER.read(path)) == [first] for path in paths)


@pytest.mark.parametrize("name", ["chat.json", "chats.jsonl"])
def test_bare_messages_are_a_conversation(tmp_path, name):
    messages = chat_entry()["messages"]
    path = write_lines(tmp_path / name, [messages])
    assert len(next(IMPORTER.read(path)).steps) == 4


def test_bare_messages_on_every_line_are_a_conversation_each(tmp_path):
    messages = chat_entry()["messages"]
    path = write_lines(tmp_path / "chats.jsonl", [messages, messages[:2]])
    assert [len(episode.steps) for episode in IMPORTER.read(path)] == [4, 2]


def test_an_answer_alone_is_an_episode(tmp_path):
    message = {"role": "assistant", "content": "4 C", "tool_calls": [call("f", {"a": 1}, "c")]}
    answer_alone = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o",
        "choices": [
            {"index": 0, "message": message, "finish_reason": "stop"},
            {"index": 1, "message": {"role": "assistant", "content": "Or 5"}},
        ],
        "usage": {"total_tokens": 7},
    }
    path = write(tmp_path / "answer.json", answer_alone)
    assert detect(path, BUILTIN_IMPORTERS).name == "openai-chat"
    (episode,) = IMPORTER.read(path)
    assert [(step.tool, step.parameters) for step in episode.steps] == [
        ("message", {"content": "4 C"}),
        ("f", {"a": 1}),
        ("message", {"content": "Or 5"}),
    ]
    assert episode.metadata["model"] == "gpt-4o"
    assert episode.start_time.year == 2023
    assert episode.steps[-1].tokens_used == 7


def test_what_the_log_knows_is_taken_over(tmp_path):
    metadata = {
        "domain": "weather",
        "language": "python",
        "framework": "httpx",
        "task_type": "analysis",
        "tags": ["api", 7, None, ["no"]],
        "user": "ada",
        "n": 3,
        "nested": {"left": "out"},
    }
    episode = read_one(
        tmp_path,
        metadata=metadata,
        model="a-model",
        id="chat-1",
        created=1_700_000_000,
        outcome="partial_success",
        reason="Only Oslo.",
        reward=0.5,
        usage={"total_tokens": 321},
    )
    assert (episode.context.domain, episode.context.language) == ("weather", "python")
    assert episode.context.framework == "httpx"
    assert episode.task_type is TaskType.ANALYSIS
    assert episode.tags == ("openai-chat", "api", "7")
    assert episode.metadata == {
        "source": "openai-chat",
        "model": "a-model",
        "entry_id": "chat-1",
        "user": "ada",
        "n": "3",
        "timing": "start",
    }
    assert episode.start_time == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert (episode.outcome.status, episode.outcome.verdict) == ("partial_success", "Only Oslo.")
    assert episode.reward.total == 0.5
    assert episode.steps[-1].tokens_used == 321
    assert episode.is_complete


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"success": True}, OutcomeStatus.SUCCESS),
        ({"success": False}, OutcomeStatus.FAILURE),
        ({"metadata": {"outcome": "abstained"}}, OutcomeStatus.ABSTAINED),
        ({"metadata": {"success": True}}, OutcomeStatus.SUCCESS),
    ],
)
def test_an_outcome_is_found_in_the_entry_or_its_metadata(tmp_path, fields, status):
    assert read_one(tmp_path, **fields).outcome.status is status


@pytest.mark.parametrize(
    "fields", [{"outcome": "fine"}, {"success": "yes"}, {"outcome": {"a": 1}}, {"metadata": [1]}]
)
def test_what_is_no_known_outcome_leaves_it_unknown(tmp_path, fields):
    episode = read_one(tmp_path, **fields)
    assert episode.outcome is None
    assert episode.reward is None


def test_a_logged_call_ends_with_its_answer(tmp_path):
    entry = {
        "request": {"model": "a-model", "messages": [{"role": "user", "content": "Hi"}]},
        "response": {
            "id": "chatcmpl-1",
            "created": 1_700_000_000,
            "choices": [{"message": {"role": "assistant", "content": "Hello"}}, {"message": None}],
            "usage": {"total_tokens": 9},
        },
    }
    (episode,) = IMPORTER.read(write_lines(tmp_path / "x", [entry]))
    assert [step.parameters["content"] for step in episode.steps] == ["Hi", "Hello"]
    assert (episode.metadata["model"], episode.metadata["entry_id"]) == ("a-model", "chatcmpl-1")
    assert episode.start_time.year == 2023
    assert episode.steps[-1].tokens_used == 9


def test_times_of_messages_are_kept(tmp_path):
    messages = [
        {"role": "user", "content": "Hi", "timestamp": "2025-01-01T10:00:00+01:00"},
        {"role": "assistant", "content": "Hello", "timestamp": "2025-01-01T09:00:05Z"},
    ]
    episode = read_one(tmp_path, messages=messages)
    assert [step.timestamp.isoformat() for step in episode.steps] == [
        "2025-01-01T09:00:00+00:00",
        "2025-01-01T09:00:05+00:00",
    ]
    assert episode.end_time == episode.steps[-1].timestamp
    assert episode.metadata["timing"] == "steps"


def test_a_time_without_a_zone_is_utc_whatever_the_local_time(tmp_path, new_york):
    episode = read_one(tmp_path, created=None, created_at="2025-03-01T10:00:00")
    assert episode.start_time == datetime(2025, 3, 1, 10, tzinfo=UTC)


def test_milliseconds_and_seconds_are_told_apart(tmp_path):
    expected = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    for created in (1_700_000_000, 1_700_000_000_000, 1_700_000_000_000_000):
        assert read_one(tmp_path, created=created).start_time == expected


@pytest.mark.parametrize(
    ("reward", "expected"), [("0.25", 0.25), (0.25, 0.25), (True, None), ("good", None)]
)
def test_a_reward_is_a_number_or_none(tmp_path, reward, expected):
    found = read_one(tmp_path, reward=reward).reward
    assert (None if found is None else found.total) == expected


def test_an_answer_from_before_its_call_took_no_time(tmp_path):
    messages = [
        {"role": "assistant", "tool_calls": [call("x", {})], "timestamp": 1_700_000_010},
        {**answer("fine"), "timestamp": 1_700_000_000},
    ]
    (step,) = read_one(tmp_path, messages=messages).steps
    assert step.latency_ms == 0
    assert "repaired" not in step.metadata


def test_calls_of_one_name_without_ids_get_their_answers_in_order(tmp_path):
    calls = [{"type": "function", "function": {"name": "x", "arguments": "{}"}}] * 2
    messages = [
        {"role": "assistant", "tool_calls": calls},
        *({"role": "tool", "name": "x", "content": content} for content in ("one", "two")),
    ]
    steps = read_one(tmp_path, messages=messages).steps
    assert [step.result.output for step in steps] == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "failed"),
    [
        ("Error: no such city", True),
        ("requests.HTTPError: 500", True),
        ("Traceback (most recent call last):\n...", True),
        ('{"error": "quota"}', True),
        ('{"error": null, "ok": 1}', False),
        ("Errors are rare.", False),
        ("All is well.\nError: was the title of the page", False),
        ("", False),
    ],
)
def test_the_text_of_an_answer_tells_whether_a_call_failed(tmp_path, content, failed):
    messages = [{"role": "assistant", "tool_calls": [call("x", {})]}, answer(content)]
    (step,) = read_one(tmp_path, messages=messages).steps
    assert step.result == (StepResult.error(content) if failed else StepResult.success(content))


def test_old_function_calls_and_custom_tools_are_calls_too(tmp_path):
    messages = [
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "f", "arguments": '{"a": 1}'},
        },
        {"role": "function", "name": "f", "content": "two"},
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]
    first, second = read_one(tmp_path, messages=messages).steps
    assert (first.tool, first.parameters, first.result.output) == ("f", {"a": 1}, "two")
    assert (second.tool, second.parameters) == ("sql", {"arguments": "SELECT 1"})
    assert second.result.output == "1"


def test_large_parts_that_are_no_text_are_named_with_their_digest(tmp_path):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}
    link = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    content = [{"type": "text", "text": "See:"}, image, link]
    (step,) = read_one(tmp_path, messages=[{"role": "user", "content": content}]).steps
    text = step.parameters["content"]
    assert text.startswith("See:\n[image_url: image/png, 3750 bytes, sha256 ")
    assert "sha256" in text
    assert "AAAA" not in text
    assert "https://example.org/a.png" in text


def test_text_may_be_called_value(tmp_path):
    content = [{"type": "text", "value": "Hi"}, {"type": "text", "value": "x", "lang": "en"}]
    (step,) = read_one(tmp_path, messages=[{"role": "user", "content": content}]).steps
    assert step.parameters["content"] == 'Hi\n[text: {"value":"x","lang":"en"}]'


def test_a_refusal_and_a_reasoning_are_kept(tmp_path):
    messages = [{"role": "assistant", "content": None, "refusal": "No.", "reasoning_content": "Hm"}]
    steps = read_one(tmp_path, messages=messages).steps
    assert [(s.action, s.parameters["content"]) for s in steps] == [
        ("reasoning", "Hm"),
        ("assistant", "No."),
    ]


def test_any_change_of_an_entry_makes_another_episode_and_order_of_keys_none(tmp_path):
    base = read_one(tmp_path)
    assert read_one(tmp_path, model="b").id != base.id
    entry = chat_entry(model="b", user="c")
    turned = dict(reversed(entry.items()))
    ids = {episode.id for episode in IMPORTER.read(write_lines(tmp_path / "x", [entry, turned]))}
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{broken", "is not JSON"),
        ('{"prompt": "x"}', "messages: expected a list of messages"),
        ('{"messages": [null]}', "none of its messages says anything"),
        ('{"messages": [{"role": "user", "parts": [{"text": "x"}]}]}', "not known: parts"),
        ('"text"', "messages: expected a list of messages"),
    ],
)
def test_a_malformed_line_is_named_and_the_others_are_kept(tmp_path, line, reason):
    path = write_lines(tmp_path / "log.jsonl", [chat_entry(), line, "", chat_entry(model="b")])
    first, error, *_, last = IMPORTER.read(path, keep_going=True)
    assert error.file == str(path)
    assert error.entry.startswith("line 2")
    assert reason in error.reason
    assert first.id != last.id
    read = IMPORTER.read(path)
    assert next(read) == first
    with pytest.raises(ImportFormatError):
        next(read)


@pytest.mark.parametrize(
    ("line", "noted"),
    [
        ('{"messages": [{"role": 3, "content": 4}]}', ""),
        ('{"messages": [{"role": "user", "content": "a"}, null]}', "message 2: is null"),
        ('{"messages": [], "created": "soon"}', "created is not a time"),
        ('{"messages": [], "created": 1e300}', "created is not a time"),
        ('{"messages": [], "metadata": {"domain": "a\\u0000b"}}', "U+0000 replaced"),
        ('{"messages": [], "metadata": {"domain": "' + "x" * 500 + '"}}', "domain shortened"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "half a surrogate pair"),
        ('{"messages": [], "reward": 1e999}', "reward is not a number"),
        ('{"messages": [], "metadata": {"score": NaN}}', "reward is not a number"),
    ],
)
def test_what_is_odd_around_the_messages_is_noted_and_the_rest_is_read(tmp_path, line, noted):
    log = Log("log")
    path = write_lines(tmp_path / "log.jsonl", [line])
    (found,) = found_in(IMPORTER, Source("log", path), log)
    assert log.lost == 0
    assert noted in "\n".join(map(str, log.notes))
    assert found.episode.reward is None
    found.episode.index_values()


def test_roles_refusals_and_voices_are_read(tmp_path):
    messages = [
        {"role": "developer", "content": "Be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hear"},
                {
                    "type": "input_audio",
                    "input_audio": {"data": "UklG" + "A" * 3000, "format": "wav"},
                },
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "audio": {"id": "a", "data": "", "transcript": "Aye"},
        },
        {"role": "assistant", "content": None, "refusal": "I cannot."},
    ]
    steps = read_one(tmp_path, messages=messages).steps
    assert [step.action for step in steps] == ["developer", "user", "assistant", "assistant"]
    assert steps[1].parameters["content"].startswith("Hear\n[input_audio: wav, 2253 bytes, sha256 ")
    assert [step.parameters["content"] for step in steps[2:]] == ["Aye", "I cannot."]


def test_calls_without_ids_get_the_answers_of_their_names(tmp_path):
    calls = [call("a", {}, ""), call("b", {}, "")]
    messages = [
        {"role": "assistant", "content": None, "tool_calls": calls},
        answer("B", "", "b"),
        answer("A", "", "a"),
    ]
    steps = read_one(tmp_path, messages=messages).steps
    assert [(step.tool, step.result.output) for step in steps] == [("a", "A"), ("b", "B")]


def test_times_that_are_missing_stay_between_their_neighbours(tmp_path):
    messages = [
        {"role": "user", "content": "q", "timestamp": "2026-03-01T10:00:00Z"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "q2", "timestamp": "2026-03-01T10:00:00.5Z"},
        {"role": "assistant", "content": "b"},
    ]
    times = [step.timestamp for step in read_one(tmp_path, messages=messages).steps]
    assert times == sorted(times)
    assert times[1].microsecond == 250_000
    assert times[3].microsecond == 500_000


def test_arguments_given_as_an_object_are_kept_and_a_huge_number_as_text(tmp_path):
    given = {"id": "1", "function": {"name": "f", "arguments": {"n": 98765432109876543210, "m": 1}}}
    messages = [
        {"role": "assistant", "tool_calls": [given]},
        {"role": "tool", "tool_call_id": "1", "content": {"error": "boom"}},
    ]
    (step,) = read_one(tmp_path, messages=messages).steps
    assert step.parameters == {"n": "98765432109876543210", "m": 1}
    assert step.result == StepResult.error('{"error":"boom"}')
    assert "kept as text" in step.metadata["repaired"]


def test_blocks_of_llama_factory_are_thoughts_and_calls(tmp_path):
    def block(kind, value):
        return {"type": kind, "value": value}

    def turn(role, *content):
        return {"role": role, "content": list(content)}

    search = {"name": "find_film", "arguments": {"title": "Inception"}}
    messages = [
        turn("user", block("text", "Who made it?")),
        turn("assistant", block("reasoning", "Look."), block("tool_call", json.dumps(search))),
        turn("tool", block("text", "Nolan")),
        turn("assistant", block("reasoning", "Found."), block("text", "Christopher Nolan.")),
    ]
    (episode,) = IMPORTER.read(write_lines(tmp_path / "log.jsonl", [{"messages": messages}]))
    assert [(step.tool, step.action, step.parameters) for step in episode.steps] == [
        ("message", "user", {"content": "Who made it?"}),
        ("message", "reasoning", {"content": "Look."}),
        ("find_film", "call", {"title": "Inception"}),
        ("message", "reasoning", {"content": "Found."}),
        ("message", "assistant", {"content": "Christopher Nolan."}),
    ]
    assert episode.steps[2].result == StepResult.success("Nolan")


def test_a_call_of_llama_factory_that_is_not_one_is_kept(tmp_path):
    content = [{"type": "tool_call", "value": "find_film(title"}]
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": content}]
    (episode,) = IMPORTER.read(write_lines(tmp_path / "log.jsonl", [{"messages": messages}]))
    assert episode.steps[1].tool == "unknown"
    assert "find_film(title" in str(episode.steps[1].parameters)


def found(tmp_path, **entry):
    """The episode of an entry that asks one question, and what is left out."""
    path = write_lines(tmp_path / "log.jsonl", [{"messages": QUESTION, **entry}])
    log = Log(path.name)
    (one,) = found_in(IMPORTER, Source(path.name, path), log)
    assert not log.lost
    return one.episode, log.left_out


QUESTION = [{"role": "user", "content": "Why?"}]
SAID = {"role": "assistant", "content": "Because."}


@pytest.mark.parametrize(
    "beside",
    [
        {"response": "Because."},
        {"completion": "Because."},
        {"response": {"content": "Because."}},
        {"message": SAID, "done": True},
        {"output": [{**SAID, "type": "message"}]},
        {"choices": [{"text": "Because."}]},
        {"messages": [*QUESTION, SAID], "response": "Because."},
    ],
)
def test_an_answer_is_found_wherever_loggers_write_it(tmp_path, beside):
    episode, left_out = found(tmp_path, **beside)
    said = [(step.action, step.parameters["content"]) for step in episode.steps]
    assert said == [("user", "Why?"), ("assistant", "Because.")]
    assert not left_out


def test_an_error_and_words_for_an_outcome_that_nobody_knows_are_kept(tmp_path):
    failed, _ = found(tmp_path, success=False, error={"message": "rate limit", "code": 429})
    assert failed.outcome.status is OutcomeStatus.FAILURE
    assert failed.outcome.reason == "rate limit"
    other, _ = found(tmp_path, outcome="resolved", error="retried once")
    assert other.outcome is None
    assert other.metadata["outcome"] == "resolved"
    assert other.metadata["error"] == "retried once"


def test_tokens_are_added_up_where_no_total_is_logged(tmp_path):
    episode, _ = found(tmp_path, usage={"prompt_tokens": 7, "completion_tokens": 9})
    assert episode.steps[-1].tokens_used == 16


def test_fields_that_only_other_formats_read_are_counted(tmp_path):
    other = {"toolCalls": [{"name": "x"}], "observation": "o", "error": "e", "summary": "s"}
    episode, left_out = found(
        tmp_path,
        messages=[*QUESTION, {**SAID, "thinking": "Hm.", **other}],
        output=[1, 2],
        thoughts="t",
        observation="o",
    )
    assert [step.action for step in episode.steps] == ["user", "reasoning", "assistant"]
    assert left_out == {
        "field toolCalls": 1,
        "field observation": 2,
        "field error": 1,
        "field summary": 1,
        "field output": 1,
        "field thoughts": 1,
    }
