"""The reference backend: a model of what a store means, kept in this process's memory."""

from memory_core.inmemory.storage import InMemoryConfig, InMemoryStorage

__all__ = ["InMemoryConfig", "InMemoryStorage"]
