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
    from memory_core.importers.formats.anthropic_messages import AnthropicMessagesImporter
    from memory_core.importers.formats.atif import AtifImporter
    from memory_core.importers.formats.autogen import AutoGenImporter
    from memory_core.importers.formats.claude_code import ClaudeCodeImporter
    from memory_core.importers.formats.codex import CodexImporter
    from memory_core.importers.formats.gemini_cli import GeminiCliImporter
    from memory_core.importers.formats.gemini_contents import GeminiContentsImporter
    from memory_core.importers.formats.inspect_ai import InspectImporter
    from memory_core.importers.formats.langchain import LangChainImporter
    from memory_core.importers.formats.langsmith import LangSmithImporter
    from memory_core.importers.formats.mini_swe_agent import MiniSweAgentImporter
    from memory_core.importers.formats.openai_batch import OpenAIBatchImporter
    from memory_core.importers.formats.openai_chat import OpenAIChatImporter
    from memory_core.importers.formats.openai_responses import OpenAIResponsesImporter
    from memory_core.importers.formats.openhands import OpenHandsImporter
    from memory_core.importers.formats.otel_genai import OtelGenAIImporter
    from memory_core.importers.formats.sharegpt import ShareGPTImporter
    from memory_core.importers.formats.swe_agent import SweAgentImporter
    from memory_core.importers.formats.tau2_bench import Tau2BenchImporter
    from memory_core.importers.formats.tau_bench import TauBenchImporter
    from memory_core.importers.formats.vercel_ui import VercelUIImporter
    from memory_core.importers.importing import import_file
    from memory_core.importers.storing import FileReport
else:
    __getattr__, __dir__ = _lazily(
        __name__,
        {
            "base": "Format FormatImporter Importer detect",
            "builtin": "BUILTIN_IMPORTERS",
            "formats.anthropic_messages": "AnthropicMessagesImporter",
            "formats.atif": "AtifImporter",
            "formats.autogen": "AutoGenImporter",
            "formats.claude_code": "ClaudeCodeImporter",
            "formats.codex": "CodexImporter",
            "formats.gemini_cli": "GeminiCliImporter",
            "formats.gemini_contents": "GeminiContentsImporter",
            "formats.inspect_ai": "InspectImporter",
            "formats.langchain": "LangChainImporter",
            "formats.langsmith": "LangSmithImporter",
            "formats.mini_swe_agent": "MiniSweAgentImporter",
            "formats.openai_batch": "OpenAIBatchImporter",
            "formats.openai_chat": "OpenAIChatImporter",
            "formats.openai_responses": "OpenAIResponsesImporter",
            "formats.openhands": "OpenHandsImporter",
            "formats.otel_genai": "OtelGenAIImporter",
            "formats.sharegpt": "ShareGPTImporter",
            "formats.swe_agent": "SweAgentImporter",
            "formats.tau2_bench": "Tau2BenchImporter",
            "formats.tau_bench": "TauBenchImporter",
            "formats.vercel_ui": "VercelUIImporter",
            "importing": "import_file",
            "storing": "FileReport",
        },
    )

__all__ = [
    "BUILTIN_IMPORTERS",
    "AnthropicMessagesImporter",
    "AtifImporter",
    "AutoGenImporter",
    "ClaudeCodeImporter",
    "CodexImporter",
    "FileReport",
    "Format",
    "FormatImporter",
    "GeminiCliImporter",
    "GeminiContentsImporter",
    "Importer",
    "InspectImporter",
    "LangChainImporter",
    "LangSmithImporter",
    "MiniSweAgentImporter",
    "OpenAIBatchImporter",
    "OpenAIChatImporter",
    "OpenAIResponsesImporter",
    "OpenHandsImporter",
    "OtelGenAIImporter",
    "ShareGPTImporter",
    "SweAgentImporter",
    "Tau2BenchImporter",
    "TauBenchImporter",
    "VercelUIImporter",
    "detect",
    "import_file",
]
