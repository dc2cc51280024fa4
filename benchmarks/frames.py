"""How many Python functions a put and an uncached get pass, by backend.

    python -m benchmarks.frames [--json] [--list] [--dir FOLDER] [SCHEME ...]

Two numbers for each call, both from `sys.setprofile` on every thread:

- **path**: the functions between the caller and the storage engine. It starts at the method of `Memory` and
  ends at the deepest call into the engine (`sqlite3`, `lmdb`, the log file's `write`, the reference model).
  It follows the call over tasks, callbacks of the event loop and threads; the loop of a worker's thread
  counts, too. For a get the functions that bring the answer back count as well, down to `Codec.decode`. A
  function that has returned before the engine is called, such as a check or the encoding, does not count.
- **calls**: all functions entered until the call returns, whatever they do.

Only functions of this project and of aiosqlite count, and each call once, however often it is resumed.
The numbers are exact for one version of Python, and do not depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.workload import episode
from memory_core import open_memory

SCHEMES = ("turso", "lmdb", "jsonl", "inmemory")
_OURS = ("memory_core", "memory_storage_", "aiosqlite")
_PAUSE = 0.6
"""Seconds after which a store has written the index entries that it put off."""


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    # attrs and cattrs say in the file's name whose methods they have generated.
    return name.startswith(_OURS) if name else any(one in frame.f_code.co_filename for one in _OURS)


def _is_engine(function: Any) -> bool:
    """Whether a function written in C belongs to a storage engine."""
    if function in (os.write, os.pwrite):
        return True
    owner: type[object] = type(getattr(function, "__self__", None))
    if issubclass(owner, sqlite3.Cursor | sqlite3.Connection):
        return function.__name__.startswith("execute")
    return owner.__module__ == "builtins" and owner.__name__ in ("Cursor", "Transaction")


class Recorder:
    """Records the functions that one call enters, and which of them led to which."""

    def __init__(self) -> None:
        self._current: ContextVar[FrameType | None] = ContextVar("frame", default=None)
        self._active = False
        self._clear()

    def _clear(self) -> None:
        self._events = 0
        self._parents: dict[FrameType, FrameType | None] = {}
        self._entered: dict[FrameType, int] = {}
        self._left: dict[FrameType, int] = {}
        self._threads: dict[FrameType, int] = {}
        self._engine: list[FrameType] = []
        self._model: list[FrameType] = []
        self._codec: list[FrameType] = []

    async def record(self, call: Callable[[], Awaitable[object]]) -> None:
        """Run a call and record it."""
        self._clear()
        self._active = True
        try:
            await call()
        finally:
            self._active = False

    @property
    def calls(self) -> int:
        """How many functions were entered."""
        return len(self._entered)

    def path(self) -> list[FrameType]:
        """The functions on the way to the engine and back, in the order in which they were entered."""
        # The model is what answers only where there is no other engine: `jsonl:` has it beside its log.
        ends = self._engine or self._model
        nothing: list[FrameType] = []
        there = max(map(self._chain, ends), key=len, default=nothing)
        back = max(map(self._chain, self._codec), key=len, default=nothing)
        return list(dict.fromkeys([*there, *back]))

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        """To be set by `sys.setprofile` and `threading.setprofile`."""
        if not self._active:
            return
        self._events += 1
        if event == "c_call" and _is_engine(argument):
            caller = self._inner(frame)
            if caller is not None:
                self._engine.append(caller)
        elif event == "call" and _is_ours(frame):
            self._enter(frame)
        elif event == "return" and frame in self._entered:
            self._left[frame] = self._events
            self._current.set(self._parents[frame])

    def _enter(self, frame: FrameType) -> None:
        self._threads[frame] = threading.get_ident()
        if frame not in self._entered:
            self._entered[frame] = self._events
            outer = self._inner(frame.f_back)
            # A task and a callback have the context of the function that scheduled them.
            self._parents[frame] = self._current.get() if outer is None else outer
            if frame.f_code.co_qualname == "Codec.decode":
                self._codec.append(frame)
            if frame.f_code.co_qualname.startswith("Model."):
                self._model.append(frame)
        self._current.set(frame)

    def _chain(self, end: FrameType) -> list[FrameType]:
        found: list[FrameType] = []
        frame: FrameType | None = end
        while frame is not None:
            found.append(frame)
            parent = self._parents.get(frame)
            if parent is None and self._threads.get(frame, _LOOP) != _LOOP:
                parent = self._handing_over(frame)
            elif parent is not None and parent not in self._entered:
                # The loop of a thread, which was there before the call.
                found.append(parent)
                parent = self._handing_over(frame)
            frame = parent
        return found[::-1]

    def _handing_over(self, job: FrameType) -> FrameType | None:
        """The innermost function that waited while a thread began a job."""
        began = self._entered[job]
        waiting = [
            frame
            for frame, entered in self._entered.items()
            if entered < began < self._left[frame] and self._threads[frame] == _LOOP
        ]
        return max(waiting, key=self._entered.__getitem__, default=None)

    @staticmethod
    def _inner(frame: FrameType | None) -> FrameType | None:
        """The innermost function of ours on the stack, beginning with this one."""
        while frame is not None and not _is_ours(frame):
            frame = frame.f_back
        return frame


_LOOP = threading.get_ident()


def _location(scheme: str, folder: Path) -> str:
    return "inmemory:" if scheme == "inmemory" else f"{scheme}:{folder / 'store'}"


def _described(path: list[FrameType]) -> list[str]:
    return [f"{Path(one.f_code.co_filename).name}: {one.f_code.co_qualname}" for one in path]


async def measure(scheme: str, folder: Path) -> dict[str, dict[str, Any]]:
    """The path and the calls of a put and a get on a new store, once its caches are warm."""
    recorder = Recorder()
    threading.setprofile(recorder.profile)
    try:
        memory = await open_memory(_location(scheme, folder))
        sys.setprofile(recorder.profile)
        try:
            episodes = [episode(number) for number in range(4)]
            for item in episodes[:-1]:
                await memory.store_episode(item)
                await memory.get_episode(item.id)
            result: dict[str, dict[str, Any]] = {}
            for name, call in (
                ("put", lambda: memory.store_episode(episodes[-1])),
                ("get", lambda: memory.get_episode(episodes[-1].id)),
            ):
                await asyncio.sleep(_PAUSE)
                await recorder.record(call)
                path = recorder.path()
                result[name] = {
                    "path": len(path),
                    "calls": recorder.calls,
                    "functions": _described(path),
                }
            return result
        finally:
            sys.setprofile(None)
            await memory.aclose()
    finally:
        threading.setprofile(None)  # pyright: ignore[reportArgumentType]  # typeshed leaves out None


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("schemes", nargs="*", metavar="SCHEME", default=SCHEMES)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--list", action="store_true", help="print the functions of each path")
    parser.add_argument("--dir", type=Path, help="where to make the stores")
    options = parser.parse_args()
    measured: dict[str, dict[str, dict[str, Any]]] = {}
    for scheme in options.schemes:
        with tempfile.TemporaryDirectory(dir=options.dir) as folder:
            measured[scheme] = asyncio.run(measure(scheme, Path(folder)))
    if options.json:
        print(json.dumps(measured, indent=2))
        return
    print(f"{'':10} {'put: path':>10} {'calls':>6} {'get: path':>10} {'calls':>6}")
    for scheme, calls in measured.items():
        put, get = calls["put"], calls["get"]
        print(f"{scheme:10} {put['path']:10} {put['calls']:6} {get['path']:10} {get['calls']:6}")
    if options.list:
        for scheme, calls in measured.items():
            for name, call in calls.items():
                print(f"\n{scheme}: {name}")
                for function in call["functions"]:
                    print(f"  {function}")


if __name__ == "__main__":
    main()
