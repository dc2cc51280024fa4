from datetime import UTC, datetime

import pytest

from memory_core import Episode, ExecutionStep, Feedback, Outcome, Query, RecallRecord

AT = datetime(2026, 11, 1, tzinfo=UTC)


def episode(task, outcome, said=None, **metadata):
    steps = []
    if said:
        parameters = {"content": said}
        steps = [ExecutionStep(number=1, tool="message", action="user", parameters=parameters)]
    return Episode(
        task_description=task,
        outcome=outcome,
        start_time=AT,
        end_time=AT,
        steps=steps,
        metadata=metadata,
    )


GOOD = episode("cancel a flight and refund it", Outcome.success("refunded"))
BAD = episode("cancel a flight with a voucher", Outcome.failure("no voucher"))
BREAD = [episode(f"bake bread number {n} with rye", Outcome.success("baked")) for n in range(20)]


@pytest.fixture
def filled(cli):
    cli.put(GOOD, BAD, *BREAD)
    return cli


def test_a_task_is_answered_with_what_helps(filled):
    found = filled.json("recall", "please cancel my flight and refund it")
    assert found["known"]
    assert found["worked"][0]["record"]["id"] == str(GOOD.id)
    assert [item["record"]["id"] for item in found["failed"]] == [str(BAD.id)]
    assert "cancel a flight" in found["prompt"]
    shown = filled("recall", "please cancel my flight and refund it").stdout
    assert "worked" in shown
    assert str(GOOD.id)[:8] in shown
    explained = filled("recall", "cancel flight refund", "--explain").stdout
    assert "\n         its own outcome: 100% success" in explained
    assert f'{GOOD.id} "cancel a flight and refund it"' in explained
    assert explained.startswith("recall ")
    prompt = filled("recall", "please cancel my flight and refund it", "--prompt", 400).stdout
    assert prompt.startswith("What earlier tasks teach")


def test_a_task_that_nothing_is_like(filled):
    found = filled.json("recall", "translate poems")
    assert (found["known"], found["prompt"]) == (False, "")
    assert "nothing here is like it" in filled("recall", "translate poems").stdout


def test_conditions_hold(filled):
    found = filled.json("recall", "cancel a flight", "--outcome", "failure")
    assert found["worked"] == []
    assert len(found["failed"]) == 1


def test_feedback_is_for_a_recall_that_was_recorded(filled):
    found = filled.json("recall", "cancel a flight and refund it")
    told = filled.json(
        "feedback", found["id"], "--used", GOOD.id, "--outcome", "failure", "--note", "a lie"
    )
    assert told["recall"] == found["id"]

    async def feedbacks(memory):
        return (await memory.query(Query(Feedback))).records

    [stored] = filled.read(feedbacks)
    assert (stored.used, stored.outcome) == ((GOOD.id,), Outcome.failure("a lie"))
    again = filled.json("recall", "cancel a flight and refund it")
    why = next(o["why"] for o in again["worked"] if o["record"]["id"] == str(GOOD.id))
    assert any(reason.startswith("a feedback: 0% success") for reason in why)
    assert "failure: cancel" in filled("list", "--kind", "feedback").stdout


def test_a_recall_that_was_not_recorded_has_no_feedback(filled):
    found = filled.json("recall", "cancel a flight", "--no-record")

    async def recalls(memory):
        return await memory.count(Query(RecallRecord))

    assert filled.read(recalls) == 0
    said = filled("feedback", found["id"], "--outcome", "success", code=1).stderr
    assert "no recall" in said


def test_feedback_names_what_was_shown(filled):
    found = filled.json("recall", "cancel a flight")
    said = filled("feedback", found["id"], "--used", "ffff", "--outcome", "success", code=1).stderr
    assert "0 of the ids shown" in said


def test_recall_is_measured_on_the_store(filled):
    for number in range(4):
        task = f"task {number}"
        words = ("alpha beta gamma", "delta epsilon", "zeta eta theta", "iota kappa")[number]
        filled.put(
            *(
                episode(f"{words} {n}", Outcome.success("x"), f"{words} please", about=task)
                for n in range(3)
            )
        )
    found = filled.json("evaluate", "--task-key", "about")
    assert (found["episodes"], found["tasks"]) == (12, 4)
    for name in ("useful", "same_task", "auroc"):
        assert found[name] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert "a useful episode comes first" in filled("evaluate", "--task-key", "about").stdout
    said = filled("evaluate", "--task-key", "unknown", code=2).stderr
    assert "'unknown' in their metadata" in said
