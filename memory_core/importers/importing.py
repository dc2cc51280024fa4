"""One call that imports one file, by the rules of `memory import`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from memory_core.config.spelling import similar
from memory_core.errors import ConfigurationError
from memory_core.importers.base import recognised
from memory_core.importers.builtin import BUILTIN_IMPORTERS
from memory_core.importers.source import opened
from memory_core.importers.storing import FileReport, Storing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from memory_core.importers.base import Importer
    from memory_core.storage import Storage

__all__ = ["import_file"]


class _Open(Protocol):
    """An open memory, as far as an import needs it."""

    @property
    def storage(self) -> Storage: ...


async def import_file(
    memory: _Open,
    path: Path | str,
    importer: Importer | str | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> FileReport:
    """Store the episodes of one transcript by the rules of `memory import`.

    What is stored already and equal stays as it is, of two copies of an episode the longer one is kept,
    and episodes are related to the sessions that they are a part of, or follow.

    Args:
        memory: the open memory.
        path: the file, perhaps packed; ``-`` is standard input.
        importer: the importer of its format, or the name of one of the core's; ``None``: the content decides
            among the formats of the core.
        on_progress: called with the number of episodes so far.

    Returns:
        What became of the file: what was stored, what was skipped, and notes on what was changed.

    Raises:
        ImportFormatError: the file cannot be opened.
        UnknownFormatError: it is of no known format.
        ConfigurationError: no importer of the core has that name.
        StorageError: the store cannot be written at all.
    """
    storing = Storing(memory.storage, on_progress)
    with opened(path) as source:
        chosen = recognised(source, BUILTIN_IMPORTERS) if importer is None else _named(importer)
        report = await storing.file(source, chosen)
    report.related += await storing.finish()
    return report


def _named(importer: Importer | str) -> Importer:
    if not isinstance(importer, str):
        return importer
    known = {item.name: item for item in BUILTIN_IMPORTERS}
    if importer not in known:
        hint = similar(importer, known) or f"; known: {', '.join(known)}"
        raise ConfigurationError(f"unknown format {importer!r}{hint}")
    return known[importer]
