"""A bounded pool of connections that sizes itself and keeps what is idle usable."""

from memory_storage_turso.server.pool.pool import Connection, Pool, PoolStats

__all__ = ["Connection", "Pool", "PoolStats"]
