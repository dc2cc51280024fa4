"""What a format is, what an importer is, and how the one for a file is found."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from attrs import Factory, frozen

from memory_core.errors import ImportFormatError, UnknownFormatError
from memory_core.importers.formats.known import KNOWN
from memory_core.importers.log import Log
from memory_core.importers.sample import Layout, sample_of
from memory_core.importers.source import Source, opened, shown, unpacked_copy
from memory_core.records import Episode

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from uuid import UUID

    from memory_core.importers.draft import EpisodeDraft
    from memory_core.importers.sample import Sample

__all__ = ["Format", "FormatImporter", "Found", "Importer", "detect", "found_in", "recognised"]

HEAD_BYTES = 64 * 2**10


@runtime_checkable
class Importer(Protocol):
    """Reads one format of agent transcripts as episodes.

    The same file gives equal episodes every time, ids and times included, so a second import
    changes nothing. Files may be packed with gzip, xz or zstd, or come through a pipe: ``read`` gets
    a file with the same content that ``sniff`` got the start of.

    Attributes:
        name: what ``--format`` calls it.
        summary: one line on what it reads.
    """

    name: str
    summary: str

    def sniff(self, head: bytes, path: Path, /) -> bool:
        """Whether this is the importer for a file, judged by the start of its (unpacked) content.

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


@frozen(kw_only=True)
class Format:
    """A format of transcripts: how it is recognised, and how it is read.

    Attributes:
        name: what ``--format`` calls it; the first of the tags of its episodes.
        summary: one line on what it reads.
        recognises: whether a file is of this format, judged by its first objects.
        read: the episodes of a file as drafts.
        table: which field of the format becomes what, for the docs.
        general: whether it is asked only where no other format recognises a file.
        nested: whether its episodes may be parts of others (sub-agents of a session).
        joined: makes one episode of two halves with one id, or ``None`` where they do not belong together,
            and the second gets another id; without it the longer one is kept.
        instead: makes one episode of two that ``joined`` does not join, where no other with that id is there.
    """

    name: str
    summary: str
    recognises: Callable[[Sample], bool]
    read: Callable[[Source, Log], Iterator[EpisodeDraft]]
    table: Mapping[str, str] = Factory(dict[str, str])
    general: bool = False
    nested: bool = False
    joined: Callable[[Episode, Episode], Episode | None] | None = None
    instead: Callable[[Episode, Episode], Episode | None] | None = None


@frozen
class Found:
    """An episode of a transcript.

    Attributes:
        episode: the episode.
        parent: id of the episode that it is a part of.
        follows: id of the episode that it continues.
        replace: whether it replaces a stored one with more steps.
    """

    episode: Episode
    parent: UUID | None = None
    follows: UUID | None = None
    replace: bool = False


class FormatImporter:
    """The importer of a format that is described by a ``Format``."""

    format: ClassVar[Format]

    def __init__(self) -> None:
        self.name = self.format.name
        self.summary = self.format.summary

    def sniff(self, _head: bytes, path: Path, /) -> bool:
        """Whether a file is of this format, judged by its structure."""
        with opened(path) as source:
            return self.format.recognises(sample_of(source))

    def read(
        self, path: Path, *, keep_going: bool = False
    ) -> Iterator[Episode | ImportFormatError]:
        """Read a file, an episode at a time."""
        log = Log(shown(path))
        seen = 0
        for found in self._found(path, log):
            for error in log.skipped[seen:]:
                if not keep_going:
                    raise error
                yield error
            seen = len(log.skipped)
            if found is not None:
                yield found.episode

    def _found(self, path: Path, log: Log) -> Iterator[Found | None]:
        try:
            with opened(path) as source:
                yield from self.found_in(source, log)
        except ImportFormatError as error:
            log.skip_error(error)
        yield None

    def found_in(self, source: Source, log: Log) -> Iterator[Found]:
        """The episodes of a source; what is skipped or changed goes to the log.

        Raises:
            ImportFormatError: the source cannot be read further.
        """
        for draft in self.format.read(source, log):
            try:
                episode = draft.episode()
            except ImportFormatError as error:
                log.skip_error(error)
            else:
                yield Found(episode, draft.parent, draft.follows, draft.replace)


