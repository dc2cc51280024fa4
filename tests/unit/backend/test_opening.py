"""Opening in a task: what is opened belongs to a caller, or is closed."""

import asyncio
import gc

import pytest
import pytest_asyncio

from memory_core import errors
from memory_core.backend import SharedState, open_in_task


class Server(SharedState):
    """State that connects when it is told to, and says whether it was closed."""

    def __init__(self):
        super().__init__()
        self.may_connect = asyncio.Event()
        self.connected = False
        self.closes = 0

    async def start(self):
        await self.may_connect.wait()
        self.connected = True

    async def fail(self):
        await self.may_connect.wait()
        raise errors.StorageUnavailableError("refused")

    async def close(self):
        self.closes += 1
        self.connected = False


@pytest_asyncio.fixture
async def unseen():
    """Errors that the event loop reports because nothing has seen them."""
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, found: reported.append(found))
    return reported


async def turns(count=10):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_state_is_returned_once_it_has_started():
    server = Server()
    server.may_connect.set()
    assert await open_in_task(server, server.start) is server
    assert server.connected
    assert not server.closes


async def test_a_state_that_cannot_start_is_closed():
    server = Server()
    server.may_connect.set()
    with pytest.raises(errors.StorageUnavailableError, match="refused"):
        await open_in_task(server, server.fail)
    assert server.closes == 1


@pytest.mark.parametrize("start", ["start", "fail"])
async def test_a_cancelled_caller_goes_on_at_once_and_the_state_is_closed_later(unseen, start):
    server = Server()
    opening = asyncio.create_task(open_in_task(server, getattr(server, start)))
    await turns()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not server.closes
    server.may_connect.set()
    await turns()
    assert server.closes == 1
    assert not server.connected
    gc.collect()
    assert unseen == []


@pytest.mark.parametrize("after", range(6))
async def test_a_caller_cancelled_at_any_turn_leaves_nothing_open(after):
    server = Server()
    server.may_connect.set()
    opening = asyncio.create_task(open_in_task(server, server.start))
    await turns(after)
    opening.cancel()
    [result] = await asyncio.gather(opening, return_exceptions=True)
    await turns()
    assert server.connected == (result is server)


def test_a_loop_that_ends_meanwhile_closes_the_state():
    servers = []

    async def leave():
        servers.append(server := Server())
        opening = asyncio.create_task(open_in_task(server, server.start))
        await turns()
        assert not opening.done()

    asyncio.run(leave())
    assert servers[0].closes == 1
