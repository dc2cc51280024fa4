"""A reflection from the calls of an episode: what failed, what helped, and what was done twice."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import msgspec

from memory_core.learning.calculating import Calculated
from memory_core.learning.extractors.calls import Call, calls_of
from memory_core.records import Episode, Reflection

__all__ = ["CallReflection", "recoveries"]

_MOST = 5
_OFTEN = 3


class CallReflection:
    """Successes are the verdict and errors that were overcome; improvements are errors that were not, and
    calls that were repeated with the same parameters three times or more; insights say what was called after
    an error whose tool worked later. All of it is counted from the steps.
    """

    name: ClassVar[str] = "call_reflection"
    field: ClassVar[str] = "reflection"

    def calculate(self, episode: Episode) -> Calculated | None:
        """The reflection; ``None`` if there is nothing to say."""
        calls = calls_of(episode)
        helped, left = recoveries(calls)
        repeated = _repeated(episode)
        verdict = episode.outcome.verdict if episode.outcome else None
        successes = ([verdict] if verdict else []) + [
            f"{tool} worked after: {error}" for tool, error, _ in helped
        ]
        improvements = [f"{tool} never worked after: {error}" for tool, error in left] + [
            f"{tool} was called {count} times with the same parameters" for tool, count in repeated
        ]
        insights = [
            f"when {tool} fails with: {error}, call {following}"
            for tool, error, following in helped
        ]
        if not (helped or improvements):
            return None
        value = Reflection(
            successes=successes[:_MOST],
            improvements=improvements[:_MOST],
            insights=insights[:_MOST],
            generated_at=episode.end_time or episode.start_time,
        )
        failed = sum(bool(call.error) for call in calls)
        why = (
            f"{failed} of {len(calls)} calls failed; kinds of errors overcome: {len(helped)}, "
            f"not overcome: {len(left)}; repeated calls: {len(repeated)}"
        )
        return Calculated(value, why)


def recoveries(calls: list[Call]) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    """The kinds of errors after which the tool worked later, each with the call that came next; and those
    after which it never did.
    """
    last_success = {call.tool: place for place, call in enumerate(calls) if not call.error}
    helped: dict[tuple[str, str], str] = {}
    left: dict[tuple[str, str], None] = {}
    for place, call in enumerate(calls):
        if not call.error:
            continue
        if last_success.get(call.tool, -1) > place:
            helped.setdefault((call.tool, call.error), calls[place + 1].tool)
        else:
            left[call.tool, call.error] = None
    return (
        [(tool, error, following) for (tool, error), following in helped.items()],
        list(left),
    )


def _repeated(episode: Episode) -> list[tuple[str, int]]:
    """Tools that were called often with the same parameters, the most frequent call first."""
    counts = Counter(
        (step.tool, msgspec.json.encode(step.parameters, order="deterministic"))
        for step in episode.steps
        if step.tool != "message"
    )
    return [(tool, count) for (tool, _), count in counts.most_common(_MOST) if count >= _OFTEN]
