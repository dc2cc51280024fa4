"""Make the pictures of the documents: ``python plugins/memory-dashboard/tests/screenshots.py``.

Needs Chromium and ``pip install playwright``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright
from test_dashboard_command import serving

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "images"
SHOTS = (
    ("overview", "", "light", 1100, 1150),
    ("episode", "episodes?outcome=failure&q=passwords", "light", 1100, 900),
    ("graph", "graph", "dark", 1100, 800),
    ("phone", "patterns", "dark", 390, 780),
)


def main() -> None:
    """Make them."""
    path = shutil.which("chromium")
    with serving("--demo") as (address, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for name, page_path, scheme, width, height in SHOTS:
            size = {"width": width, "height": height}
            context = browser.new_context(viewport=size, color_scheme=scheme)
            page = context.new_page()
            page.goto(address + page_path)
            if name == "episode":
                page.locator("tbody a").first.click()
                page.locator(".step.failed").first.wait_for()
            page.screenshot(path=FOLDER / f"dashboard-{name}.png")
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
