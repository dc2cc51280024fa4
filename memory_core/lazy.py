"""Packages whose public names are imported when they are first used (PEP 562).

A package lists its names twice: in an ``import`` that only type checkers read, and in the table that
`lazily` takes. A test compares the two.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazily"]


def lazily(
    package: str, names: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package that imports its names lazily. They find
    its modules, too.

    Args:
        package: the package.
        names: the names that come from a module, separated by spaces, by the module's path in the package.
    """
    homes = {name: f"{package}.{home}" for home, listed in names.items() for name in listed.split()}

    def get(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            return _module(package, name)
        value = getattr(import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, listed


def _module(package: str, name: str) -> Any:
    path = f"{package}.{name}"
    if not name.startswith("_"):
        try:
            return import_module(path)
        except ModuleNotFoundError as error:
            if error.name != path:
                raise
    raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
