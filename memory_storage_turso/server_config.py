"""Settings of the server drivers, one attrs class per part.

Durations are seconds. A wrong value raises `ConfigurationError` that names the field and says what
would have been accepted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import urlsplit

import attrs

from memory_core.errors import ConfigurationError

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def between(low: float, high: float = float("inf"), *, above: bool = False) -> Validator:
    """Accept finite numbers from ``low`` (excluded when ``above``) to ``high``."""
    return _number((int, float), "a number", low, high, above=above)


def whole(low: int, high: float = float("inf")) -> Validator:
    """Accept integers from ``low`` to ``high``."""
    return _number((int,), "a whole number", low, high, above=False)


def _number(
    types: tuple[type, ...], kind: str, low: float, high: float, *, above: bool
) -> Validator:
    floor = f"above {low:g}" if above else f"of at least {low:g}"
    ceiling = "" if high == float("inf") else f" and at most {high:g}"

    def check(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        sound = isinstance(value, types) and not isinstance(value, bool) and math.isfinite(value)
        if sound and low <= value <= high and not (above and value == low):
            return
        name = f"{type(instance).__name__}.{attribute.name}"
        msg = f"{name}: expected {kind} {floor}{ceiling}, got {value!r}"
        raise ConfigurationError(msg)

    return check


def one_of(*choices: str) -> Validator:
    """Accept these strings."""

    def check(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if value not in choices:
            name = f"{type(instance).__name__}.{attribute.name}"
            msg = f"{name}: expected one of {', '.join(choices)}, got {value!r}"
            raise ConfigurationError(msg)

    return check


def instance_of(kind: type, *, optional: bool = False) -> Validator:
    """Accept instances of a class, and None where it is optional."""

    def check(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, kind) or (optional and value is None):
            return
        name = f"{type(instance).__name__}.{attribute.name}"
        msg = f"{name}: expected {kind.__name__}, got {type(value).__name__}"
        raise ConfigurationError(msg)

    return check


def _http(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Accept URLs of HTTP, without secrets."""
    parts = urlsplit(str(value))
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        name = f"{type(instance).__name__}.{attribute.name}"
        msg = f"{name}: expected an http or https URL without user and password"
        raise ConfigurationError(msg)


def _ordered(config: object, low: str, high: str) -> None:
    if getattr(config, low) > getattr(config, high):
        name = type(config).__name__
        msg = (
            f"{name}.{low} ({getattr(config, low)}) is over {name}.{high} ({getattr(config, high)})"
        )
        raise ConfigurationError(msg)


@attrs.frozen(kw_only=True, slots=True)
class PoolConfig:
    """How many connections there may be, and what waiting for one means.

    Attributes:
        min_size: Connections the pool never shrinks below.
        max_size: Connections the pool never grows above. sqld serves 128 at once to all clients.
        acquire_timeout: Longest wait for a connection before `StorageUnavailableError`.
        max_waiting: Backpressure: with this many waiting, a further one is refused at once.
        target_utilisation: Share of the connections that should be in use at forecast demand.
        shrink_below: Utilisation under which the pool gives connections up.
        sample_interval: How often demand is sampled for the forecast.
        forecast_horizon: How far ahead demand is forecast.
        shrink_cooldown: Quiet time that has to pass after any change of size before shrinking.
        drain_timeout: How long closing waits for calls that are under way. Those that have not ended
            by then are broken off, with an error that says what became of them.
    """

    min_size: int = attrs.field(default=1, validator=whole(1, 1024))
    max_size: int = attrs.field(default=16, validator=whole(1, 1024))
    acquire_timeout: float = attrs.field(default=30.0, validator=between(0, above=True))
    max_waiting: int = attrs.field(default=10_000, validator=whole(0))
    target_utilisation: float = attrs.field(default=0.7, validator=between(0, 1, above=True))
    shrink_below: float = attrs.field(default=0.35, validator=between(0, 1))
    sample_interval: float = attrs.field(default=0.1, validator=between(0, above=True))
    forecast_horizon: float = attrs.field(default=0.5, validator=between(0))
    shrink_cooldown: float = attrs.field(default=10.0, validator=between(0))
    drain_timeout: float = attrs.field(default=30.0, validator=between(0))

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        _ordered(self, "min_size", "max_size")
        _ordered(self, "shrink_below", "target_utilisation")


@attrs.frozen(kw_only=True, slots=True)
class KeepAliveConfig:
    """How idle connections are kept usable.

    Attributes:
        interval: A connection idle for this long is pinged. sqld drops an HTTP stream after 10 s.
        timeout: A ping that takes longer means the connection is lost.
        stale_after: A connection that was neither used nor pinged for this long is replaced
            instead of being handed out.
        max_idle: A connection unused for this long is closed, down to ``PoolConfig.min_size``.
    """

    interval: float = attrs.field(default=4.0, validator=between(0, above=True))
    timeout: float = attrs.field(default=3.0, validator=between(0, above=True))
    stale_after: float = attrs.field(default=9.0, validator=between(0, above=True))
    max_idle: float = attrs.field(default=60.0, validator=between(0, above=True))

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        _ordered(self, "interval", "stale_after")
        _ordered(self, "stale_after", "max_idle")


@attrs.frozen(kw_only=True, slots=True)
class PreparedConfig:
    """The cache of prepared statements.

    Attributes:
        max_size: Statements held per connection; 0 switches the cache off. A server holds 50 SQL
            texts per HTTP stream, 150 per WebSocket, and less if it says so.
        max_age: On a server a text stored longer ago than this is stored anew at its next use, and
            dropped if it was not used for as long. In a local file statements age out by use alone,
            as sqlite3 keeps them, and SQLite itself prepares them anew after a change of the schema.
    """

    max_size: int = attrs.field(default=128, validator=whole(0, 10_000))
    max_age: float = attrs.field(default=3600.0, validator=between(0, above=True))


