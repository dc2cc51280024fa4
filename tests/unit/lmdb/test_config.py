import subprocess
import sys

import pytest

from memory_core.config import build_options
from memory_core.errors import ConfigurationError
from memory_storage_lmdb.config import LmdbConfig
from memory_storage_lmdb.plugin import memory_storage_factories


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("durability", "none"),
        ("max_map_size", "1000"),
        ("max_dbs", "3"),
        ("change_feed_limit", "0"),
        ("index_lag", "-1"),
        ("compression.level", "99"),
        ("colour", "blue"),
    ],
)
def test_wrong_options_are_rejected_by_name(name, value):
    with pytest.raises(ConfigurationError, match=name.split(".")[-1]):
        build_options(LmdbConfig, {name: value}, where="lmdb:x")


def test_options_of_a_url():
    config = build_options(
        LmdbConfig,
        {"durability": "normal", "max_map_size": "2097152", "compression.dictionary": "false"},
        where="lmdb:x",
    )
    assert (config.durability, config.max_map_size) == ("normal", 2 * 2**20)
    assert not config.compression.dictionary


@pytest.mark.parametrize("name", ["map_size", "max_readers", "resident_size"])
def test_dropped_options_are_accepted_with_a_warning(name):
    with pytest.warns(DeprecationWarning, match=f"lmdb:x: option '{name}' has no effect"):
        assert build_options(LmdbConfig, {name: "2097152"}, where="lmdb:x") == LmdbConfig()
    with pytest.warns(DeprecationWarning, match=name):
        assert LmdbConfig(**{name: 2**21}, index_lag=3) == LmdbConfig(index_lag=3)


def test_the_plugin_names_its_classes_and_loads_no_driver():
    factory = memory_storage_factories()["lmdb"]
    assert factory.target == "memory_storage_lmdb.storage:LmdbStorage"
    assert factory.config == "memory_storage_lmdb.config:LmdbConfig"
    code = "import sys, memory_storage_lmdb.plugin; sys.exit('lmdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
