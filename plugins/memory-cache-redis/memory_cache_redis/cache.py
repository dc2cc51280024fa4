"""``RedisCache``: bytes that several hosts share, and word of what others changed.

Redis is never needed: whatever goes wrong with it is counted, and the caller goes on as if nothing
had been cached. Entries say for themselves at which position they were valid (``SharedTier``), so an
invalidation that Redis missed makes nothing stale.

Clients tell each other over pub/sub in which namespaces they wrote. On backends that cannot tell
their position cheaply this cuts the staleness from ``max_staleness`` to the time a message takes;
when a connection was lost, and with it perhaps a message, everything is looked at again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, cast
from uuid import UUID, uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError

from memory_cache_redis.config import RedisConfig
from memory_core.cache import CacheEntry, CacheKey, CacheStats

__all__ = ["RedisCache"]

T = TypeVar("T")
Callback = Callable[[Iterable[str] | None], None]
_SCAN = 1_000


class RedisCache:
    """A cache tier in Redis.

    Args:
        url: ``redis://host:port/database`` or ``rediss://…`` for TLS.
        config: its options.
    """

    def __init__(self, url: str, config: RedisConfig | None = None) -> None:
        self._config = config = config or RedisConfig()
        # redis-py's annotations are of its synchronous and asynchronous clients at once.
        self._redis: Any = cast("Any", Redis).from_url(
            url,
            username=os.environ.get("MEMORY_REDIS_USERNAME"),
            password=os.environ.get("MEMORY_REDIS_PASSWORD"),
            socket_timeout=None,
            socket_connect_timeout=config.timeout,
        )
        self._channel = f"{config.prefix}:written"
        self._sender = uuid4().hex.encode()
        self._callbacks: list[Callback] = []
        self._listener: asyncio.Task[None] | None = None
        self._left_alone_until = float("-inf")
        self._closed = False
        self._counts: Counter[str] = Counter()
        self._kept_bytes = 0

    @classmethod
    def create(cls, location: str, *, config: RedisConfig) -> RedisCache:
        """Make a tier as the factory of caches does; it connects when it is first used."""
        return cls(location, config)

    @property
    def holds(self) -> Literal["bytes"]:
        """It keeps bytes."""
        return "bytes"

    def on_invalidation(self, callback: Callback) -> None:
        """Call back with the namespaces in which another client wrote; with ``None`` when messages
        may have been lost.
        """
        self._callbacks.append(callback)

    async def get_many(self, keys: Sequence[CacheKey]) -> list[Any | None]:
        """The values in the order of the keys, ``None`` for a miss."""
        nothing: list[Any | None] = [None] * len(keys)
        names = [self._name(key) for key in keys]
        found = await self._attempt(lambda: self._redis.mget(names), nothing)
        hits = sum(value is not None for value in found)
        self._counts["hits"] += hits
        self._counts["misses"] += len(keys) - hits
        return found

    async def set_many(self, entries: Sequence[CacheEntry]) -> None:
        """Keep entries."""

        async def store() -> int:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for entry in entries:
                    ttl = self._config.ttl if entry.ttl is None else entry.ttl
                    milliseconds = max(1, round(ttl * 1_000))
                    pipeline.set(self._name(entry.key), entry.value, px=milliseconds)
                await pipeline.execute()
            return len(entries)

        stored = await self._attempt(store, 0)
        if stored:
            self._counts["sets"] += stored
            self._kept_bytes += sum(len(entry.value) for entry in entries)

    async def delete_many(self, keys: Sequence[CacheKey], cause: str = "invalidated") -> None:
        """Forget keys, and tell the other clients in which namespaces, if they were written."""
        namespaces = {key[0].encode() for key in keys} if cause == "written" else ()

        async def forget() -> int:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.unlink(*[self._name(key) for key in keys])
                for namespace in namespaces:
                    pipeline.publish(self._channel, self._sender + b" " + namespace)
                return (await pipeline.execute())[0]

        if keys:
            self._counts[f"deletes_{cause}"] += await self._attempt(forget, 0)

    async def clear(self, namespace: str | None = None) -> None:
        """Forget everything of this prefix, or of a namespace."""
        pattern = f"{self._config.prefix}:{f'{namespace}:' if namespace else ''}*"

        async def forget() -> int:
            cleared = 0
            async for names in _batches(self._redis, pattern):
                cleared += await self._redis.unlink(*names)
            return cleared

        self._counts["deletes_cleared"] += await self._attempt(forget, 0, patient=True)

    def stats(self) -> CacheStats:
        """Figures of this client; ``entries`` and ``bytes`` are what it has put there so far."""
        counts = dict(self._counts)
        return CacheStats(
            name="redis",
            entries=counts.get("sets", 0),
            bytes=self._kept_bytes,
            hits=counts.pop("hits", 0),
            misses=counts.pop("misses", 0),
            counters=counts,
        )

    async def aclose(self) -> None:
        """End the listener and the connections. Idempotent."""
        self._closed = True
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        await self._redis.aclose()

    def _name(self, key: CacheKey) -> str:
        namespace, kind, identity = key
        tail = identity.hex if isinstance(identity, UUID) else identity.hex()
        return f"{self._config.prefix}:{namespace}:{kind}:{tail}"

    async def _attempt(
        self, ask: Callable[[], Awaitable[T]], otherwise: T, *, patient: bool = False
    ) -> T:
        """Ask Redis; ``otherwise`` when it is down, slow, or was so a moment ago."""
        if self._closed or time.monotonic() < self._left_alone_until:
            self._counts["skipped"] += 1
            return otherwise
        self._listen()
        with self._counted() as outcome:
            async with asyncio.timeout(None if patient else self._config.timeout):
                outcome.append(await ask())
        return outcome[0] if outcome else otherwise

    @contextmanager
    def _counted(self) -> Generator[list[Any]]:
        """Count what goes wrong with Redis, leave it alone for a while, and go on."""
        try:
            yield []
        except TimeoutError:
            self._failed("timeouts")
        except (RedisError, OSError):
            self._failed("errors")

    def _failed(self, what: str) -> None:
        self._counts[what] += 1
        self._left_alone_until = time.monotonic() + self._config.retry_after

    def _listen(self) -> None:
        if self._callbacks and (self._listener is None or self._listener.done()):
            self._listener = asyncio.create_task(self._hear(), name="memory-cache-redis listener")

    async def _hear(self) -> None:
        while not self._closed:
            with self._counted():
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(self._channel)
                    # Whatever was sent before the subscription held was not heard.
                    self._tell(None)
                    async for message in pubsub.listen():
                        self._heard(message["data"])
            self._counts["reconnects"] += 1
            self._tell(None)
            await asyncio.sleep(self._config.retry_after)

    def _heard(self, data: bytes) -> None:
        sender, _, namespace = data.partition(b" ")
        if sender != self._sender:
            self._counts["pushes"] += 1
            self._tell([namespace.decode(errors="replace")])

    def _tell(self, namespaces: Iterable[str] | None) -> None:
        for callback in self._callbacks:
            callback(namespaces)


async def _batches(redis: Any, pattern: str) -> AsyncIterator[list[bytes]]:
    cursor = 0
    while True:
        cursor, names = await redis.scan(cursor, match=pattern, count=_SCAN)
        if names:
            yield names
        if not cursor:
            return
