"""One request: the namespace it is about, its parameters, links to other pages, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from attrs import define
from jinja2 import Environment
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from memory_core.memory import Memory
from memory_core.storage import Position
from memory_dashboard.following import Followed
from memory_dashboard.pages.processes import Rates

__all__ = ["DEFAULT_WAIT", "View"]

DEFAULT_WAIT = 0.1
"""Seconds that a page waits for its statistics to catch up before it shows what there is."""
_PAGES = (
    ("/", "Overview"),
    ("/episodes", "Episodes"),
    ("/graph", "Graph"),
    ("/patterns", "Patterns"),
    ("/heuristics", "Heuristics"),
    ("/recalls", "Recalls"),
    ("/namespaces", "Namespaces"),
    ("/running", "How it runs"),
)


@define
class View:
    """A request for a page.

    Attributes:
        request: the request.
        memory: the memory of the namespace that it names.
        home: the namespace of pages that name none.
        followed: the statistics of the namespace.
        templates: where the pages are.
        title: the store, as it is named on each page.
        rates: how fast the processes of this host work.
    """

    request: Request
    memory: Memory
    home: str
    followed: Followed
    templates: Environment
    title: str
    rates: Rates

    def get(self, name: str, default: str = "") -> str:
        """A parameter; empty ones count as missing."""
        return self.request.query_params.get(name) or default

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A parameter that is a whole number, brought into its bounds."""
        try:
            return min(max(int(self.get(name)), low), high)
        except ValueError:
            return default

    def path_id(self, name: str = "id") -> UUID:
        """The id in the path.

        Raises:
            HTTPException: 404, it is not an id.
        """
        try:
            return UUID(self.request.path_params[name])
        except ValueError:
            raise HTTPException(404, "that is not an id") from None

    def link(self, path: str, **parameters: Any) -> str:
        """The address of a page in the same namespace."""
        given = {name: value for name, value in parameters.items() if value not in {None, ""}}
        if self.memory.namespace != self.home:
            given = {"namespace": self.memory.namespace, **given}
        return f"{path}?{urlencode(given)}" if given else path

    def same(self, **changes: Any) -> str:
        """The address of this page with other parameters."""
        kept = {
            k: v for k, v in self.request.query_params.items() if k not in {"namespace", "cursor"}
        }
        return self.link(self.request.url.path, **{**kept, **changes})

    @property
    def address(self) -> str:
        """The path and parameters of this page."""
        query = self.request.url.query
        return f"{self.request.url.path}?{query}" if query else self.request.url.path

    def page(self, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """The answer: a template, filled in."""
        return HTMLResponse(self._filled(template, values), status)

    def part(self, template: str, **values: Any) -> HTMLResponse:
        """A part of a page, as htmx fetches it."""
        return HTMLResponse(self._filled(template, values))

    def _filled(self, template: str, values: Mapping[str, Any]) -> str:
        return self.templates.get_template(template).render(
            view=self,
            link=self.link,
            same=self.same,
            pages=_PAGES,
            state=self.followed.state,
            **values,
        )

    def is_current(self) -> bool:
        """Whether the browser has this page as it is now."""
        return self.request.headers.get("x-position") == str(self.followed.position())

    def is_before(self, position: Position) -> bool:
        """Whether the browser has this page as it was before a position."""
        try:
            return int(self.request.headers.get("x-position", "")) < position
        except ValueError:
            return False

    def unchanged(self) -> Response:
        """The answer that makes htmx leave the page as it is."""
        return Response(status_code=204)
