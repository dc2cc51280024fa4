"""The plugin's entry point. It names classes as strings, so that discovering it loads nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from memory_core.hookspecs import StorageFactory, hookimpl

if TYPE_CHECKING:
    import typer

__all__ = ["memory_cli_commands", "memory_storage_factories"]


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


@hookimpl
def memory_cli_commands() -> Mapping[str, typer.Typer]:
    """``memory jsonl``."""
    from memory_storage_jsonl.commands import app

    return {"jsonl": app}
