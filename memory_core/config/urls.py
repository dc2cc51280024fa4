"""Storage URLs: ``scheme:location?option=value``."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from attrs import field, frozen

from memory_core.config.redaction import refuse_secrets, shown, shown_url
from memory_core.errors import ConfigurationError
from memory_core.values import Value

__all__ = ["StorageURL"]


@frozen(eq=False, repr=False)
class StorageURL(Value):
    """A parsed ``scheme:location?option=value``.

    Attributes:
        scheme: names the backend.
        location: the path of an embedded store; the whole URL, without options, of a server.
        options: the query parameters.
    """

    scheme: str
    location: str
    options: Mapping[str, str] = field(factory=dict[str, str], repr=shown)

    @classmethod
    def parse(cls, url: str) -> StorageURL:
        """Parse a URL.

        Raises:
            ConfigurationError: when it has no scheme, repeats an option, or holds a secret.
        """
        scheme, colon, rest = url.partition(":")
        if not colon or not scheme or "/" in scheme or "\\" in scheme or len(scheme) == 1:
            raise ConfigurationError(
                f"{shown_url(url)!r} is not a storage URL: expected scheme:path, such as lmdb:./memory"
            )
        if not _is_path_text(unquote(rest)):
            raise ConfigurationError(f"{shown_url(url)!r} has characters that no path may have")
        rest, _, query = rest.partition("?")
        options: dict[str, str] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name in options:
                raise ConfigurationError(f"option {name!r} is given twice in the URL")
            options[name] = value
        refuse_secrets(options)
        if not rest.startswith("//"):
            return cls(scheme.lower(), unquote(rest), options)
        try:
            parts = urlsplit(f"{scheme}:{rest}")
        except ValueError:
            # The error's message may repeat a password.
            raise ConfigurationError(f"{shown_url(url)!r} has no valid host") from None
        if parts.username is not None or parts.password is not None:
            raise ConfigurationError("a URL must not hold a user or password; use the environment")
        location = unquote(parts.path) if not parts.netloc else f"{scheme.lower()}:{rest}"
        return cls(scheme.lower(), location, options)

    def check_host(self) -> None:
        """Check that the URL names a server: without ``//`` it would be the path of a file.

        Raises:
            ConfigurationError: it names no host.
        """
        if "://" not in self.location:
            # The part before an "@" may be a secret.
            host = self.location.rpartition("@")[2].strip("/") or "HOST"
            raise ConfigurationError(f"{self.scheme}: needs a host: {self.scheme}://{host}")

    def __str__(self) -> str:
        return self.location if "://" in self.location else f"{self.scheme}:{self.location}"


def _is_path_text(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False
