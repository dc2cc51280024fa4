"""Where modules were in version 0.1, and where they are now."""

__all__ = ["NAMES", "PATHS"]

PATHS = {
    "adaptive.bounds": "adaptive.config",
    "adaptive.cgroup": "adaptive.memory_source",
    "adaptive.lifetime": "adaptive.expiry",
    "adaptive.sweeper": "adaptive.expiry",
    "adaptive.wheel": "adaptive.expiry",
    "backup": "engine.environment",
    "binding": "engine.binding",
    "catalog": "store.catalog",
    "checksums": "store.encoding",
    "constraints": "write.transaction",
    "cursors": "read.cursors",
    "data_file": "engine.data_file",
    "declaration": "store.layout",
    "deletion": "write.transaction",
    "dictionaries": "store.catalog",
    "environment": "engine.environment",
    "filling": "write.filling",
    "group": "write.writing",
    "indexing": "write.indexing",
    "journal": "store.journal",
    "keys": "store.encoding",
    "layout": "store.layout",
    "pending": "read.reading",
    "planning": "read.planning",
    "reading": "read.reading",
    "residency": "engine.environment",
    "scan": "read.scan",
    "sharing": "shared_state",
    "staging": "write.encoding",
    "thread": "engine.thread",
    "tier.config": "config",
    "tier.generation": "tier.file",
    "transaction": "write.transaction",
    "writing": "write.writing",
}

NAMES = {
    "adaptive.bounds.between": "adaptive.config.at_least",
    "adaptive.sweeper.Sweepable": "adaptive.cache.AdaptiveCache",
}
"""What moved modules contain under another name now."""
