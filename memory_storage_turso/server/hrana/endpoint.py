"""Endpoints: the address, token and trusted certificates of a server, from a URL and the environment."""

from __future__ import annotations

import ipaddress
import os
import ssl
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Mapping
from typing import Literal, NoReturn
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

import attrs
import msgspec

from memory_core.config.redaction import is_secret
from memory_core.errors import ConfigurationError
from memory_core.values import Value
from memory_storage_turso.server.hrana.errors import NotReachedError

#: Environment variables that may hold the token, in the order in which they are tried.
TOKEN_VARIABLES = ("MEMORY_TURSO_AUTH_TOKEN", "TURSO_AUTH_TOKEN")

#: URL scheme -> transport and whether it is encrypted. ``libsql`` depends on ``?tls=``.
_SCHEMES: Mapping[str, tuple[Literal["http", "ws"], bool | None]] = {
    "turso+http": ("http", False),
    "turso+https": ("http", True),
    "turso+ws": ("ws", False),
    "turso+wss": ("ws", True),
    "libsql": ("http", None),
}
OPTIONS = ("database", "tls")


class _Claims(msgspec.Struct):
    """What a token says of itself.

    Attributes:
        a: What it permits: ``"ro"`` or ``"rw"``.
    """

    a: object = None


class Token:
    """A secret that no ``repr`` or ``str`` shows."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def reveal(self) -> str:
        """The secret itself."""
        return self._secret

    @property
    def only_reads(self) -> bool:
        """Whether it says of itself that it permits reading only."""
        claims = self._secret.split(".")[1:2]
        try:
            said = msgspec.json.decode(urlsafe_b64decode("".join(claims) + "=="), type=_Claims)
        except (ValueError, msgspec.MsgspecError, RecursionError):
            return False
        return said.a == "ro"

    def removed_from(self, text: str) -> str:
        """A text without the secret, which may be in it as it is or encoded."""
        secret = self._secret
        for form in (secret, b64encode(secret.encode()).decode(), quote(secret, safe="")):
            text = text.replace(form, "***")
        return text

    def __repr__(self) -> str:
        return "Token(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and other._secret == self._secret

    def __hash__(self) -> int:
        return hash(self._secret)


@attrs.frozen(slots=True, eq=False, repr=False)
class Endpoint(Value):
    """One database on one server.

    Attributes:
        transport: Hrana over HTTP, or over WebSocket.
        base_url: ``scheme://host:port`` plus a path, if any, without a slash at its end.
        loopback: Whether the server is on this machine.
        token: The JWT to send, if any.
        database: The server's name for the database, where it has several.
    """

    transport: Literal["http", "ws"]
    base_url: str
    loopback: bool
    token: Token | None = None
    database: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers that select the database."""
        if self.database is None:
            return {}
        name = b64encode(self.database.encode()).rstrip(b"=").decode("ascii")
        return {"x-namespace-bin": name}

    def without_secrets(self, said: str) -> str:
        """What a server said, without the token that it may have repeated."""
        return said if self.token is None else self.token.removed_from(said)

    def __str__(self) -> str:
        """The address, fit for an error message."""
        return self.base_url if self.database is None else f"{self.base_url} ({self.database})"


def is_server_url(url: str) -> bool:
    """Whether the URL names a server, rather than a file."""
    return url.partition(":")[0].lower() in _SCHEMES


