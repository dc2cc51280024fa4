"""SQLite finds a page along an index, in the page's order, and reads no further than it has to."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from memory_core.query import Query, all_of, any_of, at_least, between
from memory_core.records import Episode, ExecutionStep, Outcome, RewardScore, TaskContext
from memory_core.storage import WriteBatch
from memory_core.testing.data.samples import EPOCH, episode
from memory_storage_turso.sql import count_statement, page_statement

IN_ORDER = {
    "everything": Query(Episode),
    "oldest first": Query(Episode).order_by("start_time"),
    "one value": Query(Episode).where(domain="web"),
    "two conditions": Query(Episode).where(domain="web", task_type="testing"),
    "some values": Query(Episode).where(task_type=any_of("debugging", "testing")),
    "no value": Query(Episode).where(outcome=None),
    "a tag": Query(Episode).where(tags="http"),
    "any of some tags": Query(Episode).where(tags=any_of("http", "retry", "sql")),
    "all tags": Query(Episode).where(tags=all_of("http", "retry")),
    "a pair": Query(Episode).where(metadata={"run": "1"}, language="python"),
    "a time": Query(Episode).where(start_time=between(EPOCH, EPOCH + timedelta(hours=1))),
    "a frequent range": Query(Episode).where(reward=at_least(0.001)),
    "the best": Query(Episode).order_by("reward", descending=True),
    "ids": Query(Episode).order_by("id"),
}


BOUNDED = {
    "everything": Query(Episode),
    "one value": Query(Episode).where(domain="web"),
    "no value": Query(Episode).where(outcome=None),
    "a tag": Query(Episode).where(tags="http"),
    "any of some tags": Query(Episode).where(tags=any_of("http", "sql")),
    "a range": Query(Episode).where(reward=at_least(0.001)),
    "two conditions": Query(Episode).where(tags="http", language="python"),
}


async def plan(store, statement) -> list[str]:
    driver = store._shared.driver
    explained = type(statement)(f"EXPLAIN QUERY PLAN {statement.sql}", statement.args)
    [result] = await driver.read([explained])
    return [str(row[3]) for row in result.rows]


async def test_a_count_is_found_along_an_index(store):
    for query in IN_ORDER.values():
        lines = await plan(store, count_statement(store._shared.tables[query.kind], 1, query))
        if not query.conditions:
            assert "SEARCH _counts USING PRIMARY KEY (ns=? AND kind=?)" in lines
            continue
        assert any("USING" in line and "INDEX" in line for line in lines), lines
        assert not [line for line in lines if line.startswith("SCAN e")], lines


@pytest.mark.parametrize("query", BOUNDED.values(), ids=BOUNDED)
async def test_a_count_with_a_bound_costs_as_much_in_any_store(store, plain, query):
    """In steps of SQLite's virtual machine; that of a whole kind costs as much without a bound."""
    steps: list[int] = []
    for size in (600, 3_000):
        await store.commit([WriteBatch().put(*(varied(number) for number in range(size)))])
        bound = 10 if query.conditions else None
        statement = count_statement(store._shared.tables[query.kind], 1, query, bound)
        steps.append(steps_of(plain(), statement))
        expected = await store.count(query)
        assert await store.count_up_to(query, 10) == min(10, expected) == 10
    assert steps[1] <= steps[0] + 20, steps


def steps_of(connection, statement) -> int:
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    connection.set_progress_handler(step, 1)
    connection.execute(statement.sql, statement.args).fetchall()
    connection.set_progress_handler(None, 0)
    return steps


def varied(number: int) -> Episode:
    return episode(
        number,
        tags=("http", "retry") if number % 2 else ("sql",),
        context=TaskContext(domain="web" if number % 3 else "infra", language="python"),
        task_type=("debugging", "testing", "other")[number % 3],
        metadata={"run": str(number % 4)},
        reward=RewardScore(total=number / 10_000),
        outcome=Outcome.success("done") if number % 2 else None,
    )


