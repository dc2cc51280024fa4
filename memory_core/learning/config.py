"""How a memory recalls: few settings, each with what it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from attrs import field, frozen

from memory_core.config.options import build_options
from memory_core.config.validators import between, flag, positive
from memory_core.errors import ConfigurationError

__all__ = ["RecallConfig", "recall_config"]

_MOST = 1_000
"""Of a weight beside 1: a greater one leaves nothing of what it is beside, and products of such overflow."""
_DAYS = 365_000
"""A thousand years: there are no dates long before."""


@frozen(kw_only=True)
class RecallConfig:
    """How a memory recalls, and what it keeps of it.

    The defaults were measured on real conversations, with `benchmarks/recall.py`; ``docs/recall.md`` says
    how far from them the results stay the same. Weights are at most 1,000, days to keep at most 365,000.

    Attributes:
        candidates: how many episodes search finds for a recall; only these are compared closely.
        description: how much the words of the whole description count, beside 1 for those of the passage
            that fits best.
        meaning: how much closeness in meaning counts, beside 1 for the words; four standard deviations above
            the mean are one. It counts where an embedder is set.
        neighbours: how much the relevance of similar episodes counts, beside the episode's own.
        own: as how many observations an episode's own outcome counts, beside 1 for a feedback and up to 1
            for each similar episode. The prior counts as two: one success and one failure.
        half_life: days after which an outcome or a feedback counts half.
        novelty: how far an episode that is like one before it in the answer is set back, from 0 to 1.
        known: the least confidence of a task that counts as known.
        record: whether recalls are recorded, so that feedback can name them by id later.
        keep: days for which recalls and feedback are kept; 0 for ever.
    """

    candidates: int = field(default=75, validator=between(1, 1_000, whole=True))
    description: float = field(default=0.5, validator=between(0, _MOST))
    meaning: float = field(default=0.5, validator=between(0, _MOST))
    neighbours: float = field(default=0.5, validator=between(0, _MOST))
    own: float = field(default=4.0, validator=between(0, _MOST))
    half_life: float = field(default=365.0, validator=positive)
    novelty: float = field(default=0.3, validator=between(0, 1))
    known: float = field(default=0.5, validator=between(0, 1))
    record: bool = field(default=True, validator=flag)
    keep: float = field(default=30.0, validator=between(0, _DAYS))


def recall_config(given: RecallConfig | Mapping[str, Any] | str | None) -> RecallConfig:
    """The configuration that a setting means: fields by name, or as the options of a URL
    (``"half_life=30&keep=90"``).

    Raises:
        ConfigurationError: a field is unknown or has a wrong value.
    """
    if given is None:
        return RecallConfig()
    if isinstance(given, RecallConfig):
        return given
    if isinstance(given, str):
        options: dict[str, Any] = dict(parse_qsl(given.removeprefix("?"), keep_blank_values=True))
        return build_options(RecallConfig, options, where=f"recall {given!r}")
    if isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
        return build_options(RecallConfig, dict(given), where="recall")
    raise ConfigurationError(f"recall: expected a RecallConfig or its fields, got {given!r}")
