"""Search by words: an index follows the change feed, so that a search is as coherent as a read."""

from typing import TYPE_CHECKING

from memory_core.lazy import lazily as _lazily

if TYPE_CHECKING:
    from memory_core.search.analysis import Analyzer
    from memory_core.search.documents import Declarations, Document, DocumentText
    from memory_core.search.embedding import Embedder, Embedders
    from memory_core.search.hits import SearchHit, SearchHits
    from memory_core.search.protocol import Match, Matches, SearchIndex, SearchRequest, Settles
    from memory_core.search.question import Words
    from memory_core.search.reference import ReferenceIndex
    from memory_core.search.searching import Searcher
else:
    __getattr__, __dir__ = _lazily(
        __name__,
        {
            "analysis": "Analyzer",
            "documents": "Declarations Document DocumentText",
            "embedding": "Embedder Embedders",
            "hits": "SearchHit SearchHits",
            "protocol": "Match Matches SearchIndex SearchRequest Settles",
            "question": "Words",
            "reference": "ReferenceIndex",
            "searching": "Searcher",
        },
    )

__all__ = [
    "Analyzer",
    "Declarations",
    "Document",
    "DocumentText",
    "Embedder",
    "Embedders",
    "Match",
    "Matches",
    "ReferenceIndex",
    "SearchHit",
    "SearchHits",
    "SearchIndex",
    "SearchRequest",
    "Searcher",
    "Settles",
    "Words",
]
