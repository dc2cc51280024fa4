"""``Memory``, what agent developers work with; how it is opened, and running episodes."""

from memory_core.memory.memory import Memory

__all__ = ["Memory"]
