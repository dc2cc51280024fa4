"""Whether a history of concurrent operations could have happened one after the other (linearizability).

Each register is checked by itself: a history is linearizable if that of each register is (Herlihy and Wing
1990). The order is found as by Wing and Gong (1993), just in time (Lowe 2017): calls are collected, and a
call that returns must take effect no later than then, after any others that are in flight. All states that
are possible so far are kept; if none is left, no order explains the history.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from attrs import field, frozen

__all__ = ["DONE", "UNKNOWN", "Operation", "Violation", "violations_of"]

DONE = "done"
"""A change that was acknowledged."""
UNKNOWN = "unknown"
"""A change that may have been made, or may be made at any later time."""


@frozen
class Operation:
    """A call on a register.

    A register holds a value or ``None``: that of a record (``put``, ``delete``, ``get``, ``swap``), or which
    record has a unique value (``claim``, ``release``, ``holds``, ``get``).

    Attributes:
        register: its name.
        name: of the operation; ``swap rejected`` and ``claim rejected`` where that was the result.
        value: its value; of ``swap``: what it expects and what it puts.
        found: of reads: the result; of changes ``DONE`` or ``UNKNOWN``; of a rejected ``swap`` the value that
            it found instead.
        start: when it was called, in seconds of a clock that all processes share.
        end: when it returned; infinite if its result is unknown.
    """

    register: str
    name: str
    value: Any
    found: Any
    start: float
    end: float


@frozen
class Violation:
    """An operation that no order of the calls explains.

    Attributes:
        operation: the first such operation.
        possible: the values that the register may have had.
        in_flight: the calls at that time.
    """

    operation: Operation
    possible: tuple[Any, ...]
    in_flight: tuple[Operation, ...] = field(repr=False)


_Config: TypeAlias = tuple[Any, frozenset[int]]
"""A register's value, and which calls in flight have taken effect."""


def violations_of(operations: Iterable[Operation]) -> list[Violation]:
    """The first violation of every register; its initial value is ``None``."""
    registers: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        registers[operation.register].append(operation)
    found = (_first_violation(history) for history in registers.values())
    return [violation for violation in found if violation is not None]


def _first_violation(history: Sequence[Operation]) -> Violation | None:
    # Where times are equal, a call comes before a return: the two may overlap.
    events = sorted(
        (moment, returns, number)
        for number, operation in enumerate(history)
        for moment, returns in ((operation.start, False), (operation.end, True))
    )
    configs: set[_Config] = {(None, frozenset())}
    in_flight: dict[int, Operation] = {}
    for moment, returns, number in events:
        if not returns:
            in_flight[number] = history[number]
            continue
        if moment == math.inf:
            break
        reached = _linearized(configs, in_flight, number)
        if not reached:
            possible = tuple({value for value, _ in configs})
            return Violation(history[number], possible, tuple(in_flight.values()))
        del in_flight[number]
        configs = {(value, done - {number}) for value, done in reached}
    return None


def _linearized(
    configs: Iterable[_Config], in_flight: Mapping[int, Operation], number: int
) -> set[_Config]:
    """The configurations in which a call has taken effect, with any others in flight before it."""
    reached: set[_Config] = set()
    seen = set(configs)
    left = list(seen)
    while left:
        value, done = left.pop()
        if number in done:
            reached.add((value, done))
            continue
        for other, operation in in_flight.items():
            if other not in done:
                possible, after = _step(operation, value)
                config = (after, done | {other})
                if possible and config not in seen:
                    seen.add(config)
                    left.append(config)
    return reached


def _step(operation: Operation, value: Any) -> tuple[bool, Any]:
    """Whether an operation can have had its result on a register with this value; the value after it."""
    given, found, possible, after = operation.value, operation.found, True, value
    match operation.name:
        case "put":
            after = given
        case "delete":
            after = None
        case "get":
            possible = value == found
        case "swap":
            possible, after = _changed(operation, value, given[1], applies=value == given[0])
        case "swap rejected":
            possible = value == found != given[0]
        case "claim":
            possible, after = _changed(operation, value, given, applies=value in {None, given})
        case "claim rejected":
            possible = value not in {None, given}
        case "release":
            after = None if value == given else value
        case "holds":
            possible = (value == given) == found
        case _:
            raise ValueError(f"no operation of a register: {operation.name!r}")
    return possible, after


def _changed(operation: Operation, value: Any, new: Any, *, applies: bool) -> tuple[bool, Any]:
    """The outcome of a change that is made only if it applies; where it is unknown it may not be made."""
    return applies or operation.found == UNKNOWN, new if applies else value
