"""Failures of commands: the exit code, and one line on standard error."""

from __future__ import annotations

from enum import IntEnum

from memory_core.cli.streams import mute_stdout, show_log, warn
from memory_core.errors import (
    CodecError,
    ConfigurationError,
    CycleError,
    DuplicateError,
    ImportFormatError,
    InvalidValueError,
    MemoryCoreError,
    PluginError,
    QueryError,
    ReadOnlyError,
    RecordTooLargeError,
    ReferenceNotFoundError,
    ReferenceRestrictedError,
    StorageError,
    StoreNotFoundError,
    UnsupportedCapabilityError,
)

__all__ = [
    "ExitCode",
    "NothingReadError",
    "WorkFailedError",
    "exit_code_of",
    "mute_stdout",
    "report",
    "show_log",
]


class ExitCode(IntEnum):
    """The exit codes of `memory`; docs/cli.md describes them."""

    OK = 0
    WORK_FAILED = 1
    USAGE = 2
    STORAGE = 3
    BUG = 70
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    TERMINATED = 143


class WorkFailedError(MemoryCoreError):
    """A command could not do all of its work: nothing was found, records differ, or entries were skipped."""


class NothingReadError(WorkFailedError):
    """Of several transcripts not one could be read."""


# The first match counts.
_CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (BrokenPipeError, ExitCode.PIPE_CLOSED),
    (ConfigurationError, ExitCode.USAGE),
    (InvalidValueError, ExitCode.USAGE),
    (PluginError, ExitCode.USAGE),
    (QueryError, ExitCode.USAGE),
    (UnsupportedCapabilityError, ExitCode.USAGE),
    (ReadOnlyError, ExitCode.USAGE),
    # The store rejected a record; the store itself works.
    (CycleError, ExitCode.WORK_FAILED),
    (DuplicateError, ExitCode.WORK_FAILED),
    (RecordTooLargeError, ExitCode.WORK_FAILED),
    (ReferenceNotFoundError, ExitCode.WORK_FAILED),
    (ReferenceRestrictedError, ExitCode.WORK_FAILED),
    (StorageError, ExitCode.STORAGE),
    (CodecError, ExitCode.STORAGE),
    (ImportFormatError, ExitCode.STORAGE),
    (NothingReadError, ExitCode.STORAGE),
    (MemoryCoreError, ExitCode.WORK_FAILED),
    (OSError, ExitCode.WORK_FAILED),
)


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code for an error that a command raised."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.BUG)


def report(error: BaseException, code: ExitCode) -> None:
    """Write one line to standard error that says what went wrong; nothing where a pipe was closed."""
    match code:
        case ExitCode.INTERRUPTED:
            line = "interrupted"
        case ExitCode.TERMINATED:
            line = "terminated"
        case ExitCode.PIPE_CLOSED:
            return
        case ExitCode.BUG:
            line = f"unexpected {type(error).__name__}: {error} (--debug shows where)"
        case _ if isinstance(error, StoreNotFoundError):
            line = f"{error}; `memory import` creates one"
        case _:
            line = str(error)
    warn(f"memory: {line}")
