"""Episodes whose steps are decoded when they are first looked at.

Decoding the head of an episode of 25 steps takes a twentieth of the time that decoding all of it takes, and
lists, searches and caches seldom look at steps. The logged steps of a running episode, records of their own,
become its steps without being decoded, too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from time import sleep
from typing import Any, cast, overload
from uuid import UUID

import attrs
import msgspec

from memory_core.errors import CodecError
from memory_core.records import Episode, ExecutionStep, Step
from memory_core.records.episode import EPISODE_STEPS, StoredStep, as_steps

__all__ = ["LONG", "LoggedSteps", "UndecodedSteps", "array_of", "head_decoder", "of_undecoded"]

LONG = 64 * 1024  # bytes; longer steps are decoded with the head, on the thread that reads them
_STEP_BYTES = 560  # that a decoded step takes beyond its stored bytes, on average
_OWN_BYTES = 200  # of the object that holds the stored bytes
_PAUSE = 1e-6  # seconds for which the decoding of a long array lets other threads run
_NO_STEPS = b"\x90"
_ARRAY_16, _ARRAY_32 = 0xDC, 0xDD  # msgpack's markers of arrays with more than 15 items
_ARRAY = struct.Struct(">BI")
_LAST_ID = itemgetter(slice(-16, None))
_NUMBER = attrgetter("number")


class _Tool(msgspec.Struct, gc=False):
    tool: str


class _Id(msgspec.Struct, gc=False):
    id: bytes


class _SaidResult(msgspec.Struct, gc=False):
    output: Any = None
    message: str | None = None


class _Said(msgspec.Struct, gc=False):
    action: str = ""
    parameters: dict[str, Any] = {}
    result: _SaidResult | None = None


class _NumberedSaid(_Said, gc=False, kw_only=True):
    number: int


class _LoggedSaid(msgspec.Struct, gc=False):
    step: _NumberedSaid


class _LoggedStep(msgspec.Struct, gc=False):
    step: StoredStep


class _NumberedTool(msgspec.Struct, gc=False):
    number: int
    tool: str


class _LoggedTool(msgspec.Struct, gc=False):
    step: _NumberedTool


_STEPS = msgspec.msgpack.Decoder(tuple[StoredStep, ...])
_TOOLS = msgspec.msgpack.Decoder(list[_Tool])
_SAID = msgspec.msgpack.Decoder(list[_Said])
_IDS = msgspec.msgpack.Decoder(list[_Id])
_LOGGED_STEPS = msgspec.msgpack.Decoder(list[_LoggedStep])
_LOGGED_TOOLS = msgspec.msgpack.Decoder(list[_LoggedTool])
_LOGGED_SAID = msgspec.msgpack.Decoder(list[_LoggedSaid])
_RECORDS = msgspec.msgpack.Decoder(tuple[Step, ...])
_ITEMS = msgspec.msgpack.Decoder(list[msgspec.Raw])


def _steps_of(raw: bytes | msgspec.Raw) -> tuple[ExecutionStep, ...]:
    if len(raw) > LONG:
        return tuple(chain.from_iterable(map(_steps_of_short, _in_parts(raw))))
    return _steps_of_short(raw)


def _steps_of_short(raw: bytes | msgspec.Raw) -> tuple[ExecutionStep, ...]:
    steps = _STEPS.decode(raw)
    as_steps(steps)
    return steps


def _steps_of_logged(raw: bytes) -> tuple[ExecutionStep, ...]:
    steps: list[StoredStep] = []
    for part in _in_parts(raw):
        own = [each.step for each in _LOGGED_STEPS.decode(part)]
        as_steps(own)
        steps += own
    steps.sort(key=_NUMBER)
    return tuple(steps)


def _in_parts(raw: bytes | msgspec.Raw) -> Iterator[bytes | msgspec.Raw]:
    """The arrays that an array is decoded as, one after the other: one, unless it is long.

    msgspec keeps the interpreter's lock while it decodes. The event loop's thread releases that lock now and
    then, and would wait for the end of a long array.
    """
    if len(raw) <= LONG:
        yield raw
        return
    items = _ITEMS.decode(raw)
    count = max(len(items) * LONG // len(raw), 1)
    for start in range(0, len(items), count):
        yield array_of(items[start : start + count])
        sleep(_PAUSE)


def array_of(items: Sequence[bytes]) -> bytes:
    """A msgpack array of encoded items."""
    return b"".join((_ARRAY.pack(_ARRAY_32, len(items)), *items))


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
        return tuple(step.tool for step in self._decode(_TOOLS.decode))

    def said(self) -> Sequence[Any]:
        """Of each step the action, the parameters and the result, as plain JSON values; takes a quarter of
        the time of decoding them.

        Raises:
            CodecError: the bytes are not those of steps.
        """
        return self._decode(_SAID.decode)

    def steps(self) -> tuple[ExecutionStep, ...]:
        """Decode the steps; all calls, from any thread, return one object.

        Raises:
            CodecError: the bytes are not those of steps.
        """
        if not self._decoded:
            # Of two threads that get here at once, both append, and both return what the first appended.
            self._decoded.append(self._read())
        return self._decoded[0]

    def _read(self) -> tuple[ExecutionStep, ...]:
        return self._decode(_steps_of)

    def _decode(self, decoder: Callable[[bytes], Any]) -> Any:
        try:
            return decoder(self._raw)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise CodecError(str(error), kind=Episode.kind, record_id=self._record_id) from error


class _UndecodedLogged(UndecodedSteps):
    """The steps of an episode as they were logged: an array of records."""

    __slots__ = ()

    def tools(self) -> tuple[str, ...]:
        logged = [each.step for each in self._decode(_LOGGED_TOOLS.decode)]
        return tuple(step.tool for step in sorted(logged, key=_NUMBER))

    def said(self) -> Sequence[Any]:
        return sorted([each.step for each in self._decode(_LOGGED_SAID.decode)], key=_NUMBER)

    def _read(self) -> tuple[ExecutionStep, ...]:
        return self._decode(_steps_of_logged)


def of_undecoded(value: object) -> Any:
    """The ``enc_hook`` of encoders that are given records: decodes the steps that nobody has looked at."""
    if isinstance(value, UndecodedSteps):
        return value.steps()
    raise NotImplementedError(f"objects of type {type(value).__name__} cannot be encoded")


class LoggedSteps(Sequence[Step]):
    """Records of logged steps, decoded when the first of them is looked at.

    Args:
        bodies: their bodies.
        ids: the bytes of their ids.

    Raises:
        ValueError: a body has another id.
        msgspec.MsgspecError: a body is not that of a step.
    """

    __slots__ = ("_array", "_records", "_undecoded")

    def __init__(self, bodies: Sequence[bytes], ids: Sequence[bytes]) -> None:
        self._array = array_of(bodies)
        # The id is what msgspec writes last. Where another version wrote it elsewhere, it must be looked for.
        if (
            list(map(_LAST_ID, bodies)) != ids
            and [each.id for each in _IDS.decode(self._array)] != ids
        ):
            raise ValueError("a body holds another record")
        self._records: tuple[Step, ...] | None = None
        self._undecoded: UndecodedSteps | None = None

    def undecoded(self, episode_id: UUID) -> UndecodedSteps:
        """The steps, in the order of their numbers, as those of the episode that all of them belong to.

        All calls return one object, so that equal reads that share these records decode them once.
        """
        if self._undecoded is None:
            self._undecoded = _UndecodedLogged(self._array, episode_id)
        return self._undecoded

    def __len__(self) -> int:
        return int.from_bytes(self._array[1:5])

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Step, ...]: ...
    def __getitem__(self, index: int | slice) -> Step | tuple[Step, ...]:
        return self._decoded()[index]

    def __iter__(self) -> Iterator[Step]:
        return iter(self._decoded())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._decoded() == tuple(
            cast("Sequence[Any]", other)
        )

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # it would have to be that of a tuple and of a list

    def __repr__(self) -> str:
        return repr(self._decoded())

    def _decoded(self) -> tuple[Step, ...]:
        if self._records is None:
            try:
                self._records = _RECORDS.decode(self._array)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise CodecError(str(error), kind=Step.kind) from error
        return self._records


def head_decoder(cls: type[Episode]) -> Callable[[bytes], Any]:
    """A function that decodes the body of an episode without its steps, unless they are long.

    Args:
        cls: the class of the episode.
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
    # A slot of its own class's attribute, not the property that decodes.
    head.steps = EPISODE_STEPS
    put, put_steps = object.__setattr__, EPISODE_STEPS.__set__

    def decode(body: bytes) -> Any:
        record = decoder.decode(body)
        raw: msgspec.Raw = record.steps
        # The classes have the same slots, so that one object can be of either.
        put(record, "__class__", cls)
        if len(raw) == len(_NO_STEPS):
            put_steps(record, ())
        elif len(raw) > LONG:
            put_steps(record, _steps_of(raw))
        else:
            put_steps(record, UndecodedSteps(bytes(raw), record.id))
        return record

    return decode
