"""``memory new-plugin``: a distribution that installs, is found, and whose kit test lists what is left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from shlex import quote
from string import Template
from typing import Annotated

import typer

from memory_core.cli.commands import command
from memory_core.cli.session import Session
from memory_core.cli.streams import say
from memory_core.errors import ConfigurationError
from memory_core.storage import SPI_VERSION

__all__ = ["add_commands"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class PluginKind(StrEnum):
    """What a new plugin adds."""

    STORAGE = "storage"
    CACHE = "cache"
    IMPORTER = "importer"


# What the main class is called after, and which property of the registry has the names that are taken.
_CLASSES = {
    PluginKind.STORAGE: ("Storage", "storages"),
    PluginKind.CACHE: ("Cache", "caches"),
    PluginKind.IMPORTER: ("Importer", "importers"),
}


def add_commands(app: typer.Typer) -> None:
    """Add the command to an application."""
    command(app, "new-plugin")(new_plugin)


def new_plugin(
    session: Session,
    kind: Annotated[PluginKind, typer.Argument(help="What the plugin adds.")],
    name: Annotated[
        str,
        typer.Argument(
            help="The URL scheme, cache or format: lower-case letters, digits and hyphens."
        ),
    ],
    path: Annotated[
        Path, typer.Option("--path", metavar="DIR", help="The folder to write it into.")
    ] = Path(),
) -> None:
    """Write the distribution of a new plugin.

    It installs, is found, and has a test file for the conformance kit, which lists what is left to write.
    """
    _check_name(session, kind, name)
    words = _words(kind, name)
    target = path / words["distribution"]
    try:
        path.mkdir(parents=True, exist_ok=True)
        target.mkdir()
    except FileExistsError as error:
        raise ConfigurationError(f"{error.filename} exists; nothing was written") from error
    written = [_write(source, target / place, words) for place, source in _templates(kind, words)]
    if session.as_json:
        named = {key: words[key] for key in ("distribution", "package", "class_name")}
        session.write_json({"folder": str(target), "files": list(map(str, written)), **named})
        return
    for one in written:
        say(str(one))
    folder = quote(str(target))
    say(f"Next: pip install -e {folder}'[testing]' && cd {folder} && pytest -x --tb=short")


def _check_name(session: Session, kind: PluginKind, name: str) -> None:
    if len(name) < 2 or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is not a name: expected lower-case letters, digits and single hyphens, "
            "beginning with a letter, such as rocks-db"
        )
    taken = getattr(session.registry, _CLASSES[kind][1])
    if name in taken:
        raise ConfigurationError(
            f"an installed plugin has the {kind} {name!r}: choose another name"
        )


def _words(kind: PluginKind, name: str) -> dict[str, str]:
    """What the templates name."""
    module = name.replace("-", "_")
    camel = "".join(part.capitalize() for part in name.split("-"))
    return {
        "kind": kind.value,
        "name": name,
        "module": module,
        "distribution": f"memory-{kind}-{name}",
        "package": f"memory_{kind}_{module}",
        "class_name": f"{camel}{_CLASSES[kind][0]}",
        "config_name": f"{camel}Config",
        "version": version("memory-core"),
        "spi": str(SPI_VERSION),
    }


def _templates(kind: PluginKind, words: dict[str, str]) -> Iterator[tuple[Path, Traversable]]:
    """The place of each file in the distribution, and its template."""
    names = {"package": words["package"], "test_module.py": f"test_{words['module']}.py"}

    def inside(folder: Traversable, place: Path) -> Iterator[tuple[Path, Traversable]]:
        for item in sorted(folder.iterdir(), key=lambda one: one.name):
            name = item.name.removesuffix(".in")
            there = place / names.get(name, name)
            if item.is_dir():
                yield from inside(item, there)
            else:
                yield there, item

    return inside(files("memory_core.cli") / "templates" / kind.value, Path())


def _write(source: Traversable, target: Path, words: dict[str, str]) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    text = Template(source.read_text(encoding="utf-8")).substitute(words)
    target.write_text(text, encoding="utf-8")
    return target
