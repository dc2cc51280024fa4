"""Options of Turso stores: one frozen class, with nested ones for the parts of servers.

Durations are seconds. A wrong value raises `ConfigurationError`, which names the field and says what
is accepted. Nothing here imports a driver.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast
from urllib.parse import urlsplit

from attrs import Attribute, field, frozen

from memory_core.codec.compression import CompressionConfig
from memory_core.config.options import accepts_dropped
from memory_core.config.validators import (
    Check,
    at_least,
    between,
    flag,
    instance_of,
    one_of,
    optional,
    ordered,
    positive,
)
from memory_core.errors import ConfigurationError, InvalidOptionError
from memory_core.values import Value

__all__ = [
    "PLACEHOLDER",
    "BreakerConfig",
    "KeepAliveConfig",
    "PoolConfig",
    "PreparedConfig",
    "ReplicaConfig",
    "RetryConfig",
    "ServerLimits",
    "TenancyConfig",
    "TursoConfig",
]

PLACEHOLDER = "{namespace}"
"""Stands for a namespace in a server's URL or in the name of a database."""

_CONSTANT = "its value is fixed now"


def _whole(low: int, high: int | None = None) -> Check:
    return at_least(low, whole=True) if high is None else between(low, high, whole=True)


def _http_url(config: object, option: Attribute[Any], value: Any) -> None:
    parts = urlsplit(str(value))
    if value is None or (
        parts.scheme in ("http", "https") and "@" not in parts.netloc and parts.netloc
    ):
        return
    # Not shown, as it may hold a password.
    expected = "an http or https URL without user and password, or None"
    raise InvalidOptionError(f"{type(config).__name__}.{option.name}", expected, "***")


@accepts_dropped
@frozen(kw_only=True, eq=False, repr=False)
class PoolConfig(Value):
    """Options of the connection pool: its size, and the limits on waiting for a connection.

    Attributes:
        min_size: Connections the pool keeps open, once it is used. Beyond them it opens connections
            when they are needed, and shortly before, where they were needed at regular intervals.
        max_size: Connections the pool never grows above. sqld serves 128 in total, to all clients.
        acquire_timeout: Longest wait for a connection before `StorageUnavailableError`.
        max_waiting: Backpressure: when so many calls wait for a connection, a further call is
            rejected at once.
        drain_timeout: How long closing waits for in-flight calls. A call that has not ended by then
            is aborted, with an error that says whether it was applied.
    """

    dropped_options: ClassVar = dict.fromkeys(
        (
            "target_utilisation",
            "shrink_below",
            "sample_interval",
            "forecast_horizon",
            "shrink_cooldown",
        ),
        _CONSTANT,
    )
    min_size: int = field(default=1, validator=_whole(1, 1024))
    max_size: int = field(default=16, validator=_whole(1, 1024))
    acquire_timeout: float = field(default=30.0, validator=positive)
    max_waiting: int = field(default=10_000, validator=_whole(0))
    drain_timeout: float = field(default=30.0, validator=at_least(0))

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        ordered(self, "min_size", "max_size")


@accepts_dropped
@frozen(kw_only=True, eq=False, repr=False)
class KeepAliveConfig(Value):
    """How idle connections are kept usable.

    Attributes:
        interval: A connection that is idle for this long is pinged. sqld drops an HTTP stream after
            10 s; a gateway in front of the server may drop it earlier. A connection that was
            neither used nor pinged for twice as long is replaced before it is used.
    """

    dropped_options: ClassVar = {
        "stale_after": "it follows from keepalive.interval",
        **dict.fromkeys(("timeout", "max_idle"), _CONSTANT),
    }
    interval: float = field(default=4.0, validator=positive)


@accepts_dropped
@frozen(kw_only=True, eq=False, repr=False)
class PreparedConfig(Value):
    """The cache of prepared statements.

    Attributes:
        max_size: Statements held per connection; 0 switches the cache off. A server holds 50 SQL
            texts per HTTP stream, 150 per WebSocket, and less if it says so.
    """

    dropped_options: ClassVar = {"max_age": _CONSTANT}
    max_size: int = field(default=128, validator=_whole(0, 10_000))