def found_in(importer: Importer, source: Source, log: Log) -> Iterator[Found]:
    """The episodes that an importer finds in a source, whichever way it was written.

    Raises:
        ImportFormatError: the source cannot be read further, or the importer itself fails.
    """
    with _failing_alone(importer, source):
        yield from _found_in(importer, source, log)


@contextmanager
def _failing_alone(importer: Importer, source: Source) -> Generator[None]:
    """A plugin's importer may raise anything: its file fails, and no other."""
    try:
        yield
    except ImportFormatError:
        raise
    except (Exception, SystemExit) as error:
        reason = f"the importer {importer.name} failed: {type(error).__name__}: {error}"
        raise source.error(reason) from error


def _found_in(importer: Importer, source: Source, log: Log) -> Iterator[Found]:
    if isinstance(importer, FormatImporter):
        yield from importer.found_in(source, log)
        return
    with tempfile.TemporaryDirectory(prefix="memory-import-") as folder:
        path = source.path
        if source.packing or source.marked or shown(path) != source.name:
            path = unpacked_copy(source, Path(folder))
        for item in importer.read(path, keep_going=True):
            if isinstance(item, ImportFormatError):
                log.skip(item.entry or "", item.reason)
            elif isinstance(item, Episode):  # pyright: ignore[reportUnnecessaryIsInstance]  # a plugin may give anything
                yield Found(item)
            else:
                raise TypeError(f"it gave {type(item).__name__}, no episode")


def detect(path: Path, importers: Iterable[Importer]) -> Importer:
    """The importer for a file, by its content.

    Raises:
        ImportFormatError: when none or more than one recognises it, or it cannot be read.
    """
    with opened(path) as source:
        return recognised(source, importers)


def recognised(source: Source, importers: Iterable[Importer], log: Log | None = None) -> Importer:
    """The importer for a source, by its content.

    Args:
        source: the source.
        importers: those to ask. One that fails does not recognise it.
        log: gets a note on each that fails although another one recognises the source.

    Raises:
        ImportFormatError: when none or more than one recognises it, or it cannot be read.
    """
    known = list(importers)
    sample = sample_of(source)
    if sample.layout is Layout.EMPTY:
        raise source.error("is empty")
    found = _recognising(source, sample, known, log or Log(source.name))
    special = [
        item for item in found if not (isinstance(item, FormatImporter) and item.format.general)
    ]
    found = special or found
    if len(found) > 1:
        names = ", ".join(importer.name for importer in found)
        raise source.error(f"could be any of {names}: name the format")
    if not found:
        raise _unknown(source, sample, known)
    return found[0]


def _recognising(
    source: Source, sample: Sample, importers: Iterable[Importer], log: Log
) -> list[Importer]:
    found: list[Importer] = []
    failures: list[ImportFormatError] = []
    for importer in importers:
        try:
            if _recognises(importer, source, sample):
                found.append(importer)
        except ImportFormatError as error:
            failures.append(error)
    if failures and not found:
        raise failures[0]
    for failure in failures:
        log.note("", failure.reason)
    return found


def _unknown(source: Source, sample: Sample, importers: Iterable[Importer]) -> ImportFormatError:
    if sample.first.get("format") == "memory-core export":
        return source.error("is an export of memory-core: load it with `memory load`")
    for what, looks_so in KNOWN.items():
        if looks_so(sample):
            return source.error(f"looks like {what}, for which there is no importer")
    if sample.broken:
        return source.error(sample.broken)
    tried = ", ".join(importer.name for importer in importers) or "none"
    return UnknownFormatError(
        source.name, f"is of no known format: {sample.described()}; tried {tried}"
    )


def _recognises(importer: Importer, source: Source, sample: Sample) -> bool:
    if isinstance(importer, FormatImporter):
        return importer.format.recognises(sample)
    if sample.layout is Layout.ARCHIVE:
        with source.path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    else:
        head = source.head(HEAD_BYTES)
    with _failing_alone(importer, source):
        return importer.sniff(head, Path(source.name))


def __getattr__(name: str) -> Any:
    """Find what was here in version 0.1.0."""
    if name.startswith("__"):
        raise AttributeError(name)
    from memory_core.importers import earlier

    return earlier.found(__name__, name)
