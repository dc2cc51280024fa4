"""Options of the Redis tier."""

from __future__ import annotations

from urllib.parse import urlsplit

from attrs import field, frozen
from attrs.validators import gt, matches_re

from memory_core.errors import ConfigurationError

__all__ = ["RedisConfig", "check_address"]


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


def check_address(url: str) -> None:
    """Refuse what the driver would pass over in silence: a database that is no number, say.

    Raises:
        ConfigurationError: it is not ``redis://HOST[:PORT][/DATABASE]``, or ``rediss:`` of the same form.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("its host or port cannot be read") from None
    if parts.scheme not in {"redis", "rediss"}:
        raise _refused("it begins with something else")
    # Not shown: whoever writes it there takes it for a place to put secrets.
    if "@" in parts.netloc:
        raise _refused("a user and password belong into the environment")
    if not parts.hostname:
        raise _refused("it names no host")
    if port == 0:
        raise _refused("there is no port 0")
    if parts.query or parts.fragment:
        raise _refused("nothing may follow the database")
    database = parts.path.removeprefix("/")
    if database and not (database.isascii() and database.isdigit()):
        raise _refused(f"the database must be a number, not {database!r}")


def _refused(reason: str) -> ConfigurationError:
    form = "redis://HOST[:PORT][/DATABASE], or rediss: for TLS"
    return ConfigurationError(f"the address of a redis cache must be {form}: {reason}")
