"""Options are checked when they are given, and each has an effect."""

from __future__ import annotations

import attrs
import pytest

from memory_core.config import build_options
from memory_core.errors import ConfigurationError
from memory_storage_lmdb.adaptive import AdaptiveConfig
from memory_storage_lmdb.adaptive.plain import PlainConfig, TTLConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_entries": 0},
            "AdaptiveConfig.max_entries: expected a whole number of at least 1, got 0",
        ),
        ({"max_entries": 1.5}, "AdaptiveConfig.max_entries: expected a whole number"),
        ({"max_entries": True}, "AdaptiveConfig.max_entries: expected a whole number"),
        ({"max_bytes": -1}, "AdaptiveConfig.max_bytes"),
        ({"ttl": 0}, "AdaptiveConfig.ttl: expected a number above 0, got 0"),
        ({"ttl": float("nan")}, "AdaptiveConfig.ttl: expected a number above 0, got nan"),
        (
            {"ttl": 60.0},
            "AdaptiveConfig.min_ttl .600.0. must not be over AdaptiveConfig.ttl .60.0.",
        ),
        ({"max_ttl": 700.0}, "AdaptiveConfig.ttl .3600.0. must not be over AdaptiveConfig.max_ttl"),
        ({"memory_limit": 0}, "AdaptiveConfig.memory_limit: expected a whole number of at least 1"),
        ({"memory_limit": "half"}, "AdaptiveConfig.memory_limit: expected a whole number"),
    ],
)
def test_wrong_values_are_rejected_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        AdaptiveConfig(**options)  # type: ignore[arg-type]  # wrong on purpose


# Options of version 0.1, each with a value that it accepted.
DROPPED = {
    "max_entry_bytes": 1000,
    "ttl_window": 60.0,
    "ttl_growth": 3.0,
    "ttl_shrink": 0.9,
    "hot_hits": 9,
    "cold_hits": 1,
    "cleanup_interval": 0.1,
    "pressure_elevated": 0.75,
    "pressure_critical": 0.9,
    "pressure_relaxed": 0.5,
    "pressure_floor": 0,
}


@pytest.mark.parametrize("name", DROPPED)
def test_an_option_that_was_dropped_is_accepted_with_a_warning(name: str) -> None:
    said = f"option '{name}' has no effect any more"
    with pytest.warns(DeprecationWarning, match=said):
        assert AdaptiveConfig(max_entries=7, **{name: DROPPED[name]}).max_entries == 7
    options = {"max_entries": "7", name: str(DROPPED[name])}
    with pytest.warns(DeprecationWarning, match=said):
        assert build_options(AdaptiveConfig, options, where="adaptive").max_entries == 7


@pytest.mark.parametrize("config", [PlainConfig, TTLConfig])
def test_wrong_values_of_the_plain_ones_too(config: type) -> None:
    with pytest.raises(ConfigurationError, match=r"Config.max_bytes: expected a whole number"):
        config(max_bytes=0)
    with pytest.raises(ConfigurationError, match=r"TTLConfig.ttl: expected a number above 0"):
        TTLConfig(ttl=-1.0)


def test_it_is_immutable() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        AdaptiveConfig().max_entries = 5  # type: ignore[misc]  # wrong on purpose


def test_options_of_a_url_are_converted() -> None:
    options = {"max_entries": "100", "max_bytes": "1000000", "ttl": "900.5", "memory_limit": "5000"}
    config = build_options(AdaptiveConfig, options, where="adaptive")
    assert config == AdaptiveConfig(
        max_entries=100, max_bytes=1_000_000, ttl=900.5, memory_limit=5000
    )


def test_a_wrong_option_of_a_url_is_named() -> None:
    with pytest.raises(
        ConfigurationError, match=r"max_entries: expected a whole number of at least 1"
    ):
        build_options(AdaptiveConfig, {"max_entries": "0"}, where="adaptive")
    with pytest.raises(
        ConfigurationError, match=r"unknown option 'max_entrys'; valid: .*max_entries"
    ):
        build_options(AdaptiveConfig, {"max_entrys": "10"}, where="adaptive")
