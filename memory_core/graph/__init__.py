"""Episodes as a graph: traversal, topological order and drawing, over any ``Storage``."""

from typing import TYPE_CHECKING

from memory_core.lazy import lazily as _lazily

if TYPE_CHECKING:
    from memory_core.graph.order import topological_order
    from memory_core.graph.rendering import GraphNode, RelationshipGraph
    from memory_core.graph.traversal import (
        Direction,
        RelatedEpisode,
        find_related,
        relationship_graph,
        relationships_of,
    )
else:
    __getattr__, __dir__ = _lazily(
        __name__,
        {
            "order": "topological_order",
            "rendering": "GraphNode RelationshipGraph",
            "traversal": (
                "Direction RelatedEpisode find_related relationship_graph relationships_of"
            ),
        },
    )

__all__ = [
    "Direction",
    "GraphNode",
    "RelatedEpisode",
    "RelationshipGraph",
    "find_related",
    "relationship_graph",
    "relationships_of",
    "topological_order",
]
