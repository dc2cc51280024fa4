"""A graph of episodes as values, and as Mermaid, DOT and JSON."""

from __future__ import annotations

from uuid import UUID

import msgspec
from attrs import frozen

from memory_core.codec.json_objects import record_to_json
from memory_core.records import Episode, OutcomeStatus, Relationship, TaskType

__all__ = ["GraphNode", "RelationshipGraph"]

_LABEL_CHARACTERS = 60
# Mermaid has no escape character, only entity codes. Unlisted characters have no meaning in quoted text.
_MERMAID_SPECIAL = frozenset('"#&;<>[]{}()|\\`')


@frozen
class GraphNode:
    """An episode in a graph.

    Attributes:
        id: the episode's id.
        description: its task description, whole.
        task_type: its task type.
        outcome: how it ended; ``None`` while it is running.
        distance: the number of relationships between it and the nearest root.
    """

    id: UUID
    description: str
    task_type: TaskType
    outcome: OutcomeStatus | None = None
    distance: int = 0

    @classmethod
    def of(cls, episode: Episode, distance: int = 0) -> GraphNode:
        """The node of an episode."""
        outcome = episode.outcome.status if episode.outcome else None
        return cls(episode.id, episode.task_description, episode.task_type, outcome, distance)

    @property
    def label(self) -> str:
        """The description on one line, shortened for drawings."""
        text = " ".join(self.description.split())
        text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
        return text if len(text) <= _LABEL_CHARACTERS else f"{text[: _LABEL_CHARACTERS - 1]}…"


@frozen
class RelationshipGraph:
    """Episodes and the relationships between them.

    Attributes:
        nodes: the episodes, nearest to a root first.
        edges: the relationships, oldest first; both ends of each are among the nodes.
    """

    nodes: tuple[GraphNode, ...]
    edges: tuple[Relationship, ...]

    def to_mermaid(self) -> str:
        """A Mermaid flowchart."""
        names = {node.id: f"n{number}" for number, node in enumerate(self.nodes)}
        lines = ["flowchart LR"]
        lines += [f'    {names[node.id]}["{_mermaid(node.label)}"]' for node in self.nodes]
        lines += [
            f"    {names[edge.from_episode_id]} -->|{edge.relationship_type}| "
            f"{names[edge.to_episode_id]}"
            for edge in self.edges
        ]
        return "\n".join(lines) + "\n"

    def to_dot(self) -> str:
        """A Graphviz digraph; the nodes are named by their ids."""
        lines = ["digraph relationships {", "    rankdir=LR;", "    node [shape=box];"]
        lines += [f'    "{node.id}" [label="{_dot(node.label)}"];' for node in self.nodes]
        lines += [
            f'    "{edge.from_episode_id}" -> "{edge.to_episode_id}" '
            f'[label="{edge.relationship_type}"];'
            for edge in self.edges
        ]
        return "\n".join([*lines, "}"]) + "\n"

    def to_json(self) -> str:
        """A JSON object: ``nodes`` (id, description, task_type, outcome, distance) and ``edges`` (the
        relationships with all their fields).
        """
        nodes = [
            {
                "id": str(node.id),
                "description": node.description,
                "task_type": node.task_type,
                "outcome": node.outcome,
                "distance": node.distance,
            }
            for node in self.nodes
        ]
        edges = [record_to_json(edge) for edge in self.edges]
        return msgspec.json.encode({"nodes": nodes, "edges": edges}).decode()


def _mermaid(text: str) -> str:
    return "".join(f"#{ord(char)};" if char in _MERMAID_SPECIAL else char for char in text)


def _dot(text: str) -> str:
    # Graphviz reads backslash escapes and HTML entities in quoted labels.
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
