"""Output to standard output and standard error: terminal-safe text, messages, JSON."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import traceback
from typing import Any, TextIO

__all__ = [
    "accept_every_character",
    "mute_stdout",
    "safe",
    "say",
    "show_log",
    "show_traceback",
    "warn",
    "write_json",
]

_NOT_ASCII = re.compile(r"[^\x00-\x7e]")
# Characters that msgspec does not escape: C1 controls, one of which starts terminal escapes, and bidi marks.
_CONTROLS = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def safe(text: object) -> str:
    """Text on one line that cannot control a terminal: white space is folded, and each character that is
    not printable (escapes, bidi marks, undecodable bytes of a file name)
    becomes U+FFFD.
    """
    folded = " ".join(str(text).split())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in folded)


def say(text: object, stream: TextIO | None = None) -> None:
    """Write a line of safe text, by default to standard output."""
    (sys.stdout if stream is None else stream).write(f"{safe(text)}\n")


def warn(text: object) -> None:
    """Write a line of safe text to standard error."""
    say(text, sys.stderr)


def write_json(value: object, stream: TextIO | None = None) -> None:
    """Write a value as one JSON document, by default to standard output.

    JSON escape sequences stand for what the stream cannot represent, for what could control a terminal,
    and for the bytes of a file's name that are not UTF-8 (as `os.fsdecode` gives them).
    """
    import msgspec

    target = sys.stdout if stream is None else stream
    try:
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(value), indent=2)
    in_utf8 = (target.encoding or "utf-8").lower().replace("-", "") == "utf8"
    # A document is ASCII outside its strings, so each of these characters is inside one.
    unsafe = _CONTROLS if in_utf8 else _NOT_ASCII
    target.write(unsafe.sub(lambda found: json.dumps(found[0])[1:-1], text) + "\n")


def accept_every_character() -> None:
    """Make standard output replace characters that its encoding cannot represent, instead of failing.
    Standard error does so by default.
    """
    stdout: Any = sys.stdout
    if isinstance(stdout, io.TextIOWrapper):
        stdout.reconfigure(errors="replace")


def mute_stdout() -> None:
    """Redirect output still buffered for a closed pipe to the null device, so that exiting is quiet."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


class _SafeFormatter(logging.Formatter):
    """Formats log messages as safe text."""

    def format(self, record: logging.LogRecord) -> str:
        return _safe_lines(super().format(record))


def show_log(*, debug: bool) -> None:
    """Show logged errors, and with ``debug`` also warnings, which report retries and would otherwise
    hide the one line that says why a command failed.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_SafeFormatter("%(message)s"))
    # Has no effect if logging is already configured.
    logging.basicConfig(handlers=[handler], level=logging.WARNING if debug else logging.ERROR)


def show_traceback(error: BaseException) -> None:
    """Write the traceback of an error to standard error, as safe text."""
    sys.stderr.write(f"{_safe_lines(''.join(traceback.format_exception(error)))}\n")


def _safe_lines(text: str) -> str:
    """Text that keeps its lines and their indentation."""
    return "\n".join(
        " " * (len(line) - len(line.lstrip(" "))) + safe(line) for line in text.rstrip().split("\n")
    )
