"""Who may ask: the middleware that refuses foreign hosts, origins, methods and requests without the token.

A page of another site can make a browser send requests to a server on loopback. It cannot choose the
headers ``Host`` and ``Origin``: a name that an attacker points to this machine (DNS rebinding) is refused by
the former, a script of another site by the latter.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode, urlsplit

from attrs import frozen
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memory_core.errors import ConfigurationError

__all__ = ["HEADERS", "Access", "Guard", "is_loopback"]

_LOOPBACK_NAMES = frozenset({"localhost"})
_AUTHORITY = re.compile(
    r"(?:\[(?P<v6>[0-9a-f.:]+)\]|(?P<name>[^][:/?#@\\\s]+))(?::[0-9]*)?", re.ASCII
)
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Whether a host is this machine only."""
    if host in _LOOPBACK_NAMES:
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _names(origin: str, authority: str) -> bool:
    """Whether a header ``Origin`` is the site under which the server was asked."""
    try:
        return urlsplit(origin).netloc.lower() == authority.lower()
    except ValueError:
        return False


def _cookie(scope: Scope) -> str:
    """The name of the cookie with the token: browsers send it to every port of a host."""
    return f"memory_dashboard_{scope['server'][1]}"


@frozen(kw_only=True)
class Access:
    """Who may ask.

    Attributes:
        token: what a request must carry; ``None`` for nothing, on loopback.
        names: further host names under which the server is reached, such as that of a proxy.
        loopback: whether the server listens on loopback only.
    """

    token: str | None = None
    names: frozenset[str] = frozenset()
    loopback: bool = True

    @classmethod
    def of(cls, host: str, token: str | None, names: Iterable[str] = ()) -> Access:
        """The access to a server that listens on a host.

        Raises:
            ConfigurationError: one of the names is not a name alone.
        """
        allowed = {name.lower() for name in names}
        for name in allowed:
            found = _AUTHORITY.fullmatch(name)
            if found is None or found["name"] != name:
                raise ConfigurationError(
                    f"--allow-host: a host name without scheme and port, not {name!r}"
                )
        if _address(host) is None:
            allowed.add(host.lower())
        return cls(token=token, names=frozenset(allowed), loopback=is_loopback(host))

    def knows(self, authority: str) -> bool:
        """Whether a ``Host`` header is one under which this server is reached."""
        found = _AUTHORITY.fullmatch(authority.lower())
        if found is None:
            return False
        host = found["v6"] or found["name"]
        if host in self.names or is_loopback(host):
            return True
        # An address cannot be rebound; beyond loopback, the token is asked for anyway.
        return not self.loopback and _address(host) is not None

    def accepts(self, token: str) -> bool:
        """Whether a token is the right one."""
        return self.token is None or hmac.compare_digest(token.encode(), self.token.encode())


class Guard:
    """The middleware. A token comes in the header ``Authorization: Bearer``, in a cookie, or once in the URL
    (``?token=``), from where it moves into the cookie.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = self._refusal(scope)
        await (self._app if answer is None else answer)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """What is answered instead of the page, if anything."""
        headers = Headers(scope=scope)
        if scope["method"] not in {"GET", "HEAD"}:
            return PlainTextResponse("only GET", 405, headers={"allow": "GET, HEAD"})
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._access.knows(hosts[0]):
            return PlainTextResponse(
                "this dashboard is not reached under that host name; --allow-host NAME allows it",
                421,
            )
        if not all(_names(origin, hosts[0]) for origin in headers.getlist("origin")):
            return PlainTextResponse("requests of other sites are refused", 403)
        if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
            # Nothing reads a body; where it ends is what a proxy and a server can disagree about.
            return PlainTextResponse(
                "a request to read has no body", 413, headers={"connection": "close"}
            )
        foreign = headers.get("sec-fetch-site") in {"cross-site", "same-site"}
        # A frame would stay empty, but how long it takes tells a foreign page what a search finds.
        follows = headers.get("sec-fetch-mode") == "navigate"
        if foreign and not (follows and headers.get("sec-fetch-dest", "document") == "document"):
            return PlainTextResponse("requests of other sites are refused", 403)
        return self._without_token(scope, headers)

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        if self._access.token is None:
            return None
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in pairs if name == "token"]
        if given and self._access.accepts(given[0]):
            rest = urlencode([pair for pair in pairs if pair[0] != "token"])
            # One slash: a path that begins with two names another host.
            path = "/" + scope["path"].lstrip("/\\")
            answer = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
            answer.set_cookie(_cookie(scope), given[0], httponly=True, samesite="strict", path="/")
            return answer
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        cookie = cookie_parser(headers.get("cookie", "")).get(_cookie(scope), "")
        if (scheme.lower() == "bearer" and self._access.accepts(bearer.strip())) or (
            cookie and self._access.accepts(cookie)
        ):
            return None
        return PlainTextResponse(
            "a token is needed: open the address that `memory dashboard` printed", 401
        )
