from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import quote

import pytest
from attrs import evolve, field, frozen
from attrs.validators import ge
from hypothesis import given
from hypothesis import strategies as st

from memory_core import CacheConfig, ConfigurationError, Limits, load_settings
from memory_core.cache import CACHE_PRESETS
from memory_core.config import StorageURL, build_options, cache_config, default_url, option_names
from memory_core.config.options import accepts_dropped
from tests.conftest import ROOT, bound_by_permissions


@frozen(kw_only=True)
class Pool:
    max_size: int = field(default=4, validator=ge(1))
    timeout: float = 1.5

    def __attrs_post_init__(self):
        if self.timeout < 0:
            raise ConfigurationError("timeout: no time runs backwards")


@frozen(kw_only=True)
class Options:
    durability: Literal["full", "normal"] = "full"
    compress: bool = True
    replicas: tuple[str, ...] = ()
    pool: Pool = field(factory=Pool)


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_config_path", lambda _: tmp_path / "config")
    for name in ("URL", "NAMESPACE", "CACHE", "BLOCK_PLUGINS", "CONFIG"):
        monkeypatch.delenv(f"MEMORY_{name}", raising=False)


class TestURLs:
    @pytest.mark.parametrize(
        ("url", "scheme", "location"),
        [
            ("inmemory:", "inmemory", ""),
            ("lmdb:./mem", "lmdb", "./mem"),
            ("LMDB:./Mem", "lmdb", "./Mem"),
            ("turso:/var/lib/a%20b.db", "turso", "/var/lib/a b.db"),
            ("turso:///var/lib/mem.db", "turso", "/var/lib/mem.db"),
            ("lmdb:///srv/a%20b", "lmdb", "/srv/a b"),
            ("lmdb:/srv/a%20b", "lmdb", "/srv/a b"),
            ("lmdb:a#b", "lmdb", "a#b"),
            ("turso+http://127.0.0.1:8080", "turso+http", "turso+http://127.0.0.1:8080"),
            ("libsql://db.example.org/x", "libsql", "libsql://db.example.org/x"),
        ],
    )
    def test_scheme_and_location(self, url, scheme, location):
        parsed = StorageURL.parse(url)
        assert (parsed.scheme, parsed.location, dict(parsed.options)) == (scheme, location, {})

    def test_options_are_kept_apart(self):
        parsed = StorageURL.parse("turso+http://host:1/?pool.max_size=8&durability=normal&note=")
        assert parsed.options == {"pool.max_size": "8", "durability": "normal", "note": ""}
        assert str(parsed) == "turso+http://host:1/"

    @given(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
            lambda p: p[:2] != "//"
        )
    )
    def test_any_path_survives_quoting(self, path):
        assert StorageURL.parse(f"lmdb:{quote(path)}").location == path

    @pytest.mark.parametrize("url", ["", "mem", "./mem", "/a:b", "C:\\mem", ":x"])
    def test_what_has_no_scheme_is_refused_with_an_example(self, url):
        with pytest.raises(
            ConfigurationError, match=r"expected scheme:path, such as lmdb:\./memory"
        ):
            StorageURL.parse(url)

    def test_a_host_that_is_none_is_refused(self):
        with pytest.raises(ConfigurationError) as caught:
            StorageURL.parse("redis://[::1/0")
        assert str(caught.value) == "'redis://[::1/0' has no valid host"

    def test_an_option_given_twice_is_refused(self):
        with pytest.raises(ConfigurationError, match="'map_size' is given twice"):
            StorageURL.parse("lmdb:x?map_size=1&map_size=2")

    @pytest.mark.parametrize(
        "url",
        [
            "libsql://user:hunter2@host",
            "libsql://hunter2@host",
            "hunter2@x",
            "libsql://user:hunter2@[::1/0",
            "libsql://user:hunter2@ho\u2100st",
        ],
    )
    def test_a_url_with_a_secret_is_refused_without_repeating_it(self, url):
        with pytest.raises(ConfigurationError) as caught:
            StorageURL.parse(url)
        assert "hunter2" not in str(caught.value)


