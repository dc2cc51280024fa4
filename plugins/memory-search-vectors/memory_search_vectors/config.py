"""The options of the index."""

from __future__ import annotations

from attrs import field, frozen

from memory_core.config.validators import at_least, between

__all__ = ["VectorsConfig"]


@frozen(kw_only=True)
class VectorsConfig:
    """The options of the index.

    Attributes:
        weight: how much the meaning counts, beside 1 for the words.
        passage: characters of a passage; each has a vector of its own, and a record is as close as the
            closest.
        passages: of how many passages a record has vectors, at most; the first ones, the heaviest texts
            first.
        batch: how many passages an embedder is sent at a time.
        wait: seconds that a search waits for the vectors of what was just written, where these are one batch;
            without them it is found by its words.
        closeness: by how many standard deviations a record without any of the words must be closer to the
            question than the mean.
    """

    weight: float = field(default=1.0, validator=at_least(0))
    passage: int = field(default=1_000, validator=between(100, 100_000, whole=True))
    passages: int = field(default=4, validator=between(1, 1_000, whole=True))
    batch: int = field(default=32, validator=between(1, 2_048, whole=True))
    wait: float = field(default=0.5, validator=at_least(0))
    closeness: float = field(default=1.5, validator=at_least(0))