def parse_endpoint(
    url: str,
    *,
    token: str | None = None,
    database: str | None = None,
    tls: bool | None = None,
    environ: Mapping[str, str] | None = None,
) -> Endpoint:
    """Read a server URL.

    Args:
        url: ``turso+http(s)://``, ``turso+ws(s)://`` or ``libsql://`` with a host. ``libsql``
            means https, or http on loopback or with ``?tls=0``.
        token: The JWT; otherwise it is taken from the environment.
        database: Name of the database on a server that has several; otherwise ``?database=``.
        tls: Whether the connection is encrypted; otherwise ``?tls=``.
        environ: Stands in for the process's environment.

    Raises:
        ConfigurationError: The URL is invalid, holds a secret, or would send the token unencrypted to
            another machine.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        msg = f"unknown server URL scheme {parts.scheme!r}; valid: {', '.join(_SCHEMES)}"
        raise ConfigurationError(msg)
    host, port = _host_and_port(parts)
    loopback = is_loopback(host)
    options = _options(parts)
    transport, encrypted = _SCHEMES[parts.scheme]
    asked = _tls(options.get("tls")) if tls is None else tls
    if encrypted is None:
        encrypted = not loopback if asked is None else asked
    elif asked not in (None, encrypted):
        msg = f"tls={asked:d} contradicts the scheme {parts.scheme}"
        raise ConfigurationError(msg)
    secret = _find_token(token, os.environ if environ is None else environ)
    shown = f"[{host}]" if ":" in host else host
    base_url = f"{transport}{'s' if encrypted else ''}://{shown}"
    base_url += f":{port}" if port else ""
    _check_secrecy(encrypted, host, secret)
    return Endpoint(
        transport=transport,
        base_url=base_url + parts.path.rstrip("/"),
        loopback=loopback,
        token=secret,
        database=database or options.get("database"),
    )


def redirected(endpoint: Endpoint, base_url: str) -> str:
    """Check the base URL that a server named for the rest of a stream.

    Raises:
        NotReachedError: The URL is not an HTTP URL.
        ConfigurationError: The token would be sent unencrypted to another machine.
    """
    try:
        parts = urlsplit(base_url)
        host = parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        host = None
    if not host:
        msg = "the server named a base URL that is not HTTP"
        raise NotReachedError(msg)
    _check_secrecy(base_url.lower().startswith("https:"), host, endpoint.token)
    return base_url.rstrip("/")


def tls_context(ca_file: str | None) -> ssl.SSLContext | bool:
    """How to verify servers, in the form that aiohttp takes.

    Args:
        ca_file: A file of PEM certificates that are trusted instead of the system's.

    Raises:
        ConfigurationError: The file has no certificates, or cannot be read.
    """
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is an OSError, too
        msg = f"ca_file: {ca_file} holds no certificates that can be read: {error}"
        raise ConfigurationError(msg) from error


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_secrecy(encrypted: bool, host: str, token: Token | None) -> None:
    if token is not None and not encrypted and not is_loopback(host):
        msg = (
            f"refusing to send a token to {host} unencrypted: "
            "it would travel in the clear; use an encrypted scheme"
        )
        raise ConfigurationError(msg)


def _host_and_port(parts: SplitResult) -> tuple[str, int | None]:
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        msg = "the server URL has a wrong port"
        raise ConfigurationError(msg) from error
    if not host:
        msg = f"{parts.scheme}: the URL names no host"
        raise ConfigurationError(msg)
    if parts.username or parts.password:
        _refuse_secret("a user name or password")
    return host, port


def _options(parts: SplitResult) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if is_secret(name):
            _refuse_secret(f"?{name}=")
        if name not in OPTIONS:
            msg = f"unknown option {name!r} in the server URL; valid: {', '.join(OPTIONS)}"
            raise ConfigurationError(msg)
    return options


def _refuse_secret(what: str) -> NoReturn:
    msg = f"the server URL holds {what}; give the token as an argument or in {TOKEN_VARIABLES[0]}"
    raise ConfigurationError(msg)


def _tls(value: str | None) -> bool | None:
    if value is None:
        return None
    if value not in ("0", "1"):
        msg = f"?tls={value}: expected 0 or 1"
        raise ConfigurationError(msg)
    return value == "1"


def _find_token(token: str | None, environ: Mapping[str, str]) -> Token | None:
    candidates = (token, *(environ.get(name) for name in TOKEN_VARIABLES))
    found = next((candidate for candidate in candidates if candidate), None)
    if found is None:
        return None
    secret = found.strip()
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        # aiohttp would reject it as a header, with an error that shows it.
        msg = "the token has a forbidden character: expected printable ASCII without spaces"
        raise ConfigurationError(msg)
    return Token(secret)
