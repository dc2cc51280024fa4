"""The store of ``memory dashboard --demo``: the samples of ``memory demo``, and what is learned from them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from memory_core.cli.imports import import_file
from memory_core.importers import detect
from memory_core.memory.opening import open_memory
from memory_core.plugins import PluginRegistry
from memory_core.query import Query
from memory_core.records import Outcome, Relationship
from memory_core.samples import related, write_samples

__all__ = ["make_demo"]

_TASKS = (
    ("a customer wants to close an account", True),
    ("a test fails only sometimes", False),
)


async def make_demo(folder: Path, registry: PluginRegistry) -> str:
    """Make a store of the sample transcripts in a folder; return its URL."""
    url = f"turso:{quote(str(folder / 'memory.db'))}"
    async with open_memory(url, registry=registry, namespace="default", cache=None) as memory:
        for path in write_samples(folder / "transcripts"):
            await import_file(memory, path, detect(path, registry.importers.values()))
        episodes = [episode async for episode in memory.iter_episodes()]
        known = (await memory.query(Query(Relationship).limit(1_000))).records
        ends = {(e.from_episode_id, e.to_episode_id, e.relationship_type) for e in known}
        more = [
            edge
            for edge in related(episodes)
            if (edge.from_episode_id, edge.to_episode_id, edge.relationship_type) not in ends
        ]
        await memory.put(*more)
        await memory.learn(min_support=3)
        for task, helped in _TASKS:
            recall = await memory.recall(task)
            used = [item.id for item in recall.worked[:1]]
            outcome = Outcome.success("done") if helped else Outcome.failure("nothing helped")
            await memory.feedback(recall, used=used, outcome=outcome)
    return url
