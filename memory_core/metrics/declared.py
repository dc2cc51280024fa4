"""The metrics that there are: each with its name, its type, and where the statistics have it.

A metric is declared once, here. What counts it is a number in the statistics of a store, a cache or an index,
which ``stats()`` shows as well: so nothing is counted twice. A test moves every metric.
"""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

from memory_core.values import Value

__all__ = ["METRICS", "PREFIX", "Metric", "MetricType"]

PREFIX = "memory_core_"


class MetricType(StrEnum):
    """How a metric behaves."""

    COUNTER = "counter"
    """It only grows."""
    GAUGE = "gauge"
    """It is as it is now."""
    HISTOGRAM = "histogram"
    """A distribution."""


@frozen(eq=False, repr=False)
class Metric(Value):
    """A metric.

    Attributes:
        name: its name, with its unit at the end; exported as ``memory_core_<name>``.
        type: how it behaves.
        section: the section of the statistics.
        key: its name in that section; one that ends with ``*`` stands for all names that begin so, whose
            ends are the label ``cause``.
        help: what it says, for people.
    """

    name: str
    type: MetricType
    section: str
    key: str
    help: str

    @property
    def exported(self) -> str:
        """The name with the prefix of all metrics."""
        return PREFIX + self.name


_C, _G, _H = MetricType.COUNTER, MetricType.GAUGE, MetricType.HISTOGRAM

