"""Episodes as a graph: traversal, topological order and drawing, over any ``Storage``."""

from memory_core.graph.order import topological_order
from memory_core.graph.rendering import GraphNode, RelationshipGraph
from memory_core.graph.traversal import (
    Direction,
    RelatedEpisode,
    find_related,
    relationship_graph,
    relationships_of,
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
