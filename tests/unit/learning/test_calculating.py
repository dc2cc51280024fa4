"""What episodes lack is calculated, marked and explained, and never put in place of what is there."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attrs import evolve

from memory_core import (
    Episode,
    ExecutionStep,
    Outcome,
    PluginRegistry,
    Reflection,
    RewardScore,
    SalientFeatures,
    StepResult,
    hookimpl,
    open_memory,
)
from memory_core.errors import PluginError
from memory_core.learning import Calculated, is_calculated
from memory_core.learning.calculating import completed
from memory_core.learning.calculators import BUILTIN_CALCULATORS
from memory_core.memory import Memory

AT = datetime(2026, 11, 1, tzinfo=UTC)
FIELDS = ("reward", "reflection", "salient_features")


def episode(*calls, outcome=None, **fields):
    """An episode of calls: ``tool``, ``tool!error`` or ``tool?parameter``."""
    steps = []
    for number, call in enumerate(calls, 1):
        tool, parameter, error = re.fullmatch(r"(\w+)(?:\?(\w+))?(?:!(.+))?", call).groups()
        result = StepResult.error(error) if error else StepResult.success("ok")
        steps.append(
            ExecutionStep(
                number=number,
                timestamp=AT,
                tool=tool,
                parameters={"of": parameter or str(number)},
                result=result,
            )
        )
    return Episode(
        task_description="a trip",
        start_time=AT,
        end_time=AT + timedelta(hours=1),
        steps=steps,
        outcome=outcome,
        **fields,
    )


def calculated(given, *calculators):
    return completed(given, (*BUILTIN_CALCULATORS, *calculators))


@pytest.mark.parametrize(
    ("outcome", "calls", "total", "why"),
    [
        (Outcome.success("done"), (), 1.0, "(0 of 0 calls failed)"),
        (Outcome.success("done"), ("a", "a!no", "b"), 5 / 6, "0.83 = base 1.00 (success) x efficiency 0.83"),
        (Outcome.success("done"), ("a!no",), 0.5, "(1 of 1 calls failed)"),
        (Outcome.failure("no"), ("a",), 0.0, "base 0.00 (failure)"),
        (Outcome.partial_success("half"), (), 0.5, "base 0.50 (partial success)"),
        (Outcome.partial_success("most", ["a", "b", "c"], ["d"]), (), 0.75, "base 0.75"),
    ],
)  # fmt: skip
def test_a_reward_is_that_of_the_outcome(outcome, calls, total, why):
    found = calculated(episode(*calls, outcome=outcome))
    assert found.reward.total == pytest.approx(total)
    assert found.reward.total == found.reward.base * found.reward.efficiency
    assert found.metadata["calculated_reward"].startswith("outcome_reward ")
    assert why in found.metadata["calculated_reward"]


@pytest.mark.parametrize("outcome", [None, Outcome.abstained("not mine")])
def test_no_reward_is_made_up(outcome):
    found = calculated(episode("a", "b", outcome=outcome))
    assert found.reward is None
    assert "calculated_reward" not in found.metadata


def test_a_reflection_says_what_failed_what_helped_and_what_was_repeated():
    calls = ("book!no seat", "search", "book", "pay!declined", "ask?x", "ask?x", "ask?x")
    found = calculated(episode(*calls, outcome=Outcome.success("booked")))
    assert found.reflection == Reflection(
        successes=["booked", "book worked after: no seat"],
        improvements=[
            "pay never worked after: declined",
            "ask was called 3 times with the same parameters",
        ],
        insights=["when book fails with: no seat, call search"],
        generated_at=found.end_time,
    )
    assert (
        "2 of 7 calls failed; kinds of errors overcome: 1, not overcome: 1; repeated calls: 1"
        in (found.metadata["calculated_reflection"])
    )


def test_features_are_the_order_of_tools():
    found = calculated(episode("book!no seat", "search", "book", "pay", "search", "book"))
    assert found.salient_features == SalientFeatures(
        critical_decisions=["after an error of book: search"],
        tool_combinations=["search → book", "book → search", "book → pay", "pay → search"],
        error_recovery_patterns=["book: no seat → search"],
    )


def test_an_episode_that_shows_nothing_stays_as_it_is():
    given = episode("a")
    assert calculated(given) is given


def test_what_is_there_is_never_replaced():
    own = {
        "reward": RewardScore(total=0.3),
        "reflection": Reflection(insights=["mine"], generated_at=AT),
        "salient_features": SalientFeatures(key_insights=["mine"]),
    }
    given = episode("a!no", "b", "a", outcome=Outcome.success("done"), **own)
    assert calculated(given) is given
    assert not any(is_calculated(given, name) for name in FIELDS)


def test_a_calculated_value_that_a_person_changed_is_theirs():
    found = calculated(episode("a!no", "b", "a", outcome=Outcome.success("done")))
    assert all(is_calculated(found, name) for name in FIELDS)
    theirs = evolve(found, reward=RewardScore(total=0.1))
    again = calculated(theirs)
    assert again.reward == RewardScore(total=0.1)
    assert "calculated_reward" not in again.metadata
    assert is_calculated(again, "reflection")


def test_a_value_follows_what_it_was_calculated_from():
    found = calculated(episode("a", "b", outcome=Outcome.success("done")))
    failed = calculated(evolve(found, outcome=Outcome.failure("it broke")))
    assert failed.reward.total == 0.0
    unknown = calculated(evolve(found, outcome=None))
    assert unknown.reward is None
    assert "calculated_reward" not in unknown.metadata


class Other:
    name = "other"
    field = "reward"

    def __init__(self, found):
        self.found = found

    def calculate(self, episode):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def test_the_last_calculator_that_can_tell_is_taken():
    value = RewardScore(total=0.25)
    given = episode("a", outcome=Outcome.success("done"))
    found = calculated(given, Other(Calculated(value, "a\nreason")), Other(None))
    assert found.reward == value
    assert re.fullmatch(r"other \w{12}: a reason", found.metadata["calculated_reward"])


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (ValueError("no"), r"the calculator 'other' fails on episode .*: ValueError\('no'\)"),
        (Calculated(Reflection(), "no"), "returned Reflection"),
    ],
)
def test_a_calculator_that_fails_is_named(found, message):
    with pytest.raises(PluginError, match=message):
        calculated(episode("a", outcome=Outcome.success("done")), Other(found))


class Plugin:
    @hookimpl
    def memory_calculators(self):
        return [Other(Calculated(RewardScore(total=0.25), "always"))]


class Wrong:
    @hookimpl
    def memory_calculators(self):
        return [object()]


@pytest.fixture(params=["inmemory:", "turso:{}/m.db", "lmdb:{}/m"])
async def memory(request, tmp_path):
    async with open_memory(request.param.format(tmp_path)) as opened:
        yield opened


async def test_episodes_of_a_store_are_calculated_once(memory: Memory):
    ended = [episode("a!no", "b", "a", outcome=Outcome.success(str(n))) for n in range(450)]
    await memory.store_episodes_batch(ended)
    running = await memory.start_episode(task_description="under way")
    found = await memory.calculate()
    assert (found.episodes, found.rewards, found.written) == (450, 450, 450)
    assert (found.reflections, found.salient_features) == (450, 450)
    assert (await memory.calculate()).written == 0
    first = await memory.get_episode(ended[0].id)
    assert first == calculated(ended[0])
    assert (await memory.get_episode(running.id)).reward is None


async def test_an_episode_that_changes_meanwhile_is_calculated_as_it_is_then(memory, monkeypatch):
    given = episode("a", outcome=Outcome.success("done"))
    await memory.store_episode(given)
    storage = memory.storage
    commit = type(storage).commit
    changed = evolve(given, outcome=Outcome.failure("it broke"), tags=("later",))

    async def first_another(self, batches):
        monkeypatch.undo()
        await memory.store_episode(changed)
        return await commit(self, batches)

    monkeypatch.setattr(type(storage), "commit", first_another)
    assert (await memory.calculate()).written == 1
    stored = await memory.get_episode(given.id)
    assert (stored.tags, stored.reward.total) == (("later",), 0.0)


async def test_a_plugin_comes_before_the_core():
    registry = PluginRegistry()
    registry.register(Plugin(), name="acme")
    assert [*registry.calculators][-1] == "other"
    async with open_memory("inmemory:", registry=registry) as memory:
        given = episode("a", outcome=Outcome.success("done"))
        await memory.store_episode(given)
        await memory.calculate()
        assert (await memory.get_episode(given.id)).reward.total == 0.25


def test_what_is_not_a_calculator_is_left_out():
    registry = PluginRegistry()
    registry.register(Wrong(), name="wrong")
    assert [*registry.calculators] == [item.name for item in BUILTIN_CALCULATORS]


async def test_the_class_in_the_guide_works():
    guide = (Path(__file__).parents[3] / "docs" / "plugins.md").read_text("utf-8")
    code = guide.partition("## Calculators")[2].partition("```python\n")[2].partition("```")[0]
    names = {"RewardScore": RewardScore, "Calculated": Calculated}
    exec(code, names)
    found = calculated(episode("a", outcome=Outcome.success("done")), names["Haste"]())
    assert found.reward.total == pytest.approx(1 / 61)
    assert found.metadata["calculated_reward"].endswith("60 minutes")
