"""Find records by an id, or by the beginning of one where it is unique."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from memory_core.cli.failures import WorkFailedError
from memory_core.cli.hints import hint_at_namespace
from memory_core.memory import Memory
from memory_core.query import Query
from memory_core.records import Episode, Record, RecordTypes

__all__ = ["find_episode", "find_record", "prefix_range"]

_DIGITS = 32
_SHOWN = 5


async def find_record(memory: Memory, types: RecordTypes, text: str) -> Record:
    """Find the only record, of any kind, whose id begins with a text.

    Raises:
        WorkFailedError: no record matches, or more than one does; the message lists some.
    """
    kinds = sorted(types.kinds, key=lambda kind: kind != Episode.kind)
    return await _only(memory, [types.cls(kind) for kind in kinds], text, "record")


async def find_episode(memory: Memory, text: str) -> Episode:
    """Find the only episode whose id begins with a text. Raises like ``find_record``."""
    found = await _only(memory, [Episode], text, "episode")
    assert isinstance(found, Episode)  # noqa: S101  # the query asks for no other kind
    return found


def prefix_range(text: str) -> tuple[UUID, UUID] | None:
    """The smallest and the largest id that begin with a text; ``None`` if no id can."""
    digits = text.strip().lower().replace("-", "")
    if not digits or len(digits) > _DIGITS or set(digits) - set("0123456789abcdef"):
        return None
    return UUID(digits.ljust(_DIGITS, "0")), UUID(digits.ljust(_DIGITS, "f"))


async def _only(memory: Memory, classes: Iterable[type[Record]], text: str, what: str) -> Record:
    bounds = prefix_range(text)
    if bounds is None:
        raise WorkFailedError(f"{text!r} is neither an id nor the beginning of one")
    found: list[Record] = []
    for cls in classes:
        found += await _between(memory, cls, *bounds)
        if found and bounds[0] == bounds[1]:
            break
    if not found:
        await hint_at_namespace(memory)
        raise WorkFailedError(f"no {what} {text} in namespace {memory.namespace!r}")
    if len(found) > 1:
        shown = ", ".join(f"{record.kind} {record.id}" for record in found[:_SHOWN])
        raise WorkFailedError(
            f"{text} is not unique: {shown}{', …' if len(found) > _SHOWN else ''}"
        )
    return found[0]


async def _between(memory: Memory, cls: type[Record], low: UUID, high: UUID) -> list[Record]:
    """A few records of a kind with ids in a range, from a page in the order of ids."""
    if low == high:
        return [record for record in [await memory.get(cls, low)] if record is not None]
    query = Query(cls).order_by("id").limit(_SHOWN + 1)
    if low.int:
        query = query.after(query.cursor(None, UUID(int=low.int - 1)))
    page = await memory.query(query)
    return [record for record in page.records if record.id.int <= high.int]
