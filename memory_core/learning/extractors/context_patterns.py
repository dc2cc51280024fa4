"""What suits a context: which tools, and how many calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from memory_core.learning.extracting import Counts, Fact, Finding, Tally
from memory_core.learning.extractors.calls import calls_of
from memory_core.records import ContextPattern, Effectiveness, Episode, TaskType

__all__ = ["ContextPatterns"]

_SIZES = (5, 10, 20, 40)
_ALL = ""


class ContextPatterns:
    """A context is the domain alone, or the domain and one of: type of task, complexity, language, framework,
    tag. An approach suits it if the episodes that took it fare better than the others of the context, or if
    they mostly succeed and fare no worse. A context to which all episodes of the domain belong is left out.
    """

    name: ClassVar[str] = "context_patterns"

    def facts(self, episode: Episode) -> Iterator[Fact]:
        """Each context, and each approach in it."""
        approaches = list(_approaches(episode))
        for feature in _features(episode):
            yield (feature,)
            for approach in approaches:
                yield feature, approach

    def findings(self, counts: Counts) -> list[Finding]:
        """Patterns of approaches that suit a context."""
        found: list[Finding] = []
        for fact, tally in counts.tallies.items():
            whole = counts.of(fact[:1])
            if len(fact) == 1 or (fact[0] and whole == counts.total) or tally == whole:
                continue
            if tally.works(whole - tally):
                features = (f"domain={counts.domain}", fact[0])
                found.append(_pattern(counts, tuple(filter(None, features)), fact, tally))
        return found


def _pattern(counts: Counts, features: tuple[str, ...], fact: Fact, tally: Tally) -> ContextPattern:
    return ContextPattern(
        context_features=features,
        recommended_approach=fact[1],
        context=counts.context,
        success_rate=tally.rate,
        evidence=counts.find(fact, None),
        effectiveness=Effectiveness(
            times_applied=tally.support, successes=tally.successes, failures=tally.failures
        ),
    )


def _features(episode: Episode) -> Iterator[str]:
    yield _ALL
    context = episode.context
    if episode.task_type is not TaskType.OTHER:
        yield f"task_type={episode.task_type.value}"
    yield f"complexity={context.complexity.value}"
    if context.language:
        yield f"language={context.language}"
    if context.framework:
        yield f"framework={context.framework}"
    for tag in sorted({*episode.tags, *context.tags}):
        yield f"tag={tag}"


def _approaches(episode: Episode) -> Iterator[str]:
    calls = calls_of(episode)
    yield f"take {_size(len(calls))} calls"
    for tool in dict.fromkeys(call.tool for call in calls):
        yield f"call {tool}"


def _size(number: int) -> str:
    low = 0
    for high in _SIZES:
        if number <= high:
            return f"{low} to {high}"
        low = high + 1
    return f"{low} or more"
