"""Plugin-based storage for the episodic memory of AI agents.

``async with open_memory("lmdb:./mem") as memory`` is where to start; ``Memory`` is what it gives.
A name is imported when it is first used, so that a program loads what it needs.
"""

from typing import TYPE_CHECKING

from memory_core.lazy import lazily as _lazily
from memory_core.moved import NAMES as _NAMES
from memory_core.moved import PATHS as _PATHS
from memory_core.moved import find_moved as _find_moved

if TYPE_CHECKING:
    from memory_core.cache import (
        Budget,
        Cache,
        CacheConfig,
        CachedStorage,
        CacheEntry,
        CacheKey,
        CacheStats,
    )
    from memory_core.codec.compression import CompressionConfig
    from memory_core.config import Settings, load_settings
    from memory_core.errors import (
        CodecError,
        ConfigurationError,
        ConflictError,
        CycleError,
        DeclarationChangedError,
        DuplicateError,
        EmbedderError,
        EpisodeCompleteError,
        ImportFormatError,
        InvalidOptionError,
        InvalidValueError,
        MemoryCoreError,
        MigrationNeededError,
        NotAStoreError,
        OutcomeUnknownError,
        PluginError,
        QueryError,
        ReadOnlyError,
        RecordNotFoundError,
        RecordTooLargeError,
        ReferenceNotFoundError,
        ReferenceRestrictedError,
        SchemaVersionError,
        StorageClosedError,
        StorageError,
        StorageFullError,
        StorageUnavailableError,
        StoreNotFoundError,
        UnknownFormatError,
        UnknownKindError,
        UnsupportedCapabilityError,
        WrongEventLoopError,
    )
    from memory_core.graph import Direction, RelatedEpisode, RelationshipGraph
    from memory_core.hookspecs import CacheFactory, StorageFactory, WrapperFactory, hookimpl
    from memory_core.inmemory import InMemoryStorage
    from memory_core.learning import (
        Calculation,
        Evaluation,
        Learning,
        Recall,
        RecallConfig,
        RecalledEpisode,
        RecalledRule,
    )
    from memory_core.memory import Memory
    from memory_core.memory.handing_over import Handoff
    from memory_core.memory.opening import open_memory, open_memory_sync, open_storage
    from memory_core.memory.synchronous import SyncMemory
    from memory_core.plugins import PluginInfo, PluginRegistry
    from memory_core.query import (
        Page,
        Query,
        all_of,
        any_of,
        at_least,
        at_most,
        between,
        greater_than,
        less_than,
    )
    from memory_core.records import (
        Acyclic,
        Checkpoint,
        Complexity,
        ContextPattern,
        DecisionPoint,
        Effectiveness,
        Episode,
        ErrorRecovery,
        Evidence,
        ExecutionStep,
        Feedback,
        Heuristic,
        Index,
        Limits,
        OnDelete,
        Outcome,
        OutcomeStats,
        OutcomeStatus,
        Pattern,
        PatternType,
        RecallRecord,
        Record,
        RecordTypes,
        Reference,
        Reflection,
        Relationship,
        RelationshipType,
        ResultStatus,
        RewardScore,
        SalientFeatures,
        Step,
        StepResult,
        TaskContext,
        TaskType,
        Text,
        ToolSequence,
        Unique,
        new_id,
    )
    from memory_core.storage import (
        Capability,
        Change,
        ChangeOperation,
        ChangePage,
        CommitResult,
        Delete,
        Expect,
        ExpectAbsent,
        NamespaceInfo,
        Position,
        Put,
        Receipt,
        Storage,
        StorageContext,
        StorageStats,
        SupportsBackup,
        SupportsNamespaces,
        WriteBatch,
    )