@accepts_dropped
@frozen(kw_only=True, eq=False, repr=False)
class RetryConfig(Value):
    """Retries of reads, and of writes that certainly were not applied.

    Attributes:
        attempts: The largest number of attempts; 1 switches retries off.
        timeout: No further attempt begins after this long. A call ends within this or
            ``limits.request_timeout``, whichever is longer.
        resolve_timeout: How long to ask for the outcome of a write whose answer was lost, before
            `OutcomeUnknownError`. A write may take that much longer.
    """

    dropped_options: ClassVar = dict.fromkeys(("initial", "maximum", "jitter"), _CONSTANT)
    attempts: int = field(default=6, validator=_whole(1, 100))
    timeout: float = field(default=15.0, validator=positive)
    resolve_timeout: float = field(default=15.0, validator=at_least(0))


@accepts_dropped
@frozen(kw_only=True, eq=False, repr=False)
class BreakerConfig(Value):
    """The circuit breaker in front of each server.

    Attributes:
        failure_threshold: The number of failures in a row that open the breaker.
        reset_timeout: Time after which one probe is sent. It doubles with each failed probe, up to
            10 s.
        max_wait: The longest that a call waits for the next probe while the breaker is open. A call
            that would have to wait longer fails at once. Closing waits for no probe.
    """

    dropped_options: ClassVar = {"max_reset_timeout": _CONSTANT}
    failure_threshold: int = field(default=5, validator=_whole(1))
    reset_timeout: float = field(default=0.5, validator=positive)
    max_wait: float = field(default=2.0, validator=at_least(0))


@accepts_dropped
@frozen(kw_only=True, eq=False, repr=False)
class ReplicaConfig(Value):
    """How reads are spread over replicas.

    Attributes:
        freshness: ``"all"``: a read sees every commit that any process had acknowledged before it
            began; the primary is asked for its position with each read, once for all reads that
            wait at the same time. ``"own"``: a read sees everything that this store has written or
            read before, and reads continue while the primary is down. What others write is seen when
            the replica has it: a cache is then as stale as the replica, beyond its ``max_staleness``.
        max_wait: How long a read waits for a replica that is behind, before the primary answers it;
            0 skips such a replica.
        timeout: How long a replica may take to answer before another server is asked.
    """

    dropped_options: ClassVar = dict.fromkeys(("poll_interval", "check_interval"), _CONSTANT)
    freshness: Literal["all", "own"] = field(default="all", validator=one_of("all", "own"))
    max_wait: float = field(default=0.0, validator=at_least(0))
    timeout: float = field(default=3.0, validator=positive)


@accepts_dropped
@frozen(kw_only=True, eq=False, repr=False)
class ServerLimits(Value):
    """Limits on requests to a server and on its answers.

    Attributes:
        max_batch_bytes: Largest request for one batch; a larger batch is rejected, with the limit's name.
        max_group_bytes: Batches that wait together are sent in transactions of up to this size, so
            that each takes well under the server's limit of 5 s.
        max_response_bytes: Largest answer read into memory.
        request_timeout: The time that a request may take, including its answer; connecting to the
            server takes at most 5 s of it.
    """

    dropped_options: ClassVar = {"connect_timeout": "limits.request_timeout bounds it as well"}
    max_batch_bytes: int = field(default=32 << 20, validator=_whole(1024))
    max_group_bytes: int = field(default=8 << 20, validator=_whole(1024))
    max_response_bytes: int = field(default=256 << 20, validator=_whole(1024))
    request_timeout: float = field(default=20.0, validator=positive)


@frozen(kw_only=True, eq=False, repr=False)
class TenancyConfig(Value):
    """Options of stores with one database per namespace.

    Attributes:
        max_open: The most databases open at once. The least recently used one is closed to open
            another; if all are in use, the next one waits.
        admin_url: sqld's admin API, through which missing databases are created. Without it, the
            server's operator creates them.
    """

    max_open: int = field(default=64, validator=_whole(1))
    admin_url: str | None = field(default=None, validator=_http_url)


_OF_FILES = ("durability", "busy_timeout", "readers")
_OF_SERVERS = (
    "pool",
    "keepalive",
    "retry",
    "breaker",
    "replicas",
    "replica",
    "limits",
    "wire_compression",
    "tls",
    "ca_file",
    "auth_token",
    "database",
    "tenancy",
)


