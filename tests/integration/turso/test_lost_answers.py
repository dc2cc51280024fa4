"""What is said of a group that was applied, and whose answer was lost."""

from __future__ import annotations

from typing import Any

import pytest

from memory_core.errors import StorageUnavailableError
from memory_storage_turso.engine.driver import StatementError
from memory_storage_turso.server.driver import ServerDriver
from memory_storage_turso.server.hrana.errors import NoAnswerError, RefusedError
from memory_storage_turso.server.hrana.program import GroupProgram
from memory_storage_turso.sql.statement import Statement
from tests.integration.turso.conftest import POSITION, insert, names

DELETE = Statement("DELETE FROM items WHERE name = 'a'")


@pytest.fixture
def losing(driver: ServerDriver) -> ServerDriver:
    """A driver that loses the answer to the first group, and to no other."""
    run = driver._primary.run
    groups = 0

    async def lose(build: Any) -> Any:
        nonlocal groups
        program, answer = await run(build)
        groups += isinstance(program, GroupProgram)
        if isinstance(program, GroupProgram) and groups == 1:
            raise NoAnswerError("the answer was lost")
        return program, answer

    driver._primary.run = lose  # pyright: ignore[reportAttributeAccessIssue] - spied on
    return driver


async def test_a_refused_batch_is_not_applied_behind_later_ones(losing: ServerDriver) -> None:
    """It would bring back what they have deleted, or put old values over new ones."""
    refused = [insert("a", parent=99), POSITION]
    both = [insert("b"), insert("b"), POSITION]
    outcome = await losing.write(
        [[insert("a"), POSITION], [insert("a"), POSITION], both, refused, [DELETE, POSITION], both]
    )
    assert outcome.recovered
    first, twice, in_itself, dangling, deleted, last = outcome.results
    assert isinstance(first, list)
    # Why it was refused, nobody can tell any more: it would be accepted now.
    assert isinstance(twice, StorageUnavailableError)
    for result in (in_itself, last):
        assert isinstance(result, StatementError)
        assert "UNIQUE" in result.message
        assert result.index == 1
    assert isinstance(dangling, StatementError)
    assert "FOREIGN KEY" in dangling.message
    assert isinstance(deleted, list)
    assert await names(losing) == []


async def test_a_refused_batch_behind_all_others_is_tried_again(losing: ServerDriver) -> None:
    outcome = await losing.write([[insert("a")], [insert("a"), POSITION]])
    assert isinstance(outcome.results[0], list)
    assert isinstance(outcome.results[1], StatementError)
    assert await names(losing) == ["a"]


async def test_what_was_applied_stands_whatever_fails_afterwards(
    losing: ServerDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is refused from then on, and no server answers a read."""

    async def fail(*_: object, **__: object) -> Any:
        raise StorageUnavailableError("no server answers")

    run = losing._primary.run
    groups = 0

    async def expire(build: Any) -> Any:
        nonlocal groups
        groups += isinstance(build(*[True]), GroupProgram)
        if groups == 2:
            raise RefusedError(401, "", "expired")
        return await run(build)

    trim = Statement("DELETE FROM changes WHERE seq < 0")
    with monkeypatch.context() as patched:
        patched.setattr(losing._router, "read", fail)
        patched.setattr(losing._primary, "run", expire)
        outcome = await losing.write([[insert("a")], [insert("a")]], [trim, POSITION])
    assert isinstance(outcome.results[0], list)
    assert isinstance(outcome.results[1], StorageUnavailableError)
    assert outcome.closing[-1].rows == [(1,)]
    assert await names(losing) == ["a"]