class TestOptions:
    def test_texts_become_the_types_of_the_fields(self):
        made = build_options(
            Options,
            {"durability": "normal", "compress": "off", "replicas": "a, b", "pool.max_size": "8"},
            where="turso:x",
        )
        assert made == Options(
            durability="normal", compress=False, replicas=("a", "b"), pool=Pool(max_size=8)
        )

    def test_tables_and_dotted_names_are_the_same(self):
        nested = build_options(Options, {"pool": {"timeout": 2}}, where="x")
        assert nested == build_options(Options, {"pool.timeout": "2"}, where="x")

    def test_names_are_dotted(self):
        assert option_names(Options) == [
            "durability", "compress", "replicas", "pool.max_size", "pool.timeout",
        ]  # fmt: skip

    def test_an_unknown_option_lists_the_valid_ones(self):
        with pytest.raises(ConfigurationError) as caught:
            build_options(Options, {"pool.size": "1"}, where="turso:x")
        assert "'pool.size'" in str(caught.value)
        for name in option_names(Options):
            assert name in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("pool.max_size", "many", "pool.max_size: expected a whole number, got 'many'"),
            ("pool.max_size", "1.5", "pool.max_size: expected a whole number, got '1.5'"),
            ("pool.max_size", True, "pool.max_size: expected a whole number, got True"),
            ("pool.max_size", 1.5, "pool.max_size: expected a whole number, got 1.5"),
            ("pool.max_size", "0", "pool: 'max_size' must be >= 1: 0"),
            ("pool.timeout", "soon", "pool.timeout: expected a number, got 'soon'"),
            ("pool.timeout", "-1", "pool: timeout: no time runs backwards"),
            ("compress", "perhaps", "compress: expected true or false, got 'perhaps'"),
            ("durability", "maybe", "durability: expected one of full, normal, got 'maybe'"),
        ],
    )
    def test_a_wrong_value_names_its_option_and_what_was_expected(self, name, value, expected):
        with pytest.raises(ConfigurationError) as caught:
            build_options(Options, {name: value}, where="turso:x")
        assert str(caught.value) == f"turso:x: {expected}"


@accepts_dropped
@frozen(kw_only=True)
class ShrunkCache:
    dropped_options: ClassVar = {"policy": "it adapts"}

    entries: int = 2


@accepts_dropped
@frozen(kw_only=True)
class Shrunk:
    """A config class that has lost options, and one of the classes nested in it."""

    dropped_options: ClassVar = {"threads": "one is enough", "keepalive": "idle ones are closed"}

    size: int = 1
    cache: ShrunkCache = field(factory=ShrunkCache)


class TestDroppedOptions:
    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("threads", "one is enough"),
            ("keepalive.interval", "idle ones are closed"),
            ("cache.policy", "it adapts"),
        ],
    )
    def test_one_is_accepted_with_a_warning_that_names_it_and_has_no_effect(self, name, reason):
        with pytest.warns(DeprecationWarning, match="no effect") as caught:
            made = build_options(Shrunk, {name: "x", "size": "3"}, where="turso:x")
        assert made == Shrunk(size=3)
        (warning,) = caught
        assert str(warning.message) == (
            f"turso:x: option '{name}' has no effect any more: {reason}"
        )
        assert warning.filename == __file__

    def test_the_constructor_accepts_one_as_well(self):
        with pytest.warns(DeprecationWarning, match="no effect") as caught:
            made = Shrunk(size=3, threads=8)
        assert made == Shrunk(size=3)
        (warning,) = caught
        assert (
            str(warning.message) == "Shrunk: option 'threads' has no effect any more: one is enough"
        )
        assert warning.filename == __file__

    def test_none_is_among_the_valid_ones(self):
        assert option_names(Shrunk) == ["size", "cache.entries"]
        with pytest.raises(
            ConfigurationError, match=r"unknown option 'thread'; valid: cache\.entries, size$"
        ):
            build_options(Shrunk, {"thread": "x"}, where="x")
        with pytest.raises(TypeError, match="thread"):
            Shrunk(thread=1)

    def test_a_copy_causes_no_warning(self):
        assert evolve(Shrunk(size=3), size=4) == Shrunk(size=4)