def _urls(given: Any) -> tuple[str, ...]:
    """URLs given in any sequence."""
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        urls = tuple(cast("Sequence[Any]", given))
        if all(isinstance(url, str) for url in urls):
            return urls
    raise ConfigurationError(f"TursoConfig.replicas: expected a sequence of URLs, got {given!r}")


@frozen(kw_only=True, eq=False, repr=False)
class TursoConfig(Value):
    """Options of ``turso:`` and the server URLs. Durations are seconds.

    Attributes:
        durability: local files: commits survive a power loss with ``"full"``; with ``"normal"`` they
            survive a killed process, but a power loss may undo the newest.
        busy_timeout: local files: how long a write waits for a write of another process.
        readers: local files: read connections besides the write connection.
        change_feed_limit: how many changes the change feed keeps.
        compression: how bodies are compressed.
        prepared: the cache of prepared statements.
        pool: servers: the connections.
        keepalive: servers: how idle connections are kept usable.
        retry: servers: retries.
        breaker: servers: the circuit breaker.
        replicas: servers: URLs of read replicas. One that turns out to hold another store is logged and
            no longer used.
        replica: servers: how reads are distributed over them.
        limits: servers: limits on requests and answers.
        wire_compression: servers: whether answers over HTTP may come compressed; ``"auto"``: unless on
            loopback. Over WebSocket, which sqld does not compress, it has no effect.
        tls: servers: whether ``libsql://`` is encrypted; by default everywhere but on loopback.
        ca_file: servers: a PEM file of the authorities whose certificates are trusted, instead of the
            system's.
        auth_token: servers: the JWT; by default from the environment.
        database: servers: the database's name, where a server has several; with ``{namespace}`` in it,
            or in the URL, each namespace has a database of its own.
        tenancy: servers: these databases.
    """

    durability: Literal["full", "normal"] = field(
        default="full", validator=one_of("full", "normal")
    )
    busy_timeout: float = field(default=5.0, validator=between(0, 3600))
    readers: int = field(default=2, validator=_whole(1, 64))
    change_feed_limit: int = field(default=100_000, validator=_whole(1))
    compression: CompressionConfig = field(
        factory=CompressionConfig, validator=instance_of(CompressionConfig)
    )
    prepared: PreparedConfig = field(factory=PreparedConfig, validator=instance_of(PreparedConfig))
    pool: PoolConfig = field(factory=PoolConfig, validator=instance_of(PoolConfig))
    keepalive: KeepAliveConfig = field(
        factory=KeepAliveConfig, validator=instance_of(KeepAliveConfig)
    )
    retry: RetryConfig = field(factory=RetryConfig, validator=instance_of(RetryConfig))
    breaker: BreakerConfig = field(factory=BreakerConfig, validator=instance_of(BreakerConfig))
    replicas: tuple[str, ...] = field(default=(), converter=_urls)
    replica: ReplicaConfig = field(factory=ReplicaConfig, validator=instance_of(ReplicaConfig))
    limits: ServerLimits = field(factory=ServerLimits, validator=instance_of(ServerLimits))
    wire_compression: Literal["auto", "on", "off"] = field(
        default="auto", validator=one_of("auto", "on", "off")
    )
    tls: bool | None = field(default=None, validator=optional(flag))
    ca_file: str | None = field(default=None, validator=optional(instance_of(str)))
    auth_token: str | None = field(default=None, repr=False, validator=optional(instance_of(str)))
    database: str | None = field(default=None, validator=optional(instance_of(str)))
    tenancy: TenancyConfig = field(factory=TenancyConfig, validator=instance_of(TenancyConfig))

    def check_used(self, *, server: bool) -> None:
        """Reject options that have no effect at a location.

        Raises:
            ConfigurationError: names one.
        """
        defaults = TursoConfig()
        for name in _OF_FILES if server else _OF_SERVERS:
            if getattr(self, name) != getattr(defaults, name):
                where = "local files" if server else "servers"
                raise ConfigurationError(
                    f"{name} is an option of {where}, and would be ignored here"
                )

    def names_tenants(self, location: str) -> bool:
        """Whether each namespace has a database of its own at a server's URL."""
        return PLACEHOLDER in location or PLACEHOLDER in (self.database or "")
