"""Distributions that are installed for one test only: a folder of their own on the path."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest


class Installed:
    """Installs what a test needs; everything is gone with the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch

    def plugin(
        self, distribution: str, source: str, *, entry: str = "", version: str = "1.0"
    ) -> None:
        """Install a distribution with one plugin module, found by its entry point."""
        module = distribution.replace("-", "_")
        site = self._folder / distribution
        info = site / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(dedent(source))
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text(f"[memory_core]\n{entry or module} = {module}\n")
        self._monkeypatch.syspath_prepend(str(site))
