"""Options of ``jsonl:PATH``."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen
from attrs.validators import ge, gt, in_, lt

__all__ = ["JsonlConfig"]


@frozen(kw_only=True)
class JsonlConfig:
    """How a store is kept.

    Attributes:
        durability: ``"full"``: a commit is on disk when it returns. ``"normal"``: it is with the
            operating system, so that a power loss may undo the newest ones; a killed process loses
            nothing.
        change_feed_limit: how many changes are kept for ``changes``.
        compact_ratio: the log is rewritten when more than this share of its bytes is outdated.
        compact_min_bytes: but not before it is this large.
    """

    durability: Literal["full", "normal"] = field(default="full", validator=in_(("full", "normal")))
    change_feed_limit: int = field(default=100_000, validator=ge(1))
    compact_ratio: float = field(default=0.5, validator=[gt(0), lt(1)])
    compact_min_bytes: int = field(default=2**20, validator=ge(1))
