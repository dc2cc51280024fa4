"""Modules that were elsewhere in earlier versions are still found there, with a DeprecationWarning.

A package registers its table of moved modules with `find_moved`. Nothing is imported before somebody asks
for an old path, and an import that finds its module never comes here.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["PATHS", "find_moved"]

PATHS = {
    "access": "memory.access",
    "arguments": "memory.arguments",
    "change_feed": "inmemory.feed",
    "composing": "memory.composing",
    "compression": "codec.compression",
    "conditions": "query.conditions",
    "convert": "codec.convert",
    "model": "inmemory.model",
    "opening": "memory.opening",
    "redaction": "config.redaction",
    "running": "memory.running",
    "testing.batch_tests": "testing.suite.batch_tests",
    "testing.cache_suite": "testing.suite.cache_suite",
    "testing.concurrency_tests": "testing.suite.concurrency_tests",
    "testing.durability_tests": "testing.suite.durability_tests",
    "testing.feed_tests": "testing.suite.feed_tests",
    "testing.forking": "testing.checks.forking",
    "testing.forwarding": "testing.suite.forwarding",
    "testing.handle_tests": "testing.suite.handle_tests",
    "testing.harness": "testing.suite.harness",
    "testing.integrity_tests": "testing.suite.integrity_tests",
    "testing.kinds": "testing.data.kinds",
    "testing.ledger": "testing.checks.ledger",
    "testing.member_tests": "testing.suite.storage_suite",
    "testing.process_tests": "testing.suite.process_tests",
    "testing.query_tests": "testing.suite.query_tests",
    "testing.record_tests": "testing.suite.record_tests",
    "testing.samples": "testing.data.samples",
    "testing.staleness_records": "testing.checks.staleness_worker",
    "testing.staleness_worker": "testing.checks.staleness_worker",
    "testing.stateful": "testing.suite.stateful",
    "testing.strategies": "testing.data.strategies",
}
"""Of the core."""


def find_moved(package: str, paths: Mapping[str, str]) -> None:
    """Let the modules of a package be found at their earlier paths.

    Args:
        package: the package.
        paths: where each module was, and where it is now, both relative to the package.
    """
    sys.meta_path.append(
        _Moved({f"{package}.{old}": f"{package}.{new}" for old, new in paths.items()})
    )


class _Moved(MetaPathFinder, Loader):
    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths = paths

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        del path, target
        if fullname not in self._paths:
            return None
        is_package = any(old.startswith(f"{fullname}.") for old in self._paths)
        return ModuleSpec(fullname, self, is_package=is_package)

    def exec_module(self, module: ModuleType) -> None:
        old, new = module.__name__, self._paths[module.__name__]
        warnings.warn(f"{old} is {new} now", DeprecationWarning, stacklevel=2)
        found = import_module(new)

        def get(name: str) -> Any:
            return getattr(found, name)

        module.__dict__.update(
            {"__doc__": found.__doc__, "__all__": found.__all__, "__getattr__": get}
            if hasattr(found, "__all__")
            else {"__doc__": found.__doc__, "__getattr__": get}
        )
