"""Every page and interaction in a browser on 100,000 episodes: how long pages take, and the server's memory.

`pytest -m long -s` runs them, and prints what they measure.
"""

from __future__ import annotations

import statistics
import sys
import time

import httpx
import psutil
import pytest
from dashboard_support import everything
from test_dashboard_browser import browser, page_of
from test_dashboard_command import serving

from benchmarks.workload import episode
from memory_core import ExecutionStep, Outcome, open_memory_sync

__all__ = ["browser"]

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_800)]

EPISODES = 100_000
FIRST, OTHER = 0.3, 0.5
MEMORY = 300e6
PAGES = {
    "overview": "",
    "overview by tool, 7 days": "?by=tool&span=7d",
    "overview by outcome, of a domain": "?by=outcome&domain=web",
    "overview, two spans": "?from=2025-01-02&to=2025-01-05&from2=2025-01-05&to2=2025-01-08",
    "episodes": "episodes",
    "episodes, three filters": "episodes?domain=web&outcome=failure&tool=book",
    "episodes, highest reward first": "episodes?order=-reward",
    "episodes of a tag": "episodes?tag=tag3&order=-reward",
    "graph": "graph",
    "patterns": "patterns",
    "heuristics": "heuristics",
    "recalls": "recalls",
    "namespaces": "namespaces",
    "how it runs": "running",
}


def fill(url, count=EPISODES):
    """Make a store of that many episodes of 25 steps, with some of each other kind."""
    with open_memory_sync(url, cache=None) as memory:
        for start in range(0, count, 500):
            memory.store_episodes_batch([episode(number) for number in range(start, start + 500)])
        memory.put(*everything("text"))


def read_all(address):
    """Wait until the statistics cover all episodes; return the slowest answer until then."""
    slowest = 0.0
    while True:
        began = time.monotonic()
        text = httpx.get(address, timeout=60).text
        slowest = max(slowest, time.monotonic() - began)
        if "Reading the store" not in text:
            return slowest


def loaded(watched, path):
    """Open a page seven times; return the median of the seconds until it is complete."""
    taken = []
    for _ in range(7):
        page = watched.open(path)
        timing = "performance.getEntriesByType('navigation')[0].loadEventEnd"
        page.wait_for_function(f"() => {timing} > 0")
        taken.append(page.evaluate(timing) / 1_000)
    return statistics.median(taken)


def timed(page, act, done):
    """The seconds from an act of the user until something is there."""
    began = time.monotonic()
    act()
    done()
    return time.monotonic() - began


def first_of(watched, kind):
    """The address of the first record of a list."""
    links = watched.open(kind).locator(f"main a[href^='/{kind}/']")
    return links.first.get_attribute("href").lstrip("/")


def tour(watched):
    """Visit every page and try what can be done on it; return the seconds by name."""
    took = {name: loaded(watched, path) for name, path in PAGES.items()}
    page = watched.open("episodes")
    page.select_option("select[name=outcome]", "failure")
    took["filter"] = timed(
        page,
        lambda: page.click("button:has-text('Show')"),
        lambda: page.wait_for_url("**outcome=failure**"),
    )
    assert set(page.locator("tbody .badge").all_inner_texts()) == {"failure"}
    took["next page"] = timed(
        page,
        page.locator("a[rel=next]").click,
        lambda: page.wait_for_url("**cursor=**"),
    )
    assert page.locator("tbody tr").count() == 50
    one = page.locator("tbody a[href^='/episodes/']").first.get_attribute("href").lstrip("/")
    took["an episode"] = loaded(watched, one)
    page = watched.open(one)
    assert page.locator(".step").count() == 25
    took["its graph"] = loaded(watched, f"graph?episode={one.split('/')[1]}")
    page = watched.open("graph")
    whole = page.locator("#graph").get_attribute("viewBox")
    page.click("button[aria-label='Zoom in']")
    assert page.locator("#graph").get_attribute("viewBox") != whole
    page = watched.open("")
    took["what to read first"] = timed(
        page,
        page.locator("ol.first li a").first.click,
        lambda: page.wait_for_url("**/episodes/*"),
    )
    for kind in ("patterns", "heuristics"):
        took[f"one of the {kind}"] = loaded(watched, first_of(watched, kind))
    return took


def shows_live(watched, url):
    """Write to the store while its list is shown; return the seconds until each write is there."""
    page = watched.open("episodes")
    with open_memory_sync(url, cache=None) as memory:
        took = []
        running = memory.start_episode(task_description="grows live")
        took.append(timed(page, int, page.locator("text=grows live").wait_for))
        watched.open(f"episodes/{running.id}")
        for number in (1, 2):
            memory.log_step(running.id, ExecutionStep(number=number, tool="look"))
            took.append(timed(page, int, page.locator(f"#step-{number}").wait_for))
        memory.complete_episode(running.id, Outcome.success("done"))
        took.append(timed(page, int, page.locator(".badge.success").wait_for))
    return took


def measure(browser, url):
    """Serve a store, and look at everything."""
    with serving(url) as (address, process), page_of(browser, address) as watched:
        reading = read_all(address)
        took = tour(watched)
        live = shows_live(watched, url)
        info = psutil.Process(process.pid).memory_full_info()
    lines = [
        f"{url}: while the store is read, the slowest overview took {reading * 1_000:,.0f} ms",
        *(f"  {name}: {seconds * 1_000:,.0f} ms" for name, seconds in took.items()),
        f"  live: {', '.join(f'{one * 1_000:,.0f} ms' for one in live)}",
        f"  private memory: {info.uss / 1e6:,.0f} MB",
    ]
    sys.stdout.write("\n".join(["", *lines, ""]))
    return took, live, info.uss


@pytest.mark.parametrize("scheme", ["lmdb", "turso"])
def test_a_hundred_thousand_episodes(browser, tmp_path, scheme):
    url = f"{scheme}:{tmp_path / 'memory'}"
    fill(url)
    took, live, private = measure(browser, url)
    assert took.pop("overview") < FIRST
    assert {name: seconds for name, seconds in took.items() if seconds > OTHER} == {}
    assert max(live) < 2
    assert private < MEMORY
