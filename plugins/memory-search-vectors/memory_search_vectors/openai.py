"""An embedder of any server with OpenAI's interface for embeddings: ``POST BASE_URL/embeddings``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import msgspec
from attrs import field, frozen

from memory_core.config.validators import at_least, instance_of, optional, positive
from memory_core.errors import ConfigurationError, EmbedderError, PluginError
from memory_core.plugins import install_command
from memory_core.search.embedding import Purpose

__all__ = ["OpenAIConfig", "OpenAIEmbedder"]

_KEY = "OPENAI_API_KEY"
_SHOWN = 200


@frozen(kw_only=True)
class OpenAIConfig:
    """The options of the embedder.

    Attributes:
        model: the model's name, as the server knows it.
        base_url: where the server is.
        api_key: the key; by default the environment variable ``OPENAI_API_KEY``.
        dimensions: of the vectors, for models that can shorten them; 0 for those the model has.
        question_prefix: what stands before a question, for models that ask for it (``query: ``).
        document_prefix: what stands before a text that is kept (``passage: ``).
        timeout: seconds for one answer.
    """

    model: str = field(default="text-embedding-3-small", validator=instance_of(str))
    base_url: str = field(default="https://api.openai.com/v1", validator=instance_of(str))
    api_key: str | None = field(default=None, validator=optional(instance_of(str)), repr=False)
    dimensions: int = field(default=0, validator=at_least(0, whole=True))
    question_prefix: str = field(default="", validator=instance_of(str))
    document_prefix: str = field(default="", validator=instance_of(str))
    timeout: float = field(default=10.0, validator=positive)


class _Item(msgspec.Struct):
    embedding: list[float]
    index: int = -1


class _Answer(msgspec.Struct):
    data: list[_Item]


class OpenAIEmbedder:
    """Asks a server; see ``Embedder``."""

    def __init__(self, config: OpenAIConfig) -> None:
        self._config = config
        self._session: Any = None

    @classmethod
    def create(cls, *, config: OpenAIConfig) -> OpenAIEmbedder:
        """An embedder, which connects when it is first used.

        Raises:
            ConfigurationError: ``base_url`` is not a URL of HTTP.
            PluginError: aiohttp is not installed.
        """
        if not config.base_url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"embedder.base_url: expected http://… or https://…, got {config.base_url!r}"
            )
        if find_spec("aiohttp") is None:
            command = install_command("memory-search-vectors", extra="openai")
            raise PluginError(f"the embedder 'openai' needs aiohttp; install it with: {command}")
        return cls(config)

    @property
    def model(self) -> str:
        """See ``Embedder.model``."""
        config = self._config
        parts = (config.model, config.dimensions, config.question_prefix, config.document_prefix)
        return "openai:" + "|".join(map(str, parts)).rstrip("|")

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> Sequence[Sequence[float]]:
        """See ``Embedder.embed``."""
        config = self._config
        prefix = config.question_prefix if purpose == "question" else config.document_prefix
        body: dict[str, Any] = {
            "model": config.model,
            # Servers refuse a text of blanks, and halves of surrogate pairs are no UTF-8.
            "input": [
                (prefix + text).encode("utf-8", "replace").decode() if text.strip() else "-"
                for text in texts
            ],
            "encoding_format": "float",
        }
        if config.dimensions:
            body["dimensions"] = config.dimensions
        raw = await self._post(msgspec.json.encode(body))
        try:
            data = msgspec.json.decode(raw, type=_Answer).data
        except msgspec.MsgspecError as error:
            raise EmbedderError(
                f"{config.base_url}: not an answer with embeddings: {error}"
            ) from error
        if all(item.index >= 0 for item in data):
            data.sort(key=lambda item: item.index)
        return [item.embedding for item in data]

    async def aclose(self) -> None:
        """See ``Embedder.aclose``."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, body: bytes) -> bytes:
        import aiohttp

        config = self._config
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=config.timeout)
            )
        headers = {"Content-Type": "application/json"}
        if key := config.api_key or os.environ.get(_KEY):
            headers["Authorization"] = f"Bearer {key}"
        url = f"{config.base_url.rstrip('/')}/embeddings"
        try:
            async with self._session.post(url, data=body, headers=headers) as response:
                raw: bytes = await response.read()
                status: int = response.status
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise EmbedderError(f"{config.base_url}: cannot be reached: {error!r}") from error
        if status != 200:
            said = raw[:_SHOWN].decode("utf-8", "replace")
            raise EmbedderError(f"{config.base_url}: refused with status {status}: {said}")
        return raw
