from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from attrs import field, frozen, make_class

from memory_core import ConfigurationError, InvalidOptionError, InvalidValueError
from memory_core.config import build_options
from memory_core.config.validators import (
    Check,
    above,
    at_least,
    between,
    flag,
    instance_of,
    named,
    one_of,
    optional,
    ordered,
    positive,
)


def config(check: Check, value: Any) -> Any:
    cls = make_class("Config", {"size": field(validator=check)})
    return cls(value)


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (at_least(1), [1, 1.5, 10**400]),
        (at_least(1, whole=True), [1, 2**70]),
        (between(1, 3), [1, 2.5, 3]),
        (between(0, inf), [0, 1, inf]),
        (above(1), [1.1, 2]),
        (above(0, 1), [0.1, 1]),
        (above(0, inf), [1, inf]),
        (positive, [0.001, 1]),
        (one_of("full", "normal"), ["full", "normal"]),
        (optional(positive), [None, 1]),
        (flag, [True, False]),
        (instance_of(str), ["", "x"]),
        (named, [{}, {"a": 1}]),
    ],
)
def test_right_values_are_accepted(check, right):
    for value in right:
        assert config(check, value).size == value


NO_NUMBERS = ["1", None, True, nan]


@pytest.mark.parametrize(
    ("check", "expected", "wrong"),
    [
        (at_least(1), "a number of at least 1", [*NO_NUMBERS, 0.9, inf, -inf]),
        (at_least(1, whole=True), "a whole number of at least 1", [*NO_NUMBERS, 0, 1.0, inf]),
        (at_least(1048576), "a number of at least 1048576", [1]),
        (between(1, 3), "a number of at least 1 and at most 3", [*NO_NUMBERS, 0.9, 3.1, inf]),
        (between(1, 3, whole=True), "a whole number of at least 1 and at most 3", [0, 4, 2.0]),
        (between(0, inf), "a number of at least 0", [*NO_NUMBERS, -1, -inf]),
        (above(0, 1), "a number above 0 and at most 1", [*NO_NUMBERS, 0, 1.1, inf]),
        (positive, "a number above 0", [*NO_NUMBERS, 0, -1, inf]),
        (one_of("full", "normal"), "one of full, normal", ["", "FULL", None, ["full"]]),
        (optional(positive), "a number above 0 or None", [0, "None"]),
        (flag, "True or False", [0, 1, "true", None]),
        (instance_of(str), "str", [b"", None]),
        (named, "a mapping by name", [{1: 2}, [], None]),
    ],
)
def test_a_wrong_value_names_class_and_field_and_what_is_accepted(check, expected, wrong):
    for value in wrong:
        with pytest.raises(InvalidOptionError) as caught:
            config(check, value)
        assert str(caught.value) == f"Config.size: expected {expected}, got {value!r}"
        assert (caught.value.field, caught.value.expected) == ("Config.size", expected)


def test_it_is_an_error_of_configuration_and_of_a_value():
    assert issubclass(InvalidOptionError, ConfigurationError)
    assert issubclass(InvalidOptionError, InvalidValueError)
    assert issubclass(InvalidOptionError, ValueError)


def test_a_secret_is_not_shown():
    cls = make_class("Config", {"token": field(repr=False, validator=instance_of(str))})
    with pytest.raises(InvalidOptionError) as caught:
        cls(b"hunter2")
    assert "hunter2" not in str(caught.value)
    assert caught.value.value != b"hunter2"


@frozen(kw_only=True)
class Ordered:
    low: int = 1
    middle: int = 2
    high: int = 3

    def __attrs_post_init__(self) -> None:
        ordered(self, "low", "middle", "high")


def test_fields_that_fall_are_named():
    assert Ordered(low=2).low == 2
    with pytest.raises(ConfigurationError) as caught:
        Ordered(high=1)
    assert str(caught.value) == "Ordered.middle (2) must not be over Ordered.high (1)"


def test_an_option_that_is_wrong_says_where_it_was_given():
    cls = make_class("Config", {"size": field(default=1, type=int, validator=at_least(1))})
    with pytest.raises(ConfigurationError) as caught:
        build_options(cls, {"size": "0"}, where="turso:x")
    assert str(caught.value) == "turso:x: Config.size: expected a number of at least 1, got 0"
