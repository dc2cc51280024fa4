"""Agent transcripts to episodes.

A format is a module in ``formats`` that describes one ``Format``: how a file of it is recognised by its
structure (``sample``), how it is read (``source``, ``reading``, ``fields``) into drafts of episodes
(``draft``, ``chat``, ``content``), and a table of which field becomes what. What is left out or changed
goes to the ``log``, never away in silence. See `docs/importing.md`.
"""

from typing import TYPE_CHECKING

from memory_core.lazy import lazily as _lazily

if TYPE_CHECKING:
    from memory_core.importers.base import Format, FormatImporter, Importer, detect
    from memory_core.importers.builtin import BUILTIN_IMPORTERS
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
else:
    __getattr__, __dir__ = _lazily(
        __name__,
        {
            "base": "Format FormatImporter Importer detect",
            "builtin": "BUILTIN_IMPORTERS",
            "formats.claude_code": "ClaudeCodeImporter",
            "formats.codex": "CodexImporter",
            "formats.gemini_cli": "GeminiCliImporter",
            "formats.gemini_contents": "GeminiContentsImporter",
            "formats.inspect_ai": "InspectImporter",
            "formats.mini_swe_agent": "MiniSweAgentImporter",
            "formats.openai_chat": "OpenAIChatImporter",
            "formats.openhands": "OpenHandsImporter",
            "formats.swe_agent": "SweAgentImporter",
            "formats.tau2_bench": "Tau2BenchImporter",
            "formats.tau_bench": "TauBenchImporter",
        },
    )

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