METRICS: tuple[Metric, ...] = (
    Metric("operation_duration_seconds", _H, "operations", "*",
           "Duration of the operations of a memory, by operation, kind and outcome."),
    # What reaches a backend, past the caches.
    Metric("storage_gets", _C, "counters", "gets", "Reads by id that reached the backend."),
    Metric("storage_ids", _C, "counters", "ids_asked", "Ids that those reads asked for."),
    Metric("storage_queries", _C, "counters", "queries", "Pages that the backend fetched."),
    Metric("storage_counts", _C, "counters", "counts", "Counts that the backend made."),
    Metric("storage_batches", _C, "counters", "batches", "Batches that the backend processed."),
    Metric("storage_batches_rejected", _C, "counters", "batches_refused", "Batches rejected."),
    Metric("storage_ids_fetched", _C, "counters", "ids_fetched", "Ids fetched, once coalesced."),
    Metric("storage_threaded_reads", _C, "counters", "reads_on_threads", "Reads that ran on threads."),
    Metric("feed_reads", _C, "counters", "feed_reads", "Pages of the change feed that were read."),
    Metric("feed_changes", _C, "counters", "changes", "Changes that the change feed got."),
    # Group commit.
    Metric("group_size_batches", _H, "groups", "size", "Batches that share a durable commit."),
    Metric("group_queue_seconds", _H, "groups", "age", "Time that commits wait for their group."),
    # Compression.
    Metric("compression_bodies", _C, "compression", "bodies", "Records encoded."),
    Metric("compression_compressed", _C, "compression", "compressed", "Records that became smaller."),
    Metric("compression_with_dictionary", _C, "compression", "with_dictionary",
           "Records compressed with a trained dictionary."),
    Metric("compression_raw_bytes", _C, "compression", "raw_bytes", "Bytes of records before compression."),
    Metric("compression_stored_bytes", _C, "compression", "stored_bytes", "Bytes of records as stored."),
    # Prepared statements.
    Metric("statement_hits", _C, "statements", "hits", "Uses of a statement that was prepared already."),
    Metric("statement_misses", _C, "statements", "misses", "Uses that had to prepare their statement."),
    Metric("statement_evictions", _C, "statements", "evictions", "Prepared statements evicted."),
    Metric("statements", _G, "statements", "current_size", "Prepared statements that are held."),
    # Index backlog.
    Metric("index_backlog_records", _G, "indexing", "waiting", "Records whose index entries are pending."),
    Metric("index_records_later", _C, "indexing", "indexed_later",
           "Records whose index entries were written after their commit."),
    Metric("index_passes", _C, "upkeep", "passes", "Passes that wrote pending index entries."),
    Metric("index_backlog_changes", _G, "upkeep", "waiting", "Changes whose index entries are pending."),
    # Embedded files.
    Metric("connection_reads", _C, "connections", "reads", "Reads of a database file."),
    Metric("connection_writes", _C, "connections", "writes", "Write transactions of a database file."),
    Metric("connection_checkpoints", _C, "connections", "checkpoints", "Checkpoints of a write-ahead log."),
    Metric("log_syncs", _C, "log", "syncs", "Times that a log of JSON lines was synced."),
    Metric("log_bytes", _G, "log", "bytes", "Bytes of a log of JSON lines."),
    # Servers.
    Metric("pool_connections", _G, "pool", "size", "Connections that the pool keeps open, or opens ahead."),
    Metric("pool_in_use", _G, "pool", "in_use", "Checked-out connections."),
    Metric("pool_idle", _G, "pool", "idle", "Idle connections."),
    Metric("pool_waiting", _G, "pool", "waiting", "Callers that wait for a connection."),
    Metric("pool_acquired", _C, "pool", "acquired", "Connections checked out."),
    Metric("pool_waits", _C, "pool", "waited", "Callers that had to wait for a connection."),
    Metric("pool_wait_seconds", _C, "pool", "wait_time", "Seconds that callers waited for connections."),
    Metric("pool_timeouts", _C, "pool", "timeouts", "Callers that waited too long."),
    Metric("pool_rejected", _C, "pool", "refused", "Callers rejected because too many waited."),
    Metric("pool_opened", _C, "pool", "opened", "Connections opened."),
    Metric("pool_opened_ahead", _C, "pool", "opened_ahead",
           "Connections opened before a caller needed them."),
    Metric("pool_forecast_connections", _G, "pool", "forecast",
           "Connections in use, or expected to be needed soon."),
    Metric("breaker_failures", _C, "breaker", "failures", "Failures that the circuit breaker saw."),
    Metric("breaker_opened", _C, "breaker", "opened", "Times that the circuit breaker opened."),
    Metric("breaker_rejected", _C, "breaker", "rejected", "Calls that an open circuit breaker rejected."),
    Metric("replica_reads", _C, "replicas", "reads", "Reads that a replica answered."),
    Metric("replica_passed_over", _C, "replicas", "passed_over", "Reads that a replica was too old for."),
    Metric("replica_failures", _C, "replicas", "failures", "Reads that failed on a replica."),
    Metric("replica_lag_changes", _G, "replicas", "lag", "Changes that the replicas are behind."),
    Metric("primary_reads", _C, "reads", "primary_reads", "Reads that the primary answered."),
    Metric("databases_open", _G, "databases", "open", "Databases of tenants that are open."),
    Metric("databases_opened", _C, "databases", "opened", "Databases of tenants opened."),
    # Caches.
    Metric("cache_hits", _C, "cache", "hits", "Requested keys that a cache had."),
    Metric("cache_misses", _C, "cache", "misses", "Requested keys that a cache lacked."),
    Metric("cache_entries", _G, "cache", "entries", "Entries of a cache."),
    Metric("cache_bytes", _G, "cache", "bytes", "Bytes that the entries take."),
    Metric("cache_insertions", _C, "cache", "insertions", "Entries that came into a cache."),
    Metric("cache_evictions", _C, "cache", "evictions_*", "Entries evicted, by cause."),
    Metric("cache_expirations", _C, "cache", "expirations", "Entries that expired."),
    Metric("cache_invalidations", _C, "coherence", "invalidated_*",
           "Entries of records and answers of queries that were invalidated, by cause."),
    Metric("cache_feed_reads", _C, "coherence", "feed_reads", "Pages of the feed read for the caches."),
    Metric("cache_feed_changes", _C, "coherence", "changes_seen", "Changes that the caches followed."),
    Metric("cache_joined_reads", _C, "coherence", "single_flight_joins", "Reads that joined another one."),
    Metric("query_cache_answers", _G, "coherence", "cached_queries", "Cached answers of queries."),
    Metric("query_cache_hits", _C, "coherence", "query_hits", "Queries answered from the cache."),
    Metric("query_cache_misses", _C, "coherence", "query_misses", "Queries that reached the backend."),
    # Search and recall.
    Metric("search_documents", _G, "search", "documents", "Documents of the open search indexes."),
    Metric("search_searches", _C, "search", "searches", "Searches, those of recalls included."),
    Metric("search_hits", _C, "search", "hits", "Hits of searches."),
    Metric("search_feed_pulls", _C, "search", "pulls", "Times that the indexes looked at the change feed."),
    Metric("search_feed_changes", _C, "search", "changed", "Records that the indexes followed."),
    Metric("search_backlog_changes", _G, "search", "behind", "Changes that the open indexes are behind."),
    Metric("recalls_recorded", _C, "recalls", "recorded", "Recalls that were recorded."),
    Metric("recalls_not_recorded", _C, "recalls", "failed", "Recalls whose record was not written."),
)  # fmt: skip
"""Every metric. Those without a ``cause`` have the label ``backend``; caches also ``tier``; operations also
``operation``, ``kind`` and ``outcome``."""