@attrs.frozen(kw_only=True, slots=True)
class RetryConfig:
    """Retries of what certainly was not applied, and of reads.

    Attributes:
        attempts: Tries altogether; 1 switches retries off.
        timeout: No further try is started after this long.
        initial: First pause.
        maximum: Longest pause; it doubles up to here.
        jitter: Random extra pause, up to this.
        resolve_timeout: How long to go on asking what became of a write whose answer was lost,
            before `OutcomeUnknownError`.
    """

    attempts: int = attrs.field(default=6, validator=whole(1, 100))
    timeout: float = attrs.field(default=15.0, validator=between(0, above=True))
    initial: float = attrs.field(default=0.05, validator=between(0))
    maximum: float = attrs.field(default=2.0, validator=between(0))
    jitter: float = attrs.field(default=0.05, validator=between(0))
    resolve_timeout: float = attrs.field(default=15.0, validator=between(0))

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        _ordered(self, "initial", "maximum")


@attrs.frozen(kw_only=True, slots=True)
class BreakerConfig:
    """The circuit breaker in front of each server.

    Attributes:
        failure_threshold: Failures in a row that open it.
        reset_timeout: Time after which one probe is let through.
        max_reset_timeout: The time doubles with each failed probe, up to this.
    """

    failure_threshold: int = attrs.field(default=5, validator=whole(1))
    reset_timeout: float = attrs.field(default=0.5, validator=between(0, above=True))
    max_reset_timeout: float = attrs.field(default=10.0, validator=between(0, above=True))

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        _ordered(self, "reset_timeout", "max_reset_timeout")


@attrs.frozen(kw_only=True, slots=True)
class ReplicaConfig:
    """How reads are spread over replicas.

    Attributes:
        freshness: ``"all"``: a read sees every commit of any process that was acknowledged before
            it began; the primary is asked for its position beside each read, once for those that
            wait together. ``"own"``: it sees what this store has written or read before, and
            reads go on while the primary is down.
        max_wait: How long a read waits for a replica to catch up with what its caller has seen,
            before the primary answers it; 0 passes over a replica that is behind.
        poll_interval: Pause between two looks at a replica that is behind.
        timeout: How long a replica may take to answer before another server is asked.
        check_interval: How often an idle or failed replica's position is looked at.
    """

    freshness: Literal["all", "own"] = attrs.field(default="all", validator=one_of("all", "own"))
    max_wait: float = attrs.field(default=0.0, validator=between(0))
    poll_interval: float = attrs.field(default=0.01, validator=between(0, above=True))
    timeout: float = attrs.field(default=3.0, validator=between(0, above=True))
    check_interval: float = attrs.field(default=1.0, validator=between(0, above=True))


@attrs.frozen(kw_only=True, slots=True)
class ServerLimits:
    """What is asked of a server at most.

    Attributes:
        max_batch_bytes: Largest request for one batch; a larger batch is refused by name.
        max_group_bytes: Batches that wait together are sent in transactions of up to this size,
            so that each stays well within the server's 5 s.
        max_response_bytes: Largest answer read into memory.
        connect_timeout: For reaching the server.
        request_timeout: For a whole request, answer included.
    """

    max_batch_bytes: int = attrs.field(default=32 << 20, validator=whole(1024))
    max_group_bytes: int = attrs.field(default=8 << 20, validator=whole(1024))
    max_response_bytes: int = attrs.field(default=256 << 20, validator=whole(1024))
    connect_timeout: float = attrs.field(default=5.0, validator=between(0, above=True))
    request_timeout: float = attrs.field(default=20.0, validator=between(0, above=True))


@attrs.frozen(kw_only=True, slots=True)
class TenancyConfig:
    """Databases of their own for namespaces.

    Attributes:
        max_open: Databases kept open at once. With all of them in use, a further one has to wait;
            otherwise the one used longest ago is closed.
        admin_url: sqld's admin API, where databases that are missing are made. Without it whoever
            runs the server makes them.
    """

    max_open: int = attrs.field(default=64, validator=whole(1))
    admin_url: str | None = attrs.field(default=None, validator=attrs.validators.optional(_http))


@attrs.frozen(kw_only=True, slots=True)
class ServerConfig:
    """Everything a server driver can be told.

    Attributes:
        pool: The connections to each server.
        keepalive: How they are kept usable while idle.
        prepared: The cache of prepared statements.
        retry: Retries and the search for lost answers.
        breaker: The circuit breaker of each server.
        replica: How reads are spread over replicas.
        limits: What is asked of a server at most.
        wire_compression: Whether answers over HTTP may come compressed; ``"auto"``: unless on loopback.
        ca_file: A PEM file of the authorities whose certificates are trusted, instead of the system's.
    """

    pool: PoolConfig = attrs.field(factory=PoolConfig)
    keepalive: KeepAliveConfig = attrs.field(factory=KeepAliveConfig)
    prepared: PreparedConfig = attrs.field(factory=PreparedConfig)
    retry: RetryConfig = attrs.field(factory=RetryConfig)
    breaker: BreakerConfig = attrs.field(factory=BreakerConfig)
    replica: ReplicaConfig = attrs.field(factory=ReplicaConfig)
    limits: ServerLimits = attrs.field(factory=ServerLimits)
    wire_compression: Literal["auto", "on", "off"] = attrs.field(
        default="auto", validator=one_of("auto", "on", "off")
    )
    ca_file: str | None = None
