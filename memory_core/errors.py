"""Every error the framework raises, in one hierarchy.

::

    MemoryCoreError
    ├── InvalidValueError (ValueError)      a wrong value for a field of an object
    ├── ConfigurationError                  settings, URLs, options
    │   ├── InvalidOptionError              the value of an option; an InvalidValueError too
    │   ├── StoreNotFoundError              no store here, and none may be created
    │   ├── NotAStoreError                  a file or database that is not a store of this framework
    │   └── UnknownKindError                records whose plugin is not installed
    ├── PluginError                         discovery, loading, name clashes
    ├── QueryError                          a query that cannot be answered
    ├── CodecError                          bytes that are not what was written
    ├── ImportFormatError                   a transcript that cannot be read
    │   └── UnknownFormatError              a file that no importer recognises
    ├── EmbedderError                       an embedder that is down, or gives what it should not
    └── StorageError
        ├── RecordTooLargeError             over a limit; nothing was written
        ├── ReferenceNotFoundError          points at a missing record
        ├── ReferenceRestrictedError        a delete that something still points at
        ├── DuplicateError                  a unique constraint
        ├── CycleError                      an edge that closes a cycle
        ├── EpisodeCompleteError            a step or an outcome for a complete episode
        ├── ConflictError                   an expectation of a batch does not hold
        ├── RecordNotFoundError             an update of a record that is not there
        ├── UnsupportedCapabilityError      the backend does not support it
        ├── ReadOnlyError                   a write to a store that was opened to be read
        ├── MigrationNeededError            opened to be read, but has to be opened for writing once
        ├── StorageClosedError              used after ``aclose``
        ├── WrongEventLoopError             used from another event loop than the one that opened it
        ├── StorageUnavailableError         unreachable or busy; certainly not applied
        ├── StorageFullError                disk or map full; not applied
        ├── DeclarationChangedError         another process has declared a kind differently: open again
        ├── SchemaVersionError              written by a newer version
        └── OutcomeUnknownError             sent, but no answer came back

Errors carry their data as attributes. No driver's exception crosses the SPI: the original is kept
as ``__cause__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self
    from uuid import UUID

__all__ = [
    "CodecError",
    "ConfigurationError",
    "ConflictError",
    "CycleError",
    "DeclarationChangedError",
    "DuplicateError",
    "EmbedderError",
    "EpisodeCompleteError",
    "ImportFormatError",
    "InvalidOptionError",
    "InvalidValueError",
    "MemoryCoreError",
    "MigrationNeededError",
    "NotAStoreError",
    "OutcomeUnknownError",
    "PluginError",
    "QueryError",
    "ReadOnlyError",
    "RecordNotFoundError",
    "RecordTooLargeError",
    "ReferenceNotFoundError",
    "ReferenceRestrictedError",
    "SchemaVersionError",
    "StorageClosedError",
    "StorageError",
    "StorageFullError",
    "StorageUnavailableError",
    "StoreNotFoundError",
    "UnknownFormatError",
    "UnknownKindError",
    "UnsupportedCapabilityError",
    "WrongEventLoopError",
]


Error = TypeVar("Error", bound=BaseException)


class MemoryCoreError(Exception):
    """Base class of every error that the framework raises.

    It can be copied and pickled, as can each subclass without code of its own: the copy has the type, the
    message, the attributes and the notes, and, as all of Python's exceptions, neither cause nor traceback. An
    attribute that cannot be pickled is its ``repr`` in what was unpickled.

    Attributes:
        applied: whether the call that raised it wrote anything: ``False``, or ``None`` where that cannot be
            told.
        retryable: whether the same call may succeed later, without a change to it.
    """

    applied: bool | None = False
    retryable: bool = False

    def __copy__(self) -> Self:
        made = _without_init(type(self), self._arguments())
        made.__setstate__(self._state())
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by `__init__`: that of a subclass may take other arguments than the message.
        arguments = tuple(_portable(value) for value in self._arguments())
        state = {name: _portable(value) for name, value in self._state().items()}
        return _without_init, (type(self), arguments), state

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        for name, value in (state or {}).items():
            # Also where a subclass is frozen.
            object.__setattr__(self, name, value)

    def _arguments(self) -> tuple[Any, ...]:
        return cast("tuple[Any, ...]", super().__reduce__()[1])

    def _state(self) -> dict[str, Any]:
        """The attributes, in ``__dict__`` and in slots; a note is one of them."""
        state: Any = cast("Any", self).__getstate__()
        parts = cast(
            "tuple[dict[str, Any] | None, ...]", state if type(state) is tuple else (state,)
        )
        return {name: value for part in parts for name, value in (part or {}).items()}


class InvalidValueError(MemoryCoreError, ValueError):
    """A field of an object got an invalid value.

    Attributes:
        field: name of the field, dotted where it is nested.
        expected: what is accepted, in words.
        value: the wrong value.
    """

    def __init__(self, field: str, expected: str, value: object) -> None:
        super().__init__(f"{field}: expected {expected}, got {_short(value)}")
        self.field = field
        self.expected = expected
        self.value = value


class ConfigurationError(MemoryCoreError):
    """A setting, a URL or an option is invalid; the message lists what is valid."""


class InvalidOptionError(ConfigurationError, InvalidValueError):
    """An option has an invalid value. It has the attributes of ``InvalidValueError``."""


class StoreNotFoundError(ConfigurationError):
    """There is no store at a location, and none may be created.

    Attributes:
        location: the location.
        reason: what is missing there.
    """

    def __init__(self, location: str, reason: str = "there is no store") -> None:
        super().__init__(f"{location}: {reason}")
        self.location = location
        self.reason = reason


class NotAStoreError(ConfigurationError):
    """What is at a location is not a store of this framework, or is empty; it was left as it is.

    Attributes:
        location: the location.
        reason: what was found there.
    """

    def __init__(self, location: str, reason: str) -> None:
        super().__init__(f"{location}: not a memory-core store: {reason}")
        self.location = location
        self.reason = reason


class UnknownKindError(ConfigurationError):
    """A store holds records of kinds that no installed plugin declares, so that they cannot be read.

    Attributes:
        where: the store.
        kinds: the number of records of each of these kinds.
    """

    def __init__(self, where: str, kinds: Mapping[str, int]) -> None:
        held = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        super().__init__(
            f"{where} holds records of kinds that no installed plugin declares: {held}; "
            "install or unblock their plugin"
        )
        self.where = where
        self.kinds = dict(kinds)


class PluginError(MemoryCoreError):
    """A plugin could not be found, loaded or combined with another one."""


class QueryError(MemoryCoreError):
    """A query that cannot be answered: unknown index, wrong value type, foreign cursor."""


class CodecError(MemoryCoreError):
    """Stored or received bytes are not what the framework wrote.

    Attributes:
        kind: the record's kind, where it is known.
        record_id: the record's id, where it is known.
    """

    def __init__(
        self, reason: str, *, kind: str | None = None, record_id: UUID | None = None
    ) -> None:
        where = f"{kind or 'record'} {record_id}: " if kind or record_id else ""
        super().__init__(where + reason)
        self.reason = reason
        self.kind = kind
        self.record_id = record_id


class ImportFormatError(MemoryCoreError):
    """A transcript that cannot be read.

    Attributes:
        file: the file's name.
        entry: which entry of it (line, index or trial), where it is known.
        reason: what is wrong with it.
    """

    def __init__(self, file: str, reason: str, *, entry: str | None = None) -> None:
        super().__init__(f"{file}{f', {entry}' if entry else ''}: {reason}")
        self.file = file
        self.entry = entry
        self.reason = reason


class UnknownFormatError(ImportFormatError):
    """A file that no importer recognises."""


class EmbedderError(MemoryCoreError):
    """An embedder cannot be reached, refuses, or returned what it should not. A search answers without it."""

    retryable = True


class StorageError(MemoryCoreError):
    """The store rejected an operation, or failed. Acknowledged writes stay."""


class RecordTooLargeError(StorageError):
    """Something exceeds a limit of ``Limits``; nothing of its batch was written.

    Attributes:
        what: the field or object that is too large.
        size: its size in bytes or items.
        limit: the limit it exceeds.
        limit_name: the name of the setting.
    """

    def __init__(self, what: str, size: int, limit: int, limit_name: str) -> None:
        super().__init__(f"{what} is {size}, over the limit {limit_name}={limit}")
        self.what = what
        self.size = size
        self.limit = limit
        self.limit_name = limit_name


class ReferenceNotFoundError(StorageError):
    """A record refers to a missing record.

    Attributes:
        kind: kind of the record that was to be written.
        field: its reference field.
        target_kind: the kind that it refers to.
        target_id: the missing id, where the backend knows it.
    """

    def __init__(self, kind: str, field: str, target_kind: str, target_id: UUID | None) -> None:
        super().__init__(f"{kind}.{field}: no {target_kind} {target_id} in this namespace")
        self.kind = kind
        self.field = field
        self.target_kind = target_kind
        self.target_id = target_id


class ReferenceRestrictedError(StorageError):
    """A delete was rejected because another record still refers to the record.

    Attributes:
        kind: kind of the record that was to be deleted.
        record_id: its id.
        referrer_kind: the kind that still points at it.
        field: the reference field that restricts the delete.
    """

    def __init__(self, kind: str, record_id: UUID, referrer_kind: str, field: str) -> None:
        super().__init__(f"{kind} {record_id} is still referred to by {referrer_kind}.{field}")
        self.kind = kind
        self.record_id = record_id
        self.referrer_kind = referrer_kind
        self.field = field


class DuplicateError(StorageError):
    """Another record already has the same unique values.

    Attributes:
        kind: the kind whose constraint it is.
        fields: the index names that are unique together.
    """

    def __init__(self, kind: str, fields: Iterable[str]) -> None:
        self.kind = kind
        self.fields = tuple(fields)
        super().__init__(f"another {kind} has the same {', '.join(self.fields)}")


class CycleError(StorageError):
    """An edge would close a cycle among edges of its own type.

    Attributes:
        kind: the kind of the edge.
        source: the id the edge starts from.
        target: the id it points at.
        group: the edge's type.
    """

    def __init__(self, kind: str, source: UUID, target: UUID, group: str) -> None:
        super().__init__(f"{kind} {group} from {source} to {target} would close a cycle")
        self.kind = kind
        self.source = source
        self.target = target
        self.group = group


class EpisodeCompleteError(StorageError):
    """The episode is complete: it takes no further steps and no other outcome.

    Attributes:
        episode_id: the episode.
        refused: what was not added to it, such as ``"step 3"``.
    """

    def __init__(self, episode_id: UUID, refused: str) -> None:
        super().__init__(f"episode {episode_id} is complete; {refused} was not added")
        self.episode_id = episode_id
        self.refused = refused


class ConflictError(StorageError):
    """A batch expected a record to be as it is not; nothing of the batch was applied.

    Attributes:
        kind: kind of the record.
        record_id: its id.
        stored: the record that the batch's own transaction found, or ``None`` where there is none.
    """

    def __init__(self, kind: str, record_id: UUID, stored: Any) -> None:
        found = "is not there" if stored is None else "is not as expected"
        super().__init__(f"{kind} {record_id} {found}")
        self.kind = kind
        self.record_id = record_id
        self.stored = stored


class RecordNotFoundError(StorageError):
    """An update of a record that is not there.

    Attributes:
        kind: kind of the record.
        record_id: its id.
    """

    def __init__(self, kind: str, record_id: UUID) -> None:
        super().__init__(f"there is no {kind} {record_id} in this namespace")
        self.kind = kind
        self.record_id = record_id


class UnsupportedCapabilityError(StorageError):
    """The backend declared that it cannot do this.

    Attributes:
        capability: the capability that was requested.
        backend: the backend's name.
    """

    def __init__(self, capability: str, backend: str) -> None:
        super().__init__(f"{backend} does not support {capability}")
        self.capability = capability
        self.backend = backend


class WrongEventLoopError(StorageError):
    """A store was used from another event loop than the one that opened it, which owns it.

    Open the store again in each loop that uses it.
    """


class ReadOnlyError(StorageError):
    """A write to a store that was opened with ``read_only=True``; nothing was written."""

    def __init__(self, message: str = "the store was opened to be read only") -> None:
        super().__init__(message)


class MigrationNeededError(StorageError):
    """A store that was opened with ``read_only=True`` has to be opened for writing once first.

    Attributes:
        location: the location.
        reason: what the store lacks.
    """

    def __init__(self, location: str, reason: str) -> None:
        super().__init__(f"{location}: {reason}: open it for writing once")
        self.location = location
        self.reason = reason


class StorageClosedError(StorageError):
    """The storage was used after it was closed."""


class StorageUnavailableError(StorageError):
    """The store cannot be reached or stays locked; the operation was certainly not applied."""

    retryable = True


class StorageFullError(StorageError):
    """No room is left: the disk, or a map that may not grow further; nothing was applied."""

    retryable = True


class DeclarationChangedError(StorageError):
    """Another process has opened the store with other declarations of a kind since this one did.

    Nothing was applied. To go on, open the store again.

    Attributes:
        where: the store.
        kind: the kind that is declared differently; "" where the store does not tell.
    """

    def __init__(self, where: str, kind: str = "") -> None:
        of = f" of {kind!r}" if kind else ""
        super().__init__(
            f"{where}: another process has opened the store with other declarations{of}; "
            "open it again, with the same plugins"
        )
        self.where = where
        self.kind = kind


class SchemaVersionError(StorageError):
    """The store was written by a newer version; it was left untouched.

    Attributes:
        found: the version in the store.
        supported: the newest version this code can read.
    """

    def __init__(
        self, where: str, found: int, supported: int, *, what: str = "schema version"
    ) -> None:
        super().__init__(
            f"{where} has {what} {found}; this version of memory-core reads up to {supported}"
        )
        self.where = where
        self.found = found
        self.supported = supported


class OutcomeUnknownError(StorageError):
    """A write was sent and no answer came back: it may or may not have been applied."""

    applied = None
    retryable = True


def _without_init(cls: type[Error], arguments: tuple[Any, ...]) -> Error:
    return cls.__new__(cls, *arguments)


def _portable(value: object) -> object:
    """The value, or the beginning of its ``repr`` where another process could not load it."""
    import pickle

    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301  # pickled in this very line
    except Exception:  # noqa: BLE001  # objects of others raise whatever they like
        return _short(value)
    return value


def _short(value: object, limit: int = 120) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
