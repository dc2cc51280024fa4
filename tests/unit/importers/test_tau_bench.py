from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from memory_core.errors import ImportFormatError
from memory_core.importers import BUILTIN_IMPORTERS, TauBenchImporter, detect
from memory_core.records import OutcomeStatus, ResultStatus, StepResult
from tests.unit.importers.transcripts import answer, call, tau_entry, write

IMPORTER = TauBenchImporter()


def read_one(tmp_path, **changes):
    (episode,) = IMPORTER.read(write(tmp_path / "results.json", [tau_entry(**changes)]))
    return episode


def test_an_entry_becomes_an_episode(tmp_path):
    episode = read_one(tmp_path)
    start = datetime(2024, 3, 1, 14, 30, tzinfo=UTC) + timedelta(seconds=2_007)
    assert episode.task_description == "You want to renew two books."
    assert episode.context.domain == "library"
    assert episode.start_time == start
    assert episode.end_time == start + timedelta(seconds=5)
    assert episode.outcome.status is OutcomeStatus.SUCCESS
    assert episode.is_complete
    assert (episode.reward.total, episode.reward.base) == (1.0, 1.0)
    assert episode.tags == ("tau-bench", "library")
    assert episode.metadata == {
        "source": "tau-bench",
        "task_id": "7",
        "trial": "2",
        "user_id": "ada_42",
        "user_cost": "0.25",
        "expected_actions": "renew,renew",
        "expected_calls": "renew(book=1)\nrenew()",
        "timing": "start",
    }


def test_turns_and_calls_become_steps_and_nothing_is_lost(tmp_path):
    steps = read_one(tmp_path).steps
    assert [(step.number, step.tool, step.action) for step in steps] == [
        (1, "message", "system"),
        (2, "message", "user"),
        (3, "message", "assistant"),
        (4, "renew", "call"),
        (5, "renew", "call"),
        (6, "message", "assistant"),
    ]
    assert steps[1].parameters == {"content": "Please renew my books."}
    assert steps[2].parameters == {"content": "One moment."}
    assert steps[3].parameters == {"book": 1}
    assert steps[3].result == StepResult.error("Error: book 1 is reserved")
    assert steps[4].result == StepResult.success('{"due": "2024-04-01"}')
    assert steps[4].metadata == {"call_id": "call_1"}
    assert [(b.timestamp - a.timestamp).seconds for a, b in pairwise(steps)] == [1] * 5


@pytest.mark.parametrize(
    ("reward_info", "reason"),
    [
        (None, "The conversation did not come to an end."),
        ({"info": {"r_actions": 0.0}}, "The database is not as expected."),
        (
            {"info": {"r_outputs": 0, "outputs": {"12": False, "3": True}}},
            "The user was not told: 12.",
        ),
        ({"info": {}}, "The reward is less than 1."),
        ({}, "The reward is less than 1."),
    ],
)
def test_a_failure_says_why(tmp_path, reward_info, reason):
    episode = read_one(tmp_path, reward=0.0, info={"reward_info": reward_info})
    assert episode.outcome.status is OutcomeStatus.FAILURE
    assert episode.outcome.reason == reason
    assert episode.reward.total == 0.0


def test_without_a_reward_the_outcome_is_unknown(tmp_path):
    episode = read_one(tmp_path, reward=None)
    assert episode.outcome is None
    assert episode.reward is None
    assert not episode.is_complete


def test_without_a_named_time_it_starts_at_the_epoch(tmp_path):
    traj = [{"role": "user", "content": "Hi"}]
    episode = read_one(tmp_path, traj=traj, info={})
    assert episode.start_time == datetime(1970, 1, 1, 0, 33, 27, tzinfo=UTC)
    assert episode.metadata["timing"] == "none"
    assert episode.task_description == "Hi"
    assert episode.context.domain == ""


def test_the_id_is_of_task_trial_and_trajectory_only(tmp_path):
    base = read_one(tmp_path)
    assert read_one(tmp_path, reward=0.0, extra="new").id == base.id
    assert read_one(tmp_path, task_id=8).id != base.id
    assert read_one(tmp_path, trial=3).id != base.id
    assert read_one(tmp_path, traj=tau_entry()["traj"][:-1]).id != base.id


def test_neither_place_in_the_file_nor_its_name_changes_an_episode(tmp_path):
    other = tau_entry(task_id=1)
    alone = read_one(tmp_path)
    moved = list(IMPORTER.read(write(tmp_path / "merged.json.gz", [other, tau_entry()])))
    assert moved[1] == alone


