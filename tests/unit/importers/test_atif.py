from __future__ import annotations

from memory_core.importers import AtifImporter
from memory_core.importers.base import found_in
from memory_core.importers.log import Log
from memory_core.importers.source import opened
from memory_core.records import StepResult
from tests.unit.importers.transcripts import case, read, shape, write


def trajectory(*steps, **fields):
    agent = {"name": "a", "version": "1"}
    return {
        "schema_version": "ATIF-v1.7",
        "session_id": "s",
        "agent": agent,
        "steps": steps,
        **fields,
    }


def step(source="agent", message="", **fields):
    return {"step_id": 1, "source": source, "message": message, **fields}


def call(number):
    return {"tool_call_id": f"c{number}", "function_name": f"f{number}", "arguments": {"n": number}}


def test_a_trajectory():
    form, episode = case("atif_trajectory.json")
    assert form == "atif"
    assert shape(episode) == [
        ("message", "user", None),
        ("message", "reasoning", None),
        ("message", "assistant", None),
        ("bash_command", "call", "success"),
    ]
    assert episode.task_description == "Make hello.txt"
    assert episode.steps[3].parameters == {"keystrokes": "echo hi > hello.txt\n"}
    assert episode.steps[3].result.output == "$ "
    assert episode.steps[1].tokens_used == 530
    assert episode.steps[1].metadata == {"model": "openai/gpt-5.4", "cost": "0.001"}
    assert (episode.end_time - episode.start_time).total_seconds() == 5
    assert episode.outcome is None
    assert episode.context.framework == "terminus-2"
    assert episode.metadata == {
        "source": "atif",
        "session_id": "s1",
        "agent": "terminus-2",
        "version": "2.0.0",
        "model": "openai/gpt-5.4",
        "prompt_tokens": "500",
        "completion_tokens": "30",
        "cost": "0.001",
        "timing": "steps",
    }


def test_results_find_their_calls_and_others_are_observations(tmp_path):
    results = [
        {"source_call_id": "c2", "content": "Error: no"},
        {"source_call_id": "c1", "content": [{"type": "text", "text": "1"}]},
        {"content": "a prompt"},
    ]
    both = step(tool_calls=[call(1), call(2)], observation={"results": results})
    one = step(tool_calls=[call(3)], observation={"results": [{"content": "3"}]})
    _, (episode,), _ = read(write(tmp_path / "a.json", trajectory(both, one)))
    assert shape(episode) == [
        ("f1", "call", "success"),
        ("f2", "call", "error"),
        ("message", "observation", None),
        ("f3", "call", "success"),
    ]
    assert [s.result for s in episode.steps] == [
        StepResult.success("1"),
        StepResult.error("Error: no"),
        None,
        StepResult.success("3"),
    ]


def test_subagents_are_parts_of_the_trajectory(tmp_path):
    refs = [{"trajectory_id": "t1", "session_id": "s"}]
    asked = step(
        tool_calls=[call(1)],
        observation={"results": [{"source_call_id": "c1", "subagent_trajectory_ref": refs}]},
    )
    child = trajectory(step("user", "Find"), trajectory_id="t1")
    path = write(tmp_path / "a.json", trajectory(asked, subagent_trajectories=[child]))
    log = Log("a.json")
    with opened(path) as source:
        whole, part = found_in(AtifImporter(), source, log)
    assert part.parent == whole.episode.id
    assert part.episode.task_description == "Find"
    assert whole.episode.steps[0].metadata["subagents"] == "t1"


def test_a_trajectory_without_steps_is_listed(tmp_path):
    log = Log("a.json")
    with opened(write(tmp_path / "a.json", trajectory())) as source:
        assert list(found_in(AtifImporter(), source, log)) == []
    assert [error.reason for error in log.skipped] == ["steps: expected a list of steps"]


def test_copied_context_and_continuations_are_marked(tmp_path):
    copied = step("user", "So far", is_copied_context=True)
    path = write(tmp_path / "a.json", trajectory(copied, continued_trajectory_ref="b.json"))
    _, (episode,), _ = read(path)
    assert episode.steps[0].metadata == {"copied": "true"}
    assert episode.metadata["continued_in"] == "b.json"
