"""``Asker``: asks an embedder in batches, again after an error, and not at all while it is down."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memory_core.errors import EmbedderError, MemoryCoreError
from memory_core.search.embedding import Embedder, Purpose
from memory_search_vectors.passages import digest_of

__all__ = ["Asker", "Floats"]

Floats = npt.NDArray[np.float32]
_LOG = logging.getLogger("memory_core")
_ATTEMPTS = 3
_FIRST_WAIT = 0.1
_REMEMBERED = 4_096
_LONGEST_PAUSE = 60.0


class Asker:
    """Asks an embedder, and checks its answers.

    After an error that stays, it raises that error for a while without asking: searches need not wait for a
    server that is down. The while doubles, from one second to a minute.

    Args:
        embedder: the embedder.
        batch: how many texts it is sent at a time.
        dimensions: of the vectors that are known; ``None`` if there are none.

    Attributes:
        counters: texts that were embedded (``embedded``) or remembered (``remembered``), and
            failures that stayed (``embedder_failures``).
    """

    def __init__(self, embedder: Embedder, batch: int, dimensions: int | None = None) -> None:
        self.model = embedder.model
        self.dimensions = dimensions
        self.counters = dict.fromkeys(("embedded", "remembered", "embedder_failures"), 0)
        self._embedder = embedder
        self._batch = batch
        self._vectors: OrderedDict[tuple[Purpose, bytes], Floats] = OrderedDict()
        self._error: EmbedderError | None = None
        self._pause = 1.0
        self._until = 0.0

    @property
    def pause(self) -> float:
        """Seconds until it is asked again; 0 if it is not down."""
        return max(0.0, self._until - time.monotonic())

    async def question(self, text: str) -> Floats:
        """The vector of a question, of length 1.

        Raises:
            EmbedderError: there is none.
        """
        return (await self._known([text], "question", 1))[0]

    async def documents(self, texts: Sequence[str]) -> Floats:
        """The vectors of texts, of length 1, as rows.

        Raises:
            EmbedderError: there are none.
        """
        parts = [
            await self._known(texts[start : start + self._batch], "document", _ATTEMPTS)
            for start in range(0, len(texts), self._batch)
        ]
        return np.concatenate(parts)

    async def _known(self, texts: Sequence[str], purpose: Purpose, attempts: int) -> Floats:
        """The vectors of texts; those that are remembered are not asked for."""
        keys: list[tuple[Purpose, bytes]] = [(purpose, digest_of(text)) for text in texts]
        found = {key: self._vectors[key] for key in keys if key in self._vectors}
        self.counters["remembered"] += len(found)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            vectors = await self._asked(list(missing.values()), purpose, attempts)
            found.update(zip(missing, vectors, strict=True))
            self._vectors |= found
            while len(self._vectors) > _REMEMBERED:
                self._vectors.popitem(last=False)
        return np.stack([found[key] for key in keys])

    async def _asked(self, texts: Sequence[str], purpose: Purpose, attempts: int) -> Floats:
        if self._error is not None and self.pause:
            raise self._error
        for attempt in range(1, attempts + 1):
            try:
                answer = await self._embedder.embed(texts, purpose)
                vectors = self._checked(answer, len(texts))
            except Exception as error:  # an embedder of a plugin may raise anything
                if attempt == attempts:
                    raise self._failed(error) from error
                await asyncio.sleep(_FIRST_WAIT * 2**attempt)
            else:
                self._error, self._pause, self._until = None, 1.0, 0.0
                self.counters["embedded"] += len(texts)
                return vectors
        raise AssertionError("there is at least one attempt")

    def _checked(self, answer: Any, texts: int) -> Floats:
        try:
            vectors: Floats = np.asarray(answer, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise EmbedderError(f"{self.model}: vectors of different dimensions") from error
        if vectors.ndim != 2 or len(vectors) != texts or not vectors.shape[1]:
            raise EmbedderError(
                f"{self.model}: expected {texts} vectors, got an array of {vectors.shape}"
            )
        if self.dimensions is not None and vectors.shape[1] != self.dimensions:
            raise EmbedderError(
                f"{self.model}: vectors of {vectors.shape[1]} dimensions; those that are kept have "
                f"{self.dimensions}"
            )
        if not np.isfinite(vectors).all():
            raise EmbedderError(f"{self.model}: a vector with numbers that are not finite")
        self.dimensions = int(vectors.shape[1])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(lengths, np.float32(1e-12))

    def _failed(self, error: Exception) -> EmbedderError:
        said = str(error) if isinstance(error, MemoryCoreError) else f"{self.model}: {error!r}"
        self._error = error if isinstance(error, EmbedderError) else EmbedderError(said)
        self._until = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self.counters["embedder_failures"] += 1
        _LOG.warning("an embedder is left out for %.0f s: %s", self.pause, said)
        return self._error