def test_answers_find_their_calls_though_ids_repeat(tmp_path):
    first, second = call("a", {"n": 1}), call("b", {"n": 2})
    traj = [
        {"role": "assistant", "tool_calls": [first, second]},
        answer("one", name="a"),
        answer("two", name="b"),
        answer("three", name="c"),
    ]
    steps = read_one(tmp_path, traj=traj).steps
    assert [(s.tool, s.action, s.result.output) for s in steps] == [
        ("a", "call", "one"),
        ("b", "call", "two"),
        ("c", "result", "three"),
    ]


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ("", {}),
        ("{not json", {"arguments": "{not json"}),
        ("[1, 2]", {"arguments": "[1, 2]"}),
        (
            '{"n": 123456789012345678901234567890}',
            {"arguments": '{"n": 123456789012345678901234567890}'},
        ),
        ('{"n": NaN}', {"arguments": '{"n": NaN}'}),
    ],
)
def test_arguments_a_model_got_wrong_are_kept_as_text(tmp_path, arguments, kept):
    traj = [{"role": "assistant", "tool_calls": [call("a", arguments)]}]
    (step,) = read_one(tmp_path, traj=traj).steps
    assert step.parameters == kept


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"task_id": 1, "reward": 1.0}, "traj: expected a list of messages"),
        (tau_entry(traj="text"), "traj: expected a list of messages"),
        ([1], "is not an object but list"),
    ],
)
def test_a_malformed_entry_is_named_and_the_others_are_kept(tmp_path, entry, reason):
    path = write(tmp_path / "results.json", [tau_entry(), entry, tau_entry(trial=3)])
    first, error, last = IMPORTER.read(path, keep_going=True)
    assert isinstance(error, ImportFormatError)
    assert (error.file, error.entry) == (str(path), "index 1")
    assert reason in error.reason
    assert (first.metadata["trial"], last.metadata["trial"]) == ("2", "3")
    read = IMPORTER.read(path)
    assert next(read) == first
    with pytest.raises(ImportFormatError) as caught:
        next(read)
    assert str(caught.value) == str(error)


@pytest.mark.parametrize(
    "changes",
    [
        {"traj": [{"content": "x"}]},
        {"reward": "high"},
        {"reward": True},
        {"traj": [{"role": "assistant", "tool_calls": [call("a\0b", {})]}]},
        {"traj": [{"role": "user", "content": "x", "timestamp": "soon"}]},
    ],
)
def test_a_value_of_another_type_does_not_lose_the_entry(tmp_path, changes):
    episode = read_one(tmp_path, **changes)
    episode.index_values()
    if "reward" in changes:
        assert (episode.reward, episode.outcome) == (None, None)


def test_the_real_airline_runs_import_the_same_twice(real_data):
    path = real_data / "tau_bench" / "gpt-4o-airline.json.gz"
    importer = detect(path, BUILTIN_IMPORTERS)
    assert importer.name == "tau-bench"
    episodes = list(importer.read(path))
    assert episodes == list(importer.read(path, keep_going=True))
    assert len(episodes) == len({episode.id for episode in episodes}) == 200
    outcomes = Counter(episode.outcome.status for episode in episodes)
    assert outcomes == {OutcomeStatus.SUCCESS: 84, OutcomeStatus.FAILURE: 116}
    assert {episode.context.domain for episode in episodes} == {"airline"}
    calls = [step for episode in episodes for step in episode.steps if step.action == "call"]
    assert len(calls) == 1_164
    assert all(step.result is not None for step in calls)
    assert Counter(step.result.status for step in calls)[ResultStatus.ERROR] == 73


CRASHED = {"error": "Rate limit", "traceback": "Traceback (most recent call last): here"}


def test_a_run_that_crashed_says_with_what(tmp_path):
    episode = read_one(tmp_path, reward=0.0, info=CRASHED, traj=[])
    assert episode.outcome.status is OutcomeStatus.FAILURE
    assert episode.outcome.reason == "Rate limit"
    assert episode.outcome.error_details == CRASHED["traceback"]
    assert "error" not in episode.metadata


@pytest.mark.parametrize("reward", [None, 1.0, 0.0])
def test_an_error_beside_the_outcome_is_kept(tmp_path, reward):
    episode = read_one(tmp_path, reward=reward, info={"reward_info": {"info": {}}, **CRASHED})
    assert {name: episode.metadata[name] for name in CRASHED} == CRASHED


def test_a_tool_that_answers_an_empty_text_is_kept_so(tmp_path):
    traj = [{"role": "assistant", "tool_calls": [call("look", {})]}, answer("")]
    (step,) = read_one(tmp_path, traj=traj).steps
    assert step.result == StepResult.success("")
    assert step.result.output == ""
