"""Where modules were in version 0.1, and where they are now."""

__all__ = ["PATHS"]

PATHS = {
    "backup": "engine.backup",
    "binding": "engine.binding",
    "catalog": "store.catalog",
    "checksums": "store.checksums",
    "constraints": "write.constraints",
    "cursors": "store.cursors",
    "data_file": "engine.data_file",
    "declaration": "store.declaration",
    "deletion": "write.deletion",
    "dictionaries": "store.dictionaries",
    "environment": "engine.environment",
    "filling": "write.filling",
    "group": "write.group",
    "indexing": "write.indexing",
    "journal": "store.journal",
    "keys": "store.keys",
    "layout": "store.layout",
    "pending": "read.pending",
    "planning": "read.planning",
    "reading": "read.reading",
    "residency": "engine.residency",
    "scan": "read.scan",
    "sharing": "store.sharing",
    "staging": "write.staging",
    "thread": "engine.thread",
    "transaction": "write.transaction",
    "writing": "write.writing",
}
