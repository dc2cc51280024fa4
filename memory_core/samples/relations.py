"""How the sample episodes relate to each other."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from memory_core.records import Relationship, RelationshipType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from memory_core.records import Episode

__all__ = ["related"]

_NAMESPACE = UUID("c1f6f1de-33a7-5d0e-8a0c-0d7b0c2f5e44")


def related(episodes: Iterable[Episode]) -> list[Relationship]:
    """The relationships of the imported samples; every call returns the same ones, with the same ids.

    Later attempts at a task duplicate the first; sessions of a project follow each other; a subagent is
    a child of its session; a session refers to the bugs that were repaired in its project; and
    incidents of the same domain are related.
    """
    groups: dict[tuple[str, str], list[Episode]] = defaultdict(list)
    for episode in sorted(episodes, key=lambda episode: (episode.start_time, episode.id)):
        for group in _groups(episode):
            groups[group].append(episode)
    return [edge for (kind, _), members in groups.items() for edge in _edges(kind, members)]


def _groups(episode: Episode) -> Iterator[tuple[str, str]]:
    metadata = episode.metadata
    if "trial" in metadata:
        yield "task", metadata["task_id"]
    if "session_id" in metadata:
        yield "session", metadata["session_id"]
    project = metadata.get("project") or metadata.get("environment")
    if project and "agent_id" not in metadata:
        yield "project", project
    if metadata.get("source") == "openai-chat":
        yield "domain", episode.context.domain


def _edges(kind: str, members: list[Episode]) -> Iterator[Relationship]:
    if kind == "task":
        for again in members[1:]:
            yield _edge(
                again, members[0], RelationshipType.DUPLICATES, "another try of the same task"
            )
    elif kind == "session":
        agents = [member for member in members if "agent_id" in member.metadata]
        for parent in members:
            for agent in agents if parent not in agents else ():
                yield _edge(parent, agent, RelationshipType.PARENT_CHILD, "explored for it")
    elif kind == "project":
        for earlier, later in pairwise(members):
            sessions = earlier.metadata["source"] == later.metadata["source"]
            relation = RelationshipType.FOLLOWS if sessions else RelationshipType.REFERENCES
            yield _edge(later, earlier, relation, "the same project")
    else:
        for earlier, later in pairwise(members):
            yield _edge(later, earlier, RelationshipType.RELATED_TO, "the same domain", weight=0.5)


def _edge(
    source: Episode,
    target: Episode,
    relation: RelationshipType,
    reason: str,
    *,
    weight: float | None = None,
) -> Relationship:
    return Relationship(
        id=uuid5(_NAMESPACE, f"{source.id} {relation} {target.id}"),
        from_episode_id=source.id,
        to_episode_id=target.id,
        relationship_type=relation,
        reason=reason,
        weight=weight,
        created_by="samples",
        created_at=max(source.start_time, target.start_time),
    )
