import json

import pytest

from memory_core.samples import EPISODES as SAMPLE_EPISODES
from memory_core.samples import write_samples


@pytest.fixture
def samples(tmp_path):
    return write_samples(tmp_path / "transcripts")


def test_import_and_import_again(cli, samples):
    first = cli.json("import", *samples)
    assert first["stored"] == SAMPLE_EPISODES
    assert first["skipped"] == 0
    assert {report["format"] for report in first["files"]} == {
        "tau-bench",
        "swe-agent",
        "openai-chat",
        "claude-code",
    }
    before = cli.json("stats")["position"]
    again = cli.json("import", *samples)
    assert again["stored"] == 0
    assert again["unchanged"] == SAMPLE_EPISODES
    assert cli.json("stats")["position"] == before
    assert "tau-bench" in cli("import", *samples).stdout


@pytest.fixture
def broken(samples, tmp_path):
    """A file whose second entry is malformed; and how many it has."""
    source = next(path for path in samples if path.name.startswith("support-desk"))
    entries = json.loads(source.read_bytes())
    entries[1]["traj"] = 7
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(entries))
    return file, len(entries)


def test_malformed_input_names_file_and_entry_and_stores_nothing(cli, samples, broken):
    result = cli("import", samples[0], broken[0], code=3)
    assert "broken.json, index 1: " in result.stderr
    assert result.stderr.count("\n") == 1
    assert "there is no store" in cli("list", code=2).stderr


def test_keep_going_imports_the_rest_and_lists_what_it_skipped(cli, broken, tmp_path):
    file, entries = broken
    nonsense = tmp_path / "nonsense.txt"
    nonsense.write_text("no transcript")
    result = cli("import", file, nonsense, tmp_path / "missing", "--keep-going", "--json", code=1)
    report = json.loads(result.stdout)
    assert report["stored"] == entries - 1
    assert report["skipped"] == 3
    assert report["files"][0]["skipped"][0]["entry"] == "index 1"
    assert result.stderr.count("skipped: ") == 3
    assert "3 entries were skipped" in result.stderr


@pytest.mark.parametrize("command", ["import", "load"])
def test_a_file_that_is_not_there_and_one_that_is_malformed(cli, samples, tmp_path, command):
    """Both commands say so with the same exit codes, and make no store."""
    nonsense = tmp_path / "nonsense.txt"
    nonsense.write_text("neither a transcript nor an export")
    more = samples[:1] if command == "import" else []
    for file, code, said in (
        (tmp_path / "missing", 2, "No such file"),
        (tmp_path, 2, "directory"),
        (nonsense, 3, "nonsense.txt"),
    ):
        result = cli(command, *more, file, code=code)
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    assert "there is no store" in cli("list", code=2).stderr


def test_a_named_format(cli, samples):
    source = next(path for path in samples if path.name.startswith("support-desk"))
    assert cli.json("import", source, "--format", "tau-bench")["stored"] > 0
    cli("import", source, "--format", "claude-code", code=3)
    assert "known: auto, " in cli("import", source, "--format", "nonsense", code=2).stderr
    assert "unknown format" in cli("import", source, "--format", "nonsense", code=2).stderr


def test_what_the_store_refuses(cli, samples, tmp_path):
    settings = tmp_path / "memory.toml"
    settings.write_text("[limits]\nmax_steps = 3\n")
    result = cli("import", samples[0], "--keep-going", "--json", code=1)
    report = json.loads(result.stdout)
    assert report["skipped"] > 0
    assert "max_steps=3" in report["files"][0]["skipped"][0]["reason"]
    strict = cli("import", samples[0], code=1)
    assert "max_steps=3" in strict.stderr


def test_real_transcripts(cli, real_data):
    file = real_data / "tau_bench" / "gpt-4o-airline.json.gz"
    assert cli.json("import", file)["stored"] == 200
    found = cli.json("search", "--metadata", "task_id=7", "--limit", 100)["records"]
    assert len(found) == 4
    assert {record["metadata"]["trial"] for record in found} == {"0", "1", "2", "3"}
    won = cli.json("search", "--min-reward", 1, "--limit", 1000)["records"]
    assert len(won) == 84
