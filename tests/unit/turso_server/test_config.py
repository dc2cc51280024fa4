"""Options of Turso stores: wrong ones are rejected, dropped ones warn, every other one is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import memory_storage_turso.config as options
from memory_core.config.options import build_options
from memory_core.errors import ConfigurationError

PARTS = [
    options.PoolConfig,
    options.KeepAliveConfig,
    options.PreparedConfig,
    options.RetryConfig,
    options.BreakerConfig,
    options.ReplicaConfig,
    options.ServerLimits,
    options.TenancyConfig,
    options.TursoConfig,
]


def numbers() -> Iterator[tuple[type, str]]:
    for part in PARTS:
        for field in attrs.fields(part):
            if isinstance(field.default, int | float):
                yield part, field.name


@pytest.mark.parametrize(("part", "name"), list(numbers()))
@pytest.mark.parametrize("value", [-1, "many", None, True, float("nan"), float("inf")])
def test_a_wrong_number_is_rejected_by_name(part: type, name: str, value: object) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"{part.__name__}.{name}: expected a (whole )?number"
    ):
        part(**{name: value})


def test_counts_are_whole() -> None:
    with pytest.raises(ConfigurationError, match="expected a whole number"):
        options.PoolConfig(max_size=2.5)  # pyright: ignore[reportArgumentType] - that is the point


def test_sizes_of_a_pool_that_contradict_each_other_are_rejected() -> None:
    with pytest.raises(ConfigurationError, match="must not be over"):
        options.PoolConfig(min_size=5, max_size=4)


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1", "http://", "127.0.0.1:9090", "http://user:s3cret@127.0.0.1"]
)
def test_an_admin_url_is_one_of_http(url: str) -> None:
    with pytest.raises(ConfigurationError, match="admin_url: expected an http or https URL"):
        options.TenancyConfig(admin_url=url)


def test_choice_is_one_of_those_offered() -> None:
    with pytest.raises(ConfigurationError, match="auto, on, off"):
        options.TursoConfig(wire_compression="gzip")  # pyright: ignore[reportArgumentType] - that is the point


@pytest.mark.parametrize("part", PARTS)
def test_every_option_is_read_somewhere(part: type) -> None:
    package = Path(options.__file__).parent
    code = "\n".join(path.read_text() for path in package.rglob("*.py") if path.name != "config.py")
    # Where a store is decides whether these are used; `TursoConfig.check_used` reads them all.
    unread = [field.name for field in attrs.fields(part) if f".{field.name}" not in code]
    assert not unread


@pytest.mark.parametrize("part", PARTS)
def test_every_option_is_described(part: type) -> None:
    described = part.__doc__ or ""
    assert [f.name for f in attrs.fields(part) if f"        {f.name}: " not in described] == []


#: What could be set in the first version, and the names of the parts.
EARLIER = {
    "pool": (
        "target_utilisation",
        "shrink_below",
        "sample_interval",
        "forecast_horizon",
        "shrink_cooldown",
    ),
    "keepalive": ("timeout", "stale_after", "max_idle"),
    "prepared": ("max_age",),
    "retry": ("initial", "maximum", "jitter"),
    "breaker": ("max_reset_timeout",),
    "replica": ("poll_interval", "check_interval"),
    "limits": ("connect_timeout",),
}


@pytest.mark.parametrize(
    ("part", "name"), [(part, name) for part, names in EARLIER.items() for name in names]
)
def test_a_dropped_option_is_accepted_with_a_warning(part: str, name: str) -> None:
    given: dict[str, Any] = {f"{part}.{name}": "1"}
    with pytest.warns(DeprecationWarning, match=rf"{part}\.{name}"):
        built = build_options(options.TursoConfig, given, where="turso+http://localhost")
    assert built == options.TursoConfig()
    cls = type(getattr(built, part))
    with pytest.warns(DeprecationWarning, match=name):
        assert cls(**{name: 1}) == cls()
