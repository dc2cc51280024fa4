"""The plugin's entry point. It names classes as strings, so that discovering it loads nothing else."""

from collections.abc import Mapping

from memory_core.hookspecs import StorageFactory, hookimpl

__all__ = ["memory_storage_factories"]


@hookimpl
def memory_storage_factories() -> Mapping[str, StorageFactory]:
    """``jsonl:PATH``."""
    return {
        "jsonl": StorageFactory(
            target="memory_storage_jsonl.storage:JsonlStorage",
            config="memory_storage_jsonl.config:JsonlConfig",
            summary="an append-only JSON-lines file, for one process at a time",
            spi=2,
        )
    }
