"""``Memory``, the interface for agent developers: opening it, and running episodes."""

from memory_core.memory.memory import Memory

__all__ = ["Memory"]
