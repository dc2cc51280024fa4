from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from memory_core.errors import ImportFormatError
from memory_core.importers import SweAgentImporter
from memory_core.records import OutcomeStatus, ResultStatus, StepResult, TaskType
from tests.unit.importers.transcripts import ISSUE, PATCH, call, swe_run, write, write_bytes

IMPORTER = SweAgentImporter()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_one(tmp_path, name="other-2.traj", **changes):
    (episode,) = IMPORTER.read(write(tmp_path / name, swe_run(**changes)))
    return episode


def test_a_run_becomes_an_episode(tmp_path):
    episode = read_one(tmp_path)
    assert episode.task_description == ISSUE
    assert episode.task_type is TaskType.DEBUGGING
    assert (episode.context.domain, episode.context.language) == ("software-engineering", "python")
    assert episode.outcome.status is OutcomeStatus.SUCCESS
    assert episode.outcome.verdict == "Submitted, 1 file changed; not evaluated."
    assert episode.outcome.artifacts == ("src/clock.py",)
    assert (episode.start_time, episode.end_time) == (EPOCH, EPOCH + timedelta(seconds=2))
    assert episode.metadata == {
        "source": "swe-agent",
        "instance_id": "clock-1",
        "environment": "main",
        "exit_status": "submitted",
        "repo": "https://example.org/clock",
        "model": "a-model",
        "cost": "0.5",
        "tokens_sent": "900",
        "api_calls": "3",
        "timing": "durations",
    }


def test_prompts_and_actions_become_steps(tmp_path):
    steps = read_one(tmp_path).steps
    assert [(step.tool, step.action) for step in steps] == [
        ("message", "system"),
        ("message", "user"),
        ("bash", "run"),
        ("bash", "run"),
        ("submit", "run"),
    ]
    search, run, submit = steps[2:]
    assert search.parameters == {"command": "grep -rn 24:00 src"}
    assert search.result == StepResult.success("src/clock.py:1:old")
    assert search.latency_ms == 500
    assert search.metadata == {
        "thought": "Search first.",
        "working_dir": "/repo",
        "open_file": "n/a",
    }
    assert run.result.status is ResultStatus.ERROR
    assert run.timestamp == EPOCH + timedelta(milliseconds=500)
    assert run.metadata["open_file"] == "src/clock.py"
    assert submit.result == StepResult.success(PATCH)


@pytest.mark.parametrize(
    ("command", "tool"),
    [
        ("find_file x.py\n", "find_file"),
        ("open src/a.py 3", "open"),
        ("str_replace_editor view a.py", "str_replace_editor"),
        ("my_bundled_tool x", "my_bundled_tool"),
        ("cd /testbed && python -m pytest tests", "bash"),
        ("/usr/bin/python3 -m pytest", "bash"),
        ("  ls", "bash"),
        ("ls;pwd", "bash"),
        ("A=1 make", "bash"),
        ("(cd a && make)", "bash"),
        ("./run.sh", "bash"),
        ("x" * 500, "bash"),
    ],
)
def test_the_tool_is_one_of_swe_agents_own_or_the_shell(tmp_path, command, tool):
    episode = read_one(tmp_path, trajectory=[{"action": command, "observation": ""}])
    assert (episode.steps[-1].tool, episode.steps[-1].parameters) == (tool, {"command": command})


@pytest.mark.parametrize(
    ("observation", "status"),
    [
        ("fine", ResultStatus.SUCCESS),
        ("bash: foo: command not found", ResultStatus.ERROR),
        (
            "The command 'x' was cancelled because it took more than 30 seconds.",
            ResultStatus.TIMEOUT,
        ),
        ("Your proposed edit has introduced new syntax error(s).", ResultStatus.ERROR),
        ("an Error in prose", ResultStatus.SUCCESS),
    ],
)
def test_the_observation_tells_how_an_action_ended(tmp_path, observation, status):
    episode = read_one(tmp_path, trajectory=[{"action": "x", "observation": observation}])
    step = episode.steps[-1]
    assert step.result.status is status
    assert observation in {
        step.result.output,
        step.result.message,
        step.metadata.get("observation"),
    }


def test_a_turn_without_a_command_is_a_message(tmp_path):
    step = {"action": "", "observation": "No command found.", "thought": "Hmm."}
    last = read_one(tmp_path, trajectory=[step]).steps[-1]
    assert (last.tool, last.action, last.parameters) == (
        "message",
        "assistant",
        {"content": "Hmm."},
    )
    assert last.result == StepResult.error("No command found.")


@pytest.mark.parametrize(
    ("info", "status", "words"),
    [
        (
            {"exit_status": "submitted (exit_cost)", "submission": PATCH},
            "partial_success",
            "exit_cost",
        ),
        ({"exit_status": "submitted", "submission": ""}, "failure", "empty"),
        ({"exit_status": "submitted", "submission": None}, "failure", "empty"),
        ({"exit_status": "exit_context"}, "failure", "exit_context"),
        ({"exit_status": "exit_forfeit"}, "abstained", "gave up"),
    ],
)
def test_the_exit_status_tells_the_outcome(tmp_path, info, status, words):
    outcome = read_one(tmp_path, info=info).outcome
    assert outcome.status == status
    assert words in (outcome.verdict or outcome.reason)


