"""Modules of earlier versions are still found at their old paths, with a DeprecationWarning.

A package registers its table of moved modules with `find_moved`. Nothing is imported until an old path
is requested, and an import that finds its module never reaches this code.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, cast

__all__ = ["NAMES", "PATHS", "find_moved"]

PATHS = {
    "access": "memory.memory",
    "arguments": "memory.arguments",
    "cache.invalidation": "cache.coherence",
    "change_feed": "backend.feed",
    "composing": "memory.composing",
    "compression": "codec.compression",
    "conditions": "query.conditions",
    "convert": "codec.json_objects",
    "importers.claude_code": "importers.formats.claude_code",
    "importers.openai_chat": "importers.formats.openai_chat",
    "importers.swe_agent": "importers.formats.swe_agent",
    "importers.tau_bench": "importers.formats.tau_bench",
    "inmemory.feed": "backend.feed",
    "inmemory.model": "backend.model",
    "model": "backend.model",
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
"""The moved modules of the core."""

NAMES = {
    "access.RecordAccess": "memory.memory.Memory",
    "convert.explain": "config.options.explain",
    "cache.invalidation.Invalidation": "cache.coherence.NamespaceCoherence",
}
"""Names of the core's moved modules that now have another name or live in another module."""


def find_moved(
    package: str, paths: Mapping[str, str], names: Mapping[str, str] | None = None
) -> None:
    """Make the modules of a package importable from their old paths. All paths are relative to the package.

    Args:
        package: the package.
        paths: the new path of each module by its old path.
        names: the new place of names that the new module does not define: ``new.module.name`` or
            ``new.module.Class.method`` by ``old.module.name``.
    """
    sys.meta_path.append(
        _Moved(
            {f"{package}.{old}": f"{package}.{new}" for old, new in paths.items()},
            {f"{package}.{old}": f"{package}.{new}" for old, new in (names or {}).items()},
        )
    )


class _Moved:
    """A finder and loader. Its base classes are left out: importing ``importlib.abc`` takes as long as all
    of ``memory_core`` may.
    """

    def __init__(self, paths: Mapping[str, str], names: Mapping[str, str]) -> None:
        self._paths = paths
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        del path, target
        if fullname not in self._paths:
            return None
        is_package = any(old.startswith(f"{fullname}.") for old in self._paths)
        return ModuleSpec(fullname, cast("Any", self), is_package=is_package)

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python create the module."""

    def exec_module(self, module: ModuleType) -> None:
        old, new = module.__name__, self._paths[module.__name__]
        warnings.warn(f"{old} is {new} now", DeprecationWarning, stacklevel=2)
        found = import_module(new)
        from pkgutil import resolve_name

        def get(name: str) -> Any:
            renamed = self._names.get(f"{old}.{name}")
            return getattr(found, name) if renamed is None else resolve_name(renamed)

        module.__dict__.update(
            {"__doc__": found.__doc__, "__all__": found.__all__, "__getattr__": get}
            if hasattr(found, "__all__")
            else {"__doc__": found.__doc__, "__getattr__": get}
        )
