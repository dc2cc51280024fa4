"""What every backend repeats: handles on a store, their owner, and closing; the rules of a batch, and
planning a group of batches over records that are loaded for it; records that break a new rule.
"""

from memory_core.backend.declarations import Declarations
from memory_core.backend.feed import ChangeFeed, change_page
from memory_core.backend.handle import Handle, LoopOwner, SharedState
from memory_core.backend.model import Effect, Model, Plan, QueuedBatch, Stored, select_page
from memory_core.backend.model_store import ModelHandle, ModelStore
from memory_core.backend.open_store import OpenStore, StoreHandle, ThreadStore
from memory_core.backend.opening import open_in_task, open_on_thread
from memory_core.backend.rules import RuleCheck, check_broken, check_versions
from memory_core.backend.sort_bytes import NO_VALUE, sort_bytes
from memory_core.backend.turns import Turns
from memory_core.backend.working_set import AsyncLoader, Loader, WorkingSet, lookups

__all__ = [
    "NO_VALUE",
    "AsyncLoader",
    "ChangeFeed",
    "Declarations",
    "Effect",
    "Handle",
    "Loader",
    "LoopOwner",
    "Model",
    "ModelHandle",
    "ModelStore",
    "OpenStore",
    "Plan",
    "QueuedBatch",
    "RuleCheck",
    "SharedState",
    "StoreHandle",
    "Stored",
    "ThreadStore",
    "Turns",
    "WorkingSet",
    "change_page",
    "check_broken",
    "check_versions",
    "lookups",
    "open_in_task",
    "open_on_thread",
    "select_page",
    "sort_bytes",
]
