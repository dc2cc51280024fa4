"""The search index after a command that writes much: brought up to date, so that no search has to wait."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from memory_core.cli.streams import warn
from memory_core.errors import MemoryCoreError

if TYPE_CHECKING:
    from memory_core.memory import Memory

__all__ = ["update_search_indexes"]


async def update_search_indexes(memory: Memory, namespaces: Iterable[str]) -> None:
    """Bring the search indexes of namespaces up to date, with a progress bar, where they outlive the command.

    What was written is safe already, so a failure is a hint.
    """
    from memory_core.cli import output
    from memory_core.transfer import Progress

    done = latest = 0
    try:
        if not memory.keeps_search_index():
            return
        with output.progress_bar("indexing") as on_progress:

            def show(applied: int) -> None:
                nonlocal latest
                latest = applied
                on_progress(Progress(done + applied, 0))

            for name in namespaces:
                await memory.scoped(name).update_search_index(progress=show)
                done, latest = done + latest, 0
    except MemoryCoreError as error:
        warn(f"hint: the search index is not up to date, the next search will try again: {error}")
