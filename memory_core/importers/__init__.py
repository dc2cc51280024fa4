"""Agent transcripts to episodes."""

from memory_core.importers.base import Importer, detect
from memory_core.importers.claude_code import ClaudeCodeImporter
from memory_core.importers.openai_chat import OpenAIChatImporter
from memory_core.importers.swe_agent import SweAgentImporter
from memory_core.importers.tau_bench import TauBenchImporter

BUILTIN_IMPORTERS: tuple[Importer, ...] = (
    TauBenchImporter(),
    SweAgentImporter(),
    OpenAIChatImporter(),
    ClaudeCodeImporter(),
)

__all__ = [
    "BUILTIN_IMPORTERS",
    "ClaudeCodeImporter",
    "Importer",
    "OpenAIChatImporter",
    "SweAgentImporter",
    "TauBenchImporter",
    "detect",
]
