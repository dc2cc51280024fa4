"""The pages in a browser: Chromium of the system, without a display. `pytest -m long` runs them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from dashboard_support import episode, everything, step
from test_dashboard_command import COMMAND, serving

from memory_core import open_memory_sync

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

PAGES = [
    "", "?by=tool&span=7d", "episodes", "episodes?q=account", "graph", "patterns", "heuristics", "recalls",
    "namespaces", "running",
]  # fmt: skip
HOSTILE = "<img src=x onerror=alert(1)><script>alert(1)</script>\u202e\x1b[31m"
AXE = "axe-core@4"


@pytest.fixture(scope="module")
def browser():
    """A browser."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium: on Debian, apt-get install chromium")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The text of axe, which finds what keeps people from using a page."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm, which brings axe-core: on Debian, apt-get install npm")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(
        [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), AXE],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"axe-core cannot be installed: {done.stderr.strip()[-200:]}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


@pytest.fixture(scope="module")
def demo():
    """The samples."""
    with serving("--demo") as (address, _):
        yield address


class Watched:
    """A page, and what it did that it should not."""

    def __init__(self, page, address):
        self.page, self.address, self.faults = page, address, []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.faults.append("a dialog"), dialog.dismiss()))
        page.on("request", self._asked)
        page.on("response", self._answered)

    def open(self, path=""):
        self.page.goto(self.address + path)
        return self.page

    def _said(self, message):
        if message.type in {"error", "warning"}:
            self.faults.append(f"{message.type}: {message.text}")

    def _asked(self, request):
        if not request.url.startswith(self.address):
            self.faults.append(f"asked {request.url}")

    def _answered(self, response):
        if response.status >= 400:
            self.faults.append(f"{response.status} {response.url}")


def write(url, *records):
    """Store records; Playwright runs a loop in this thread."""
    with open_memory_sync(url, cache=None) as memory:
        memory.put(*records)


@contextmanager
def page_of(browser, address, **options):
    context = browser.new_context(**options)
    watched = Watched(context.new_page(), address)
    watched.page.set_default_timeout(20_000)
    yield watched
    context.close()
    assert watched.faults == []


