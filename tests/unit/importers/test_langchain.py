from __future__ import annotations

from tests.unit.importers.transcripts import case, read, shape, write, write_lines


def constructor(name, **kwargs):
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", name], "kwargs": kwargs}


def test_messages_of_messages_to_dict():
    form, episode = case("langchain_messages.json")
    assert form == "langchain"
    assert shape(episode) == [
        ("message", "user", None),
        ("add", "call", "success"),
        ("message", "assistant", None),
    ]
    assert episode.task_description == "Add 2 and 3"
    assert episode.steps[1].parameters == {"a": 2, "b": 3}
    assert episode.steps[1].result.output == "5"
    assert episode.metadata == {"source": "langchain", "timing": "none"}


def test_messages_of_dumpd_with_blocks_that_repeat_calls(tmp_path):
    use = {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}}
    messages = [
        constructor("SystemMessage", content="S"),
        constructor("HumanMessage", content="Add"),
        constructor(
            "AIMessage",
            content=[{"type": "text", "text": "Adding."}, use],
            tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c1"}],
            usage_metadata={"total_tokens": 7},
            response_metadata={"model_name": "m"},
        ),
        constructor("ToolMessage", content="no", tool_call_id="c1", status="error"),
    ]
    form, (episode,), _ = read(write(tmp_path / "a.json", messages))
    assert form == "langchain"
    assert shape(episode) == [
        ("message", "system", None),
        ("message", "user", None),
        ("message", "assistant", None),
        ("add", "call", "error"),
    ]
    assert episode.steps[2].tokens_used == 7
    assert episode.metadata["model"] == "m"


def test_plain_messages_of_a_history_and_older_calls(tmp_path):
    call = {"id": "c1", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        {"type": "human", "content": "Go"},
        {"type": "ai", "content": "", "additional_kwargs": {"tool_calls": [call]}},
        {"type": "tool", "content": "1", "tool_call_id": "c1"},
        {
            "type": "ai",
            "content": "",
            "invalid_tool_calls": [{"name": "f", "args": "{", "id": "c2"}],
        },
        {"type": "chat", "role": "critic", "content": "Well."},
    ]
    _, (episode,), _ = read(write(tmp_path / "chat_history.json", messages))
    assert shape(episode) == [
        ("message", "user", None),
        ("f", "call", "success"),
        ("f", "call", None),
        ("message", "critic", None),
    ]
    assert episode.steps[2].parameters == {"arguments": "{"}


def test_threads_with_one_id_are_told_apart_and_grow(tmp_path):
    one, two = {"type": "human", "content": "1"}, {"type": "human", "content": "2"}
    threads = [[one], [two], [one, {"type": "ai", "content": "A"}]]
    lines = [{"thread_id": "t", "values": {"messages": messages}} for messages in threads]
    _, (first, other, longer), _ = read(write_lines(tmp_path / "a.jsonl", lines))
    assert first.id == longer.id != other.id
    assert first.metadata["thread_id"] == "t"


def test_a_message_that_removes_another_is_noted_and_is_not_a_step(tmp_path):
    messages = [
        {"type": "human", "content": "Hi", "id": "m1"},
        {"type": "remove", "content": "", "id": "m1"},
        constructor("RemoveMessage", content="", id="m2"),
    ]
    _, (episode,), log = read(write(tmp_path / "a.json", messages))
    assert shape(episode) == [("message", "user", None)]
    reasons = [note.reason for note in log.notes]
    assert reasons == ["removes message m1; left out", "removes message m2; left out"]


def test_what_a_state_and_its_tasks_say_beside_the_messages_is_kept(tmp_path):
    state = {
        "thread_id": "t",
        "status": "error",
        "values": {"messages": [{"type": "human", "content": "Q"}], "plan": "walk", "n": [1]},
        "tasks": [{"error": "no network"}, {"error": None}],
    }
    _, (episode,), _ = read(write_lines(tmp_path / "a.jsonl", [state]))
    kept = {
        "status": "error",
        "values.plan": "walk",
        "values.n": "[1]",
        "tasks.error": "no network",
    }
    assert kept.items() <= episode.metadata.items()


def test_thoughts_errors_of_arguments_and_a_second_model(tmp_path):
    def ai(content, model, **fields):
        data = {"content": content, "response_metadata": {"model_name": model}, **fields}
        return {"type": "ai", "data": data}

    thought = {"type": "reasoning", "reasoning": "Hm"}
    broken = {"name": "f", "args": "{", "id": "c", "error": "not JSON"}
    messages = [
        ai([thought, {"type": "text", "text": "A"}], "one"),
        ai([thought], "two", invalid_tool_calls=[broken]),
        ai([thought], "one"),
    ]
    _, (episode,), _ = read(write(tmp_path / "a.json", messages))
    assert [(s.action, s.parameters.get("content")) for s in episode.steps] == [
        ("reasoning", "Hm"),
        ("assistant", "A"),
        ("reasoning", "Hm"),
        ("call", None),
        ("reasoning", "Hm"),
    ]
    assert episode.metadata["model"] == "one"
    assert [step.metadata.get("model") for step in episode.steps] == [
        None,
        None,
        "two",
        "two",
        None,
    ]
    assert episode.steps[3].metadata["parse_error"] == "not JSON"
