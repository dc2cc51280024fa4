"""Calls that are broken off when a store closes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from memory_core.errors import StorageClosedError
from memory_storage_turso.config import TursoConfig
from memory_storage_turso.server.hrana.endpoint import parse_endpoint
from memory_storage_turso.server.hrana.errors import NoAnswerError, NotReachedError
from memory_storage_turso.server.hrana.program import ReadProgram
from memory_storage_turso.server.hrana.wire import Step, encode_statement
from memory_storage_turso.server.node import ServerNode
from memory_storage_turso.sql.statement import Statement
from tests.servers.waiting import until


class Hanging:
    """A connection whose server never answers."""

    broken = False
    knows_autocommit = True

    async def run(self, steps: Sequence[Step]) -> Any:
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        pass


class Transport:
    def __init__(self, *, connects: bool) -> None:
        self.connects = connects

    async def connect(self) -> Any:
        if not self.connects:
            await asyncio.Event().wait()
        return Hanging()

    async def aclose(self) -> None:
        pass


def program(knows_autocommit: bool) -> ReadProgram:
    return ReadProgram(
        [encode_statement(Statement("SELECT 1"))], None, knows_autocommit=knows_autocommit
    )


@pytest.mark.parametrize(("connects", "error"), [(True, NoAnswerError), (False, NotReachedError)])
async def test_a_call_that_is_broken_off_says_whether_anything_was_sent(
    connects: bool, error: type[Exception]
) -> None:
    endpoint = parse_endpoint("libsql://db.example", environ={})
    node = ServerNode(endpoint, Transport(connects=connects), TursoConfig())
    calls = [asyncio.ensure_future(node.run(program)) for _ in range(3)]
    await until(lambda: len(node._in_flight) == 3)
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    node.break_off()
    # Again while the first is about to take effect: some may be running out of time by themselves.
    loop.call_soon(node.break_off)
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(item) for item in ended] == [error] * 3
    assert not failures
    with pytest.raises(StorageClosedError):
        await node.run(program)
    await node.aclose()
