"""What an importer is, and how the one for a file is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from memory_core.errors import ImportFormatError
from memory_core.importers.source import head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from memory_core.records import Episode

__all__ = ["Importer", "detect", "strict_unless"]


@runtime_checkable
class Importer(Protocol):
    """Reads one format of agent transcripts as episodes.

    The same file gives equal episodes every time, ids and times included, so a second import
    changes nothing. Files may be compressed with gzip or xz.

    Attributes:
        name: what ``--format`` calls it.
        summary: one line on what it reads.
    """

    name: str
    summary: str

    def sniff(self, head: bytes, path: Path, /) -> bool:
        """Whether this is the importer for a file, judged by the start of its (decompressed) content.

        Args:
            head: at most the first 64 KiB; it may end anywhere.
            path: where it is from; a suffix is a hint at most.
        """
        ...

    def read(
        self, path: Path, *, keep_going: bool = False
    ) -> Iterator[Episode | ImportFormatError]:
        """Read a file, an episode at a time.

        Args:
            path: the file.
            keep_going: yield the errors among the episodes instead of raising the first one.

        Raises:
            ImportFormatError: names the file, the entry and the reason.
        """
        ...


def detect(path: Path, importers: Iterable[Importer]) -> Importer:
    """The importer for a file, by its content.

    Raises:
        ImportFormatError: when none or more than one recognises it, or it cannot be read.
    """
    known = list(importers)
    start = head(path)
    if not start.strip():
        raise ImportFormatError(str(path), "is empty")
    found = [importer for importer in known if importer.sniff(start, path)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(importer.name for importer in found)
        raise ImportFormatError(str(path), f"could be any of {names}: name the format")
    tried = ", ".join(importer.name for importer in known) or "none"
    raise ImportFormatError(str(path), f"is of no known format; tried {tried}")


def strict_unless(
    keep_going: bool,
    items: Iterator[Episode | ImportFormatError],
) -> Iterator[Episode | ImportFormatError]:
    """Episodes and errors as ``Importer.read`` gives them.

    ``items`` yields an error it can go on after, and raises one it cannot.
    """
    try:
        for item in items:
            if isinstance(item, ImportFormatError) and not keep_going:
                raise item
            yield item
    except ImportFormatError as error:
        if not keep_going:
            raise
        yield error
