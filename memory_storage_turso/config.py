"""What a Turso store can be told: one frozen class, nested ones for the parts of servers."""

from __future__ import annotations

from typing import Literal

from attrs import evolve, field, frozen

from memory_core.compression import CompressionConfig
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
    one_of,
)

__all__ = ["PLACEHOLDER", "TursoConfig"]

PLACEHOLDER = "{namespace}"
"""Stands for a namespace in a server's URL or in the name of a database."""


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
        replicas: servers: URLs of read replicas.
        replica: servers: how reads are spread over them.
        limits: servers: what they are asked at most.
        wire_compression: servers: whether answers may come compressed.
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
    compression: CompressionConfig = field(factory=CompressionConfig)
    prepared: PreparedConfig = field(factory=PreparedConfig)
    pool: PoolConfig = field(factory=PoolConfig)
    keepalive: KeepAliveConfig = field(factory=KeepAliveConfig)
    retry: RetryConfig = field(factory=RetryConfig)
    breaker: BreakerConfig = field(factory=BreakerConfig)
    replicas: tuple[str, ...] = ()
    replica: ReplicaConfig = field(factory=ReplicaConfig)
    limits: ServerLimits = field(factory=ServerLimits)
    wire_compression: Literal["auto", "on", "off"] = field(
        default="auto", validator=one_of("auto", "on", "off")
    )
    auth_token: str | None = field(default=None, repr=False)
    database: str | None = None
    tenancy: TenancyConfig = field(factory=TenancyConfig)

    def __attrs_post_init__(self) -> None:
        for name in ("readers", "change_feed_limit"):
            if not isinstance(getattr(self, name), int):
                msg = f"TursoConfig.{name}: expected a whole number, got {getattr(self, name)!r}"
                raise ConfigurationError(msg)

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
        )
