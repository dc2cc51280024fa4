"""Mistakes that type checkers find in ``program``: one-line changes, each made alone."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

BOTH = ("pyright", "mypy")


@frozen
class Mistake:
    """A change that makes a program wrong.

    Attributes:
        right: text that occurs once in the program.
        wrong: what stands in its place.
        missed: why a checker cannot find it, by the checker's name.
    """

    right: str
    wrong: str
    missed: Mapping[str, str] = field(factory=dict)


def unfindable(right: str, wrong: str, why: str) -> Mistake:
    """A mistake that neither checker can find."""
    return Mistake(right, wrong, dict.fromkeys(BOTH, why))


MISTAKES = (
    # Fields of records and their parts
    Mistake('complexity="simple"', "complexity=3"),
    Mistake("latency_ms=3", 'latency_ms="3"'),
    Mistake('parameters={"try": number}', "parameters=[number]"),
    Mistake("base=1)", 'base="1")'),
    Mistake("avg_latency=timedelta(seconds=1)", "avg_latency=1"),
    Mistake('error_type="Timeout", ', ""),
    Mistake("evidence=ids)", "evidence=seen)"),
    Mistake("confidence=0.9", 'confidence="high"'),
    Mistake("task_type=TaskType.DEBUGGING", "task_type=1"),
    Mistake("TaskType.DEBUGGING", "TaskType.DEBUG"),
    Mistake('task_description="Fix the page"', "task_description=42"),
    Mistake('[Checkpoint(step_number=1, reason="before")]', '["before"]'),
    Mistake('{"run": "42"}', '{"run": 42}'),
    Mistake("pattern_ids=[new_id()]", "pattern_ids=[42]"),
    Mistake("to_episode_id=str(second.id)", "to_episode_id=second"),
    Mistake('StepResult.error("no match")', "StepResult.error(404)"),
    Mistake('artifacts=["patch"]', "artifacts=[1]"),
    Mistake("Outcome.success(", "Outcome.sucess("),
    Mistake("await memory.write(batch)", 'second.task_description = "other"'),
    # replace
    Mistake("rule.replace(confidence=1", "rule.replace(confidense=1"),
    Mistake('tags=["http"])', "tags=[1])"),
    Mistake("effectiveness=Effectiveness(successes=1)", "effectiveness=1"),
    # Running episodes
    Mistake("task_description=task,", "task=task,"),
    Mistake("context=self._context", 'context="web"'),
    Mistake("log_step(running.id, step)", "log_step(running, step)"),
    Mistake("= await self._memory.log_step", "= self._memory.log_step"),
    Mistake("reward=reward,", "rewrad=reward,"),
    Mistake('tags={"http", "retry"}', "tags={1, 2}"),
    # Queries
    Mistake("domain=any_of(", "domian=any_of("),
    Mistake("between(since, datetime.now(UTC))", 'between(since, "now")'),
    Mistake('tags=all_of("http")', 'tags=between("a", "b")'),
    Mistake("reward=at_least(best)", 'reward=at_least("best")'),
    Mistake("number=greater_than(0)", 'number=greater_than("0")'),
    Mistake("where(success_rate=at_least(0.5))", 'where(outcome="success")'),
    Mistake('where(outcome="success")', "where(outcome=1)"),
    Mistake(".limit(20)", '.limit("20")'),
    Mistake("descending=True", '"descending"'),
    Mistake("query.after(cursor)", "query.after(3)"),
    Mistake("query_episodes(query)", "query_episodes(Query(Pattern))"),
    Mistake("Query(Review)", 'Query("review")'),
    # The verbs
    Mistake('lambda found: found.replace(language="en")', "lambda found: found.language"),
    Mistake("update(Heuristic, rule.id", "update(Heuristic, rule"),
    Mistake("add_relationship(edge)", "add_relationship(first)"),
    Mistake("error.kind", "error.knd"),
    Mistake("max_depth=2", 'max_depth="2"'),
    Mistake("types=[RelationshipType.DEPENDS_ON]", "types=[3]"),
    Mistake("WriteBatch().put(second)", "WriteBatch().put(second.id)"),
    Mistake("get_episode(page[0].id)", "get_episode(page[0])"),
    Mistake("{found is None}", "{found.id}"),
    # Opening
    Mistake('namespace="agent-7"', "namespace=7"),
    Mistake("Budget(max_bytes=2**20)", "Budget(bytes=2**20)"),
    Mistake("CacheConfig(max_entries=100,", "CacheConfig(tiers=100,"),
    # Without an event loop
    Mistake("namespace=agent)", "namspace=agent)"),
    Mistake("store_episodes_batch([Episode(", "store_episodes_batch([Outcome("),
    Mistake('task_description="Retry the page"', 'task_descripion="Retry the page"'),
    Mistake(
        "memory.iter_episodes(Query(Episode).limit", "memory.iter_patterns(Query(Episode).limit"
    ),
    Mistake("return listed(memory, 100)", "return await listed(memory, 100)"),
    # What cannot be found
    unfindable('tags={"http", "retry"}', 'tags="http"', "a string is an iterable of strings, too"),
    unfindable(
        "task_type=TaskType.DEBUGGING",
        'task_type="debuging"',
        "the value of an enum may be any text that is known at run time only",
    ),
    unfindable(
        'order_by("start_time"', 'order_by("start_tme"', "an index to order by is named by a text"
    ),
)
