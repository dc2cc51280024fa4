"""No read returns older data than a commit that was acknowledged before it began, in any process.

The short runs have as many operations as it takes to find violations when the coherence is off; the
long ones are the promise.
"""

from __future__ import annotations

import pytest

from memory_core.testing.checks.staleness import StalenessRun, main, run

pytestmark = pytest.mark.slow

STORES = {
    "lmdb": "lmdb:{folder}/store?durability=normal&busy_timeout=60",
    # Where the disk is busy, so are those who hold the lock.
    "turso": "turso:{folder}/memory.db?durability=normal&busy_timeout=60",
}
SORTS = {"reads", "edges", "writes", "deletes", "queries", "pages", "counts"}
TIERS = {"one tier": ("adaptive",), "two tiers": ("adaptive", "lmdb:{folder}/tier")}


def settings(folder, store: str, tiers: tuple[str, ...] = ("adaptive",), **changes) -> StalenessRun:
    return StalenessRun(
        url=STORES[store].format(folder=folder),
        tiers=tuple(tier.format(folder=folder) for tier in tiers),
        **changes,
    )


@pytest.mark.parametrize("tiers", TIERS.values(), ids=TIERS)
@pytest.mark.parametrize("store", STORES)
def test_no_read_is_stale(tmp_path, store, tiers) -> None:
    report = run(settings(tmp_path, store, tiers, processes=3, operations=1_500))
    assert (report.violation_count, report.violations) == (0, [])
    assert sum(report.operations.values()) > 3 * 4 * (1_500 // 4)
    assert set(report.operations) == SORTS
    assert report.hit_rate > 0.2
    assert report.query_hits > 50
    assert report.cascades > 20


@pytest.mark.parametrize("bound", [None, 0.05])
@pytest.mark.parametrize("store", STORES)
def test_the_check_sees_stale_reads(tmp_path, store, bound) -> None:
    changes = {"coherent": False, "max_staleness": bound}
    report = run(settings(tmp_path, store, processes=2, operations=1_500, **changes))
    assert report.violation_count > 10
    assert report.violations


@pytest.mark.parametrize(
    ("store", "tiers"), [("turso", TIERS["one tier"]), ("lmdb", TIERS["two tiers"])]
)
def test_where_the_position_is_hidden_own_writes_are_seen_and_others_within_the_bound(
    tmp_path, store, tiers
) -> None:
    report = run(settings(tmp_path, store, tiers, processes=3, operations=1_500, max_staleness=0.3))
    assert (report.violation_count, report.violations) == (0, [])
    assert set(report.operations) == SORTS
    assert report.hit_rate > 0.2
    assert report.query_hits > 50


def test_the_command_says_by_its_code_whether_all_was_as_it_must_be(tmp_path, capsys) -> None:
    url = STORES["lmdb"].format(folder=tmp_path / "coherent")
    short = ["--processes", "2", "--operations", "400"]
    assert main([url, *short]) == 0
    assert '"violation_count": 0' in capsys.readouterr().out
    assert main([STORES["lmdb"].format(folder=tmp_path / "not"), *short, "--incoherent"]) == 0
    assert '"violation_count": 0' not in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("tiers", TIERS.values(), ids=TIERS)
@pytest.mark.parametrize("store", STORES)
def test_no_read_is_stale_in_the_long_run(tmp_path, store, tiers) -> None:
    report = run(settings(tmp_path, store, tiers, processes=4, operations=100_000))
    assert (report.violation_count, report.violations) == (0, [])
    assert sum(report.operations.values()) > 400_000
