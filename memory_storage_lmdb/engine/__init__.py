"""LMDB itself: environments, the thread that writes, and what the driver's types and errors become."""
