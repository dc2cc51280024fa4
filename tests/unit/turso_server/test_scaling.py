"""What the forecast of a pool promises: shorter waits in bursts, at no more connections."""

from __future__ import annotations

import pytest

from benchmarks import scaling

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bursts() -> dict[str, dict[str, float]]:
    """Bursts of an hour and a half."""
    return {
        variant: scaling.simulate("bursts", variant, share=3 / 8) for variant in scaling.VARIANTS
    }


def test_waits_in_bursts_are_shorter_at_no_more_connections(
    bursts: dict[str, dict[str, float]],
) -> None:
    assert scaling.kept(bursts)
    assert bursts["fixed"]["wait_ms"] < bursts["with"]["wait_ms"]
    assert {variant["calls"] for variant in bursts.values()} == {bursts["with"]["calls"]}


@pytest.mark.parametrize("worse", ["wait_ms", "opened", "held"])
def test_a_promise_that_is_not_kept_is_seen(
    bursts: dict[str, dict[str, float]], worse: str
) -> None:
    ours = bursts["with"] | {worse: bursts["without"][worse] * 1.01}
    assert not scaling.kept(bursts | {"with": ours})


@pytest.mark.parametrize("load", ["bursts by chance", "ramp"])
def test_where_there_is_no_rhythm_nothing_is_worse(load: str) -> None:
    ours, other = (scaling.simulate(load, variant, share=1 / 8) for variant in ("with", "without"))
    assert ours == other
