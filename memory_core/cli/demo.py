"""``memory demo``: import, relate, copy, verify and query sample transcripts in one command."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias
from urllib.parse import quote

import typer
from attrs import define, field

from memory_core.cli import cells
from memory_core.cli.commands import command
from memory_core.cli.failures import WorkFailedError
from memory_core.cli.files import copy_json, verify_json
from memory_core.cli.imports import FileReport, import_file
from memory_core.cli.session import Session
from memory_core.cli.streams import say
from memory_core.errors import ConfigurationError
from memory_core.graph import find_related
from memory_core.importers import detect
from memory_core.memory import Memory
from memory_core.memory.opening import open_storage
from memory_core.plugins import PluginRegistry
from memory_core.query import Query, at_least, between
from memory_core.records import Episode, OutcomeStatus, Relationship
from memory_core.storage import Storage

if TYPE_CHECKING:
    from memory_core.transfer import CopyReport, VerifyReport

__all__ = ["add_commands"]

_STORES = {"turso": "memory.db", "lmdb": "memory.lmdb"}
_MARK = "memory-demo.txt"
_MANY = 1_000

Question: TypeAlias = Callable[[Storage], Awaitable[list[Any]]]


@define
class _Demo:
    """The demo's results and timings.

    Attributes:
        seconds: the time that each part took.
        files: the imported files.
        relationships: the number of stored relationships.
        outcomes: episodes by outcome.
        questions: for each query its description, the number of records found, the seconds by backend,
            and whether all backends found the same.
    """

    seconds: dict[str, float] = field(factory=dict[str, float])
    files: list[FileReport] = field(factory=list[FileReport])
    relationships: int = 0
    outcomes: Counter[str] = field(factory=Counter[str])
    questions: list[tuple[str, int, dict[str, float], bool]] = field(
        factory=list[tuple[str, int, dict[str, float], bool]]
    )
    copied: CopyReport | None = None
    verified: VerifyReport | None = None

    @contextmanager
    def timed(self, part: str) -> Generator[None]:
        """Measure how long a part takes."""
        start = perf_counter()
        yield
        self.seconds[part] = perf_counter() - start

    @property
    def ok(self) -> bool:
        """Whether both stores hold the same records and give the same answers."""
        same = all(agreed for *_, agreed in self.questions)
        return same and self.verified is not None and self.verified.ok


def add_commands(app: typer.Typer) -> None:
    """Add the command to an application."""
    command(app, "demo")(demo)


async def demo(
    session: Session,
    *,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the transcripts and stores in this folder.")
    ] = None,
) -> None:
    """Show what memory-core does, with sample transcripts.

    Imports sample transcripts, relates them, copies them from one embedded backend to the other, verifies
    the copy, and runs the same queries on both. Needs no configuration and leaves no files.
    """
    given = {"--url": session.url, "--namespace": session.namespace, "--config": session.config}
    for option, value in given.items():
        if value is not None:
            raise ConfigurationError(
                f"the demo uses its own stores and takes no {option}; --keep DIR keeps them"
            )
    # Not `session.registry`, which reads the settings.
    registry = session.loaded or PluginRegistry()
    if keep is not None:
        _claim(keep)
        result = await _run(keep, registry)
    else:
        with tempfile.TemporaryDirectory(prefix="memory-demo-") as folder:
            result = await _run(Path(folder), registry)
    if session.as_json:
        session.write_json(_json(result, keep))
    else:
        _print(result, keep)
    if not result.ok:
        raise WorkFailedError("the backends do not agree")


def _claim(folder: Path) -> None:
    """Mark a folder as the demo's.

    Raises:
        ConfigurationError: the folder cannot be written, or holds files that no earlier demo wrote.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / _MARK).exists() and any(folder.iterdir()):
            raise ConfigurationError(
                f"{folder}: holds files that are not a demo's; name a new folder"
            )
        (folder / _MARK).write_text("`memory demo` made this folder.\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{folder}: {error.strerror or error}") from error


async def _run(folder: Path, registry: PluginRegistry) -> _Demo:
    from memory_core.samples import write_samples
    from memory_core.transfer import copy_records, verify_records

    result = _Demo()
    with result.timed("write sample transcripts"):
        paths = write_samples(folder / "transcripts")
    stores: dict[str, Storage] = {}
    try:
        for scheme, name in _STORES.items():
            with result.timed(f"open {scheme}"):
                url = f"{scheme}:{quote(str(folder / name))}"
                stores[scheme] = await open_storage(url, registry=registry)
        await _fill(stores["turso"], paths, registry, result)
        with result.timed("copy turso to lmdb"):
            result.copied = await copy_records(
                stores["turso"], stores["lmdb"], registry.record_types
            )
        with result.timed("verify the copy"):
            result.verified = await verify_records(
                stores["turso"], stores["lmdb"], registry.record_types
            )
        await _ask(stores, result)
    finally:
        for storage in stores.values():
            await storage.aclose()
    return result


async def _fill(
    storage: Storage, paths: Sequence[Path], registry: PluginRegistry, result: _Demo
) -> None:
    from memory_core.samples import related

    memory = Memory(storage)
    with result.timed("import into turso"):
        for path in paths:
            importer = detect(path, registry.importers.values())
            result.files.append(await import_file(memory, path, importer))
    with result.timed("relate the episodes"):
        episodes = [episode async for episode in memory.iter_episodes()]
        # The import has already related subagents to their sessions.
        known = (await storage.query(Query(Relationship).limit(_MANY))).records
        ends = {(*_ends(edge), edge.relationship_type) for edge in known}
        more = [e for e in related(episodes) if (*_ends(e), e.relationship_type) not in ends]
        await memory.put(*more)
    result.relationships = len(known) + len(more)
    result.outcomes.update(
        episode.outcome.status.value if episode.outcome else "none" for episode in episodes
    )


