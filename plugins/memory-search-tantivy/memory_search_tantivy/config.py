"""The options of the index."""

from __future__ import annotations

from attrs import field, frozen

from memory_core.config.validators import at_least

__all__ = ["TantivyConfig"]


@frozen(kw_only=True)
class TantivyConfig:
    """The options of the index.

    Attributes:
        pending: how many changed documents a process keeps in memory before it writes them to the disk: a
            commit takes tens of milliseconds, however many they are.
    """

    pending: int = field(default=1_000, validator=at_least(1, whole=True))
