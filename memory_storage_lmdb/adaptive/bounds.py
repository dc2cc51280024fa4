"""Checks of options. A wrong value raises `ConfigurationError` naming the field."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import inf
from typing import Any

import attrs

from memory_core.errors import ConfigurationError

__all__ = ["between", "ordered"]

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def between(
    low: float, high: float = inf, *, above: bool = False, whole: bool = False
) -> Validator:
    """A validator that accepts numbers from ``low`` (excluded when ``above``) to ``high``."""
    kinds = int if whole else (int, float)

    def check(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if (
            isinstance(value, kinds)
            and not isinstance(value, bool)
            and low <= value <= high  # also false for nan
            and not (above and value == low)
        ):
            return
        floor = f"above {low:g}" if above else f"of at least {low:g}"
        ceiling = "" if high == inf else f" and at most {high:g}"
        raise ConfigurationError(
            f"{type(instance).__name__}.{attribute.name}: expected a "
            f"{'whole number' if whole else 'number'} {floor}{ceiling}, got {value!r}"
        )

    return check


def ordered(config: object, *names: str) -> None:
    """Check that fields do not fall.

    Raises:
        ConfigurationError: naming the first pair that does.
    """
    for low, high in pairwise(names):
        if getattr(config, low) > getattr(config, high):
            name = type(config).__name__
            raise ConfigurationError(
                f"{name}.{low} ({getattr(config, low)}) must not be over "
                f"{name}.{high} ({getattr(config, high)})"
            )
