"""Options of ``jsonl:PATH``."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen
from attrs.validators import ge, gt, in_, lt

__all__ = ["JsonlConfig"]


@frozen(kw_only=True)
class JsonlConfig:
    """Options of a store.

    Attributes:
        durability: ``"full"``: a commit is on disk when it returns. ``"normal"``: the operating
            system writes it later, so a power loss may undo the newest commits; a killed process
            loses nothing.
        change_feed_limit: how many changes the change feed keeps.
        compact_ratio: the log is rewritten when more than this share of its bytes is no longer
            needed.
        compact_min_bytes: a smaller log is not rewritten.
    """

    durability: Literal["full", "normal"] = field(default="full", validator=in_(("full", "normal")))
    change_feed_limit: int = field(default=100_000, validator=ge(1))
    compact_ratio: float = field(default=0.5, validator=[gt(0), lt(1)])
    compact_min_bytes: int = field(default=2**20, validator=ge(1))
