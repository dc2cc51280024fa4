"""Validators for the fields of config classes, for ``attrs.field(validator=…)``.

A wrong value raises `InvalidOptionError`, which names the class, the field and what is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from math import inf
from typing import Any

import attrs

from memory_core.errors import ConfigurationError, InvalidOptionError
from memory_core.values import Value

__all__ = [
    "Check",
    "above",
    "at_least",
    "between",
    "flag",
    "instance_of",
    "named",
    "one_of",
    "optional",
    "ordered",
    "positive",
]


@attrs.frozen(eq=False, repr=False)
class Check(Value):
    """An attrs validator.

    Attributes:
        expected: what it accepts, in words.
        accepts: tells whether a value is valid.
    """

    expected: str
    accepts: Callable[[Any], bool]

    def __call__(self, instance: object, field: attrs.Attribute[Any], value: Any) -> None:
        """Check a field.

        Raises:
            InvalidOptionError: the value is not accepted.
        """
        if not self.accepts(value):
            # A field without a repr holds a secret.
            shown = value if field.repr else "***"
            raise InvalidOptionError(
                f"{type(instance).__name__}.{field.name}", self.expected, shown
            )


def _number(low: float, high: float | None, *, above: bool = False, whole: bool = False) -> Check:
    kinds = int if whole else (int, float)

    def accepts(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, kinds):
            return False
        if not (value < inf if high is None else value <= high):
            return False
        # No comparison holds for NaN.
        return value > low if above else value >= low

    floor = f"above {low:.15g}" if above else f"of at least {low:.15g}"
    ceiling = "" if high is None or high == inf else f" and at most {high:.15g}"
    return Check(f"a {'whole number' if whole else 'number'} {floor}{ceiling}", accepts)


def at_least(low: float, *, whole: bool = False) -> Check:
    """Accept finite numbers from ``low``; only integers when ``whole``."""
    return _number(low, None, whole=whole)


def between(low: float, high: float, *, whole: bool = False) -> Check:
    """Accept numbers from ``low`` to ``high``; ``high`` may be infinite."""
    return _number(low, high, whole=whole)


def above(low: float, high: float | None = None) -> Check:
    """Accept finite numbers over ``low``; with a ``high``, numbers up to it, which may be infinite."""
    return _number(low, high, above=True)


positive = above(0)
"""Accepts finite numbers over 0."""


def one_of(*choices: str) -> Check:
    """Accept these texts."""
    return Check(
        f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices
    )


def instance_of(kind: type) -> Check:
    """Accept instances of a class."""
    return Check(kind.__name__, lambda value: isinstance(value, kind))


flag = Check("True or False", lambda value: isinstance(value, bool))
"""Accepts a ``bool``."""

named = Check(
    "a mapping by name",
    lambda value: isinstance(value, Mapping) and all(isinstance(name, str) for name in value),  # pyright: ignore[reportUnknownVariableType]  # users are not type-checked
)
"""Accepts a mapping whose keys are text."""


def optional(check: Check) -> Check:
    """Accept ``None`` too."""
    return Check(f"{check.expected} or None", lambda value: value is None or check.accepts(value))


def ordered(config: object, *names: str) -> None:
    """Check that the values of these fields do not decrease, for ``__attrs_post_init__``.

    Raises:
        ConfigurationError: a value is below the one before it; names the first such pair.
    """
    for low, high in pairwise(names):
        if getattr(config, low) > getattr(config, high):
            name = type(config).__name__
            raise ConfigurationError(
                f"{name}.{low} ({getattr(config, low)}) must not be over "
                f"{name}.{high} ({getattr(config, high)})"
            )