async def _ask(stores: dict[str, Storage], result: _Demo) -> None:
    """Run the same queries on every store, and compare the answers."""
    for text, question in await _questions(stores["turso"]):
        seconds: dict[str, float] = {}
        answers: list[list[Any]] = []
        for scheme, storage in stores.items():
            start = perf_counter()
            answers.append(await question(storage))
            seconds[scheme] = perf_counter() - start
        same = all(answer == answers[0] for answer in answers)
        result.questions.append((text, len(answers[0]), seconds, same))


async def _questions(storage: Storage) -> list[tuple[str, Question]]:
    """Queries about the sample episodes, each with its description."""
    episodes = (await storage.query(Query(Episode).limit(_MANY))).records
    edges = (await storage.query(Query(Relationship).limit(_MANY))).records
    tools = Counter(tool for episode in episodes for tool in set(episode.tools))
    tags = Counter(tag for episode in episodes for tag in episode.tags)
    sources = Counter(f"source={episode.metadata.get('source')}" for episode in episodes)
    times = sorted(episode.start_time for episode in episodes)
    first, last = times[len(times) // 4], times[len(times) * 3 // 4]
    hub, _ = Counter(end for edge in edges for end in _ends(edge)).most_common(1)[0]
    found: list[tuple[str, dict[str, Any]]] = [
        ("ended in success", {"outcome": OutcomeStatus.SUCCESS}),
        ("ended in failure", {"outcome": OutcomeStatus.FAILURE}),
        (f"began {first:%Y-%m-%d} to {last:%Y-%m-%d}", {"start_time": between(first, last)}),
        ("reward of at least 0.5", {"reward": at_least(0.5)}),
    ]
    for index, word, counted in (
        ("tools", "used the tool", tools),
        ("tags", "tagged", tags),
        ("metadata", "metadata", sources),
    ):
        found += [(f"{word} {name}", {index: name}) for name, _ in counted.most_common(1)]
    questions = [(text, _asking(conditions)) for text, conditions in found]

    async def around(asked: Storage) -> list[Any]:
        return await find_related(asked, hub, max_depth=2)

    return [*questions, ("related to the busiest episode within 2 steps", around)]


def _asking(conditions: dict[str, Any]) -> Question:
    query = Query(Episode).where(**conditions).limit(_MANY)

    async def ask(storage: Storage) -> list[Any]:
        return list((await storage.query(query)).records)

    return ask


def _ends(edge: Relationship) -> tuple[Any, Any]:
    return edge.from_episode_id, edge.to_episode_id


def _json(result: _Demo, keep: Path | None) -> dict[str, Any]:
    return {
        "ok": result.ok,
        "folder": None if keep is None else str(keep),
        "episodes": sum(report.stored + report.unchanged for report in result.files),
        "relationships": result.relationships,
        "outcomes": dict(result.outcomes),
        "files": [
            {"file": Path(report.file).name, "format": report.format, "stored": report.stored}
            for report in result.files
        ],
        "queries": [
            {"what": text, "found": count, "seconds": seconds, "same": same}
            for text, count, seconds, same in result.questions
        ],
        "copy": copy_json(result.copied) if result.copied else None,
        "verified": verify_json(result.verified) if result.verified else None,
        "seconds": result.seconds,
    }


def _print(result: _Demo, keep: Path | None) -> None:
    from memory_core.cli import output

    console = output.console()
    reports = [(item, item.stored + item.unchanged) for item in result.files]
    rows = [(Path(item.file).name, item.format, episodes) for item, episodes in reports]
    columns = ["file", "format", ("episodes", cells.RIGHT)]
    console.print(output.table("1  Sample transcripts imported", columns, rows))
    outcomes = ", ".join(
        f"{count} {'no outcome' if name == 'none' else name}"
        for name, count in result.outcomes.most_common()
    )
    total = sum(episodes for _, episodes in reports)
    console.print(
        f"{total} episodes ({outcomes}), {result.relationships} relationships between them\n"
    )
    if result.copied and result.verified:
        copied = sum(result.copied.copied.values()) + sum(result.copied.unchanged.values())
        equal = sum(result.verified.equal.values())
        differ = sum(result.verified.counts.values())
        console.print("[bold]2  Copied from turso to lmdb and compared[/bold]")
        console.print(f"{copied} records copied; {equal} equal in both, {differ} different\n")
    console.print(_questions_table(result))
    console.print()
    parts = [(part, cells.number(seconds * 1000, 1)) for part, seconds in result.seconds.items()]
    console.print(output.table("4  How long it took", ["part", ("ms", cells.RIGHT)], parts))
    if keep is not None:
        url = f"turso:{quote(str(keep / _STORES['turso']))}"
        console.print()
        say(f"kept in {keep}; look at it with: memory list --url {url}")


def _questions_table(result: _Demo) -> Any:
    from memory_core.cli import output

    names = ("found", *(f"{name} ms" for name in _STORES))
    columns = ["question", *((name, cells.RIGHT) for name in names), "same"]
    rows = [
        (
            text,
            count,
            *(seconds[name] * 1000 for name in _STORES),
            "yes" if same else output.plain("NO", "red"),
        )
        for text, count, seconds, same in result.questions
    ]
    return output.table("3  Queries on both embedded backends", columns, rows)
