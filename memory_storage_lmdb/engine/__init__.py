"""LMDB itself: environments, the writer thread, and the driver's types and errors."""
