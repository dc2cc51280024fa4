"""What every backend repeats: handles on a store, their owner, and closing."""

from memory_core.backend.handle import Handle, LoopOwner, SharedState

__all__ = ["Handle", "LoopOwner", "SharedState"]
