"""What reading an episode costs by stage, beside the bare parts.

    python -m benchmarks.decoding [--data FILE] [--rounds N] [--quick] [--json]

The episode has 25 steps. ``--data`` names a file of transcripts that an importer knows; if it is left out,
the environment variable ``MEMORY_CORE_DATA`` names a folder with tau-bench's airline runs. Without either,
the episode is a made one. A figure is the best of all rounds, in microseconds. The stages take turns, so
that a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import zstandard

from benchmarks import harness
from benchmarks.cache_latency import episode
from memory_core import Episode, Limits, RecordTypes
from memory_core.codec import Codec
from memory_core.importers import BUILTIN_IMPORTERS, detect
from memory_core.records import ExecutionStep
from memory_core.records.sizes import size_of

CALLS = 100


def samples(file: Path | None) -> Sequence[Episode]:
    """Episodes of 25 steps first."""
    if file is None:
        return [episode(number) for number in range(200)]
    found = [one for one in detect(file, BUILTIN_IMPORTERS).read(file) if isinstance(one, Episode)]
    return sorted(found, key=lambda one: abs(one.step_count - 25))


def stages(episodes: Sequence[Episode]) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    codec = Codec(RecordTypes([Episode]), Limits())
    one = episodes[0]
    body = codec.serialize(one)
    frame = codec.compressor.compress("episode", body)
    assert frame is not None
    stored = codec.seal(one, body, frame)
    decompressor = zstandard.ZstdDecompressor()
    raw = msgspec.msgpack.Encoder(uuid_format="bytes").encode(one.steps)
    steps = msgspec.msgpack.Decoder(tuple[ExecutionStep, ...])
    whole = msgspec.msgpack.Decoder(Episode)
    head = codec.serialize(one.replace(steps=()))
    undecoded = codec.decode("episode", stored, one.id)
    decoded = whole.decode(body)
    return {
        "bare: checksum": lambda: crc32(stored),
        "bare: decompress": lambda: decompressor.decompress(frame),
        "bare: head": lambda: whole.decode(head),
        "bare: steps": lambda: steps.decode(raw),
        "read, steps not looked at": lambda: codec.decode("episode", stored, one.id),
        "read, and the number of steps": lambda: codec.decode("episode", stored, one.id).step_count,
        "read, and the tools": lambda: codec.decode("episode", stored, one.id).tools,
        "read, steps looked at": lambda: codec.decode("episode", stored, one.id).steps,
        "size, steps not looked at": lambda: size_of(undecoded),
        "size, steps looked at": lambda: size_of(decoded),
    }


async def measure(given: argparse.Namespace, _: Path) -> dict[str, float]:
    """Microseconds a call."""
    turns = harness.Turns()
    blocks = {
        name: lambda call=call: repeat(call) for name, call in stages(samples(given.data)).items()
    }
    for _ in range(given.rounds or (2 if given.quick else 50)):
        await turns.run("stages", blocks, CALLS)
    return {name: min(taken) * 1e6 for name, taken in turns.seconds["stages"].items()}


def repeat(call: Callable[[], Any]) -> None:
    """A block."""
    for _ in range(CALLS):
        call()


def show(found: dict[str, float]) -> None:
    """Print a line for each stage."""
    for name, taken in found.items():
        print(f"{name:40} {taken:8.1f} µs")
    parts = found["bare: decompress"] + found["bare: head"]
    print(f"\nread, of decompress and head: {found['read, steps not looked at'] / parts:.2f}")


def main() -> None:
    parser = harness.parser(__doc__, "quick")
    data = os.environ.get("MEMORY_CORE_DATA")
    real = Path(data) / "tau_bench" / "gpt-4o-airline.json.gz" if data else None
    parser.add_argument("--data", type=Path, default=real)
    parser.add_argument("--rounds", type=int)
    harness.run(measure, parser.parse_args(), show)


if __name__ == "__main__":
    main()
