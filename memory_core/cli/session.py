"""What every command needs: the shared options, the settings, the plugins, an open store."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from attrs import define, evolve, field

from memory_core.cli.streams import warn, write_json
from memory_core.config import StorageURL, load_settings
from memory_core.errors import ConfigurationError, MigrationNeededError
from memory_core.plugins import PluginRegistry

if TYPE_CHECKING:
    from memory_core.config import Settings
    from memory_core.memory import Memory
    from memory_core.memory.opening import open_memory
    from memory_core.records import RecordTypes

__all__ = ["Session"]


@define(slots=False)
class Session:
    """One run of the command line; commands of plugins find it as ``typer.Context.obj``.

    Attributes:
        url: ``--url``.
        namespace: ``--namespace``.
        config: ``--config``.
        as_json: whether to print JSON instead of tables.
        debug: whether to show tracebacks.
        loaded: the registry that was created to find the commands of plugins.
    """

    url: str | None = None
    namespace: str | None = None
    config: Path | None = None
    as_json: bool = False
    debug: bool = False
    loaded: PluginRegistry | None = field(default=None, repr=False)

    @cached_property
    def settings(self) -> Settings:
        """The settings, without their cache: a command reads too little to benefit from one."""
        from memory_core.cli.hints import misspelt_variables

        for line in misspelt_variables(os.environ):
            warn(f"hint: {line}")
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

    @asynccontextmanager
    async def read(self, url: str | None = None) -> AsyncGenerator[Memory]:
        """Open a store like `open`, to be read only. One that an earlier version wrote, and that has to be
        migrated, is opened for writing first.
        """
        try:
            memory = await self.open(url, read_only=True)
        except MigrationNeededError:
            await (await self.open(url)).aclose()
            memory = await self.open(url, read_only=True)
        try:
            yield memory
        finally:
            await memory.aclose()

    def open(
        self, url: str | None = None, *, create: bool = False, read_only: bool | None = None
    ) -> open_memory:
        """Open the store of the settings, or the store of another URL with the same settings.

        The settings' options are for one backend; they do not count for a URL of another backend.

        Args:
            url: the other URL.
            create: whether to create a missing store; only commands that write do.
            read_only: whether to open it to be read only; by default as the settings say.
        """
        from memory_core.memory.opening import open_memory

        settings = self.settings
        _ = self._cache_is_known
        if url is not None and _scheme(url) != _scheme(settings.url):
            settings = evolve(settings, options={})
        if create:
            self._say_what_is_made(url or settings.url)
        return open_memory(
            url, settings=settings, registry=self.registry, create=create, read_only=read_only
        )

    def _say_what_is_made(self, url: str) -> None:
        """Print a hint where a new store needs several new folders: its path may be misspelt."""
        from memory_core.config.settings import default_url
        from memory_core.disk import missing_folders
        from memory_core.storage import local_path

        parsed = StorageURL.parse(url)
        if not parsed.location or not self.registry.storage(parsed.scheme).embedded:
            return
        missing = missing_folders(local_path(parsed.location).parent)
        if len(missing) > 1 and url != default_url():
            warn(f"hint: {missing[0]} does not exist; making the folder {missing[-1]}")

    @cached_property
    def _cache_is_known(self) -> bool:
        """Whether the plugins provide the caches that the settings name; prints a hint if not. Commands
        use no cache, so nothing else would report it.
        """
        try:
            cache = load_settings(config_file=self.config).cache
        except ConfigurationError as error:
            warn(f"hint: {error}")
            return False
        if cache is None:
            return True
        from memory_core.config.spelling import similar

        known = self.registry.caches
        names = [_scheme(tier).partition("?")[0] for tier in cache.tiers]
        unknown = [name for name in names if name not in known]
        for name in unknown:
            warn(
                f"hint: the settings name an unknown cache {name!r}; known: {', '.join(known)}"
                f"{similar(name, known)}"
            )
        return not unknown

    def with_options(self, **given: Any) -> Session:
        """A session in which the options after the command's name override those before it."""
        changes = {name: value for name, value in given.items() if value not in {None, False}}
        return evolve(self, **changes)

    def write_json(self, value: object, stream: TextIO | None = None) -> None:
        """Print a value as one JSON document."""
        write_json(value, stream)


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()
