"""What a Turso store can be told: one frozen class, nested ones for the parts of servers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from attrs import evolve, field, frozen

from memory_core.codec.compression import CompressionConfig
from memory_core.errors import ConfigurationError
from memory_storage_turso.server_config import (
    BreakerConfig,
    KeepAliveConfig,
    PoolConfig,
    PreparedConfig,
    ReplicaConfig,
    RetryConfig,
    ServerConfig,
    ServerLimits,
    TenancyConfig,
    between,
    instance_of,
    one_of,
)

__all__ = ["PLACEHOLDER", "TursoConfig"]

PLACEHOLDER = "{namespace}"
"""Stands for a namespace in a server's URL or in the name of a database."""
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


@frozen(kw_only=True)
class TursoConfig:
    """Options of ``turso:`` and the server URLs. Durations are seconds.

    Attributes:
        durability: local files: ``"full"`` survives the loss of power, ``"normal"`` that of the
            process only, where the newest commits may go with the power.
        busy_timeout: local files: how long a write waits for another process's.
        readers: local files: connections that read beside the one that writes.
        change_feed_limit: how many changes the change feed keeps.
        compression: how bodies are compressed.
        prepared: the cache of prepared statements.
        pool: servers: the connections.
        keepalive: servers: how idle connections are kept usable.
        retry: servers: retries.
        breaker: servers: the circuit breaker.
        replicas: servers: URLs of read replicas. One that turns out to hold another store is logged
            and not asked any more.
        replica: servers: how reads are spread over them.
        limits: servers: what they are asked at most.
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
    readers: int = field(default=2, validator=between(1, 64))
    change_feed_limit: int = field(default=100_000, validator=between(1))
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
    tls: bool | None = field(default=None, validator=instance_of(bool, optional=True))
    ca_file: str | None = field(default=None, validator=instance_of(str, optional=True))
    auth_token: str | None = field(
        default=None, repr=False, validator=instance_of(str, optional=True)
    )
    database: str | None = field(default=None, validator=instance_of(str, optional=True))
    tenancy: TenancyConfig = field(factory=TenancyConfig, validator=instance_of(TenancyConfig))

    def __attrs_post_init__(self) -> None:
        for name in ("readers", "change_feed_limit"):
            if not isinstance(getattr(self, name), int):
                msg = f"TursoConfig.{name}: expected a whole number, got {getattr(self, name)!r}"
                raise ConfigurationError(msg)

    def check_used(self, *, server: bool) -> None:
        """Refuse options that have no effect where the store is.

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

    def for_server(self) -> ServerConfig:
        """The part that a server driver is told."""
        return evolve(
            ServerConfig(),
            pool=self.pool,
            keepalive=self.keepalive,
            prepared=self.prepared,
            retry=self.retry,
            breaker=self.breaker,
            replica=self.replica,
            limits=self.limits,
            wire_compression=self.wire_compression,
            ca_file=self.ca_file,
        )
