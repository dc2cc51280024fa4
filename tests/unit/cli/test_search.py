import unicodedata
from datetime import UTC, datetime

import pytest

from memory_core import ErrorRecovery, Heuristic, Outcome, OutcomeStatus, ToolSequence
from memory_core.cli.conditions import Ending
from tests.unit.cli.episodes import EPISODES, episode, numbered


@pytest.fixture
def filled(cli):
    cli.put(*EPISODES)
    return cli


def numbers(found):
    return [int(record["id"][:8], 16) for record in found["records"]]


AT = datetime(2025, 3, 2, tzinfo=UTC)
LESSONS = [
    Heuristic(
        id=numbered(1), condition="a", action="b", confidence=0.5, domain="web", created_at=AT,
        language="python", tags=("http", "slow"),
    ),
    Heuristic(
        id=numbered(2), condition="a", action="b", confidence=1, domain="db", created_at=AT,
        tags=("slow",),
    ),
    ToolSequence(id=numbered(3), tools=("grep", "sed"), created_at=AT),
    ErrorRecovery(id=numbered(4), error_type="Timeout", recovery_steps=("wait",), created_at=AT),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["heuristic"], [2, 1]),
        (["heuristic", "domain=web"], [1]),
        (["heuristic", "domain=web", "domain=db"], [2, 1]),
        (["heuristic", "tags=slow", "tags=http"], [1]),
        (["heuristic", "language=python", "tags=slow"], [1]),
        (["heuristic", "confidence=0.5"], [1]),
        (["heuristic", "created_at=2025-03-02"], [2, 1]),
        (["pattern", "tools=grep"], [3]),
        (["pattern", "error_type=Timeout"], [4]),
        (["pattern", "pattern_type=tool_sequence", "error_type=Timeout"], []),
        (["episode", f"applied_patterns={numbered(3)}"], [9]),
        (["episode", f"applied_heuristics={numbered(1)}"], [9]),
        (["episode", f"applied_heuristics={numbered(2)}"], []),
    ],
)
def test_what_has_a_value_is_listed(cli, arguments, expected):
    applying = episode(9, applied_patterns=[numbered(3)], applied_heuristics=[numbered(1)])
    cli.put(*LESSONS, applying)
    kind, *conditions = arguments
    options = [part for text in conditions for part in ("--where", text)]
    assert numbers(cli.json("list", "--kind", kind, *options)) == expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("colour=red", "heuristic has no index 'colour'; indexed: confidence, created_at, domain"),
        ("domain", "'domain' is not key=value"),
        ("confidence=high", "'high' is not a number"),
        ("created_at=soon", "'soon' is not a time"),
    ],
)
def test_a_condition_that_is_wrong(cli, condition, message):
    result = cli("list", "--kind", "heuristic", "--where", condition, code=2)
    assert message in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [4, 3, 2, 1]),
        (["THEME"], [2]),
        (["the"], [3, 2, 1]),
        (["unrelated"], []),
        (["--tag", "ci"], [2, 1]),
        (["--tag", "ci", "--tag", "http"], [1]),
        (["--any-tag", "http", "--any-tag", "ci"], [2, 1]),
        (["--any-tag", "ci", "--tag", "flaky"], [1]),
        (["--tool", "bash"], [3, 1]),
        (["--tool", "bash", "--tool", "edit"], [1]),
        (["--outcome", "failure"], [2]),
        (["--outcome", "failure", "--outcome", "success"], [3, 2, 1]),
        (["--task-type", "debugging"], [1]),
        (["--task-type", "debugging", "--task-type", "analysis"], [3, 1]),
        (["--domain", "web"], [2, 1]),
        (["--domain", "web", "--language", "python"], [1]),
        (["--metadata", "run=42"], [1]),
        (["--metadata", "run=42", "--metadata", "by=ana"], [1]),
        (["--metadata", "run=42", "--metadata", "run=43"], []),
        (["--since", "2025-03-03"], [4, 3, 2]),
        (["--until", "2025-03-03T12:00"], [2, 1]),
        (["--since", "2025-03-03T13:00+01:00", "--until", "2025-03-04T12:00:00Z"], [3, 2]),
        (["--since", "1h"], []),
        (["--since", "2025-03-03", "--until", "2025-03-03"], [2]),
        (["--until", "20250303"], [2, 1]),
        (["--until", "2025-03-03T00:00"], [1]),
        (["--until", "9999-12-31"], [4, 3, 2, 1]),
        (["--outcome", "none"], [4]),
        (["--outcome", "none", "--outcome", "failure"], [4, 2]),
        (["--min-reward", "0"], [1]),
        (["--max-reward", "1.5"], [2, 1]),
        (["--min-reward", "-1", "--max-reward", "0"], [2]),
        (["--complete"], [3, 2, 1]),
        (["--running"], [4]),
        (["--asc"], [1, 2, 3, 4]),
        (["--order", "reward", "--desc", "--min-reward", "-9"], [1, 2]),
        (["--order", "id", "--asc"], [1, 2, 3, 4]),
        (["--limit", "2"], [4, 3]),
        (["the", "--domain", "web", "--complete", "--order", "id", "--desc"], [2, 1]),
        (["theme test", "--order", "id"], []),
    ],
)
def test_conditions(filled, arguments, expected):
    found = numbers(filled.json("search", *arguments))
    if arguments and not arguments[0].startswith("-"):
        # The order of matches is that of their scores.
        found, expected = sorted(found), sorted(expected)
    assert found == expected


