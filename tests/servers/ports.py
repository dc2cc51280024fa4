"""Loopback ports that belong to one test, whatever other programs run."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

HOST = "127.0.0.1"


def held_port() -> socket.socket:
    """A port on which nothing listens; a server may be started there, repeatedly.

    The socket is bound and never listens. While it is open the system gives its port to no program that
    asks for any, be it for a server or for the near end of a connection; a server that asks for this
    very port, and for `SO_REUSEADDR`, as servers do, gets it.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((HOST, 0))
    return holder


def number_of(holder: socket.socket) -> int:
    """The port that is held."""
    return int(holder.getsockname()[1])


@contextlib.contextmanager
def nobody_listening() -> Iterator[int]:
    """A port on which nothing listens, and nothing will."""
    with held_port() as holder:
        yield number_of(holder)
