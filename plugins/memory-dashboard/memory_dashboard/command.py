"""The command line of ``memory dashboard``: its options. The server is loaded when it runs."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from attrs import define

from memory_core.cli.commands import Group, command
from memory_core.cli.session import Session

__all__ = ["Listening", "command_line", "dashboard"]

_HELP = "Show a store as a web page."
_PRIORITY = 5


@define
class Listening:
    """Where the server listens, and who may ask.

    Attributes:
        host: a name or an address; loopback by default.
        port: the port; 0 for any free one.
        token: what a request must carry. Beyond loopback one is made where none is given.
        allow_host: further host names under which it is reached.
    """

    host: Annotated[
        str, typer.Option("--host", help="Where to listen. Other hosts than this need a token.")
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for any free one.")] = (
        8321
    )
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="MEMORY_DASHBOARD_TOKEN",
            help="What requests must carry. Beyond loopback one is made where none is given.",
        ),
    ] = None
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="A further name of this host, such as that of a proxy."),
    ] = None


def command_line() -> typer.Typer:
    """The command. It is a group without commands, so that it is ``memory dashboard``."""
    alone = typer.Typer()
    command(alone, "dashboard")(dashboard)
    app = typer.Typer(
        cls=Group,
        help=_HELP,
        invoke_without_command=True,
        subcommand_metavar="",
        # Else options after the URL would belong to a command.
        context_settings={"allow_interspersed_args": True},
    )
    bound: Any = alone.registered_commands[0].callback
    app.callback(help=_HELP)(bound)
    return app


async def dashboard(
    session: Session,
    store: Annotated[
        str | None, typer.Argument(metavar="URL", help="The store; else as for --url.")
    ] = None,
    *,
    demo: Annotated[bool, typer.Option("--demo", help="Show the bundled samples.")] = False,
    listening: Listening,
) -> None:
    """Show a store as a web page."""
    _give_way()
    from memory_dashboard.serving import serve

    await serve(session, store, demo=demo, listening=listening)


def _give_way() -> None:
    """Let the agents of this host work first where it has too few processors for all. Threads that this one
    starts from now on do so, too.
    """
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, 0, max(_PRIORITY, os.getpriority(os.PRIO_PROCESS, 0)))
