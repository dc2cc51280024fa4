"""The application: routes, errors as pages, and one view for each request."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from copy import copy
from typing import TypeAlias

from attrs import define, field, frozen
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from memory_core.errors import (
    InvalidValueError,
    MemoryCoreError,
    QueryError,
)
from memory_core.memory import Memory
from memory_core.records import RecordTypes
from memory_core.storage import Position
from memory_dashboard.following import Follows
from memory_dashboard.pages.episode import episode, steps, value
from memory_dashboard.pages.episodes import episodes
from memory_dashboard.pages.graph import graph
from memory_dashboard.pages.knowledge import heuristic, heuristics, pattern, patterns
from memory_dashboard.pages.operations import namespaces, running
from memory_dashboard.pages.overview import overview
from memory_dashboard.pages.processes import Rates
from memory_dashboard.pages.recalls import recalls
from memory_dashboard.rendering import STATIC, environment
from memory_dashboard.security import HEADERS, Access, Guard
from memory_dashboard.view import DEFAULT_WAIT, View

__all__ = ["application"]

Page: TypeAlias = Callable[[View], Awaitable[Response]]

_PAGES: dict[str, Page] = {
    "/": overview,
    "/episodes": episodes,
    "/episodes/{id}": episode,
    "/episodes/{id}/steps": steps,
    "/episodes/{id}/steps/{number}/{name}": value,
    "/graph": graph,
    "/patterns": patterns,
    "/patterns/{id}": pattern,
    "/heuristics": heuristics,
    "/heuristics/{id}": heuristic,
    "/recalls": recalls,
    "/namespaces": namespaces,
    "/running": running,
}
# These show more than the records of one namespace: a write is not all that changes them.
_MOVING = {"/running"}
_KEPT = 32
_FRESH = 1.0
"""Seconds for which viewers of one live page share what was made for the first of them."""


class _Static(StaticFiles):
    """Static files, whose addresses change with their content."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        """A file, to be kept by the browser."""
        found = super().file_response(*args, **kwargs)  # pyright: ignore[reportArgumentType]  # passed on
        found.headers["cache-control"] = "max-age=31536000, immutable"
        return found

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file; the folder has no others and no folders."""
        if "/" in path or "\\" in path or ".." in path:
            raise HTTPException(404)
        return await super().get_response(path, scope)


@frozen
class _Made:
    """A page that was made for a viewer.

    Attributes:
        at: when, by the monotonic clock.
        position: the store's position that it shows at least.
    """

    at: float
    position: Position
    response: Response

    def again(self) -> Response:
        """The answer for another viewer: of its own, as middleware changes the headers of what it sends."""
        answer = copy(self.response)
        answer.raw_headers = list(self.response.raw_headers)
        return answer


@define
class _Dashboard:
    """What all requests share.

    Attributes:
        memory: the store, opened to be read only.
        title: how pages name it.
        rates: how fast the processes of this host work.
        recent: what live pages were answered with, by address.
    """

    memory: Memory
    follows: Follows
    title: str
    rates: Rates = field(factory=Rates)
    recent: OrderedDict[str, _Made] = field(factory=OrderedDict[str, _Made])

    def route(self, path: str, page: Page) -> Route:
        """The route of a page."""

        async def answer(request: Request) -> Response:
            home = self.memory.namespace
            memory = self.memory_of(request)
            async with self.follows.of(memory) as followed:
                view = View(request, memory, home, followed, environment(), self.title, self.rates)
                if "x-position" not in request.headers:
                    await followed.catch_up(DEFAULT_WAIT)
                    return await page(view)
                return await self.live(view, page, moving=path in _MOVING)

        return Route(path, answer, name=path)

    async def live(self, view: View, page: Page, *, moving: bool) -> Response:
        """The answer to a browser that asks each second whether a page has changed."""
        key, now = view.address, time.monotonic()
        kept = self.recent.get(key)
        if (
            kept is not None
            and now - kept.at < _FRESH
            and (moving or view.is_before(kept.position))
        ):
            return kept.again()
        await view.followed.catch_up(DEFAULT_WAIT)
        if view.is_current() and not view.followed.behind and not moving:
            return view.unchanged()
        position = view.followed.position()
        made = self.recent[key] = _Made(now, position, await page(view))
        while len(self.recent) > _KEPT:
            self.recent.popitem(last=False)
        return made.again()

    def memory_of(self, request: Request) -> Memory:
        """The memory of the namespace that a request names.

        Raises:
            HTTPException: 400, no namespace has such a name.
        """
        home = self.memory.namespace
        namespace = request.query_params.get("namespace") or home
        try:
            return self.memory if namespace == home else self.memory.scoped(namespace)
        except InvalidValueError as error:
            raise HTTPException(400, str(error)) from None

    async def failed(self, _: Request, error: Exception) -> Response:
        """An error as a page."""
        status, message = 500, f"{type(error).__name__}: {error}"
        if isinstance(error, HTTPException):
            status, message = error.status_code, error.detail
        elif isinstance(error, QueryError | InvalidValueError):
            status, message = 400, str(error)
        template = environment().get_template("error.html")
        page = template.render(status=status, message=message, title=self.title)
        # What nobody expected is answered outside of the guard.
        return HTMLResponse(page, status, {**HEADERS, "cache-control": "no-store"})


def application(memory: Memory, types: RecordTypes, access: Access, title: str) -> Starlette:
    """The application for an open memory, which its caller closes.

    Args:
        memory: the store, opened to be read only.
        types: the kinds of the store.
        access: who may ask.
        title: how pages name the store.
    """
    dashboard = _Dashboard(memory, Follows(types), title)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        # Reading begins at once, not with the first page.
        async with dashboard.follows.of(memory) as followed:
            await followed.catch_up(0)
        try:
            yield
        finally:
            await dashboard.follows.aclose()

    routes: list[BaseRoute] = [dashboard.route(path, page) for path, page in _PAGES.items()]
    routes.append(Mount("/static", _Static(directory=STATIC)))
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(Guard, access=access),
            Middleware(GZipMiddleware, minimum_size=2_000, compresslevel=5),
        ],
        exception_handlers=dict.fromkeys(
            (HTTPException, MemoryCoreError, Exception), dashboard.failed
        ),
    )