@pytest.mark.parametrize("info", [None, {}, {"exit_status": None}])
def test_without_an_exit_status_the_outcome_is_unknown(tmp_path, info):
    assert read_one(tmp_path, info=info).outcome is None


def test_the_instance_is_named_by_the_file_where_nothing_else_does(tmp_path):
    one = read_one(tmp_path, name="clock-9.traj.gz", replay_config=None)
    two = read_one(tmp_path, name="clock-8.traj", replay_config="{broken")
    assert (one.metadata["instance_id"], two.metadata["instance_id"]) == ("clock-9", "clock-8")
    assert one.id == two.id


@pytest.mark.parametrize(
    ("prompt", "issue"),
    [
        ("Fix it.\n<pr_description>\nA bug.\n</pr_description>\nRules.", "A bug."),
        ("Just fix it.", "Just fix it."),
        ("ISSUE:\n\nINSTRUCTIONS:\nnone", "ISSUE:\n\nINSTRUCTIONS:\nnone"),
    ],
)
def test_the_description_is_the_issue_without_instructions(tmp_path, prompt, issue):
    episode = read_one(tmp_path, history=[{"role": "user", "content": prompt}])
    assert episode.task_description == issue


def test_without_a_prompt_the_problem_statement_describes_the_task(tmp_path):
    config = {"problem_statement": {"text": "Clock is wrong."}}
    episode = read_one(tmp_path, history=[], replay_config=config)
    assert episode.task_description == "Clock is wrong."


def test_a_demonstration_of_only_a_history_is_read(tmp_path):
    history = [
        {"role": "user", "content": "ISSUE:\nSlow.\n\nINSTRUCTIONS:\nGo."},
        {
            "role": "assistant",
            "content": "Look.",
            "action": "open x",
            "tool_calls": [call("open", {"path": "x"})],
        },
        {"role": "tool", "content": "a file", "tool_call_ids": ["call_1"]},
    ]
    (episode,) = IMPORTER.read(write(tmp_path / "demo.traj", {"history": history}))
    assert [(step.tool, step.action) for step in episode.steps] == [
        ("message", "user"),
        ("message", "assistant"),
        ("open", "call"),
    ]
    assert episode.steps[2].parameters == {"path": "x"}
    assert episode.steps[2].result == StepResult.success("a file")
    assert episode.metadata["timing"] == "none"


def test_the_id_is_of_the_instance_and_what_happened(tmp_path):
    base = read_one(tmp_path)
    assert read_one(tmp_path, info={}).id == base.id
    assert read_one(tmp_path, replay_config=None).id != base.id
    trajectory = [
        *swe_run()["trajectory"][:1],
        {"action": "python src/clock.py", "observation": "ok"},
    ]
    assert read_one(tmp_path, trajectory=trajectory).id != base.id


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{}", "trajectory: expected a list of steps"),
        (b"[]", "trajectory: expected a list of steps"),
        (b'{"trajectory": {}}', "trajectory: expected a list of steps"),
        (b'{"trajectory": [', "is not JSON"),
    ],
)
def test_a_malformed_file_is_an_error_with_its_reason(tmp_path, data, reason):
    path = write_bytes(tmp_path / "x.traj", data)
    (error,) = IMPORTER.read(path, keep_going=True)
    assert isinstance(error, ImportFormatError)
    assert error.file == str(path)
    assert reason in error.reason
    with pytest.raises(ImportFormatError):
        next(IMPORTER.read(path))


def test_repeated_prompts_cost_no_memory_and_may_hold_anything(tmp_path):
    steps = [{"action": "ls", "observation": "x", "query": [{"role": 1, "deep": {"a": [2**70]}}]}]
    (episode,) = IMPORTER.read(
        write_bytes(tmp_path / "x", json.dumps({"trajectory": steps}).encode())
    )
    assert len(episode.steps) == 1


def test_two_readings_are_equal(tmp_path):
    path = write(tmp_path / "x.traj.xz", swe_run())
    assert list(IMPORTER.read(path)) == list(IMPORTER.read(path, keep_going=True))


@pytest.mark.parametrize("seconds", [-1, 1e300, "soon", None, [1]])
def test_a_duration_that_is_none_is_left_out(tmp_path, seconds):
    step = {"action": "x", "observation": "y", "execution_time": seconds}
    assert read_one(tmp_path, trajectory=[step]).steps[-1].latency_ms == 0


def test_an_action_of_another_type_is_kept_as_its_text(tmp_path):
    step = read_one(tmp_path, trajectory=[{"action": 3, "observation": {"a": 1}}]).steps[-1]
    assert (step.parameters, step.result.output) == ({"command": "3"}, '{"a":1}')


def test_ids_are_those_of_before_the_shell_was_a_tool(tmp_path):
    assert str(read_one(tmp_path).id) == "da44d173-cc29-524d-b1e2-ae5f48e4eaf3"
