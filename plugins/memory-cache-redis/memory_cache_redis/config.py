"""Options of the Redis tier."""

from __future__ import annotations

import re
from math import inf
from urllib.parse import urlsplit

from attrs import field, frozen

from memory_core.config.validators import Check, above
from memory_core.errors import ConfigurationError

__all__ = ["RedisConfig", "check_address"]

_PREFIX = Check(
    "1 to 64 letters, digits, underscores, dots and hyphens",
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"[\w.-]{1,64}", value)),
)


@frozen(kw_only=True)
class RedisConfig:
    """Options, as in ``redis://localhost:6379/0?timeout=0.1``.

    A password comes from ``MEMORY_REDIS_PASSWORD``, a user name from ``MEMORY_REDIS_USERNAME``.

    Attributes:
        timeout: seconds that Redis may take to answer before the backend is asked.
        retry_after: seconds until a Redis that failed is asked again.
        ttl: seconds an entry is kept at most.
        prefix: the prefix of all keys, which separates installations that share a Redis.
    """

    timeout: float = field(default=0.25, validator=above(0, inf))
    retry_after: float = field(default=1.0, validator=above(0, inf))
    ttl: float = field(default=3600.0, validator=above(0, inf))
    prefix: str = field(default="memory-core", validator=_PREFIX)


def check_address(url: str) -> None:
    """Reject what the driver would ignore, such as a database that is not a number.

    Raises:
        ConfigurationError: it is not ``redis://HOST[:PORT][/DATABASE]``, or ``rediss:`` of the same form.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _rejected("its host or port cannot be read") from None
    if parts.scheme not in {"redis", "rediss"}:
        raise _rejected("it begins with something else")
    # The address is not shown: it contains a secret.
    if "@" in parts.netloc:
        raise _rejected("a user name and password belong in the environment")
    if not parts.hostname:
        raise _rejected("it names no host")
    if port == 0:
        raise _rejected("there is no port 0")
    if parts.query or parts.fragment:
        raise _rejected("nothing may follow the database")
    database = parts.path.removeprefix("/")
    if database and not (database.isascii() and database.isdigit()):
        raise _rejected(f"the database must be a number, not {database!r}")


def _rejected(reason: str) -> ConfigurationError:
    form = "redis://HOST[:PORT][/DATABASE], or rediss: for TLS"
    return ConfigurationError(f"the address of a redis cache must be {form}: {reason}")
