"""The conformance kit: what a backend, a cache or a wrapper must do, as tests to subclass.

The suites need the extra ``testing``: pytest, pytest-asyncio in its ``auto`` mode, hypothesis. They
are loaded when they are used, so that the kit's commands run without.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memory_core.testing.cache_suite import CacheSuite
    from memory_core.testing.forwarding import assert_forwards_everything
    from memory_core.testing.harness import Harness, needs, only_if
    from memory_core.testing.kinds import KIT_RECORD_TYPES, kit_context
    from memory_core.testing.suite import StorageSuite

__all__ = [
    "KIT_RECORD_TYPES",
    "CacheSuite",
    "Harness",
    "StorageSuite",
    "assert_forwards_everything",
    "kit_context",
    "needs",
    "only_if",
]

_MODULES = {
    "KIT_RECORD_TYPES": "kinds",
    "CacheSuite": "cache_suite",
    "Harness": "harness",
    "StorageSuite": "suite",
    "assert_forwards_everything": "forwarding",
    "kit_context": "kinds",
    "needs": "harness",
    "only_if": "harness",
}
# Those whose assertions pytest should explain.
_ASSERTING = (
    "batch_tests", "cache_suite", "concurrency_tests", "crash", "durability_tests", "feed_tests",
    "forwarding", "handle_tests", "harness", "integrity_tests", "member_tests", "process_tests",
    "query_tests", "record_tests", "stateful",
)  # fmt: skip

if "pytest" in sys.modules:
    import pytest

    pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in _ASSERTING))


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
