import tempfile

import pytest

from memory_core.samples import EPISODES


def test_the_demo_needs_no_settings_and_leaves_nothing_behind(cli, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("MEMORY_URL", "nonsense")
    (tmp_path / "memory.toml").write_text("not even toml")
    shown = cli("demo").stdout
    assert f"{EPISODES} episodes" in shown
    assert "0 different" in shown
    assert "no outcome" in shown
    assert "NO" not in shown.split()
    assert not list(scratch.iterdir())


def test_json(cli):
    report = cli.json("demo")
    assert report["ok"] is True
    assert report["episodes"] == EPISODES
    assert report["relationships"] > 10
    assert report["verified"]["equal"] == {
        "episode": EPISODES,
        "relationship": report["relationships"],
    }
    assert len(report["queries"]) >= 8
    for query in report["queries"]:
        assert query["same"] is True
        assert query["found"] > 0
        assert set(query["seconds"]) == {"turso", "lmdb"}
    assert {item["format"] for item in report["files"]} == {
        "tau-bench",
        "swe-agent",
        "openai-chat",
        "claude-code",
    }


def test_kept_stores_can_be_opened(cli, tmp_path):
    folder = tmp_path / "kept % and ?"
    assert "kept in" in cli("demo", "--keep", folder).stdout
    from urllib.parse import quote

    for url in (
        f"turso:{quote(str(folder / 'memory.db'))}",
        f"lmdb:{quote(str(folder / 'memory.lmdb'))}",
    ):
        assert cli.json("stats", "--url", url)["records"]["episode"] == EPISODES
    assert cli.json("demo", "--keep", folder)["ok"] is True


def test_a_folder_with_other_files_is_not_used(cli, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    cli("demo", "--keep", folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "memory.db").write_text("precious")
    assert "holds files that are not a demo's" in cli("demo", "--keep", other, code=2).stderr
    assert [path.name for path in other.iterdir()] == ["memory.db"]
    assert "File exists" in cli("demo", "--keep", other / "memory.db", code=2).stderr
    assert (other / "memory.db").read_text() == "precious"


@pytest.mark.parametrize(
    "option", [("--url", "lmdb:./mine"), ("--namespace", "mine"), ("--config", "mine.toml")]
)
@pytest.mark.parametrize("before", [True, False])
def test_it_says_that_it_uses_no_store_of_yours(cli, tmp_path, option, before):
    given = [*option, "demo"] if before else ["demo", *option]
    said = cli(*given, code=2).stderr
    assert f"takes no {option[0]}" in said
    assert not (tmp_path / "mine").exists()
