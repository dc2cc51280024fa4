"""Namespaces, and how the store and the processes of this host run; what is unusual is marked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from memory_core.cache.monitor import monitored
from memory_core.metrics import published_metrics
from memory_core.storage import Capability, NamespaceInfo
from memory_dashboard.pages.processes import LATE, is_trouble
from memory_dashboard.view import View

__all__ = ["namespaces", "running"]

_NAMESPACES = 1_000
_LOOKUPS = 1_000
_POOR = 0.2


@frozen
class Row:
    """A statistic.

    Attributes:
        unusual: why somebody should look at it; "" if nobody need.
    """

    name: str
    value: Any
    unusual: str = ""


@frozen
class CacheRow:
    """A cache of a process."""

    pid: int
    location: str
    name: str
    entries: int
    bytes: int
    hits: int
    misses: int
    hit_rate: float
    age: float
    unusual: str


async def namespaces(view: View) -> Response:
    """The page of namespaces."""
    storage: Any = view.memory.storage
    found: list[NamespaceInfo] | None = None
    if Capability.NAMESPACES in storage.capabilities:
        found = await storage.namespaces()
    total = len(found or ())
    if found is not None:
        found = sorted(found, key=lambda item: item.name)[:_NAMESPACES]
    kinds = sorted({kind for item in found or () for kind in item.records})
    return view.page("namespaces.html", found=found, kinds=kinds, total=total)


async def running(view: View) -> Response:
    """The page of how it runs."""
    stats = await view.memory.stats()
    monitoring = await run_in_threadpool(monitored)
    publishing = await run_in_threadpool(published_metrics)
    return view.page(
        "running.html",
        stats=stats,
        counters=list(_rows(stats.counters)),
        sections={name: list(_rows(section)) for name, section in stats.sections.items()},
        processes=view.rates.rows(publishing),
        caches=[row for process in monitoring for row in _caches(process)],
        capabilities=sorted(view.memory.storage.capabilities),
        dashboard=[
            Row("episodes in the statistics", len(view.followed.facts)),
            Row("bytes of the statistics", view.followed.facts.nbytes),
            *_rows(view.followed.follower.counters),
        ],
    )


def _rows(section: Mapping[Any, Any], prefix: str = "") -> Iterable[Row]:
    """The statistics of a section, nested ones with dotted names."""
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{prefix}{name}.")  # pyright: ignore[reportUnknownArgumentType]  # of any kind
        else:
            yield Row(f"{prefix}{name}", value, _unusual(name, value))


def _unusual(name: str, value: Any) -> str:
    counts = isinstance(value, int | float) and not isinstance(value, bool)
    return "not 0" if counts and is_trouble(name, value) else ""


def _caches(process: Mapping[str, Any]) -> Iterable[CacheRow]:
    age = max(0.0, time.time() - process["updated"])
    for cache in process["caches"]:
        lookups = cache["hits"] + cache["misses"]
        unusual = "few hits" if lookups >= _LOOKUPS and cache["hit_rate"] < _POOR else ""
        yield CacheRow(
            process["pid"], process["location"], cache["name"], cache["entries"], cache["bytes"],
            cache["hits"], cache["misses"], cache["hit_rate"], age,
            f"silent for {age:.0f} s" if age > LATE else unusual,
        )  # fmt: skip
