"""The reference backend: a model of a store's semantics, kept in this process's memory."""

from memory_core.inmemory.storage import InMemoryConfig, InMemoryStorage

__all__ = ["InMemoryConfig", "InMemoryStorage"]
