"""Letting other tasks run, between calls that never wait: a loop of them would starve the others, and no
timeout would end it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic

__all__ = ["Turns"]

_LONGEST = 0.0005
"""Seconds that a task may go on without others: where 64 tasks read, the last one waits 64 times this."""
_TURN = 64
"""From this a call of some microseconds takes 1, another 16; a page takes all of it."""


class Turns:
    """A handle whose calls may return without having waited for anything.

    Such a call ends with::

        self._turn -= 16
        if self._turn <= 0:
            await self._give_way()

    Looking at the time in each call would take longer than that. A call of some microseconds takes 1 from
    the turn, not 16: small integers are not allocated. A page, which takes hundreds, only ends with the
    last line.

    Tasks that have given way wait in line, and each tick of the event loop lets one go on. If all of them
    did, a tick would take as long as all their turns together, and a write, which takes some ticks, many
    times as long.
    """

    _turn = _TURN
    _alone_since = 0.0
    """Since when other tasks than those that read here have not run; 0 where nobody has looked."""
    _resuming = False
    _line: deque[asyncio.Future[None]] | None = None

    async def _give_way(self) -> None:
        """Let other tasks run, if none has for half a millisecond."""
        self._turn = _TURN
        if not self._alone_since:
            self._alone_since = monotonic()
            # Called when this task waits, for whatever reason.
            asyncio.get_running_loop().call_soon(self._next_tick)
        elif monotonic() - self._alone_since > _LONGEST:
            if not (self._line or self._resuming):
                self._resuming = True
                await asyncio.sleep(0)
                return
            if self._line is None:
                self._line = deque()
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._line.append(place)
            await place

    def _next_tick(self) -> None:
        """Let the next task go on. Called in each tick of the event loop while there is one."""
        self._resuming = False
        self._alone_since = 0.0
        while self._line:
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                self._resuming = True
                self._alone_since = monotonic()
                asyncio.get_running_loop().call_soon(self._next_tick)
                return
