"""Letting other tasks run, between calls that never wait: a loop of them would starve the others, and no
timeout would end it.
"""

from __future__ import annotations

import asyncio
from time import monotonic

__all__ = ["Turns"]

_LONGEST = 0.001
"""Seconds that a task may go on without others: where 64 tasks read, the last one waits 64 times this."""
_TURN = 64
"""From this a call of some microseconds takes 1, another 16."""


class Turns:
    """A handle whose calls may return without having waited for anything.

    Such a call ends with::

        self._turn -= 16
        if self._turn <= 0:
            await self._give_way()

    Looking at the time in each call would take longer than that. A call of some microseconds takes 1 from
    the turn, not 16: small integers are not allocated.
    """

    _turn = _TURN
    _alone_since = 0.0

    async def _give_way(self) -> None:
        """Let other tasks run, if none has for a millisecond."""
        self._turn = _TURN
        if not self._alone_since:
            self._alone_since = monotonic()
            # Called when this task waits, for whatever reason.
            asyncio.get_running_loop().call_soon(self._others_run)
        elif monotonic() - self._alone_since > _LONGEST:
            await asyncio.sleep(0)

    def _others_run(self) -> None:
        self._alone_since = 0.0
