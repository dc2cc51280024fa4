"""``RedisCache``: a cache of bytes that several hosts share, with messages about writes of other hosts.

Redis is never required: its errors are counted and treated as misses. Each entry records at which
position it was valid (``SharedTier``), so an invalidation that Redis missed never causes a stale read.

Clients announce over pub/sub in which namespaces they wrote. On backends that cannot tell
their position cheaply this cuts the staleness from ``max_staleness`` to the time that a message takes.
When a connection was lost, and with it perhaps a message, the feed is pulled before the next read of every
namespace. Where a message is lost for another reason, ``max_staleness`` is the bound.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar, cast
from urllib.parse import quote
from uuid import UUID, uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError

from memory_cache_redis.config import RedisConfig, check_address
from memory_core.cache import CacheEntry, CacheKey, CacheStats

__all__ = ["RedisCache"]

T = TypeVar("T")
Callback = Callable[[Iterable[str] | None], None]
_SCAN = 1_000
_MEASURE_AFTER = 1.0


class RedisCache:
    """A cache tier in Redis.

    Args:
        url: ``redis://host:port/database`` or ``rediss://…`` for TLS.
        config: its options.

    Raises:
        ConfigurationError: the URL is not of that form.
    """

    def __init__(self, url: str, config: RedisConfig | None = None) -> None:
        check_address(url)
        self._config = config = config or RedisConfig()
        # redis-py's annotations cover its synchronous and asynchronous clients at once.
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
        self._lifetime: AsyncGenerator[None] | None = None
        self._retry_at = float("-inf")
        self._closed = False
        self._counts: Counter[str] = Counter()
        self._measured_at = float("-inf")
        self._entries = 0
        self._bytes = 0

    @classmethod
    def create(cls, location: str, *, config: RedisConfig) -> RedisCache:
        """Make a tier as ``CacheFactory`` says; it connects when it is first used."""
        return cls(location, config)

    @property
    def holds(self) -> Literal["bytes"]:
        """It keeps bytes."""
        return "bytes"

    def on_invalidation(self, callback: Callback) -> None:
        """Register a callback for the namespaces in which another client wrote. It gets ``None`` when
        messages may have been lost.
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
        self._counts["sets"] += stored

    async def delete_many(self, keys: Sequence[CacheKey], cause: str = "invalidated") -> None:
        """Forget keys; if these were written, tell other clients their namespaces."""
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
        """Forget everything under this prefix, or of a namespace, in steps with the timeout of a call.
        If a step fails, the rest stays, and ``clears_failed`` counts it.
        """
        space = self._space(namespace) if namespace is not None else f"{self._config.prefix}:"
        pattern = f"{space}*"
        cursor, unfinished = 0, True
        while unfinished:
            step = await self._attempt(partial(self._clear_some, cursor, pattern), None)
            if step is None:
                self._counts["clears_failed"] += 1
                return
            cursor, cleared = step
            self._counts["deletes_cleared"] += cleared
            unfinished = cursor != 0
        await self._attempt(self._measure, None)

    def stats(self) -> CacheStats:
        """Statistics of this client, except ``entries`` and ``bytes``: these are the keys of the Redis
        database and the bytes of all data on the server, including other programs', as last reported.
        They are requested along with other calls, at most once a second.
        """
        counts = dict(self._counts)
        return CacheStats(
            name="redis",
            entries=self._entries,
            bytes=self._bytes,
            hits=counts.pop("hits", 0),
            misses=counts.pop("misses", 0),
            counters=counts,
        )

    async def aclose(self) -> None:
        """End the listener and the connections. Idempotent."""
        self._closed = True
        listener, self._listener = self._listener, None
        # A loop that has ended has ended it, too.
        if listener is not None and not listener.done():
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        if self._lifetime is not None:
            await self._lifetime.aclose()

    def _name(self, key: CacheKey) -> str:
        namespace, kind, identity = key
        tail = identity.hex if isinstance(identity, UUID) else f"{identity.hex()}="
        return f"{self._space(namespace)}{kind}:{tail}"

    def _space(self, namespace: str) -> str:
        """The prefix of all keys of a namespace, and of no others."""
        return f"{self._config.prefix}:{quote(namespace)}:"

    async def _attempt(self, ask: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """Call Redis; returns ``otherwise`` if it is down or slow, or was less than ``retry_after`` ago."""
        if self._closed or time.monotonic() < self._retry_at:
            self._counts["skipped"] += 1
            return otherwise
        if self._lifetime is None:
            self._lifetime = _lifetime(self._redis)
            await anext(self._lifetime)
        self._listen()
        with self._counted() as outcome:
            async with asyncio.timeout(self._config.timeout):
                outcome.append(await ask())
                if time.monotonic() - self._measured_at >= _MEASURE_AFTER:
                    await self._measure()
        return outcome[0] if outcome else otherwise

    async def _clear_some(self, cursor: int, pattern: str) -> tuple[int, int]:
        """Clear one step; returns the next step's cursor (0 at the end) and the number of removed keys."""
        cursor, names = await self._redis.scan(cursor, match=pattern, count=_SCAN)
        return cursor, await self._redis.unlink(*names) if names else 0

    async def _measure(self) -> None:
        """Ask how much Redis holds."""
        self._measured_at = time.monotonic()
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.dbsize()
            pipeline.info("memory")
            # A user without permission for one of these commands can still use the cache.
            keys, memory = await pipeline.execute(raise_on_error=False)
        self._entries = 0 if isinstance(keys, RedisError) else keys
        self._bytes = 0 if isinstance(memory, RedisError) else memory["used_memory_dataset"]

    @contextmanager
    def _counted(self) -> Generator[list[Any]]:
        """Count an error of Redis, and do not call it again before ``retry_after``."""
        try:
            yield []
        except TimeoutError:
            self._failed("timeouts")
        except (RedisError, OSError):
            self._failed("errors")

    def _failed(self, what: str) -> None:
        self._counts[what] += 1
        self._retry_at = time.monotonic() + self._config.retry_after

    def _listen(self) -> None:
        if self._callbacks and (self._listener is None or self._listener.done()):
            self._listener = asyncio.create_task(self._hear(), name="memory-cache-redis listener")

    async def _hear(self) -> None:
        while not self._closed:
            with self._counted():
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(self._channel)
                    async for message in pubsub.listen():
                        self._heard(message)
            self._counts["reconnects"] += 1
            self._tell(None)
            await asyncio.sleep(self._config.retry_after)

    def _heard(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "subscribe":
            # Messages sent before the subscription were missed.
            self._counts["subscriptions"] += 1
            self._tell(None)
            return
        sender, _, namespace = message["data"].partition(b" ")
        if sender != self._sender:
            self._counts["pushes"] += 1
            self._tell([namespace.decode(errors="replace")])

    def _tell(self, namespaces: Iterable[str] | None) -> None:
        for callback in self._callbacks:
            callback(namespaces)


async def _lifetime(redis: Any) -> AsyncGenerator[None]:
    """Close the connections when this generator is closed.

    An event loop that ends closes its generators while it can still run them. Afterwards nobody could close
    the connections.
    """
    try:
        yield
    finally:
        await redis.aclose()
