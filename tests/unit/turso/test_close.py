"""An error while one part is closed does not keep the other parts open."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory_core.records import Heuristic
from memory_core.storage import WriteBatch
from memory_storage_turso import TursoStorage
from tests.integration.turso.leaks import nothing_left


async def fail() -> None:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("part", ["writer", "reader", "dictionaries", "driver.checkpoints"])
async def test_the_other_parts_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    async with nothing_left():
        store = await TursoStorage.open(str(tmp_path / "mem.db"))
        record = Heuristic(condition="if", action="then", confidence=0.5)
        await store.commit([WriteBatch().put(record)])
        await store.get(Heuristic, [record.id])
        shared = store._shared
        broken = {
            "writer": shared.writer,
            "reader": shared.reader,
            "dictionaries": shared.dictionaries,
            "driver.checkpoints": shared.driver._checkpoints,  # pyright: ignore[reportAttributeAccessIssue] - a local one
        }[part]
        monkeypatch.setattr(broken, "aclose", fail)
        with pytest.raises(RuntimeError, match="a bug"):
            await store.aclose()
