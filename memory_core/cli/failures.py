"""What a failure is to the shell: an exit code and one line on standard error."""

from __future__ import annotations

import logging
import os
import sys
from enum import IntEnum

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
    RecordTooLargeError,
    ReferenceNotFoundError,
    ReferenceRestrictedError,
    StorageError,
    StoreNotFoundError,
    UnsupportedCapabilityError,
)

__all__ = [
    "ExitCode",
    "WorkFailedError",
    "exit_code_of",
    "mute_stdout",
    "report",
    "show_log",
]


class ExitCode(IntEnum):
    """The exit codes, as documented."""

    OK = 0
    WORK_FAILED = 1
    USAGE = 2
    STORAGE = 3
    BUG = 70
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    TERMINATED = 143


class WorkFailedError(MemoryCoreError):
    """The command did what it could, and that was not all: nothing found, differences, skipped
    entries.
    """


# The first that fits counts.
_CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (BrokenPipeError, ExitCode.PIPE_CLOSED),
    (ConfigurationError, ExitCode.USAGE),
    (InvalidValueError, ExitCode.USAGE),
    (PluginError, ExitCode.USAGE),
    (QueryError, ExitCode.USAGE),
    (UnsupportedCapabilityError, ExitCode.USAGE),
    # What was asked for was refused; the storage is well.
    (CycleError, ExitCode.WORK_FAILED),
    (DuplicateError, ExitCode.WORK_FAILED),
    (RecordTooLargeError, ExitCode.WORK_FAILED),
    (ReferenceNotFoundError, ExitCode.WORK_FAILED),
    (ReferenceRestrictedError, ExitCode.WORK_FAILED),
    (StorageError, ExitCode.STORAGE),
    (CodecError, ExitCode.STORAGE),
    (ImportFormatError, ExitCode.STORAGE),
    (MemoryCoreError, ExitCode.WORK_FAILED),
    (OSError, ExitCode.WORK_FAILED),
)


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code for what a command raised."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.BUG)


def report(error: BaseException, code: ExitCode) -> None:
    """Say on one line of standard error what went wrong, if there is anything to say."""
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
            line = f"{error}; `memory import` makes one"
        case _:
            line = str(error)
    sys.stderr.write(f"memory: {' '.join(line.split())}\n")


def show_log(*, debug: bool) -> None:
    """Show what is logged: errors, and with ``debug`` warnings. These are of what a backend tries again
    later, and would stand around the one line that says why a command failed.
    """
    # Does nothing where somebody else has seen to it.
    logging.basicConfig(format="%(message)s", level=logging.WARNING if debug else logging.ERROR)


def mute_stdout() -> None:
    """Give what is still buffered for a closed pipe somewhere to go, so that exiting is quiet."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
