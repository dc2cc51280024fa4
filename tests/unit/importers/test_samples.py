from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from memory_core.importers import BUILTIN_IMPORTERS, detect
from memory_core.records import ACYCLIC_TYPES, OutcomeStatus, ResultStatus
from memory_core.samples import (
    EPISODES,
    coding_sessions,
    incidents,
    related,
    repairs,
    support_desk,
    write_samples,
)
from memory_core.samples.bugs import BUGS


def imported(paths):
    return [episode for path in paths for episode in detect(path, BUILTIN_IMPORTERS).read(path)]


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    return imported(write_samples(tmp_path_factory.mktemp("samples")))


def test_the_files_are_the_same_every_time_and_replace_earlier_ones(tmp_path):
    one, two = tmp_path / "deep" / "one", tmp_path / "two"
    content = [{path.name: path.read_bytes() for path in write_samples(to)} for to in (one, two)]
    assert content[0] == content[1]
    assert {path.name for path in one.iterdir()} == set(content[0])
    next(one.iterdir()).write_text("changed")
    assert {path.name: path.read_bytes() for path in write_samples(one)} == content[0]


def test_a_seed_is_accepted_with_a_warning(tmp_path):
    with pytest.warns(DeprecationWarning, match="'seed' no longer has any effect"):
        paths = write_samples(tmp_path, seed=2)
    assert len(imported(paths)) == EPISODES


def test_the_parts_and_the_bugs_are_found_where_they_were(tmp_path):
    written = [
        path
        for part in (support_desk, repairs, incidents, coding_sessions)
        for path in part.write(tmp_path, Random(1))
    ]
    assert written == write_samples(tmp_path)
    assert {f"{bug.repo}-{bug.issue}.traj" for bug in BUGS} == {
        path.name for path in repairs.write(tmp_path)
    }
    (bug,) = (bug for bug in BUGS if bug.repo == "kiosk-web")
    assert (bug.issue, bug.search, bug.path, bug.line) == (58, "reduce", "src/cart/total.ts", 9)
    assert bug.report.startswith("Total shows 30.299999999999997\n\nThree items")
    assert bug.before == "  return items.reduce((sum, item) => sum + item.price, 0);"
    assert bug.after.endswith("Math.round(item.price * 100), 0) / 100;")
    assert bug.test == "npx vitest run src/cart"
    assert bug.failure == "AssertionError: expected 30.299999999999997 to be 30.3"


def test_every_format_is_there_and_every_file_is_detected(tmp_path):
    paths = write_samples(tmp_path)
    found = Counter(detect(path, BUILTIN_IMPORTERS).name for path in paths)
    assert found == {"tau-bench": 1, "swe-agent": 10, "openai-chat": 1, "claude-code": 9}


def test_the_number_of_episodes_is_that_promised(episodes):
    assert len(episodes) == len({episode.id for episode in episodes}) == EPISODES


def test_the_samples_have_every_outcome_and_many_tools_domains_and_languages(episodes):
    outcomes = {episode.outcome and episode.outcome.status for episode in episodes}
    assert outcomes == {*OutcomeStatus, None}
    steps = [step for episode in episodes for step in episode.steps]
    assert {step.result.status for step in steps if step.result} == set(ResultStatus)
    assert len({step.tool for step in steps}) > 30
    assert len({episode.context.domain for episode in episodes}) >= 6
    assert len({episode.context.language for episode in episodes}) >= 5
    assert len({episode.task_type for episode in episodes}) >= 4
    sources = {episode.metadata["source"] for episode in episodes}
    assert sources == {"tau-bench", "swe-agent", "openai-chat", "claude-code"}


def test_no_placeholder_is_left_in_the_text(episodes):
    customer = [str(e.steps) for e in episodes if e.metadata["source"] == "tau-bench"]
    assert not [text for text in customer if "{account}" in text or "{domain}" in text]


def test_relationships_are_those_of_the_episodes_whatever_their_order(episodes):
    edges = related(episodes)
    assert edges == related(reversed(episodes))
    ids = {episode.id for episode in episodes}
    ends = [(e.from_episode_id, e.to_episode_id, e.relationship_type) for e in edges]
    assert len(set(ends)) == len({edge.id for edge in edges}) == len(edges)
    assert all(source in ids and target in ids and source != target for source, target, _ in ends)
    acyclic = [(source, target) for source, target, kind in ends if kind in ACYCLIC_TYPES]
    assert len(acyclic) == 1
    assert len({kind for _, _, kind in ends}) == 5
