"""What the benchmark of recall says, on answers that are known and on real ones."""

import pytest

from benchmarks import recall


def answer(task, *, useful, searched=False, counts=True, **others):
    return {"task": task, "useful": useful, "searched": searched, "counts": counts} | others


def test_questions_without_a_useful_episode_do_not_count():
    found = [
        answer("a", useful=True),
        answer("a", useful=False),
        answer("b", useful=False, counts=False),
    ]
    assert recall.rate("useful")(found) == 0.5
    assert recall.rate("useful")([answer("b", useful=True, counts=False)]) == 0


def test_an_interval_is_over_tasks_and_not_over_questions():
    found = [answer(str(n), useful=n % 2 == 0) for n in range(10) for _ in range(50)]
    measured = recall.interval(found, recall.rate("useful"))
    assert measured["value"] == 0.5
    # Of ten tasks, and not of five hundred questions.
    assert measured["high"] - measured["low"] > 0.4


def test_weights_are_reported_on_tasks_that_they_were_not_set_on():
    last = len(recall.GRID) - 1
    found = [
        answer(str(n), useful=False, searched=True)
        | {f"useful {number}": number == last for number in range(len(recall.GRID))}
        for n in range(10)
    ]
    measured = recall.held_out(found)
    assert measured["useful"]["value"] == 1
    assert measured["better"]["value"] == 0


@pytest.mark.long
async def test_recall_keeps_its_quality_on_real_conversations(real_data):
    episodes = [recall.spoken(one) for one in recall.imported(real_data)]
    found = await recall.measure(episodes, quick=True)
    assert found["useful"]["value"] >= 0.7
    assert found["better than search x outcome"]["value"] > 0
    assert found["same task"]["value"] >= 0.8
    assert found["auroc"]["value"] >= 0.8
