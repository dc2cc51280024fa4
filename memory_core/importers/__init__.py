"""Agent transcripts to episodes.

A format is a module in ``formats`` that describes one ``Format``: how a file of it is recognised by its
structure (``sample``), how it is read (``source``, ``reading``, ``fields``) into drafts of episodes
(``draft``, ``chat``, ``content``), and a table of which field becomes what. What is left out or changed
goes to the ``log``, never away in silence. See `docs/importing.md`.
"""

from memory_core.importers.base import Format, FormatImporter, Importer, detect
from memory_core.importers.formats.claude_code import ClaudeCodeImporter
from memory_core.importers.formats.codex import CodexImporter
from memory_core.importers.formats.gemini_cli import GeminiCliImporter
from memory_core.importers.formats.gemini_contents import GeminiContentsImporter
from memory_core.importers.formats.inspect_ai import InspectImporter
from memory_core.importers.formats.mini_swe_agent import MiniSweAgentImporter
from memory_core.importers.formats.openai_chat import OpenAIChatImporter
from memory_core.importers.formats.openhands import OpenHandsImporter
from memory_core.importers.formats.swe_agent import SweAgentImporter
from memory_core.importers.formats.tau2_bench import Tau2BenchImporter
from memory_core.importers.formats.tau_bench import TauBenchImporter

BUILTIN_IMPORTERS: tuple[Importer, ...] = (
    TauBenchImporter(),
    SweAgentImporter(),
    OpenAIChatImporter(),
    ClaudeCodeImporter(),
    CodexImporter(),
    GeminiCliImporter(),
    GeminiContentsImporter(),
    InspectImporter(),
    MiniSweAgentImporter(),
    OpenHandsImporter(),
    Tau2BenchImporter(),
)
"""Every importer of the core."""

__all__ = [
    "BUILTIN_IMPORTERS",
    "ClaudeCodeImporter",
    "CodexImporter",
    "Format",
    "FormatImporter",
    "GeminiCliImporter",
    "GeminiContentsImporter",
    "Importer",
    "InspectImporter",
    "MiniSweAgentImporter",
    "OpenAIChatImporter",
    "OpenHandsImporter",
    "SweAgentImporter",
    "Tau2BenchImporter",
    "TauBenchImporter",
    "detect",
]
