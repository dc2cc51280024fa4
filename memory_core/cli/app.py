"""The ``memory`` application: its own commands, which are loaded on demand, and those of plugins."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
import typer.main

from memory_core.cli.commands import Group, Shared
from memory_core.cli.failures import exit_code_of, report
from memory_core.cli.session import Session
from memory_core.config.settings import blocked_plugins
from memory_core.errors import MemoryCoreError, PluginError
from memory_core.plugins import PluginRegistry

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["build", "run"]

_HELP = "Keep, find and relate the episodes of AI agents."
_EPILOG = (
    "Exit codes: 0 done, 1 not all of it could be done, 2 usage or configuration, 3 storage, "
    "130 interrupted."
)


class _Command(NamedTuple):
    """A command or group of commands, before it is loaded.

    Attributes:
        module: the module of ``memory_core.cli`` whose ``add_commands`` adds it.
        help: the first line of its help. A test compares it with the command's own.
    """

    module: str
    help: str


_COMMANDS = {
    "demo": _Command("demo", "Show what memory-core does, with sample transcripts."),
    "import": _Command("imports", "Store the episodes of agent transcripts."),
    "watch": _Command(
        "watching", "Import transcripts and follow them as they grow, until stopped."
    ),
    "list": _Command("records", "List records, newest first."),
    "search": _Command(
        "records",
        "Find episodes by words and conditions: the best match first, without words the newest.",
    ),
    "recall": _Command(
        "recalling",
        "Show what helps with a task: what worked, what failed, patterns and heuristics.",
    ),
    "feedback": _Command("recalling", "Say whether what was recalled helped."),
    "evaluate": _Command(
        "recalling",
        "Measure how well recall works on this store: each episode is left out, and its task asked again.",
    ),
    "learn": _Command(
        "learning",
        "Learn patterns and heuristics from the episodes that succeeded or failed.",
    ),
    "calculate": _Command(
        "learning",
        "Calculate the reward, the reflection and the salient features that episodes lack.",
    ),
    "patterns": _Command("learning", "List patterns with their evidence, the surest first."),
    "heuristics": _Command("learning", "List heuristics with their evidence, the surest first."),
    "show": _Command("showing", "Show one record."),
    "relate": _Command("graphs", "Relate two episodes: FROM depends_on TO."),
    "graph": _Command("graphs", "Print the graph of relationships."),
    "stats": _Command("stores", "Show statistics of the store."),
    "plugins": _Command("stores", "List the plugins."),
    "backup": _Command(
        "stores", "Write a consistent copy of the whole store, all namespaces included."
    ),
    "export": _Command("files", "Write every record to a file."),
    "load": _Command("files", "Put the records of an export into the store."),
    "copy": _Command(
        "files", "Copy every record from one store to another, whatever their backends."
    ),
    "namespaces": _Command("stores", "List or wipe namespaces."),
    "new-plugin": _Command("new_plugin", "Write the distribution of a new plugin."),
    "cache": _Command("caches", "Look into caches of running processes."),
    "bench": _Command(
        "bench", "Measure how fast a store is on this machine, without touching what it holds."
    ),
    "metrics": _Command(
        "metrics", "Show the metrics of every process of this host that publishes them."
    ),
}


class _Commands(Group):
    """The commands of plugins, which are already loaded, and those of ``_COMMANDS``, which are loaded
    on demand.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands."""
        return [*_COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by name; loads it if necessary."""
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        part = typer.Typer(rich_markup_mode=None)
        import_module(f"memory_core.cli.{_COMMANDS[cmd_name].module}").add_commands(part)
        return typer.main.get_group(part).commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of a line; a misspelt one is answered with what it may be."""
        group: Any = self
        loaded: dict[str, Any] = group.commands
        # Typer compares with these names, and loads none of the commands.
        group.commands = dict.fromkeys(_COMMANDS) | loaded
        try:
            return super().resolve_command(ctx, args)
        finally:
            group.commands = loaded

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # click passes it
        """List the commands in the help; loads none of them."""
        for title, commands in (
            ("Commands", {name: command.help for name, command in _COMMANDS.items()}),
            ("Plugins", {name: c.get_short_help_str(200) for name, c in self.commands.items()}),
        ):
            if commands:
                with formatter.section(title):
                    formatter.write_dl(list(commands.items()))


def build(registry: PluginRegistry | None = None) -> typer.Typer:
    """The application, with the commands of a registry's plugins."""
    app = typer.Typer(
        name="memory",
        cls=_Commands,
        help=_HELP,
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        # Rich's layout of the help takes longer to load than everything else together.
        rich_markup_mode=None,
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

    if registry is not None:
        try:
            _add_plugin_commands(app, registry.cli_commands)
        except PluginError as error:
            report(error, exit_code_of(error))
    return app


def run() -> None:
    """Find the plugins, run the command line and exit."""
    try:
        registry = PluginRegistry(blocked=_blocked())
        app = build(registry)
    except MemoryCoreError as error:
        # Two plugins claim one name; commands that need no plugin still work.
        report(error, exit_code_of(error))
        app = build()
    try:
        app()
    except KeyboardInterrupt as error:
        code = exit_code_of(error)
        report(error, code)
        sys.exit(code)


def _blocked() -> tuple[str, ...]:
    """The plugins that the environment, or the settings file in its usual places, blocks."""
    try:
        return blocked_plugins()
    except MemoryCoreError:
        # Report nothing here: the command that needs the settings reports the error, and some need none.
        return ()


def _add_plugin_commands(app: typer.Typer, commands: Mapping[str, Any]) -> None:
    for name, command in commands.items():
        if name in _COMMANDS:
            sys.stderr.write(
                f"memory: the plugin command {name!r} is left out: the name is taken\n"
            )
            continue
        try:
            # Typer reads the signatures of a command only here.
            typer.main.get_group(command)
        except Exception as error:  # noqa: BLE001  # a plugin's command may be wrong in any way
            sys.stderr.write(
                f"memory: the plugin command {name!r} is left out: {type(error).__name__}: {error}\n"
            )
        else:
            app.add_typer(command, name=name)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"memory-core {version('memory-core')}")
        raise typer.Exit
