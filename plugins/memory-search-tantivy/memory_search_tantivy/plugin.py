"""The plugin of this distribution. It names classes as strings, so that discovering it loads no index."""

from __future__ import annotations

from collections.abc import Mapping

from memory_core.hookspecs import SearchFactory, hookimpl


@hookimpl
def memory_search_factories() -> Mapping[str, SearchFactory]:
    """Search indexes by name."""
    return {
        "tantivy": SearchFactory(
            target="memory_search_tantivy.index:TantivyIndex",
            config="memory_search_tantivy.config:TantivyConfig",
            summary="on disk, shared by the processes of a host, by tantivy",
        )
    }
