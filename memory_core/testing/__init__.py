"""The conformance kit: the contracts of backends, caches, search indexes, embedders, importers and
wrappers, as tests.

The suites need the extra ``testing``: pytest, pytest-asyncio in its ``auto`` mode, hypothesis. They
are loaded when they are used, so that the kit's commands run without.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memory_core.testing.data.kinds import KIT_RECORD_TYPES, kit_context
    from memory_core.testing.suite import StorageSuite
    from memory_core.testing.suite.cache_suite import CacheSuite
    from memory_core.testing.suite.embedder_suite import EmbedderSuite
    from memory_core.testing.suite.forwarding import assert_forwards_everything
    from memory_core.testing.suite.harness import Harness, needs, only_if
    from memory_core.testing.suite.importer_suite import ImporterSuite
    from memory_core.testing.suite.search_suite import SearchSuite

__all__ = [
    "KIT_RECORD_TYPES",
    "CacheSuite",
    "EmbedderSuite",
    "Harness",
    "ImporterSuite",
    "SearchSuite",
    "StorageSuite",
    "assert_forwards_everything",
    "kit_context",
    "needs",
    "only_if",
]

_MODULES = {
    "KIT_RECORD_TYPES": "data.kinds",
    "CacheSuite": "suite.cache_suite",
    "EmbedderSuite": "suite.embedder_suite",
    "Harness": "suite.harness",
    "ImporterSuite": "suite.importer_suite",
    "SearchSuite": "suite.search_suite",
    "StorageSuite": "suite",
    "assert_forwards_everything": "suite.forwarding",
    "kit_context": "data.kinds",
    "needs": "suite.harness",
    "only_if": "suite.harness",
}

if "pytest" in sys.modules:
    import pytest

    # Let pytest rewrite their assertions, so that failures show the values.
    pytest.register_assert_rewrite(f"{__name__}.suite", f"{__name__}.checks")


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