def violations(page, axe):
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{rule['id']}: {node['html'][:160]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_page_can_be_used_by_everybody(browser, axe, demo, scheme, width):
    # The policy of the pages forbids scripts of others, axe included: it is told to let this one in.
    options = {
        "color_scheme": scheme,
        "viewport": {"width": width, "height": 800},
        "bypass_csp": True,
    }
    with page_of(browser, demo, **options) as watched:
        page = watched.page
        found, wide, details = {}, [], []
        for path in PAGES:
            watched.open(path)
            found[path] = violations(page, axe)
            wide += [path] * (page.evaluate("document.documentElement.scrollWidth") > width)
            for kind in ("episodes", "patterns", "heuristics"):
                links = page.locator(f"main a[href^='/{kind}/']")
                details += [
                    links.nth(at).get_attribute("href") for at in range(min(links.count(), 1))
                ]
        assert {detail.split("/")[1] for detail in details} == {
            "episodes",
            "patterns",
            "heuristics",
        }
        for detail in dict.fromkeys(details):
            watched.open(detail.lstrip("/"))
            found[detail] = violations(page, axe)
            wide += [detail] * (page.evaluate("document.documentElement.scrollWidth") > width)
        assert {path: faults for path, faults in found.items() if faults} == {}
        assert wide == []


def test_no_page_breaks_its_policy(browser, demo):
    with page_of(browser, demo) as watched:
        for path in PAGES:
            watched.open(path)
        assert watched.page.evaluate("typeof htmx") == "object"


def test_a_newcomer_finds_what_failed(browser, demo):
    with page_of(browser, demo) as watched:
        page = watched.open()
        first = page.locator("ol.first li a").first
        task = first.inner_text()
        assert page.locator("section[aria-labelledby=failed] tbody tr").count() > 2
        assert page.locator("section[aria-labelledby=tools] tbody th").first.inner_text() in {
            "bash",
            "Bash",
        }
        first.click()
        assert page.locator("h1").inner_text()[:40] == task[:40]
        assert page.locator(".badge.failure").count() > 0


def test_filters_and_search_are_kept_in_the_address(browser, demo):
    with page_of(browser, demo) as watched:
        page = watched.open("episodes")
        page.select_option("select[name=outcome]", "failure")
        page.click("button:has-text('Show')")
        assert "outcome=failure" in page.url
        assert set(page.locator("tbody .badge").all_inner_texts()) == {"failure"}
        again = page.url.removeprefix(watched.address)
        watched.open(again)
        assert page.input_value("select[name=outcome]") == "failure"
        page.fill("input[name=q]", "account")
        page.select_option("select[name=outcome]", "")
        page.keyboard.press("Enter")
        page.wait_for_url("**q=account**")
        page.locator("mark").first.wait_for()


def test_the_graph_is_zoomed_moved_and_followed(browser, demo):
    with page_of(browser, demo) as watched:
        page = watched.open("graph")
        drawing = page.locator("#graph")
        whole = drawing.get_attribute("viewBox")
        page.click("button[aria-label='Zoom in']")
        near = drawing.get_attribute("viewBox")
        assert float(near.split()[2]) < float(whole.split()[2])
        drawing.focus()
        page.keyboard.press("ArrowRight")
        assert float(drawing.get_attribute("viewBox").split()[0]) > float(near.split()[0])
        page.keyboard.press("-")
        page.keyboard.press("0")
        assert drawing.get_attribute("viewBox") == whole
        box = drawing.bounding_box()
        page.mouse.move(box["x"] + 20, box["y"] + 60)
        page.mouse.wheel(0, 300)
        page.mouse.down()
        page.mouse.move(box["x"] + 120, box["y"] + 90)
        page.mouse.up()
        assert drawing.get_attribute("viewBox") != whole
        page.click("[data-zoom=all]")
        # Nodes are links: the key Tab reaches them from the drawing.
        drawing.focus()
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.querySelector('title').textContent")
        assert "relationships" in name
        page.keyboard.press("Enter")
        page.wait_for_url("**/episodes/*")


def test_hostile_text_does_nothing(browser, tmp_path):
    url = f"turso:{tmp_path / 'memory.db'}"
    records = everything(HOSTILE)
    ids = [(record.kind, record.id) for record in records]
    write(url, *records)
    with serving(url) as (address, _), page_of(browser, address) as watched:
        for path in PAGES:
            watched.open(path)
        for kind, one in ids:
            if kind in {"episode", "pattern", "heuristic"}:
                page = watched.open(f"{kind}s/{one}")
                for summary in page.locator("summary").all():
                    summary.click()
                assert page.evaluate("document.images.length") == 0
                watched.open(f"graph?episode={one}") if kind == "episode" else None


def test_long_words_do_not_widen_the_page_of_a_phone(browser, tmp_path):
    url = f"turso:{tmp_path / 'memory.db'}"
    records = everything("W" * 140 + "\u0e47" * 60)
    write(url, *records)
    paths = [
        *PAGES,
        *(
            f"{one.kind}s/{one.id}"
            for one in records
            if one.kind in {"episode", "pattern", "heuristic"}
        ),
    ]
    with (
        serving(url) as (address, _),
        page_of(browser, address, viewport={"width": 360, "height": 800}) as watched,
    ):
        wide = []
        for path in paths:
            page = watched.open(path)
            wide += [path] * (page.evaluate("document.documentElement.scrollWidth") > 360)
        assert wide == []


def test_large_values_are_fetched_when_they_are_opened(browser, tmp_path):
    url = f"lmdb:{tmp_path / 'mem'}"
    long = episode(1, steps=(step(1, result="y" * 10_000_000),))

    write(url, long)
    with serving(url) as (address, _), page_of(browser, address) as watched:
        page = watched.open(f"episodes/{long.id}")
        assert len(page.content()) < 30_000
        page.locator("summary").first.click()
        page.locator(".whole pre").wait_for()
        assert len(page.content()) > 100_000
        page.locator(".whole button").click()
        page.wait_for_function("() => document.querySelectorAll('.whole pre').length === 2")


def test_writes_show_within_two_seconds(browser, tmp_path):
    url = f"lmdb:{tmp_path / 'mem'}"
    script = (
        "import asyncio, sys\n"
        "from memory_core import *\n"
        "async def main():\n"
        f"    async with open_memory({url!r}, cache=None) as memory:\n"
        "        running = await memory.start_episode(task_description='grows live')\n"
        "        print(running.id, flush=True)\n"
        "        for number in range(1, 4):\n"
        "            sys.stdin.readline()\n"
        "            await memory.log_step(running.id, ExecutionStep(number=number, tool=f'tool{number}'))\n"
        "            print('logged', flush=True)\n"
        "        sys.stdin.readline()\n"
        "        await memory.complete_episode(running.id, Outcome.success('all done'))\n"
        "        print('completed', flush=True)\n"
        "asyncio.run(main())\n"
    )

    write(url, episode(1))
    with serving(url) as (address, _), page_of(browser, address) as watched:
        page = watched.open("episodes")
        agent = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            one = agent.stdout.readline().strip()
            began = time.monotonic()
            page.locator("text=grows live").wait_for()
            taken = [time.monotonic() - began]
            watched.open(f"episodes/{one}")
            for number in range(1, 4):
                agent.stdin.write("\n")
                agent.stdin.flush()
                agent.stdout.readline()
                began = time.monotonic()
                page.locator(f"#step-{number}").wait_for()
                taken.append(time.monotonic() - began)
            agent.stdin.write("\n")
            agent.stdin.flush()
            agent.stdout.readline()
            began = time.monotonic()
            page.locator(".badge.success").wait_for()
            taken.append(time.monotonic() - began)
            assert page.locator(".step").count() == 3
        finally:
            agent.communicate(timeout=30)
        assert max(taken) < 2, taken


def test_a_page_can_be_paused_and_waits_for_its_reader(browser, tmp_path):
    url = f"lmdb:{tmp_path / 'mem'}"

    write(url, episode(1))
    with serving(url) as (address, _), page_of(browser, address) as watched:
        page = watched.open("episodes")
        page.click("#pause")
        write(url, episode(2))
        page.wait_for_timeout(2_500)
        assert page.locator("text=task 2").count() == 0
        page.click("#pause")
        page.locator("text=task 2").wait_for()
        page.locator("tbody a").first.focus()
        write(url, episode(3))
        page.wait_for_timeout(2_500)
        assert page.locator("text=task 3").count() == 0
        page.locator("#pause").focus()
        page.locator("text=task 3").wait_for()


def test_a_server_that_is_gone_is_said_to_be_until_it_is_back(browser, tmp_path):
    url = f"lmdb:{tmp_path / 'mem'}"
    write(url, episode(1))
    with page_of(browser, "http://127.0.0.1") as watched:
        with serving(url) as (address, _):
            page = watched.page
            page.goto(f"{address}episodes")
            assert not page.locator("#offline").is_visible()
            watched.faults.clear()
        page.locator("text=Not connected to the server; trying again").wait_for()
        port = address.rstrip("/").rpartition(":")[2]
        again = subprocess.Popen([*COMMAND, url, "--port", port], stdout=subprocess.PIPE, text=True)
        try:
            again.stdout.readline()
            page.locator("#offline").wait_for(state="hidden")
            write(url, episode(2))
            page.locator("text=task 2").wait_for()
        finally:
            again.send_signal(signal.SIGINT)
            again.communicate(timeout=20)
        # The browser and htmx tell each request that was not answered.
        told = re.compile("ERR_|htmx:(afterRequest|sendError)")
        watched.faults[:] = [fault for fault in watched.faults if not told.search(fault)]


def test_a_table_that_is_cut_by_the_window_says_so(browser, demo):
    for width, cut in ((360, True), (1280, False)):
        with page_of(browser, demo, viewport={"width": width, "height": 800}) as watched:
            page = watched.open("episodes")
            page.locator(".scroll").wait_for()
            assert page.locator(".scroll.wide").count() == cut


def test_everything_is_reached_by_the_keyboard(browser, demo):
    with page_of(browser, demo) as watched:
        page = watched.open()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id || location.hash") in {
            "content",
            "#content",
        }
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == "span"


def test_imported_conversations_of_real_agents(browser, axe, tmp_path):
    root = Path(__file__).resolve().parents[3]
    data = Path(os.environ.get("MEMORY_CORE_DATA") or root.parent / "shared" / "data")
    files = sorted(data.rglob("*airline*.json*"))[:2] if data.is_dir() else []
    if not files:
        pytest.skip("no real data: set MEMORY_CORE_DATA to its folder")
    url = f"turso:{tmp_path / 'memory.db'}"
    command = [sys.executable, "-m", "memory_core.cli", "import", *map(str, files), "--url", url]
    subprocess.run(command, check=False, capture_output=True, timeout=300)
    with serving(url) as (address, _), page_of(browser, address, bypass_csp=True) as watched:
        page = watched.open()
        page.locator("section[aria-labelledby=tools]").wait_for()
        for path in PAGES:
            watched.open(path)
            assert violations(page, axe) == [], path
        page = watched.open("episodes?outcome=failure")
        page.locator("tbody a").first.click()
        assert page.locator(".step").count() > 1
        assert re.fullmatch(r".*/episodes/[0-9a-f-]{36}", page.url)
