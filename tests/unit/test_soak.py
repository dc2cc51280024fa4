"""The soak benchmark: it runs with kills and restarts, and sees what grows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import soak

LEVELS = {
    "memory": 40.0, "files": 20.0, "records": 2_000.0, "p50 ms": 1.0, "p99 ms": 5.0, "cpu us": 400.0,
    "handles": 18.0, "threads": 5.0, "tasks": 11.0,
}  # fmt: skip


def samples(grows: str | None = None, by: float = 0.0) -> list[soak.Sample]:
    """Seven minutes, where one subject grows by this in the part that is judged."""
    found: list[soak.Sample] = []
    for second in range(420):
        noise = 0.02 * ((second * 7919) % 11 - 5) / 5
        sample = {name: level * (1 + noise) for name, level in LEVELS.items()}
        if grows is not None:
            sample[grows] += by * max(second - 262, 0) / 158
        found.append(sample | {"second": float(second), "judged": float(second >= 210)})
    return found


def test_what_stays_is_not_said_to_grow() -> None:
    assert soak.grows(soak.judged(samples())) == []


@pytest.mark.parametrize("subject", [*soak.BOUNDS, *soak.COUNTED])
def test_what_grows_beyond_its_bound_is_seen(subject: str) -> None:
    bound = (
        soak.BOUNDS[subject] * LEVELS[subject] if subject in soak.BOUNDS else soak.COUNTED[subject]
    )
    assert soak.grows(soak.judged(samples(subject, 2.5 * bound))) == [subject]
    assert soak.grows(soak.judged(samples(subject, 0.5 * bound))) == []


@pytest.mark.slow
@pytest.mark.parametrize("backend", list(soak.URLS))
def test_agents_work_through_kills_and_restarts(
    backend: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["soak", backend, "--quick", "--json"])
    assert soak.main() == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["results"][backend]
    assert found["kills"] >= 1
    assert found["restarts"] >= 1
    last = found["samples"][-1]
    assert last["judged"]
    assert last["episode records"] > 50
    assert last["files"] > 0.1
    for operation in soak.OPERATIONS[:-1]:
        assert any(sample.get(f"{operation} ms", 0) > 0 for sample in found["samples"]), operation