@pytest.mark.parametrize("text", [None, "task"])
def test_cursors_lead_through_all(cli, text):
    cli.put(*(episode(number) for number in range(1, 24)))
    seen, cursor = [], None
    order = ["--order", "start_time"]
    for _ in range(99):
        options = [*([text] if text else []), *order, *(["--cursor", cursor] if cursor else [])]
        page = cli.json("search", "--limit", 5, *options)
        seen += numbers(page)
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [*range(23, 0, -1)]


def test_a_text_is_looked_for_in_all_that_match_not_only_the_first_page(cli, monkeypatch):
    from memory_core.cli import records

    monkeypatch.setattr(records, "_SCANNED_AT_ONCE", 3)
    cli.put(*(episode(number) for number in range(1, 24)))
    found = cli.json("search", "task 1", "--limit", 3, "--order", "start_time")
    assert numbers(found) == [19, 18, 17]
    assert numbers(cli.json("search", "task 1", "--asc", "--limit", 1)) == [1]


def test_the_table_has_short_ids_and_no_markup_from_records(filled):
    shown = filled("search", "login").stdout
    assert "Fix the [bold]flaky[/bold] login test" in shown
    assert str(numbered(1))[:8] in shown
    assert "success" in shown
    assert filled("search", "unrelated").stdout == "no episode found\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "yesterday"], "2025-03-01"),
        (["--since", "999999w"], "is not a time"),
        (["--metadata", "run"], "key=value"),
        (["--since", "2025-03-04", "--until", "2025-03-03"], "--since and --until"),
        (["--min-reward", "1", "--max-reward", "0.5"], "--min-reward and --max-reward"),
        (["--complete", "--running"], "--complete and --running"),
        (["--running", "--complete"], "--complete and --running"),
        (["--outcome", "won"], "partial_success"),
        (["--limit", "0"], "--limit"),
        (["--order", "tags"], "many values"),
        (["--order", "nonsense"], "start_time"),
        (["--cursor", "nonsense"], "cursor"),
    ],
)
def test_what_cannot_be_asked(filled, arguments, message):
    result = filled("search", *arguments, code=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_every_outcome_can_be_asked_for():
    assert [item.outcome for item in Ending] == [*OutcomeStatus, None]


def test_list(filled):
    assert numbers(filled.json("list")) == [4, 3, 2, 1]
    assert numbers(filled.json("list", "--limit", 1, "--asc")) == [1]
    assert filled.json("list", "--kind", "pattern") == {
        "kind": "pattern",
        "records": [],
        "next_cursor": None,
    }
    assert "heuristic" in filled("list", "--kind", "nonsense", code=2).stderr


def test_list_of_other_kinds(filled):
    filled("relate", numbered(1), numbered(2), "--type", "follows")
    shown = filled("list", "--kind", "relationship").stdout
    assert f"follows {numbered(1)} → {numbered(2)}" in shown


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@pytest.mark.parametrize("wanted", ["café", "CAFÉ", "cafe\u0301", "STRASSE", "한국"])
def test_a_text_is_found_however_its_characters_are_composed(cli, form, wanted):
    cli.put(episode(1, task_description=unicodedata.normalize(form, "Open Café, Straße 한국")))
    assert numbers(cli.json("search", wanted)) == [1]


def test_a_letter_is_found_in_a_letter_with_an_accent(cli):
    cli.put(episode(1, task_description="caf\u0065\u0301"))
    assert numbers(cli.json("search", "cafe")) == [1]


def test_words_are_found_in_steps_and_outcomes_the_best_match_first(cli):
    cli.put(
        episode(1, task_description="look", outcome=Outcome.success("issued the refund")),
        episode(2, task_description="a refund, and a second refund"),
        episode(3, task_description="nothing"),
    )
    found = cli.json("search", "refund")
    assert numbers(found) == [2, 1]
    first, second = found["hits"]
    assert first["id"] == found["records"][0]["id"]
    assert first["score"] > second["score"]
    assert second["why"] == {"outcome": ["refund"]}
    assert "issued the refund" in cli("search", "refunds").stdout


def test_a_part_of_another_text_stands_below_the_description(cli):
    cli.put(
        episode(
            1, task_description="change a flight", outcome=Outcome.success("the voucher was valid")
        )
    )
    found = cli("search", "voucher").stdout
    assert "change a flight" in found
    assert "the voucher was valid" in found
    assert "voucher" not in cli("search", "flight").stdout


def test_phrases_and_typing_errors(cli):
    cli.put(
        episode(1, task_description="travel insurance"),
        episode(2, task_description="insurance for travel"),
    )
    assert numbers(cli.json("search", "travel insurance", "--phrase")) == [1]
    assert sorted(numbers(cli.json("search", "trawel", "--typos", 1))) == [1, 2]
    assert numbers(cli.json("search", "trawel")) == []
    assert sorted(numbers(cli.json("search", "insu"))) == [1, 2]
    assert "at least one word" in cli("search", "…", code=2).stderr


def test_many_episodes_without_an_index_are_searched_by_their_descriptions(cli, monkeypatch):
    from memory_core.cli import records

    monkeypatch.setenv("MEMORY_BLOCK_PLUGINS", "tantivy")
    monkeypatch.setattr(records, "_FOR_THE_REFERENCE", 10)
    cli.put(*(episode(number) for number in range(1, 24)))
    result = cli("search", "task 2")
    assert "23 episodes" in result.stderr
    assert numbers(cli.json("search", "task 2", "--limit", 2)) == [23, 22]


def test_the_words_of_a_record_cannot_reach_the_terminal(cli):
    cli.put(episode(1, task_description="refund \x1b[2J\u202e [bold]x"))
    shown = cli("search", "refund").stdout
    assert "\x1b" not in shown
    assert "[bold]x" in shown


@pytest.mark.usefixtures("new_york")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--since", "2025-03-03T12:00"], [4, 3, 2]),
        (["--since", "2025-03-03T12:01"], [4, 3]),
        (["--until", "2025-03-03T12:00"], [2, 1]),
        (["--until", "2025-03-03T11:59"], [1]),
        (["--since", "2025-03-03", "--until", "2025-03-03"], [2]),
        (["--since", "2025-03-03T07:00-05:00"], [4, 3, 2]),
    ],
)
def test_a_time_without_a_zone_is_utc_whatever_the_local_time(filled, arguments, expected):
    assert numbers(filled.json("search", *arguments)) == expected


@pytest.mark.usefixtures("new_york")
def test_a_day_ends_in_utc_whatever_the_local_time(cli):
    times = (datetime(2025, 3, 3, 23, 59, tzinfo=UTC), datetime(2025, 3, 4, 0, 1, tzinfo=UTC))
    cli.put(*(episode(n, start_time=at, end_time=at) for n, at in enumerate(times, 1)))
    assert numbers(cli.json("search", "--until", "2025-03-03")) == [1]
    assert numbers(cli.json("search", "--since", "2025-03-04")) == [2]
