"""``memory relate`` and ``graph``."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer
from attrs import frozen

from memory_core.cli.commands import command
from memory_core.cli.conditions import pairs
from memory_core.cli.hints import hint_at_namespace
from memory_core.cli.lookup import find_episode
from memory_core.cli.session import Session
from memory_core.graph import Direction
from memory_core.records import Relationship, RelationshipType

__all__ = ["Details", "GraphFormat", "add_commands"]


class GraphFormat(StrEnum):
    """The formats in which a graph is printed."""

    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


def add_commands(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(app, "relate")(relate)
    command(app, "graph")(graph)


@frozen(kw_only=True)
class Details:
    """Optional fields of a relationship."""

    reason: Annotated[str | None, typer.Option(help="Why they are related.")] = None
    created_by: Annotated[str | None, typer.Option(help="Who relates them.")] = None
    priority: Annotated[int | None, typer.Option(min=1, max=10, help="How much it matters.")] = None
    weight: Annotated[float | None, typer.Option(min=0, max=1, help="How strong it is.")] = None
    custom: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A field of your own.")
    ] = None

    def fields(self) -> dict[str, Any]:
        """The fields of a ``Relationship``."""
        return {
            "reason": self.reason,
            "created_by": self.created_by,
            "priority": self.priority,
            "weight": self.weight,
            "custom_fields": pairs(self.custom or (), "--custom"),
        }


async def relate(
    session: Session,
    source: Annotated[str, typer.Argument(metavar="FROM", help="An episode's id.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Another episode's id.")],
    relationship_type: Annotated[
        RelationshipType, typer.Option("--type", help="How FROM relates to TO.")
    ],
    details: Details,
) -> None:
    """Relate two episodes: FROM depends_on TO."""
    async with session.open() as memory:
        start, end = await find_episode(memory, source), await find_episode(memory, target)
        relationship = Relationship(
            from_episode_id=start.id,
            to_episode_id=end.id,
            relationship_type=relationship_type,
            **details.fields(),
        )
        receipt = await memory.add_relationship(relationship)
    if session.as_json:
        from memory_core.codec.json_objects import record_to_json

        shown = {"relationship": record_to_json(relationship), "position": receipt.position}
        session.write_json(shown)
        return
    from memory_core.cli import output

    output.console().print(
        f"{start.id} {relationship_type.value} {end.id}  [dim]{relationship.id}[/dim]"
    )


async def graph(
    session: Session,
    roots: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID]...", help="Where to begin; without ids, all related episodes."
        ),
    ] = None,
    *,
    form: Annotated[GraphFormat, typer.Option("--format", help="How to print it.")] = (
        GraphFormat.MERMAID
    ),
    direction: Annotated[Direction, typer.Option(help="Which relationships to follow.")] = (
        Direction.BOTH
    ),
    relationship_type: Annotated[
        list[RelationshipType] | None,
        typer.Option("--type", help="Only relationships of this type."),
    ] = None,
    depth: Annotated[int, typer.Option(min=0, help="How far to go.")] = 3,
) -> None:
    """Print the graph of relationships."""
    async with session.read() as memory:
        ids = [(await find_episode(memory, root)).id for root in roots or ()]
        found = await memory.relationship_graph(
            ids or None, direction=direction, types=relationship_type or None, max_depth=depth
        )
        if not found.nodes:
            await hint_at_namespace(memory)
    if session.as_json or form is GraphFormat.JSON:
        import msgspec

        session.write_json(msgspec.Raw(found.to_json().encode()))
    else:
        sys.stdout.write(found.to_mermaid() if form is GraphFormat.MERMAID else found.to_dot())
