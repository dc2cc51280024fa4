"""Whether a memory counts, and whether other processes may read it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from memory_core.config.options import flag_of
from memory_core.config.spelling import similar
from memory_core.errors import ConfigurationError

__all__ = ["MetricsMode", "metrics_mode"]


class MetricsMode(StrEnum):
    """What a memory does with metrics."""

    OFF = "off"
    """It measures no operation."""
    ON = "on"
    """It measures its operations."""
    PUBLISH = "publish"
    """It measures, and writes a small file every second that other processes of the host read."""


def metrics_mode(given: Any) -> MetricsMode:
    """The mode of a setting: ``"off"``, ``"on"``, ``"publish"``, or a flag for the first two.

    Raises:
        ConfigurationError: it is something else.
    """
    modes = [mode.value for mode in MetricsMode]
    if isinstance(given, str) and given.lower() in modes:
        return MetricsMode(given.lower())
    try:
        return MetricsMode.ON if flag_of(given, "metrics") else MetricsMode.OFF
    except ConfigurationError:
        raise ConfigurationError(
            f"metrics: {given!r} is not one of {', '.join(modes)}{similar(str(given), modes)}"
        ) from None
