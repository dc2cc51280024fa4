"""The importers of the core, in the order in which formats are detected."""

from __future__ import annotations

from memory_core.importers.base import Importer
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

__all__ = ["BUILTIN_IMPORTERS"]

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
    AnthropicMessagesImporter(),
    LangChainImporter(),
    LangSmithImporter(),
    OpenAIBatchImporter(),
    OpenAIResponsesImporter(),
    ShareGPTImporter(),
    VercelUIImporter(),
    OtelGenAIImporter(),
    AtifImporter(),
    AutoGenImporter(),
)
"""Every importer of the core."""
