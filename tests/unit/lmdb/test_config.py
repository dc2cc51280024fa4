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
        ("map_size", "1000"),
        ("max_map_size", "1000"),
        ("max_readers", "1"),
        ("max_dbs", "3"),
        ("change_feed_limit", "0"),
        ("index_lag", "-1"),
        ("compression.level", "99"),
        ("colour", "blue"),
    ],
)
def test_wrong_options_are_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=name.split(".")[-1]):
        build_options(LmdbConfig, {name: value}, where="lmdb:x")


def test_options_of_a_url():
    config = build_options(
        LmdbConfig,
        {"durability": "normal", "map_size": "2097152", "compression.dictionary": "false"},
        where="lmdb:x",
    )
    assert (config.durability, config.map_size) == ("normal", 2 * 2**20)
    assert not config.compression.dictionary


def test_a_map_cannot_start_above_its_limit():
    with pytest.raises(ValueError, match="max_map_size"):
        LmdbConfig(map_size=2**30, max_map_size=2**29)


def test_the_plugin_names_its_classes_and_loads_no_driver():
    factory = memory_storage_factories()["lmdb"]
    assert factory.target == "memory_storage_lmdb.storage:LmdbStorage"
    assert factory.config == "memory_storage_lmdb.config:LmdbConfig"
    code = "import sys, memory_storage_lmdb.plugin; sys.exit('lmdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
