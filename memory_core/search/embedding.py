"""The contract of an embedder: it turns texts into vectors whose direction is their meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, runtime_checkable

from attrs import field, frozen

__all__ = ["Embedder", "Embedders", "Purpose"]

Purpose = Literal["document", "question"]
"""Whether texts are kept and found, or asked: some models embed the two differently."""


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors. It opens nothing before its first use, and belongs to one event loop.

    Its callers send at most some dozens of texts at a time, try again after an error, and remember vectors:
    an embedder need not.
    """

    @property
    def model(self) -> str:
        """The name of the model, with everything that changes its vectors (a number of dimensions, a prefix).
        Vectors of different names are never compared.
        """
        ...

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> Sequence[Sequence[float]]:
        """A vector for each text, in order; all have the same number of dimensions, in every call.

        Their lengths do not matter: the cosine of two vectors is how alike they are. A text that is too long
        for the model counts by its beginning, or as a whole where the model can do that.

        Raises:
            EmbedderError: the model cannot be reached, or refuses.
        """
        ...

    async def aclose(self) -> None:
        """Release everything. Idempotent."""
        ...


@frozen
class Embedders:
    """The embedder that is set, and how to make an earlier one.

    Attributes:
        current: the embedder; shared by all namespaces and closed by its owner.
        described: its name and options as a text, without secrets.
        earlier: the embedder that such a text describes, which may be the current one; ``None`` where it is
            not installed or cannot be made any more. Its owner closes it, too.
    """

    current: Embedder
    described: str
    earlier: Callable[[str], Embedder | None] = field(default=lambda _: None)
