from __future__ import annotations

from memory_core.importers import LangSmithImporter
from memory_core.importers.base import found_in
from memory_core.importers.log import Log
from memory_core.importers.source import opened
from memory_core.records import OutcomeStatus, StepResult
from tests.unit.importers.transcripts import case, read, shape, write, write_lines


def run(number, kind, parent=0, **fields):
    return {
        "id": f"r{number}",
        "name": f"run {number}",
        "run_type": kind,
        "trace_id": "r0",
        "parent_run_id": None if number == 0 else f"r{parent}",
        "start_time": f"2026-03-01T10:00:{number:02d}",
        "end_time": f"2026-03-01T10:00:{number + 1:02d}",
        "inputs": {},
        "outputs": {},
        **fields,
    }


def test_a_trace():
    form, episode = case("langsmith_runs.jsonl")
    assert form == "langsmith"
    assert shape(episode) == [
        ("message", "user", None),
        ("add", "call", "success"),
        ("message", "assistant", None),
    ]
    assert episode.task_description == "Add 2 and 3"
    assert episode.steps[1].parameters == {"a": 2, "b": 3}
    assert episode.steps[1].result == StepResult.success("5")
    assert episode.steps[1].latency_ms == 1000
    assert (episode.end_time - episode.start_time).total_seconds() == 5
    assert episode.outcome is None
    assert episode.metadata == {
        "source": "langsmith",
        "trace_id": "r0",
        "name": "agent",
        "timing": "steps",
    }


def test_models_tools_and_failures(tmp_path):
    message = {"lc": 1, "type": "constructor", "id": ["HumanMessage"], "kwargs": {"content": "Q"}}
    said = {"generations": [[{"text": "Looking.", "message": {}}]]}
    runs = [
        run(3, "llm", error="RateLimitError()"),
        run(2, "tool", inputs={"q": 1}, error="Traceback\nValueError: no", name="find"),
        run(1, "llm", outputs=said, total_tokens=8, extra={"metadata": {"ls_model_name": "m"}}),
        run(4, "chain"),
        run(
            0,
            "chain",
            inputs={"messages": [[message]]},
            outputs=None,
            error="Traceback\nRateLimitError: slow down",
            tags=["a"],
            total_cost=0.5,
            feedback_stats={"score": {"n": 1, "avg": 0.25}},
        ),
    ]
    _, (episode,), log = read(write(tmp_path / "a.json", runs))
    assert shape(episode) == [
        ("message", "user", None),
        ("message", "assistant", None),
        ("find", "call", "error"),
        ("message", "assistant", "error"),
    ]
    assert (episode.steps[1].tokens_used, episode.steps[1].parameters) == (
        8,
        {"content": "Looking."},
    )
    assert episode.outcome.status is OutcomeStatus.FAILURE
    assert episode.outcome.reason == "RateLimitError: slow down"
    assert log.left_out == {"chain runs": 1}
    assert episode.tags == ("langsmith", "a")
    known = {"cost": "0.5", "feedback_score": "0.25", "model": "m", "name": "run 0"}
    assert known.items() <= episode.metadata.items()


def test_a_call_of_a_model_alone(tmp_path):
    inputs = {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]}
    choices = [{"index": 0, "message": {"role": "assistant", "content": "A"}}]
    lines = [run(0, "llm", inputs=inputs, outputs={"choices": choices})]
    _, (episode,), _ = read(write_lines(tmp_path / "a.jsonl", lines))
    assert [(s.action, s.parameters["content"]) for s in episode.steps] == [
        ("system", "S"),
        ("user", "Q"),
        ("assistant", "A"),
    ]


def test_the_answer_is_said_once(tmp_path):
    outputs = {"messages": [{"type": "human", "content": "Q"}, {"type": "ai", "content": "A"}]}
    runs = [
        run(0, "chain", inputs={"question": "Q"}, outputs=outputs),
        run(1, "llm", outputs={"generations": [[{"text": "A"}]]}),
    ]
    _, (episode,), _ = read(write_lines(tmp_path / "a.jsonl", runs))
    assert [(s.action, s.parameters["content"]) for s in episode.steps] == [
        ("user", "Q"),
        ("assistant", "A"),
    ]


def test_nested_runs_are_one_trace(tmp_path):
    child = run(1, "tool", outputs={"output": "x"}, name="t")
    for name in ("trace_id", "parent_run_id"):
        del child[name]
    root = run(0, "chain", inputs={"input": "Q"}, outputs={"output": "A"}, child_runs=[child])
    _, (episode,), _ = read(write(tmp_path / "a.json", root))
    assert shape(episode)[1] == ("t", "call", "success")
    assert len(episode.steps) == 3


def test_a_batch_of_new_and_changed_runs_is_one_trace(tmp_path):
    new = run(0, "llm", inputs={"messages": [{"role": "user", "content": "Q"}]}, dotted_order="o1")
    del new["end_time"]
    message = {"role": "assistant", "content": "A"}
    outputs = {"choices": [{"message": message}], "usage_metadata": {"total_tokens": 18}}
    changed = {
        "dotted_order": "o1",
        "trace_id": "r0",
        "end_time": 1_772_359_202_000,
        "outputs": outputs,
    }
    form, (episode,), _ = read(write(tmp_path / "a.json", {"post": [new], "patch": [changed]}))
    assert form == "langsmith"
    assert [(s.action, s.parameters["content"]) for s in episode.steps] == [
        ("user", "Q"),
        ("assistant", "A"),
    ]
    assert episode.steps[1].tokens_used == 18
    assert (episode.end_time - episode.start_time).total_seconds() == 2


def test_a_run_without_a_type_is_listed(tmp_path):
    log = Log("a.json")
    with opened(write(tmp_path / "a.json", [run(0, "chain"), {"id": "x"}])) as source:
        assert len(list(found_in(LangSmithImporter(), source, log))) == 1
    assert [error.reason for error in log.skipped] == ["run_type: is missing"]