class TestSettings:
    def test_the_default_is_a_local_turso_file_in_the_data_directory(self):
        settings = load_settings(environment={})
        assert settings.url == default_url()
        assert settings.url.startswith("turso:")
        assert Path(settings.url.removeprefix("turso:")).is_absolute()
        assert (settings.namespace, settings.cache, settings.source) == ("default", None, None)

    def test_arguments_before_environment_before_file_before_defaults(self, tmp_path):
        (tmp_path / "memory.toml").write_text(
            'url = "lmdb:file"\nnamespace = "file"\ncache = "lru"\nwrappers = ["audit"]\n'
        )
        environment = {"MEMORY_URL": "lmdb:environment", "MEMORY_NAMESPACE": "environment"}
        settings = load_settings(url="lmdb:argument", environment=environment)
        assert settings.url == "lmdb:argument"
        assert settings.namespace == "environment"
        assert settings.cache == CacheConfig(tiers=("lru",))
        assert settings.wrappers == ("audit",)
        assert settings.limits == Limits()
        assert settings.source == Path("memory.toml")

    def test_the_file_in_the_configuration_directory_comes_last(self, tmp_path):
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "memory.toml").write_text('namespace = "user"')
        assert load_settings(environment={}).namespace == "user"
        (tmp_path / "memory.toml").write_text('namespace = "here"')
        assert load_settings(environment={}).namespace == "here"
        (tmp_path / "other.toml").write_text('namespace = "other"')
        assert load_settings(environment={"MEMORY_CONFIG": "other.toml"}).namespace == "other"

    def test_tables_of_the_file(self, tmp_path):
        (tmp_path / "memory.toml").write_text(
            """
            block_plugins = ["acme"]
            [limits]
            max_steps = 10
            [options.pool]
            max_size = 3
            [cache]
            preset = "memory_constrained"
            max_entries = 7
            [cache.budgets.episode]
            max_entries = 3
            """
        )
        settings = load_settings(environment={})
        assert settings.limits == Limits(max_steps=10)
        assert settings.options == {"pool": {"max_size": 3}}
        assert settings.block_plugins == ("acme",)
        assert settings.cache is not None
        assert settings.cache.max_entries == 7
        assert settings.cache.budgets["episode"].max_entries == 3
        assert settings.cache.ttl == CacheConfig.memory_constrained().ttl

    def test_lists_in_the_environment_are_separated_by_commas(self):
        environment = {"MEMORY_BLOCK_PLUGINS": "a, b", "MEMORY_CACHE": "adaptive, redis://h/0"}
        settings = load_settings(environment=environment)
        assert settings.block_plugins == ("a", "b")
        assert settings.cache == CacheConfig(tiers=("adaptive", "redis://h/0"))

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("url = ", "memory.toml"),
            ("colour = 1", "unknown setting 'colour'; valid: url, namespace"),
            ("namespace = 5", "namespace: expected text, got 5"),
            ("[limits]\nmax_steps = 0", "max_steps"),
            ("[limits]\nmax_stpes = 1", "max_stpes"),
            ("[cache]\nmax_entires = 1", "unknown setting 'max_entires'; valid: preset, tiers"),
            ("[cache]\npreset = 'large'", "unknown cache preset 'large'; known: balanced"),
            ("[cache]\nmax_entries = 'many'", "max_entries"),
            ("[cache.budgets]\nepisode = 5", "budgets['episode']: expected a table, got 5"),
            ("limits = 5", "limits: expected a table, got 5"),
            ("options = 5", "options: expected a table, got 5"),
            ("wrappers = 5", "wrappers: expected names, got 5"),
            ("cache = 5", "cache: expected names, got 5"),
            ("cache = [5]", "cache: expected names, got [5]"),
        ],
    )
    def test_a_wrong_file_is_refused_with_its_place(self, tmp_path, text, reason):
        (tmp_path / "memory.toml").write_text(text)
        with pytest.raises(ConfigurationError) as caught:
            load_settings(environment={})
        assert reason in str(caught.value)

    def test_a_folder_that_cannot_be_looked_into_holds_none(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        # The system rejects such a path for every user.
        monkeypatch.setenv("XDG_CONFIG_HOME", f"/{'n' * 300}")
        assert load_settings().source is None

    def test_a_file_that_is_nested_too_deeply_is_an_error(self, tmp_path):
        path = tmp_path / "memory.toml"
        path.write_text("a=" + "[" * 50_000)
        with pytest.raises(ConfigurationError, match=r"memory\.toml: it is nested too deeply"):
            load_settings(config_file=path, environment={})

    def test_a_named_file_must_be_there(self):
        with pytest.raises(ConfigurationError, match=r"missing\.toml: no such settings file"):
            load_settings(config_file="missing.toml", environment={})

    def test_a_file_that_is_no_text_is_refused(self, tmp_path):
        (tmp_path / "memory.toml").write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigurationError, match=r"memory\.toml"):
            load_settings(environment={})


