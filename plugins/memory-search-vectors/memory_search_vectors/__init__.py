"""Search by meaning for memory-core: embedders, vectors and their fusion with words."""
