"""LMDB itself: environments, the writer's thread, and the driver's types and errors."""
