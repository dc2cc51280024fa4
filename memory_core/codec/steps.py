"""Episodes whose steps are decoded when they are first looked at.

Decoding the head of an episode of 25 steps takes a twentieth of the time that decoding all of it takes, and
lists, searches and caches seldom look at steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import attrs
import msgspec

from memory_core.errors import CodecError
from memory_core.records import Episode, ExecutionStep

__all__ = ["LONG", "UndecodedSteps", "head_decoder"]

LONG = 64 * 1024  # bytes; longer steps are decoded with the head, on the thread that reads them
_STEP_BYTES = 560  # that a decoded step takes beyond its stored bytes, on average
_OWN_BYTES = 200  # of the object that holds the stored bytes
_NO_STEPS = b"\x90"
_ARRAY_16, _ARRAY_32 = 0xDC, 0xDD  # msgpack's markers of arrays with more than 15 items


class _Tool(msgspec.Struct):
    tool: str


_STEPS = msgspec.msgpack.Decoder(tuple[ExecutionStep, ...])
_TOOLS = msgspec.msgpack.Decoder(tuple[_Tool, ...])


class UndecodedSteps:
    """The steps of an episode as they are stored.

    Args:
        raw: a msgpack array of steps.
        record_id: the id of the episode.
    """

    __slots__ = ("_decoded", "_raw", "_record_id")

    def __init__(self, raw: bytes, record_id: UUID) -> None:
        self._raw = raw
        self._record_id = record_id
        self._decoded: list[tuple[ExecutionStep, ...]] = []

    @property
    def count(self) -> int:
        """The number of steps."""
        raw = self._raw
        if raw[0] == _ARRAY_16:
            return int.from_bytes(raw[1:3])
        return int.from_bytes(raw[1:5]) if raw[0] == _ARRAY_32 else raw[0] & 0x0F

    @property
    def size(self) -> int:
        """The bytes that the stored steps take, and those that the decoded ones will take, roughly."""
        return 2 * len(self._raw) + _OWN_BYTES + _STEP_BYTES * self.count

    def tools(self) -> tuple[str, ...]:
        """The tool of each step.

        Raises:
            CodecError: the bytes are not those of steps.
        """
        return tuple(step.tool for step in self._decode(_TOOLS))

    def steps(self) -> tuple[ExecutionStep, ...]:
        """Decode the steps; all calls, from any thread, return one object.

        Raises:
            CodecError: the bytes are not those of steps.
        """
        if not self._decoded:
            # Of two threads that get here at once, both append, and both return what the first appended.
            self._decoded.append(self._decode(_STEPS))
        return self._decoded[0]

    def _decode(self, decoder: msgspec.msgpack.Decoder[Any]) -> Any:
        try:
            return decoder.decode(self._raw)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise CodecError(str(error), kind=Episode.kind, record_id=self._record_id) from error


def head_decoder(cls: type[Episode], whole: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A function that decodes the body of an episode without its steps.

    Args:
        cls: the class of the episode.
        whole: decodes the body with its steps; used where they are long.
    """
    head: Any = attrs.make_class(
        f"{cls.__name__}Head",
        {"steps": attrs.field(type=msgspec.Raw, default=msgspec.Raw(_NO_STEPS))},
        bases=(cls,),
        frozen=True,
        slots=True,
        kw_only=True,
    )
    decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(head)
    put, remove = object.__setattr__, object.__delattr__

    def decode(body: bytes) -> Any:
        record = decoder.decode(body)
        raw: msgspec.Raw = record.steps
        if len(raw) > LONG:
            return whole(body)
        # The classes have the same slots, so that one object can be of either.
        put(record, "__class__", cls)
        if len(raw) == len(_NO_STEPS):
            put(record, "steps", ())
            return record
        remove(record, "steps")
        put(record, "_undecoded", UndecodedSteps(bytes(raw), record.id))
        return record

    return decode
