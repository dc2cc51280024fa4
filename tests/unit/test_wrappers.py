"""Wrappers: named in arguments, URLs and settings, with options, and errors that name them."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import field, frozen
from attrs.validators import matches_re

from memory_core import (
    ConfigurationError,
    InMemoryStorage,
    PluginError,
    PluginRegistry,
    Settings,
    StorageClosedError,
    WrapperFactory,
    hookimpl,
    open_memory,
)


@frozen(kw_only=True)
class AuditConfig:
    """Options of the wrapper ``audit``."""

    level: int = 1
    label: str = field(default="a", validator=matches_re(r"[a-z]+"))


class Around:
    """Forwards every member, and says with what it was made."""

    def __init__(self, storage, said):
        self.storage, self.said = storage, said

    def __getattr__(self, attribute):
        return getattr(self.storage, attribute)


class Wrappers:
    """The wrappers ``audit``, which takes options, ``plain``, which takes none, and broken ones."""

    @hookimpl
    def memory_wrapper_factories(self):
        return {
            "audit": WrapperFactory(
                wrap=Around, config=f"{__name__}:AuditConfig", summary="notes every call"
            ),
            "plain": WrapperFactory(wrap=lambda storage: Around(storage, "plain"), order=1),
            "nothing": WrapperFactory(wrap=lambda storage: None),
            "fails": WrapperFactory(wrap=lambda storage: storage.colour),
            "refuses": WrapperFactory(wrap=self.refuse),
        }

    def refuse(self, storage):
        raise ConfigurationError(f"{storage.namespace} cannot be wrapped")


@pytest.fixture
def registry():
    registry = PluginRegistry()
    registry.register(Wrappers(), name="wrappers")
    return registry


@pytest.fixture
def opened(monkeypatch):
    """The backends that the test opens."""
    opened: list[InMemoryStorage] = []
    real = InMemoryStorage.open

    async def noting(*args, **kwargs):
        opened.append(await real(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(InMemoryStorage, "open", noting)
    return opened


def said(storage):
    found = []
    while isinstance(storage, Around):
        found.append(storage.said)
        storage = storage.storage
    return found


AUDIT = AuditConfig(level=2)


@pytest.mark.parametrize(
    ("url", "given", "of_settings", "expected"),
    [
        ("inmemory:", "plain", (), ["plain"]),
        ("inmemory:", ["plain", "audit?level=2"], (), [AUDIT, "plain"]),
        ("inmemory:", "audit?level=2&label=a,plain", (), [AUDIT, "plain"]),
        ("inmemory:?wrappers=plain", None, ("audit",), ["plain"]),
        ("inmemory:?wrappers=audit%3Flevel%3D2", None, (), [AUDIT]),
        ("inmemory:?wrappers=plain", "audit?level=2", (), [AUDIT]),
        ("inmemory:?wrappers=", None, ("plain",), []),
        ("inmemory:", (), ("plain",), []),
        ("inmemory:", None, ("audit?level=2",), [AUDIT]),
        ("inmemory:?change_feed_limit=9", None, (), []),
    ],
)
async def test_named_in_arguments_then_the_url_then_the_settings(
    registry, url, given, of_settings, expected
):
    settings = Settings(url=url, wrappers=of_settings)
    async with open_memory(settings=settings, registry=registry, wrappers=given) as memory:
        assert said(memory.storage) == expected


async def test_named_in_the_settings_file(registry, tmp_path, monkeypatch):
    Path(tmp_path / "memory.toml").write_text('url = "inmemory:"\nwrappers = ["audit?level=2"]\n')
    monkeypatch.chdir(tmp_path)
    async with open_memory(registry=registry, cache=None) as memory:
        assert said(memory.storage) == [AUDIT]


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ("audti", "unknown wrapper 'audti'; installed: .*; did you mean 'audit'?"),
        ("audit?levle=2", r"wrapper 'audit': unknown option 'levle'; .*; did you mean 'level'\?"),
        ("audit?level=high", "wrapper 'audit': level: expected a whole number, got 'high'"),
        ("audit?label=7", r"wrapper 'audit': 'label' must match regex '\[a-z\]\+' \('7' doesn't\)$"),
        ("audit?token=x", "'token' in the URL is or holds a secret"),
        ("plain?level=2", "wrapper 'plain': unknown option 'level'; it takes none"),
        (["plain", 3], "wrappers: expected names"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said_before_anything_is_opened(registry, opened, named, problem):
    with pytest.raises(ConfigurationError, match=problem):
        await open_memory("inmemory:", registry=registry, wrappers=named)
    assert opened == []


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ("nothing", "wrapper 'nothing' made no Storage but None: it lacks capabilities, "),
        ("fails", "wrapper 'fails' failed: AttributeError: .*colour"),
        ("refuses", "default cannot be wrapped"),
    ],
)
async def test_a_wrapper_that_fails_is_named_and_leaves_nothing_open(
    registry, opened, named, problem
):
    with pytest.raises((PluginError, ConfigurationError), match=problem):
        await open_memory("inmemory:", registry=registry, wrappers=["plain", named])
    with pytest.raises(StorageClosedError):
        opened[0].position()


async def test_an_unknown_keyword_is_a_type_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'wrapers'"):
        open_memory("inmemory:", wrapers="plain")
