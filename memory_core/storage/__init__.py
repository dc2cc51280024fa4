"""The contract of storage backends. It is small, and every write is a batch."""

from memory_core.storage.batch import (
    Change,
    ChangeOperation,
    ChangePage,
    CommitResult,
    Delete,
    Position,
    Put,
    Receipt,
    WriteBatch,
)
from memory_core.storage.protocol import (
    Capability,
    Storage,
    StorageContext,
    SupportsBackup,
    SupportsNamespaces,
    check_limit,
    check_namespace,
    local_path,
    missing_members,
    require,
)
from memory_core.storage.stats import (
    NamespaceInfo,
    StorageStats,
)

__all__ = [
    "Capability",
    "Change",
    "ChangeOperation",
    "ChangePage",
    "CommitResult",
    "Delete",
    "NamespaceInfo",
    "Position",
    "Put",
    "Receipt",
    "Storage",
    "StorageContext",
    "StorageStats",
    "SupportsBackup",
    "SupportsNamespaces",
    "WriteBatch",
    "check_limit",
    "check_namespace",
    "local_path",
    "missing_members",
    "require",
]
