"""Options of the Redis tier."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import gt, matches_re

__all__ = ["RedisConfig"]


@frozen(kw_only=True)
class RedisConfig:
    """Options, as in ``redis://localhost:6379/0?timeout=0.1``.

    A password comes from ``MEMORY_REDIS_PASSWORD``, a user name from ``MEMORY_REDIS_USERNAME``.

    Attributes:
        timeout: seconds after which a slow answer is given up and the backend asked.
        retry_after: seconds for which a Redis that failed is left alone.
        ttl: seconds an entry is kept at most.
        prefix: what all keys begin with.
    """

    timeout: float = field(default=0.25, validator=gt(0))
    retry_after: float = field(default=1.0, validator=gt(0))
    ttl: float = field(default=3600.0, validator=gt(0))
    prefix: str = field(default="memory-core", validator=matches_re(r"[\w.-]{1,64}"))
