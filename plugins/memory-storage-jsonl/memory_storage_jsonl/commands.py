"""``memory jsonl``: the commands of this backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from memory_core.cli.commands import Group, command
from memory_core.cli.failures import WorkFailedError
from memory_core.cli.session import Session
from memory_core.cli.streams import safe, say
from memory_core.config import StorageURL
from memory_core.errors import ConfigurationError

if TYPE_CHECKING:
    from memory_storage_jsonl.repair import Repair

__all__ = ["app"]

_SHOWN = 20
_WIDTH = 100

app = typer.Typer(cls=Group, help="Repair a JSON-lines store.", no_args_is_help=True)


# A group of one command is that command, unless it has a callback.
@app.callback()
def group() -> None:
    """Repair a JSON-lines store."""


def repair_store(
    session: Session,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Write what can be kept, and keep a copy.")
    ] = False,
) -> None:
    """Say what can be kept of a damaged store, and write it with --yes.

    Every commit that is whole is kept. Of others, each line that can be read is.
    """
    from memory_core.storage import local_path
    from memory_storage_jsonl.repair import repair

    url = StorageURL.parse(session.settings.url)
    if url.scheme != "jsonl":
        raise ConfigurationError(f"{session.settings.url} is not a JSON-lines store (jsonl:PATH)")
    found = repair(local_path(url.location), session.types, write=yes)
    if session.as_json:
        session.write_json(
            {
                "path": str(found.path),
                "is_damaged": found.is_damaged,
                "commits": found.commits,
                "records": found.records,
                "unchecked_lines": found.unchecked,
                "dropped": [
                    {
                        "line": item.line or None,
                        "reason": item.reason,
                        "content": item.content.decode(errors="replace"),
                    }
                    for item in found.dropped
                ],
                "copy": None if found.copy is None else str(found.copy),
            }
        )
    else:
        _show(found)
    if found.is_damaged and found.copy is None:
        raise WorkFailedError("nothing was changed; --yes writes what can be kept")


def _show(found: Repair) -> None:
    path = safe(str(found.path))
    say(f"{path}: {found.commits:,} whole commits; {found.records:,} records can be kept")
    if found.unchecked:
        lines = ", ".join(map(str, found.unchecked[:_SHOWN]))
        more = ", …" if len(found.unchecked) > _SHOWN else ""
        say(f"kept, but the checksum of their commit does not match: lines {lines}{more}")
    for item in found.dropped[:_SHOWN]:
        place = f"line {item.line}" if item.line else "a record"
        text = item.content.decode(errors="replace").strip()
        say(f"dropped: {place}: {safe(item.reason)}: {safe(text[:_WIDTH])}")
    if len(found.dropped) > _SHOWN:
        say(f"dropped: {len(found.dropped) - _SHOWN:,} more; --json lists them")
    if found.copy is not None:
        say(f"repaired; {safe(str(found.copy))} is the store as it was")
    elif not found.is_damaged:
        say("the store opens as it is")


command(app, "repair")(repair_store)
