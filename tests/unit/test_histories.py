"""The check of histories: what an order of the calls explains, and what none does."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_core.testing.checks.histories import DONE, UNKNOWN, Operation, violations_of


def op(name, value=None, found=DONE, *, start=0.0, end=1.0, register="r"):
    return Operation(register, name, value, found, start, end)


def one_by_one(*operations):
    """The same operations, none of which overlaps another."""
    return [
        Operation(each.register, each.name, each.value, each.found, 2.0 * at, 2.0 * at + 1)
        for at, each in enumerate(operations)
    ]


RIGHT = {
    "a read of nothing": one_by_one(op("get", found=None)),
    "a read of what was put": one_by_one(op("put", "a"), op("get", found="a")),
    "a delete": one_by_one(op("put", "a"), op("delete"), op("get", found=None)),
    "a swap": one_by_one(op("swap", (None, "a")), op("swap", ("a", "b")), op("get", found="b")),
    "a rejected swap": one_by_one(op("put", "a"), op("swap rejected", ("b", "c"), "a")),
    "a claim": one_by_one(op("claim", "x"), op("claim", "x"), op("claim rejected", "y", None)),
    "a release": one_by_one(op("claim", "x"), op("release", "x"), op("claim", "y")),
    "a release by another": one_by_one(
        op("claim", "x"), op("release", "y"), op("holds", "x", found=True)
    ),
    "a read during a put, before it": [op("put", "a"), op("get", found=None, start=0.5)],
    "a read during a put, after it": [op("put", "a"), op("get", found="a", end=0.5)],
    "two puts in either order": [
        op("put", "a"),
        op("put", "b"),
        op("get", found="a", start=2, end=3),
    ],
    "moments that are equal": [op("put", "a", end=1), op("get", found=None, start=1, end=1)],
    "an unknown put that was made": [
        op("put", "a", UNKNOWN, end=math.inf),
        op("get", found=None, start=2, end=3),
        op("get", found="a", start=4, end=5),
    ],
    "an unknown put that was not made": [
        op("put", "a", UNKNOWN, end=math.inf),
        op("get", found=None, start=4, end=5),
    ],
    "an unknown swap that was rejected": [
        op("swap", ("x", "a"), UNKNOWN, end=math.inf),
        op("put", "b", start=1, end=2),
        op("get", found="b", start=4, end=5),
    ],
}
WRONG = {
    "a stale read": one_by_one(op("put", "a"), op("put", "b"), op("get", found="a")),
    "a lost put": one_by_one(op("put", "a"), op("get", found=None)),
    "a deleted record that is back": one_by_one(op("put", "a"), op("delete"), op("get", found="a")),
    "a lost update": one_by_one(op("put", "a"), op("swap", ("a", "b")), op("swap", ("a", "c"))),
    "two swaps at a time": [
        *one_by_one(op("put", "a")),
        op("swap", ("a", "b"), start=2, end=3),
        op("swap", ("a", "c"), start=2, end=3),
    ],
    "a conflict with what is expected": one_by_one(op("put", "a"), op("swap rejected", ("a", "b"), "a")),
    "a conflict with another value": one_by_one(op("put", "a"), op("swap rejected", ("b", "c"), "d")),
    "two holders": one_by_one(op("claim", "x"), op("claim", "y")),
    "a free value that is refused": one_by_one(op("claim rejected", "x", None)),
    "a holder that does not hold": one_by_one(op("claim", "x"), op("holds", "x", found=False)),
    "two holders that are seen": one_by_one(op("claim", "x"), op("get", found="x+y")),
    "reads that go back in time": [
        op("put", "a", end=10),
        op("get", found="a", start=1, end=2),
        op("get", found=None, start=3, end=4),
    ],
    "an unknown put that is undone": [
        op("put", "a", UNKNOWN, end=math.inf),
        op("get", found="a", start=2, end=3),
        op("get", found=None, start=4, end=5),
    ],
}  # fmt: skip


@pytest.mark.parametrize("history", RIGHT.values(), ids=RIGHT)
def test_what_an_order_explains(history):
    assert violations_of(history) == []


@pytest.mark.parametrize("history", WRONG.values(), ids=WRONG)
def test_what_no_order_explains(history):
    [violation] = violations_of(history)
    assert violation.operation in history
    assert violation.operation in violation.in_flight


def test_each_register_is_checked_by_itself():
    good = one_by_one(op("put", "a"), op("get", found="a"))
    bad = one_by_one(op("put", "a", register="s"), op("get", found="b", register="s"))
    [violation] = violations_of([*good, *bad])
    assert violation.operation.register == "s"
    assert violation.possible == ("a",)


def test_an_operation_that_there_is_not():
    with pytest.raises(ValueError, match="no operation of a register: 'patch'"):
        violations_of([op("patch")])


@given(st.lists(st.tuples(st.sampled_from(["put", "delete", "get", "swap"]), st.integers(0, 3),
                          st.floats(0, 3), st.floats(0, 3)), max_size=30))  # fmt: skip
def test_any_history_that_took_place_in_an_order_is_explained(calls):
    """Each call takes effect at one moment, and its result follows from that, whatever it overlaps."""
    value, history = None, []
    for moment, (name, new, before, after) in enumerate(calls):
        start, end = moment - before, moment + after
        if name == "get":
            history.append(op("get", None, value, start=start, end=end))
        elif name == "swap" and new == 0:
            history.append(op("swap rejected", ("never", 1), value, start=start, end=end))
        else:
            history.append(
                op(name, (value, new) if name == "swap" else new, DONE, start=start, end=end)
            )
            value = None if name == "delete" else new
    assert violations_of(history) == []
