"""``memory stats``, ``plugins``, ``namespaces`` and ``backup``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from memory_core.cli import cells
from memory_core.cli.commands import Group, command
from memory_core.cli.failures import WorkFailedError
from memory_core.cli.hints import hint_at_namespace
from memory_core.cli.session import Session
from memory_core.cli.streams import safe, say, warn
from memory_core.disk import size_of
from memory_core.errors import PluginError
from memory_core.plugins import PluginInfo, PluginRegistry
from memory_core.storage import Capability, SupportsBackup, SupportsNamespaces, require

__all__ = ["add_commands", "said"]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(app, "stats")(stats)
    command(app, "plugins")(plugins)
    namespaces = typer.Typer(cls=Group, help="List or wipe namespaces.", no_args_is_help=True)
    command(namespaces, "list")(list_namespaces)
    command(namespaces, "wipe")(wipe)
    app.add_typer(namespaces, name="namespaces")
    command(app, "backup")(backup)


async def stats(session: Session) -> None:
    """Show statistics of the store."""
    async with session.read() as memory:
        found = await memory.stats()
        capabilities = sorted(item.value for item in memory.storage.capabilities)
        namespace = memory.namespace
        if not sum(found.records.values()):
            await hint_at_namespace(memory)
    if session.as_json:
        session.write_json(
            {
                "backend": found.backend,
                "location": found.location,
                "namespace": namespace,
                "store_id": found.store_id,
                "position": found.position,
                "size_bytes": found.size_bytes,
                "capabilities": capabilities,
                "records": dict(found.records),
                "counters": dict(found.counters),
                "sections": {name: dict(section) for name, section in found.sections.items()},
            }
        )
        return
    from memory_core.cli import output

    console = output.console()
    about = {
        "backend": found.backend,
        "location": found.location,
        "namespace": namespace,
        "store": str(found.store_id),
        "position": found.position,
        "size": output.size(found.size_bytes),
        "capabilities": ", ".join(capabilities),
    }
    console.print(output.facts("", about.items()))
    for title, section in {
        "records": found.records,
        "counters": said(found.counters),
        **{name: said(section) for name, section in found.sections.items()},
    }.items():
        if section:
            console.print()
            console.print(output.facts(title, _spaced(section)))


def plugins(session: Session) -> None:
    """List the plugins.

    Shows the distribution and version of each, what it adds, and why it failed to load.
    """
    registry = _whole_registry(session)
    problems: list[str] = []

    def summaries(read: Callable[[], Mapping[str, Any]]) -> dict[str, str]:
        try:
            return {name: getattr(item, "summary", "") for name, item in read().items()}
        except PluginError as error:
            # Two plugins claim one name. What they claim cannot be used, everything else can.
            problems.append(str(error))
            return {}

    added = {
        "storages": summaries(lambda: registry.storages),
        "caches": summaries(lambda: registry.caches),
        "importers": summaries(lambda: registry.importers),
        "extractors": summaries(lambda: registry.extractors),
        "calculators": summaries(lambda: registry.calculators),
        "wrappers": summaries(lambda: registry.wrappers),
        "record_types": summaries(lambda: dict.fromkeys(registry.record_types.kinds)),
        "cli_commands": summaries(lambda: dict.fromkeys(registry.cli_commands)),
    }
    found = registry.plugins()
    if session.as_json:
        shown = [
            {
                "name": info.name,
                "distribution": info.distribution,
                "version": info.version,
                "hooks": info.hooks,
                "blocked": info.blocked,
                "error": info.error,
            }
            for info in found
        ]
        session.write_json({"plugins": shown, **added, "problems": problems})
    else:
        _show_plugins(found, added)
    for problem in problems:
        warn(f"hint: {problem}")


def _whole_registry(session: Session) -> PluginRegistry:
    """The registry of the session; where two plugins have one name, one that leaves out the second."""
    try:
        return session.registry
    except PluginError:
        return PluginRegistry(blocked=session.settings.block_plugins, strict=False)


def _show_plugins(found: Sequence[PluginInfo], added: Mapping[str, Mapping[str, str]]) -> None:
    from memory_core.cli import output

    console = output.console()
    rows = [
        (
            info.name,
            info.distribution,
            info.version,
            "blocked" if info.blocked else info.error or "loaded",
            ", ".join(name.removeprefix("memory_") for name in info.hooks),
        )
        for info in found
    ]
    columns = ["name", "distribution", "version", "state", "hooks"]
    console.print(output.table("Plugins", columns, rows))
    for title, items in added.items():
        if items:
            console.print()
            console.print(output.facts(title.replace("_", " ").capitalize(), items.items()))


async def list_namespaces(session: Session) -> None:
    """List the namespaces, with the number of records of each kind."""
    async with session.read() as memory:
        require(memory.storage, Capability.NAMESPACES)
        found = await cast("SupportsNamespaces", memory.storage).namespaces()
    if session.as_json:
        shown = [{"name": info.name, "records": dict(info.records)} for info in found]
        session.write_json({"namespaces": shown})
        return
    from memory_core.cli import output

    held = {kind for info in found for kind, count in info.records.items() if count}
    # Kinds whose plugin is not installed come last.
    known = [kind for kind in session.types.kinds if kind in held]
    kinds = [*known, *sorted(held.difference(known))]
    rows = [[info.name, *(info.records.get(kind, 0) for kind in kinds)] for info in found]
    columns = ["namespace", *((kind, cells.RIGHT) for kind in kinds)]
    output.console().print(
        output.table("", columns, rows) if found else "no namespace holds any records"
    )


async def wipe(
    session: Session,
    name: Annotated[str, typer.Argument(help="The namespace.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete every record of a namespace."""
    async with session.open() as memory:
        scoped = memory.scoped(name).storage
        require(scoped, Capability.NAMESPACES)
        before = await scoped.stats()
        count = sum(before.records.values())
        if not count:
            raise WorkFailedError(f"there is no namespace {name!r} in {before.location}")
        if not yes:
            records = "the only record" if count == 1 else f"all {count:,} records"
            question = f"Delete {records} of {name!r} in {before.location}?"
            typer.confirm(safe(question), abort=True, err=True)
        position = await cast("SupportsNamespaces", scoped).wipe()
        # Its files have words of what was deleted.
        await memory.scoped(name).remove_search_index()
    if session.as_json:
        session.write_json({"namespace": name, "deleted": count, "position": position})
    else:
        say(f"{name}: {count:,} {'record' if count == 1 else 'records'} deleted")


