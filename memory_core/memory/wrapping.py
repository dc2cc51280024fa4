"""Putting wrappers around a storage, by their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from attrs import frozen

from memory_core.config import build_options
from memory_core.config.redaction import refuse_secrets
from memory_core.errors import ConfigurationError, MemoryCoreError, PluginError
from memory_core.hookspecs import WrapperFactory
from memory_core.plugins import PluginRegistry, load_class
from memory_core.storage import Storage, missing_members
from memory_core.values import Value

__all__ = ["NamedWrapper", "named_wrappers", "wrapped"]


@frozen(eq=False, repr=False)
class NamedWrapper(Value):
    """A wrapper with its options.

    Attributes:
        name: its name, without options.
        factory: makes it.
        config: its options; ``None`` where it takes none.
    """

    name: str
    factory: WrapperFactory
    config: Any


def named_wrappers(names: Iterable[str], registry: PluginRegistry) -> list[NamedWrapper]:
    """The wrappers of names (``audit``, ``audit?level=2``), outermost first.

    Raises:
        ConfigurationError: unknown name or option; the message lists those there are.
        PluginError: the class of its options cannot be loaded.
    """
    found = [_named(text, registry) for text in names]
    return sorted(found, key=lambda wrapper: wrapper.factory.order)


def _named(text: str, registry: PluginRegistry) -> NamedWrapper:
    name, _, query = text.partition("?")
    factory = registry.wrapper(name)
    options = dict(parse_qsl(query, keep_blank_values=True))
    refuse_secrets(options)
    if factory.config is not None:
        config = build_options(load_class(factory.config), options, where=f"wrapper {name!r}")
        return NamedWrapper(name, factory, config)
    if options:
        unknown = ", ".join(map(repr, options))
        raise ConfigurationError(f"wrapper {name!r}: unknown option {unknown}; it takes none")
    return NamedWrapper(name, factory, None)


def wrapped(storage: Storage, wrappers: Sequence[NamedWrapper]) -> Storage:
    """The storage in its wrappers, the first of them outermost.

    Raises:
        PluginError: a wrapper failed, or made no storage; the message names it.
        ConfigurationError: a wrapper rejects its options or the storage.
    """
    for wrapper in reversed(wrappers):
        wrap, config = wrapper.factory.wrap, wrapper.config
        try:
            storage = wrap(storage) if wrapper.factory.config is None else wrap(storage, config)
        except MemoryCoreError:
            raise
        except Exception as error:
            raise PluginError(
                f"wrapper {wrapper.name!r} failed: {type(error).__name__}: {error}"
            ) from error
        if missing := missing_members(storage):
            raise PluginError(
                f"wrapper {wrapper.name!r} made no Storage but {storage!r:.80}: "
                f"it lacks {', '.join(missing)}"
            )
    return storage
