"""The extractors that come with the core; each is one module."""

from memory_core.learning.extracting import Extractor
from memory_core.learning.extractors.context_patterns import ContextPatterns
from memory_core.learning.extractors.decision_points import DecisionPoints
from memory_core.learning.extractors.error_recovery import ErrorRecoveries
from memory_core.learning.extractors.tool_sequences import ToolSequences

__all__ = [
    "BUILTIN_EXTRACTORS",
    "ContextPatterns",
    "DecisionPoints",
    "ErrorRecoveries",
    "ToolSequences",
]

BUILTIN_EXTRACTORS: tuple[Extractor, ...] = (
    ToolSequences(),
    ErrorRecoveries(),
    DecisionPoints(),
    ContextPatterns(),
)