async def backup(
    session: Session,
    target: Annotated[Path, typer.Argument(help="Path of the copy, which must not exist.")],
) -> None:
    """Write a consistent copy of the whole store, all namespaces included.

    It opens like the original, which may be in use meanwhile.
    """
    async with session.read() as memory:
        require(memory.storage, Capability.BACKUP)
        await cast("SupportsBackup", memory.storage).backup(target)
    written = _size_on_disk(target)
    if session.as_json:
        session.write_json({"target": str(target), "size_bytes": written})
    else:
        from memory_core.cli import output

        say(f"{target}: {output.size(written)}")


def said(statistics: Mapping[str, Any]) -> Mapping[str, Any]:
    """The statistics to print, without zeros: most counters of a short-lived command are 0."""
    nothing = {
        name for name, value in statistics.items() if type(value) in {int, float} and not value
    }
    # Histograms of nothing.
    nothing |= {
        name
        for name, value in statistics.items()
        if isinstance(value, Mapping) and not cast("Mapping[str, Any]", value).get("count", True)
    }
    if "compressed" in nothing:
        nothing.add("ratio")
    return {name: statistics[name] for name in statistics if name not in nothing}


def _spaced(section: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        (name.replace("_", " "), value if isinstance(value, int | float) else _in_words(value))
        for name, value in section.items()
    ]


def _in_words(value: object) -> str:
    """A value as text; of a histogram its numbers with their names."""
    if not isinstance(value, Mapping):
        return str(value)
    numbers = cast("Mapping[str, Any]", value).items()
    return ", ".join(
        f"{name} {number:.4g}" if isinstance(number, int | float) else f"{name} {number}"
        for name, number in numbers
    )


def _size_on_disk(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(size_of(item) for item in files if item.is_file())
