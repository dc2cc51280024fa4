"""How a memory is searched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from attrs import evolve, field, fields_dict, frozen

from memory_core.config.options import build_options
from memory_core.config.validators import at_least, flag, instance_of, named, optional
from memory_core.errors import ConfigurationError

__all__ = ["SearchConfig", "search_config"]


@frozen(kw_only=True)
class SearchConfig:
    """How a memory is searched.

    Attributes:
        index: name of the search index; by default the one that is installed, or ``reference``.
        embedder: name of the embedder of an index that compares meanings; its options are ``embedder.NAME``.
            By default one that needs no option.
        words: name of the index of words that such an index stands on; by default as ``index`` without one.
        language: the language whose word endings do not count, as Snowball names it; ``"none"`` for none.
        folder: where indexes are kept; by default beside an embedded store, else in the user's cache folder.
        plaintext_index: whether there is an index on disk although wrappers may transform what is stored: it
            holds the words as they are.
        max_open: how many namespaces may have an open index; of more, the longest unused is closed.
        max_staleness: seconds for which another process's write may go unseen, on backends that cannot tell
            their position cheaply.
        options: further options of the index by dotted name.
    """

    index: str | None = field(default=None, validator=optional(instance_of(str)))
    embedder: str | None = field(default=None, validator=optional(instance_of(str)))
    words: str | None = field(default=None, validator=optional(instance_of(str)))
    language: str = field(default="english", validator=instance_of(str))
    folder: str | None = field(default=None, validator=optional(instance_of(str)))
    plaintext_index: bool = field(default=False, validator=flag)
    max_open: int = field(default=64, validator=at_least(1, whole=True))
    max_staleness: float = field(default=0.0, validator=at_least(0))
    options: Mapping[str, Any] = field(factory=dict[str, Any], validator=named)


def search_config(given: SearchConfig | str) -> SearchConfig:
    """The configuration that a setting means: the name of an index, with options:
    ``"reference?language=german"``.

    Raises:
        ConfigurationError: an option has a wrong value.
    """
    if isinstance(given, SearchConfig):
        return given
    if not isinstance(given, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
        raise ConfigurationError(f"search: expected a name or a SearchConfig, got {given!r}")
    name, _, query = given.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    own = {key: options.pop(key) for key in list(options) if key in _OWN}
    config = build_options(SearchConfig, own, where=f"search {given!r}")
    return evolve(config, index=name or None, options=options)


_OWN = fields_dict(SearchConfig).keys() - {"index", "options"}
