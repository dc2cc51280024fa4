"""Hints where a command finds nothing: a namespace, a value, a format or a variable that may be misspelt.

Hints go to standard error, so that they do not mix with JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from memory_core.cli.streams import warn
from memory_core.config.spelling import nearest, similar
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.storage import Capability, SupportsNamespaces

if TYPE_CHECKING:
    from memory_core.cli.conditions import Conditions
    from memory_core.memory import Memory

__all__ = ["hint_at_conditions", "hint_at_format", "hint_at_namespace", "misspelt_variables"]

_VARIABLES = ("URL", "NAMESPACE", "CACHE", "CONFIG", "BLOCK_PLUGINS", "RUNTIME_DIR")
_LISTED = 5
_SAMPLED = 200


def misspelt_variables(environment: Mapping[str, str]) -> list[str]:
    """Hints about environment variables whose names resemble those of settings. Other variables that
    begin with ``MEMORY_`` may belong to other programs.
    """
    known = [f"MEMORY_{name}" for name in _VARIABLES]
    unknown = sorted(
        name for name in environment if name.startswith("MEMORY_") and name not in known
    )
    close = {name: nearest(name, known, 0.85) for name in unknown}
    return [
        f"the environment variable {name} has no effect; did you mean {found}?"
        for name, found in close.items()
        if found is not None
    ]


def hint_at_format(form: str, known: Sequence[str]) -> str:
    """What is wrong with a name of a format: it is misspelt, or that of a format without an importer."""
    from memory_core.importers.formats.known import KNOWN

    for what in KNOWN:
        names = (word for word in what.split() if "-" in word or not word.islower())
        if form.lower().replace("-", "") in {name.lower().replace("-", "") for name in names}:
            return f"there is no importer for {what}"
    hint = similar(form, known) or f"; known: {', '.join(known)}"
    return f"unknown format {form!r}{hint}"


async def hint_at_namespace(memory: Memory) -> bool:
    """Print a hint if this namespace is empty but others are not. Returns whether it did."""
    if Capability.NAMESPACES not in memory.storage.capabilities:
        return False
    held = [info.name for info in await cast("SupportsNamespaces", memory.storage).namespaces()]
    if not held or memory.namespace in held:
        return False
    listed = ", ".join(held[:_LISTED]) + (", …" if len(held) > _LISTED else "")
    warn(
        f"hint: namespace {memory.namespace!r} holds no record; these do: {listed}"
        f"{similar(memory.namespace, held)}"
    )
    return True


async def hint_at_conditions(memory: Memory, conditions: Conditions) -> None:
    """Print a hint for each value of a search that no episode of the namespace has."""
    options: tuple[tuple[str, str, Iterable[str] | None], ...] = (
        ("--tag", "tags", conditions.tags),
        ("--any-tag", "tags", conditions.any_tags),
        ("--tool", "tools", conditions.tools),
        ("--domain", "domain", conditions.domains),
        ("--language", "language", conditions.languages),
        ("--metadata", "metadata", conditions.metadata),
    )
    for option, index, values in options:
        for value in values or ():
            where: dict[str, Any] = {index: value}
            if not await memory.count(Query(Episode).where(**where)):
                known = await _values(memory, index)
                warn(f"hint: no episode has {option} {value!r}{similar(value, known)}")
    for option in ("since", "until"):
        if given := getattr(conditions, option):
            only: Conditions = type(conditions)(**{option: given})
            if not await memory.count(only.query(), up_to=1):
                await _hint_at_times(memory, f"--{option}")


async def _hint_at_times(memory: Memory, option: str) -> None:
    """Say between which times the episodes began, of which none is beyond that of an option."""
    ends = [
        (
            await memory.query(Query(Episode).order_by("start_time", descending=last).limit(1))
        ).records
        for last in (False, True)
    ]
    if all(ends):
        first, newest = (f"{found[0].start_time:%Y-%m-%d %H:%M}" for found in ends)
        warn(f"hint: {option} leaves nothing: the episodes began from {first} to {newest} (UTC)")


async def _values(memory: Memory, name: str) -> set[str]:
    """Values of an index that the newest episodes have."""
    index = next(item for item in Episode.indexes if item.name == name)
    page = await memory.query(Query(Episode).limit(_SAMPLED))
    found: set[str] = set()
    for episode in page.records:
        value: Any = index.of(episode)
        found.update([value] if isinstance(value, str) else value or ())
    return found
