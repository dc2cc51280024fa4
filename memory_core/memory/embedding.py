"""The embedder of an open memory, and the index of words that an index of meanings stands on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from memory_core.config import build_options
from memory_core.config.redaction import is_secret
from memory_core.errors import ConfigurationError, MemoryCoreError
from memory_core.plugins import PluginRegistry, install_command, load_class
from memory_core.search.config import SearchConfig
from memory_core.search.documents import Declarations
from memory_core.search.embedding import Embedder, Embedders
from memory_core.search.protocol import SearchIndex

__all__ = ["REFERENCE", "Embedding", "the_one_of"]

REFERENCE = "reference"
_OF_THE_EMBEDDER, _OF_THE_WORDS = "embedder.", "words."


class Embedding:
    """The embedder that is set, with its options, and what makes indexes of words.

    Args:
        registry: where embedders and indexes are found.
        config: how to search.

    Attributes:
        embedders: the embedder, and how to make an earlier one.
        others: the options that are neither the embedder's nor the words'.

    Raises:
        ConfigurationError: unknown embedder or option, or none is named and none does without options.
        PluginError: its package cannot be loaded.
    """

    def __init__(self, registry: PluginRegistry, config: SearchConfig) -> None:
        self._registry = registry
        self._config = config
        self._options = _beginning_with(_OF_THE_EMBEDDER, config.options)
        self._made: dict[str, Embedder] = {}
        name = config.embedder or _local(registry)
        plain = {key: value for key, value in self._options.items() if not is_secret(key)}
        described = f"{name}?{urlencode(plain)}" if plain else name
        self._made[described] = current = self._embedder(name, self._options)
        self.embedders = Embedders(current, described, self._earlier)
        own = (_OF_THE_EMBEDDER, _OF_THE_WORDS)
        self.others = {
            key: value for key, value in config.options.items() if not key.startswith(own)
        }

    def words(self, declarations: Declarations) -> Callable[[Path | None], SearchIndex]:
        """What makes the index of words for a folder."""
        name = self._config.words or the_one_of(self._registry, embeds=False)
        factory = self._registry.search(name)
        if factory.embeds:
            raise ConfigurationError(f"search: {name!r} is not an index of words: name another one")
        config: Any = build_options(
            load_class(factory.config),
            _beginning_with(_OF_THE_WORDS, self._config.options),
            where=f"search words {name!r}",
        )
        create: Any = load_class(factory.target).create
        return lambda folder: create(folder, config=config, declarations=declarations)

    async def aclose(self) -> None:
        """Close every embedder that was made."""
        for embedder in self._made.values():
            await embedder.aclose()

    def _earlier(self, described: str) -> Embedder | None:
        if described not in self._made:
            name, _, query = described.partition("?")
            secrets = {key: value for key, value in self._options.items() if is_secret(key)}
            options = {**secrets, **dict(parse_qsl(query, keep_blank_values=True))}
            try:
                self._made[described] = self._embedder(name, options)
            except MemoryCoreError:
                # It was uninstalled, or its options have changed: its vectors answer nothing.
                return None
        return self._made[described]

    def _embedder(self, name: str, options: Mapping[str, Any]) -> Embedder:
        factory = self._registry.embedder(name)
        config = build_options(load_class(factory.config), options, where=f"embedder {name!r}")
        return load_class(factory.target).create(config=config)


def the_one_of(registry: PluginRegistry, *, embeds: bool) -> str:
    """The index that is used where none is named: the only one that is installed, or ``reference``.

    Args:
        registry: where indexes are found.
        embeds: whether it is to compare meanings.

    Raises:
        ConfigurationError: several are installed, or none that compares meanings.
    """
    installed = sorted(
        name
        for name, factory in registry.searches.items()
        if name != REFERENCE and factory.embeds == embeds
    )
    if len(installed) > 1:
        raise ConfigurationError(
            f"several search indexes are installed ({', '.join(installed)}): name one, "
            f"as in search={installed[0]!r}"
        )
    if not installed and embeds:
        raise ConfigurationError(
            "search: an embedder is set, but no index that uses one is installed; install one with: "
            f"{install_command('memory-search-vectors')}"
        )
    return installed[0] if installed else REFERENCE


def _local(registry: PluginRegistry) -> str:
    local = sorted(name for name, factory in registry.embedders.items() if factory.local)
    if len(local) != 1:
        known = ", ".join(sorted(registry.embedders)) or "none"
        raise ConfigurationError(
            f"search: name an embedder, as in search='?embedder=NAME'; installed: {known}"
        )
    return local[0]


def _beginning_with(prefix: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return {key[len(prefix) :]: value for key, value in options.items() if key.startswith(prefix)}
