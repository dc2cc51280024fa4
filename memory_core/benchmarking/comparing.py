"""Comparing two results: what became slower, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import frozen

from memory_core.benchmarking.reports import BenchReport
from memory_core.errors import ConfigurationError

__all__ = ["CaseChange", "compare", "read_report"]


@frozen(kw_only=True)
class CaseChange:
    """How a case has changed.

    Attributes:
        name: the case.
        before: records or operations a second, the median of the rounds.
        after: the same of the second result.
        ratio: ``after`` through ``before``; below 1 is slower.
        least: the slowest round after through the fastest before.
        most: the fastest round after through the slowest before.
        verdict: ``slower`` or ``faster`` if every round after was so compared with every round before; with
            five rounds each that is chance in 1 of 252 cases.
    """

    name: str
    before: float
    after: float
    ratio: float
    least: float
    most: float
    verdict: Literal["slower", "faster", "same"]


def compare(before: BenchReport, after: BenchReport) -> list[CaseChange]:
    """How the cases that both have changed, the one that became slowest first."""
    known = {case.name: case for case in before.cases}
    changes: list[CaseChange] = []
    for case in after.cases:
        if case.name not in known:
            continue
        old = known[case.name]
        least, most = min(case.rates) / max(old.rates), max(case.rates) / min(old.rates)
        changes.append(
            CaseChange(
                name=case.name,
                before=old.rate,
                after=case.rate,
                ratio=case.rate / old.rate,
                least=least,
                most=most,
                verdict="slower" if most < 1 else "faster" if least > 1 else "same",
            )
        )
    return sorted(changes, key=lambda change: change.ratio)


def read_report(path: Path) -> BenchReport:
    """Read what ``memory bench --json`` has printed.

    Raises:
        ConfigurationError: it cannot be read, or is something else.
    """
    import msgspec

    try:
        report = msgspec.json.decode(path.read_bytes(), type=BenchReport)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} is not a result of memory bench --json: {error}"
        ) from error
    if not report.cases or any(min(case.rates, default=0) <= 0 for case in report.cases):
        raise ConfigurationError(f"{path} is not a result of memory bench --json: it has no rates")
    return report
