"""Settings of the server drivers: wrong ones are refused, and every one is read somewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import memory_storage_turso.server_config as settings
from memory_core.errors import ConfigurationError

PARTS = [
    settings.PoolConfig,
    settings.KeepAliveConfig,
    settings.PreparedConfig,
    settings.RetryConfig,
    settings.BreakerConfig,
    settings.ReplicaConfig,
    settings.ServerLimits,
    settings.ServerConfig,
]


def numbers() -> Iterator[tuple[type, str]]:
    for part in PARTS:
        for field in attrs.fields(part):
            if isinstance(field.default, int | float):
                yield part, field.name


@pytest.mark.parametrize(("part", "name"), list(numbers()))
@pytest.mark.parametrize("value", [-1, "many", None, True, float("nan"), float("inf")])
def test_what_is_no_sensible_number_is_refused_by_name(
    part: type, name: str, value: object
) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"{part.__name__}.{name}: expected a (whole )?number"
    ):
        part(**{name: value})


def test_counts_are_whole() -> None:
    with pytest.raises(ConfigurationError, match="expected a whole number"):
        settings.PoolConfig(max_size=2.5)  # pyright: ignore[reportArgumentType] - that is the point


@pytest.mark.parametrize(
    ("part", "options"),
    [
        (settings.PoolConfig, {"min_size": 5, "max_size": 4}),
        (settings.PoolConfig, {"shrink_below": 0.9}),
        (settings.KeepAliveConfig, {"interval": 10, "stale_after": 9}),
        (settings.RetryConfig, {"initial": 3, "maximum": 2}),
        (settings.BreakerConfig, {"reset_timeout": 60}),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    part: type, options: dict[str, float]
) -> None:
    with pytest.raises(ConfigurationError, match="is over"):
        part(**options)


def test_choice_is_one_of_those_offered() -> None:
    with pytest.raises(ConfigurationError, match="auto, on, off"):
        settings.ServerConfig(wire_compression="gzip")  # pyright: ignore[reportArgumentType] - that is the point


@pytest.mark.parametrize("part", PARTS)
def test_every_setting_is_read_somewhere(part: type) -> None:
    package = Path(settings.__file__).parent
    code = "\n".join(
        path.read_text()
        for path in package.rglob("*.py")
        if path.name not in ("server_config.py", "config.py")
    )
    unread = [field.name for field in attrs.fields(part) if f".{field.name}" not in code]
    assert not unread


@pytest.mark.parametrize("part", PARTS)
def test_every_setting_is_described(part: type) -> None:
    described = part.__doc__ or ""
    assert [f.name for f in attrs.fields(part) if f"        {f.name}: " not in described] == []
