"""The ``memory`` application: its own commands and those of plugins."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memory_core.cli.commands import Shared
from memory_core.cli.failures import exit_code_of, report
from memory_core.cli.session import Session
from memory_core.config.settings import blocked_plugins
from memory_core.errors import MemoryCoreError
from memory_core.plugins import PluginRegistry

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["build", "run"]

_HELP = "Keep, find and relate the episodes of AI agents."
_EPILOG = (
    "Exit codes: 0 done, 1 not all of it could be done, 2 usage or configuration, 3 storage, "
    "130 interrupted."
)


def build(registry: PluginRegistry | None = None) -> typer.Typer:
    """The application, with the commands of a registry's plugins."""
    from memory_core.cli import caches, demo, files, graphs, imports, records, stores

    app = typer.Typer(
        name="memory",
        help=_HELP,
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(  # pyright: ignore[reportUnusedFunction]  # typer keeps it
        context: typer.Context,
        *,
        url: Shared.Url = None,
        namespace: Shared.Namespace = None,
        config: Shared.Config = None,
        as_json: Shared.Json = False,
        debug: Shared.Debug = False,
        version: Annotated[  # noqa: ARG001  # its callback does it all
            bool,
            typer.Option("--version", help="Show the version.", is_eager=True, callback=_version),
        ] = False,
    ) -> None:
        context.obj = Session(
            url=url,
            namespace=namespace,
            config=config,
            as_json=as_json,
            debug=debug,
            loaded=registry,
        )

    for module in (demo, imports, records, graphs, stores, files, caches):
        module.add_commands(app)
    if registry is not None:
        _add_plugin_commands(app, registry.cli_commands)
    return app


def run() -> None:
    """Find the plugins, run the command line and exit."""
    try:
        registry = PluginRegistry(blocked=_blocked())
        app = build(registry)
    except MemoryCoreError as error:
        # Two plugins that claim one name; what does not concern plugins works all the same.
        report(error, exit_code_of(error))
        app = build()
    try:
        app()
    except KeyboardInterrupt as error:
        code = exit_code_of(error)
        report(error, code)
        sys.exit(code)


def _blocked() -> tuple[str, ...]:
    """What the environment and the settings file in its usual places block."""
    try:
        return blocked_plugins()
    except MemoryCoreError:
        # Whatever is wrong, the command that needs the settings says so; some need none.
        return ()


def _add_plugin_commands(app: typer.Typer, commands: Mapping[str, Any]) -> None:
    taken = {item.name for item in (*app.registered_commands, *app.registered_groups)}
    for name, command in commands.items():
        if name in taken:
            sys.stderr.write(
                f"memory: the plugin command {name!r} is left out: the name is taken\n"
            )
        else:
            app.add_typer(command, name=name, rich_help_panel="Plugins")


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"memory-core {version('memory-core')}")
        raise typer.Exit
