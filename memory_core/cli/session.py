"""What every command needs: the shared options, the settings, the registry, an open store."""

from __future__ import annotations

import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from attrs import define, evolve, field

from memory_core.config import load_settings
from memory_core.memory.opening import open_memory
from memory_core.plugins import PluginRegistry

if TYPE_CHECKING:
    from memory_core.config import Settings
    from memory_core.records import RecordTypes

__all__ = ["Session"]


@define(slots=False)
class Session:
    """One run of the command line; plugin commands find it as ``typer.Context.obj``.

    Attributes:
        url: ``--url``.
        namespace: ``--namespace``.
        config: ``--config``.
        as_json: whether to print JSON instead of tables.
        debug: whether to show tracebacks.
        loaded: the registry that was made to find plugin commands.
    """

    url: str | None = None
    namespace: str | None = None
    config: Path | None = None
    as_json: bool = False
    debug: bool = False
    loaded: PluginRegistry | None = field(default=None, repr=False)

    @cached_property
    def settings(self) -> Settings:
        """The settings; one-shot commands need no cache."""
        return load_settings(
            url=self.url, namespace=self.namespace, config_file=self.config, cache="none"
        )

    @cached_property
    def registry(self) -> PluginRegistry:
        """The plugins that the settings do not block."""
        blocked = self.settings.block_plugins
        if self.loaded is not None:
            left_out = {info.name for info in self.loaded.plugins() if info.blocked}
            known = {info.name for info in self.loaded.plugins()}
            if left_out == known.intersection(blocked):
                return self.loaded
        return PluginRegistry(blocked=blocked)

    @property
    def types(self) -> RecordTypes:
        """The record types of the core and the plugins."""
        return self.registry.record_types

    def open(self, url: str | None = None, *, create: bool = False) -> open_memory:
        """The store of the settings, or that of another URL with the same settings. The options are
        those of one backend: another one's URL brings its own.

        Args:
            url: the other URL.
            create: whether to make a store where there is none: only commands that write do.
        """
        settings = self.settings
        if url is not None and _scheme(url) != _scheme(settings.url):
            settings = evolve(settings, options={})
        return open_memory(url, settings=settings, registry=self.registry, create=create)

    def with_options(self, **given: Any) -> Session:
        """This session, with what was given after the command's name winning."""
        changes = {name: value for name, value in given.items() if value not in {None, False}}
        return evolve(self, **changes)

    def write_json(self, value: object, stream: TextIO | None = None) -> None:
        """Print a value as one JSON document."""
        import msgspec

        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
        (stream or sys.stdout).write(f"{text}\n")


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()
