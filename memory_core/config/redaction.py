"""Rejects and redacts secrets in URLs and options, which it recognises by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from memory_core.errors import ConfigurationError

__all__ = ["is_secret", "refuse_secrets", "shown", "shown_url"]

_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")
_SECRETS = frozenset(
    {
        "apikey", "authtoken", "credential", "credentials", "jwt", "passphrase", "passwd", "password",
        "pwd", "secret", "token",
    }
)  # fmt: skip
_KEYS = frozenset({"access", "api", "encryption", "private", "secret"})
_IN_URL = re.compile(r"([?&][^=&]*)=([^&]*)")
_HIDDEN = "***"


def is_secret(name: str) -> bool:
    """Whether an option of this name, dotted or not, holds a secret."""
    words = [word.lower() for word in _WORD.findall(name)]
    pairs = pairwise(words)
    return not _SECRETS.isdisjoint(words) or any(
        first in _KEYS and second == "key" for first, second in pairs
    )


def refuse_secrets(options: Mapping[str, str]) -> None:
    """Reject the options of a URL if one holds a secret: by its name, or in a URL that is its value.

    Raises:
        ConfigurationError: an option holds a secret; the message does not show it.
    """
    for name, value in options.items():
        try:
            parts = urlsplit(value) if "://" in value else urlsplit("")
        except ValueError:
            # The error's message may repeat a password.
            raise ConfigurationError(f"option {name!r} in the URL has no valid host") from None
        if is_secret(name) or "@" in parts.netloc:
            raise ConfigurationError(
                f"option {name!r} in the URL is or holds a secret: give it as an argument or in the "
                "environment"
            )
        refuse_secrets(dict(parse_qsl(parts.query)))


def shown(options: Mapping[str, Any]) -> str:
    """Options with secrets redacted, safe for a ``repr``."""

    def visible(items: Mapping[str, Any]) -> dict[str, Any]:
        return {name: hidden(name, value) for name, value in items.items()}

    def hidden(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return visible(cast("Mapping[str, Any]", value))
        return _HIDDEN if is_secret(name) else value

    return repr(visible(options))


def shown_url(url: str) -> str:
    """A URL that is safe to show in a message: without user, password and secret options."""
    head, at, tail = url.rpartition("@")
    kept = f"…@{tail}" if at and head else url
    return _IN_URL.sub(
        lambda found: f"{found[1]}={_HIDDEN}" if is_secret(found[1]) else found[0], kept
    )