class TestCacheSettings:
    @pytest.mark.parametrize("given", [None, "", "none", [], "  "])
    def test_none(self, given):
        assert cache_config(given) is None

    @pytest.mark.parametrize("name", CACHE_PRESETS)
    def test_presets(self, name):
        assert cache_config(name) == CacheConfig.preset(name)
        assert cache_config({"preset": name}) == CacheConfig.preset(name)

    def test_tiers(self):
        expected = CacheConfig(tiers=("adaptive", "lmdb:x"))
        assert cache_config("adaptive,lmdb:x") == expected
        assert cache_config(["adaptive", "lmdb:x"]) == expected

    def test_a_configuration_is_taken_as_it_is(self):
        config = CacheConfig(max_entries=1)
        assert cache_config(config) is config


def test_options_of_the_file_are_for_the_backend_it_names(tmp_path):
    file = tmp_path / "memory.toml"
    file.write_text('url = "lmdb:./here"\n[options]\nindex_lag = 3\n', encoding="utf-8")
    assert load_settings(config_file=file, environment={}).options == {"index_lag": 3}
    same = load_settings(url="lmdb:./there", config_file=file, environment={})
    assert same.options == {"index_lag": 3}
    other = load_settings(config_file=file, environment={"MEMORY_URL": "turso:./there"})
    assert other.options == {}


@pytest.mark.parametrize("url", ["lmdb:a\0b", "lmdb:a%00b", "turso:\udcff"])
def test_a_path_that_cannot_be_is_refused(url):
    with pytest.raises(ConfigurationError, match="no path may have"):
        StorageURL.parse(url)


def test_an_empty_variable_switches_the_cache_of_the_file_off(tmp_path):
    (tmp_path / "memory.toml").write_text('cache = "balanced"\n')
    assert load_settings(environment={}).cache is not None
    assert load_settings(environment={"MEMORY_CACHE": ""}).cache is None


OPENING = """
import os, sys
from pathlib import Path
import platformdirs

os.chdir(sys.argv[1])
platformdirs.user_config_path = lambda _: Path(sys.argv[2])
Path(sys.argv[1]).chmod(0)
Path(sys.argv[2]).chmod(0)
from memory_core import load_settings

print(load_settings(environment={"MEMORY_URL": "lmdb:x"}).url)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are taken away as Linux does")
def test_folders_that_may_not_be_entered_hold_no_settings(tmp_path):
    folders = [tmp_path / "here", tmp_path / "config"]
    for folder in folders:
        folder.mkdir()
        (folder / "memory.toml").write_text("not read")
    try:
        done = subprocess.run(
            [sys.executable, "-c", OPENING, *map(str, folders)],
            capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
            preexec_fn=bound_by_permissions,
        )  # fmt: skip
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert (done.returncode, done.stdout) == (0, "lmdb:x\n"), done.stderr
