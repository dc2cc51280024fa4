"""What was done after an error, and how often it helped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from memory_core.learning.extracting import Counts, Fact, Finding, Tally
from memory_core.learning.extractors.calls import calls_of
from memory_core.records import Effectiveness, Episode, ErrorRecovery, OutcomeStats

__all__ = ["ErrorRecoveries"]

_FAILED, _HELPED = "failed", "helped"


class ErrorRecoveries:
    """A call fails, and something is done next. It helped if the tool that failed succeeds later in the
    episode, whatever comes of the episode, which is counted beside it. Episodes are counted, not calls: where
    an error comes again, it helped if it did once.
    """

    name: ClassVar[str] = "error_recovery"

    def facts(self, episode: Episode) -> Iterator[Fact]:
        """Each error, what was done next, and whether it helped."""
        calls = calls_of(episode)
        for place, call in enumerate(calls[:-1]):
            if not call.error:
                continue
            following = calls[place + 1 :]
            fact = call.tool, call.error, following[0].tool
            yield _FAILED, *fact
            if any(later.tool == call.tool and not later.error for later in following):
                yield _HELPED, *fact

    def findings(self, counts: Counts) -> list[Finding]:
        """Patterns of what helped at all; rules of what helped mostly, unless the episodes mostly failed.
        Like every rule, these count how their episodes ended.
        """
        found: list[Finding] = []
        for fact, tally in counts.tallies.items():
            if fact[0] != _FAILED:
                continue
            helped = counts.of((_HELPED, *fact[1:])).support
            if not helped:
                continue
            recovery = Tally(helped, tally.support - helped)
            _, tool, error, following = fact
            action = f"call {following}{' again' if following == tool else ''}"
            ids = counts.find(fact, None)
            pattern = ErrorRecovery(
                error_type=f"{tool}: {error}",
                recovery_steps=(action,),
                context=counts.context,
                success_rate=recovery.rate,
                outcome_stats=OutcomeStats(successes=tally.successes, failures=tally.failures),
                evidence=ids,
                effectiveness=Effectiveness(
                    times_applied=recovery.support,
                    successes=recovery.successes,
                    failures=recovery.failures,
                ),
            )
            found.append(pattern)
            if recovery.mostly and tally.bounds[1] >= 0.5:
                condition = f"when {tool} fails with: {error}"
                found.append(counts.heuristic(condition, action, tally, ids))
        return found
