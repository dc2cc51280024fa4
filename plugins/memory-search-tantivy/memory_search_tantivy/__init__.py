"""A search index for memory-core on disk, by tantivy."""