RARE = {
    "tag": {"tags": "rare"},
    "two tags": {"tags": all_of("http", "rare")},
    "tool": {"tools": "rare"},
    "domain": {"domain": "rare"},
    "no outcome": {"outcome": None},
    "some outcomes": {"outcome": any_of("abstained", None)},
    "an enum": {"complexity": "complex"},
    "a pair": {"metadata": {"run": "rare"}},
    "a range": {"reward": at_least(0.95)},
    "a pattern": {"applied_patterns": UUID(int=7)},
}
COMMON = ({"tags": "http"}, {"tools": "curl"}, {"language": "python"}, {"reward": at_least(0.1)})


def rarely(number: int, every: int) -> Episode:
    rare = number % every == 0
    return episode(
        number,
        tags=("http", "rare") if rare else ("http",),
        steps=[ExecutionStep(number=1, tool="curl"), ExecutionStep(number=2, tool="rare")][
            : 1 + rare
        ],
        context=TaskContext(
            domain="rare" if rare else "web",
            language="python",
            complexity="complex" if rare else "simple",
        ),
        metadata={"run": "rare" if rare else str(number % 4)},
        reward=RewardScore(total=0.99 if rare else 0.5),
        outcome=None if rare else Outcome.success("done"),
        applied_patterns=[UUID(int=7)] if rare else [],
    )


@pytest.mark.parametrize("count", [False, True])
async def test_what_is_rare_leads_whichever_condition_it_is(store, count):
    """The steps of SQLite's virtual machine do not depend on how many records the others find."""
    table, found = store._shared.tables["episode"], {}
    for records in (1_500, 6_000):
        await store.commit([WriteBatch().put(*(rarely(n, records // 20) for n in range(records)))])
        for name, rare in RARE.items():
            for common in COMMON:
                if rare.keys() & common.keys():
                    continue
                for conditions in ({**rare, **common}, {**common, **rare}):
                    query = Query(Episode).where(**conditions).order_by("reward").limit(5)
                    assert await store.count(query) == 20, (name, conditions)
                    make = count_statement if count else page_statement
                    taken = await steps(store, make(table, 1, query))
                    found.setdefault((name, *conditions), []).append(taken)
    for name, (few, many) in found.items():
        assert many <= few * 1.2 + 5, name


async def test_the_tag_that_leads_is_not_looked_up_again(store):
    table = store._shared.tables["episode"]
    made = [rarely(number, 15) for number in range(300)]
    made = [record.replace(tags=(*record.tags[1:], "usual")) for record in made]
    await store.commit([WriteBatch().put(*made)])
    two_tags = Query(Episode).where(tags=all_of("rare", "usual"))
    tag_and_tool = Query(Episode).where(tags="rare", tools="curl")
    for make in (count_statement, page_statement):
        taken = [
            await steps(store, make(table, 1, query.order_by("reward")))
            for query in (two_tags, tag_and_tool)
        ]
        # Both look up one other entry of each of the 20.
        assert taken[0] <= taken[1] + 5


async def test_a_page_stops_at_its_limit(store):
    """The steps of SQLite's virtual machine do not depend on how many records match."""
    counted: dict[str, list[int]] = {}
    table = store._shared.tables["episode"]
    for records in (1_500, 6_000):
        await store.commit([WriteBatch().put(*map(varied, range(records)))])
        for name, query in IN_ORDER.items():
            page = await store.query(query.limit(5))
            found = [await steps(store, page_statement(table, 1, query.limit(5)))]
            if page.next_cursor is not None:
                after = query.limit(5).after(page.next_cursor)
                found.append(await steps(store, page_statement(table, 1, after)))
            counted.setdefault(name, []).append(max(found))
    for name, (few, many) in counted.items():
        assert many <= few * 1.5 + 20, name


async def steps(store, statement) -> int:
    reader = store._shared.driver._readers[0]

    def run():
        session, count = reader.session, 0

        def one_more():
            nonlocal count
            count += 1

        session.connection.set_progress_handler(one_more, 10)
        session.execute(statement.sql, statement.args)
        session.connection.set_progress_handler(None, 0)
        return count

    return await reader.run(run)
