"""Agent transcripts to episodes.

A format is a module in ``formats`` that describes one ``Format``: how a file of it is recognised by its
structure (``sample``), how it is read (``source``, ``reading``, ``fields``) into drafts of episodes
(``draft``, ``chat``, ``content``), and a table of which field becomes what. What is left out or changed
goes to the ``log``, never away in silence. See `docs/importing.md`.
"""

from memory_core.importers.base import Format, FormatImporter, Importer, detect
from memory_core.importers.formats.claude_code import ClaudeCodeImporter
from memory_core.importers.formats.openai_chat import OpenAIChatImporter
from memory_core.importers.formats.swe_agent import SweAgentImporter
from memory_core.importers.formats.tau_bench import TauBenchImporter

BUILTIN_IMPORTERS: tuple[Importer, ...] = (
    TauBenchImporter(),
    SweAgentImporter(),
    OpenAIChatImporter(),
    ClaudeCodeImporter(),
)
"""Every importer of the core."""

__all__ = [
    "BUILTIN_IMPORTERS",
    "ClaudeCodeImporter",
    "Format",
    "FormatImporter",
    "Importer",
    "OpenAIChatImporter",
    "SweAgentImporter",
    "TauBenchImporter",
    "detect",
]