else:
    __getattr__, __dir__ = _lazily(
        __name__,
        {
            "cache": ("Budget Cache CacheConfig CachedStorage CacheEntry CacheKey CacheStats"),
            "codec.compression": "CompressionConfig",
            "config": "Settings load_settings",
            "errors": (
                "CodecError ConfigurationError ConflictError CycleError DeclarationChangedError "
                "DuplicateError EmbedderError EpisodeCompleteError ImportFormatError InvalidOptionError "
                "InvalidValueError MemoryCoreError MigrationNeededError NotAStoreError "
                "OutcomeUnknownError PluginError QueryError "
                "ReadOnlyError RecordNotFoundError RecordTooLargeError "
                "ReferenceNotFoundError ReferenceRestrictedError SchemaVersionError "
                "StorageClosedError StorageError StorageFullError StorageUnavailableError "
                "StoreNotFoundError UnknownFormatError UnknownKindError UnsupportedCapabilityError "
                "WrongEventLoopError"
            ),
            "graph": "Direction RelatedEpisode RelationshipGraph",
            "hookspecs": "CacheFactory StorageFactory WrapperFactory hookimpl",
            "inmemory": "InMemoryStorage",
            "learning": (
                "Calculation Evaluation Learning Recall RecallConfig RecalledEpisode RecalledRule"
            ),
            "memory": "Memory",
            "memory.handing_over": "Handoff",
            "memory.opening": "open_memory open_memory_sync open_storage",
            "memory.synchronous": "SyncMemory",
            "plugins": "PluginInfo PluginRegistry",
            "query": ("Page Query all_of any_of at_least at_most between greater_than less_than"),
            "records": (
                "Acyclic Checkpoint Complexity ContextPattern DecisionPoint Effectiveness "
                "Episode ErrorRecovery Evidence ExecutionStep Feedback Heuristic Index Limits OnDelete "
                "Outcome OutcomeStats OutcomeStatus Pattern PatternType RecallRecord Record RecordTypes "
                "Reference Reflection Relationship RelationshipType ResultStatus RewardScore "
                "SalientFeatures Step StepResult TaskContext TaskType Text ToolSequence Unique "
                "new_id"
            ),
            "storage": (
                "Capability Change ChangeOperation ChangePage CommitResult Delete "
                "Expect ExpectAbsent NamespaceInfo Position Put Receipt Storage StorageContext StorageStats "
                "SupportsBackup SupportsNamespaces WriteBatch"
            ),
        },
    )

__all__ = [
    "Acyclic",
    "Budget",
    "Cache",
    "CacheConfig",
    "CacheEntry",
    "CacheFactory",
    "CacheKey",
    "CacheStats",
    "CachedStorage",
    "Calculation",
    "Capability",
    "Change",
    "ChangeOperation",
    "ChangePage",
    "Checkpoint",
    "CodecError",
    "CommitResult",
    "Complexity",
    "CompressionConfig",
    "ConfigurationError",
    "ConflictError",
    "ContextPattern",
    "CycleError",
    "DecisionPoint",
    "DeclarationChangedError",
    "Delete",
    "Direction",
    "DuplicateError",
    "Effectiveness",
    "EmbedderError",
    "Episode",
    "EpisodeCompleteError",
    "ErrorRecovery",
    "Evaluation",
    "Evidence",
    "ExecutionStep",
    "Expect",
    "ExpectAbsent",
    "Feedback",
    "Handoff",
    "Heuristic",
    "ImportFormatError",
    "InMemoryStorage",
    "Index",
    "InvalidOptionError",
    "InvalidValueError",
    "Learning",
    "Limits",
    "Memory",
    "MemoryCoreError",
    "MigrationNeededError",
    "NamespaceInfo",
    "NotAStoreError",
    "OnDelete",
    "Outcome",
    "OutcomeStats",
    "OutcomeStatus",
    "OutcomeUnknownError",
    "Page",
    "Pattern",
    "PatternType",
    "PluginError",
    "PluginInfo",
    "PluginRegistry",
    "Position",
    "Put",
    "Query",
    "QueryError",
    "ReadOnlyError",
    "Recall",
    "RecallConfig",
    "RecallRecord",
    "RecalledEpisode",
    "RecalledRule",
    "Receipt",
    "Record",
    "RecordNotFoundError",
    "RecordTooLargeError",
    "RecordTypes",
    "Reference",
    "ReferenceNotFoundError",
    "ReferenceRestrictedError",
    "Reflection",
    "RelatedEpisode",
    "Relationship",
    "RelationshipGraph",
    "RelationshipType",
    "ResultStatus",
    "RewardScore",
    "SalientFeatures",
    "SchemaVersionError",
    "Settings",
    "Step",
    "StepResult",
    "Storage",
    "StorageClosedError",
    "StorageContext",
    "StorageError",
    "StorageFactory",
    "StorageFullError",
    "StorageStats",
    "StorageUnavailableError",
    "StoreNotFoundError",
    "SupportsBackup",
    "SupportsNamespaces",
    "SyncMemory",
    "TaskContext",
    "TaskType",
    "Text",
    "ToolSequence",
    "Unique",
    "UnknownFormatError",
    "UnknownKindError",
    "UnsupportedCapabilityError",
    "WrapperFactory",
    "WriteBatch",
    "WrongEventLoopError",
    "all_of",
    "any_of",
    "at_least",
    "at_most",
    "between",
    "greater_than",
    "hookimpl",
    "less_than",
    "load_settings",
    "new_id",
    "open_memory",
    "open_memory_sync",
    "open_storage",
]

_find_moved(__name__, _PATHS, _NAMES)
