from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from memory_core.errors import ImportFormatError
from memory_core.importers import BUILTIN_IMPORTERS, ClaudeCodeImporter
from memory_core.importers.base import detect, found_in
from memory_core.importers.log import Log
from memory_core.importers.source import Source
from memory_core.records import ResultStatus, StepResult
from tests.unit.importers.transcripts import (
    SESSION,
    claude_line,
    claude_session,
    reply,
    use,
    used,
    write_bytes,
    write_lines,
)

IMPORTER = ClaudeCodeImporter()


def read(tmp_path, lines):
    return list(IMPORTER.read(write_lines(tmp_path / "session.jsonl", lines)))


def read_one(tmp_path, lines):
    (episode,) = read(tmp_path, lines)
    return episode


def at(second):
    return datetime(2025, 5, 4, 12, 0, second, 250_000, tzinfo=UTC)


def test_a_session_becomes_an_episode_of_unknown_outcome(tmp_path):
    episode = read_one(tmp_path, claude_session())
    assert episode.task_description == "Fix the clock."
    assert (episode.context.domain, episode.context.language) == ("software-engineering", "python")
    assert (episode.start_time, episode.end_time) == (at(0), at(9))
    assert episode.outcome is None
    assert not episode.is_complete
    assert episode.tags == ("claude-code",)
    assert episode.metadata == {
        "source": "claude-code",
        "session_id": SESSION,
        "title": "Clock",
        "project": "clock",
        "cwd": "/home/ada/clock",
        "git_branch": "main",
        "version": "2.1.12",
        "model": "claude-x",
        "timing": "steps",
    }


def test_text_and_tools_become_steps_with_results_latency_and_tokens(tmp_path):
    steps = read_one(tmp_path, claude_session()).steps
    assert [(s.tool, s.action, s.tokens_used) for s in steps] == [
        ("message", "user", None),
        ("message", "user", None),
        ("message", "assistant", 35),
        ("Read", "call", None),
        ("Edit", "call", 45),
        ("message", "assistant", 17),
    ]
    look, edit = steps[3:5]
    assert look.parameters == {"file_path": "/clock.py"}
    assert look.result == StepResult.success("old")
    assert (look.timestamp, look.latency_ms) == (at(4), 2_000)
    assert edit.result == StepResult.error("not found")
    assert edit.metadata == {"call_id": "toolu_2"}


def test_a_timed_out_command_keeps_what_it_printed(tmp_path):
    lines = [
        claude_line("assistant", 1, [use("Bash", {"command": "make"})]),
        claude_line("user", 2, [used("Command timed out after 2m\n[1/9]", is_error=True)]),
    ]
    (step,) = read_one(tmp_path, lines).steps
    assert step.result.status is ResultStatus.TIMEOUT
    assert step.metadata["output"] == "Command timed out after 2m\n[1/9]"


def test_calls_of_one_reply_get_their_own_answers_in_any_order(tmp_path):
    blocks = [use("A", {}, "1"), use("B", {}, "2"), use("C", {}, "3")]
    lines = [
        claude_line("assistant", 1, blocks),
        claude_line("user", 2, [used("b", "2"), used("a", "1")]),
        claude_line("user", 3, [used("of nobody", "9")]),
    ]
    steps = read_one(tmp_path, lines).steps
    assert [(s.tool, s.result and s.result.output) for s in steps] == [
        ("A", "a"),
        ("B", "b"),
        ("C", None),
        ("unknown", "of nobody"),
    ]


def test_thoughts_images_and_notices_are_steps(tmp_path):
    image = {"type": "image", "source": {"type": "base64", "data": "A" * 9000}}
    lines = [
        claude_line("user", 1, [{"type": "text", "text": "See"}, image]),
        claude_line("assistant", 2, [{"type": "thinking", "thinking": "Hm", "signature": "x"}]),
        {**claude_line("system", 3, ""), "content": "Conversation compacted", "subtype": "x"},
        {**claude_line("system", 4, ""), "subtype": "turn_duration", "durationMs": 5},
        claude_line("assistant", 5, [use("Shot", {})]),
        claude_line("user", 6, [used([image])]),
    ]
    steps = read_one(tmp_path, lines).steps
    assert [s.action for s in steps] == ["user", "user", "thinking", "system", "call"]
    assert steps[1].parameters["content"].startswith("[image: ")
    assert "sha256" in steps[4].result.output


def test_meta_lines_and_commands_are_kept_but_describe_nothing(tmp_path):
    lines = [
        claude_line("user", 1, "Caveat: the messages below…", isMeta=True),
        claude_line("user", 2, "This session is being continued…", isCompactSummary=True),
        claude_line("user", 3, "<local-command-stdout></local-command-stdout>"),
        claude_line("user", 4, [{"type": "text", "text": "Now fix it."}]),
    ]
    episode = read_one(tmp_path, lines)
    assert episode.task_description == "Now fix it."
    assert [step.metadata.get("meta") for step in episode.steps] == ["true", "true", None, None]


def test_an_error_of_the_api_is_a_failed_message(tmp_path):
    lines = [
        claude_line("assistant", 1, [{"type": "text", "text": "API Error"}], isApiErrorMessage=True)
    ]
    (step,) = read_one(tmp_path, lines).steps
    assert step.result == StepResult.error("API Error")


def test_without_a_prompt_the_title_describes_the_session(tmp_path):
    turn = claude_line("assistant", 1, "Hello")
    titled = [turn, {"type": "custom-title", "customTitle": "Mine", "sessionId": SESSION}]
    assert read_one(tmp_path, titled).task_description == "Mine"
    assert SESSION in read_one(tmp_path, [turn]).task_description


def test_a_summary_names_the_session_it_sums_up_wherever_it_stands(tmp_path):
    summaries = [
        {"type": "summary", "summary": "Ours", "leafUuid": "line-1-user"},
        {"type": "summary", "summary": "Another one", "leafUuid": "elsewhere"},
    ]
    turn = claude_line("user", 1, "Hi")
    assert read_one(tmp_path, [*summaries, turn]).metadata["title"] == "Ours"
    assert read_one(tmp_path, [turn, *summaries]).metadata["title"] == "Ours"


def test_sessions_of_one_file_are_told_apart_though_mixed(tmp_path):
    other = "1b8e2f6a-0000-4d1c-9d8b-3f2a7c1e5d90"
    lines = [
        claude_line("user", 1, "One"),
        claude_line("user", 2, "Two", sessionId=other),
        claude_line("assistant", 3, "Answer one"),
        claude_line("assistant", 4, "Answer two", sessionId=other),
    ]
    one, two = read(tmp_path, lines)
    assert [len(one.steps), len(two.steps)] == [2, 2]
    assert (one.metadata["session_id"], two.metadata["session_id"]) == (SESSION, other)
    assert read_one(tmp_path, lines[0::2]) == one


def test_a_subagent_is_an_episode_and_an_inline_side_chain_is_not(tmp_path):
    lines = [
        claude_line("user", 1, "Explore", isSidechain=True),
        claude_line("user", 2, "Fix it"),
        claude_line("user", 3, "Find the clock", isSidechain=True, agentId="a1"),
        claude_line("assistant", 4, "Done"),
    ]
    agent, session = read(tmp_path, lines)
    assert agent.task_description == "Find the clock"
    assert agent.tags == ("claude-code", "subagent")
    assert (agent.metadata["session_id"], agent.metadata["agent_id"]) == (SESSION, "a1")
    assert session.task_description == "Fix it"
    assert [step.metadata.get("sidechain") for step in session.steps] == ["true", None, None]
    assert agent.id != session.id


def test_a_session_that_went_on_keeps_its_id_and_a_repeated_line_counts_once(tmp_path):
    lines = claude_session()
    short, full = read_one(tmp_path, lines[:4]), read_one(tmp_path, lines)
    assert short.id == full.id
    assert short.start_time == full.start_time
    assert read_one(tmp_path, [*lines, *lines]) == full


def test_usage_that_grows_over_a_reply_counts_once_with_its_last_value(tmp_path):
    lines = [
        claude_line("assistant", 1, [{"type": "text", "text": "a"}], message=reply("m", 1)),
        claude_line("assistant", 2, [{"type": "text", "text": "b"}], message=reply("m", 50)),
    ]
    assert [step.tokens_used for step in read_one(tmp_path, lines).steps] == [65, None]


def test_lines_without_times_are_read_in_the_order_of_the_file(tmp_path):
    lines = [claude_line("user", second, f"{second}") for second in (1, 2, 3)]
    for line in lines:
        del line["timestamp"]
    episode = read_one(tmp_path, lines)
    assert episode.metadata["timing"] == "none"
    assert [step.parameters["content"] for step in episode.steps] == ["1", "2", "3"]
    lines[1]["timestamp"] = "2025-01-01T00:00:00Z"
    episode = read_one(tmp_path, lines)
    assert {step.timestamp.year for step in episode.steps} == {2025}


def test_bookkeeping_alone_is_no_episode(tmp_path):
    lines = [
        {"type": "mode", "mode": "x", "sessionId": SESSION},
        {"type": "file-history-snapshot", "messageId": "x", "snapshot": {}},
        {"type": "future", "message": 3, "content": [1], "sessionId": SESSION},
    ]
    assert read(tmp_path, lines) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"type": "user", "message": {"con', "is not JSON"),
        ("[1]", "Expected `object`, got `array`"),
        ('{"a": 1}', "it has no type"),
        ({"type": "user", "message": {"content": "x"}}, "the user line has no sessionId"),
    ],
)
def test_a_malformed_line_is_named_and_the_rest_of_the_session_is_kept(tmp_path, line, reason):
    lines = claude_session()
    whole = read_one(tmp_path, lines)
    path = write_lines(tmp_path / "damaged.jsonl", [*lines[:5], line, *lines[5:]])
    error, episode = IMPORTER.read(path, keep_going=True)
    assert isinstance(error, ImportFormatError)
    assert (error.file, error.entry) == (str(path), "line 6")
    assert reason in error.reason
    assert episode == whole
    with pytest.raises(ImportFormatError) as caught:
        list(IMPORTER.read(path))
    assert str(caught.value) == str(error)


def test_a_broken_last_line_does_not_lose_its_session(tmp_path):
    path = write_lines(tmp_path / "session.jsonl", [*claude_session(), "[3]", '{"type": "us'])
    episode, first, second = IMPORTER.read(path, keep_going=True)
    assert (first.entry, second.entry) == ("line 12", "line 13")
    assert len(episode.steps) == 6


def test_a_tool_whose_name_cannot_be_indexed_is_repaired(tmp_path):
    for name, kept in (("a\0b", "a\ufffdb"), ("  ", "unknown")):
        (step,) = read_one(tmp_path, [claude_line("assistant", 1, [use(name, {})])]).steps
        assert step.tool == kept
        assert step.metadata["repaired"]


def test_bytes_that_are_not_utf8_do_not_lose_their_line(tmp_path):
    good = write_lines(tmp_path / "a", claude_session()).read_bytes()
    path = write_bytes(tmp_path / "b", good.replace(b"Sorry.", b"Sorry\xff"))
    (episode,) = IMPORTER.read(path)
    assert len(episode.steps) == 6
    assert episode.steps[-1].parameters == {"content": "Sorry\ufffd"}
    assert "not UTF-8" in episode.metadata["repaired"]


def test_two_readings_are_equal(tmp_path):
    path = write_lines(tmp_path / "session.jsonl.gz", claude_session())
    assert list(IMPORTER.read(path)) == list(IMPORTER.read(path, keep_going=True))


def noted(tmp_path, lines):
    """The only episode of some lines, and the notes on them."""
    log = Log("session")
    path = write_lines(tmp_path / "session.jsonl", lines)
    (found,) = found_in(IMPORTER, Source("session", path), log)
    assert log.lost == 0
    return found.episode, "\n".join(map(str, log.notes))


@pytest.mark.parametrize(
    ("line", "note"),
    [
        (claude_line("user", 5, "x", timestamp="noon"), "line 2: timestamp is not a time"),
        (claude_line("user", 5, [None]), "line 2: a part of the content is null"),
        (
            claude_line("assistant", 5, [{"type": "text", "text": None}]),
            "a text of the content is null",
        ),
        (claude_line("assistant", 5, [use("X", {"n": 2**70})]), "kept as text"),
    ],
)
def test_what_is_odd_in_a_line_is_noted_and_the_rest_of_it_is_read(tmp_path, line, note):
    episode, notes = noted(tmp_path, [claude_line("user", 1, "Hi"), line])
    assert episode.task_description == "Hi"
    assert note in notes


def test_a_message_whose_content_has_another_name_is_listed_and_text_alone_is_read(tmp_path):
    lines = [
        claude_line("user", 1, "Hi"),
        {**claude_line("user", 2, ""), "message": {"role": "user", "contenst": [used("ok")]}},
        {**claude_line("user", 3, ""), "message": "Go on"},
        {**claude_line("assistant", 4, ""), "message": None},
    ]
    path = write_lines(tmp_path / "session.jsonl", lines)
    log = Log("session")
    (found,) = found_in(IMPORTER, Source("session", path), log)
    assert [step.parameters["content"] for step in found.episode.steps] == ["Hi", "Go on"]
    (skipped,) = log.skipped
    assert skipped.entry == "line 2"
    assert "fields that are not known: contenst" in skipped.reason
    assert [str(note) for note in log.notes] == ["session, line 4: the message has no content"]


def test_a_line_over_the_limit_loses_that_line_only(tmp_path, monkeypatch):
    monkeypatch.setattr("memory_core.importers.source.MAX_ENTRY_BYTES", 5000)
    lines = [claude_line("user", 1, "Hi"), claude_line("user", 2, "x" * 6000)]
    path = write_lines(tmp_path / "session.jsonl", [*lines, claude_line("assistant", 3, "Ho")])
    log = Log("session")
    (found,) = found_in(IMPORTER, Source("session", path), log)
    assert [step.parameters["content"] for step in found.episode.steps] == ["Hi", "Ho"]
    assert [(error.entry, error.reason) for error in log.skipped] == [
        ("line 2", "an entry is larger than 5000 bytes")
    ]


def test_bookkeeping_is_counted(tmp_path):
    log = Log("session")
    path = write_lines(tmp_path / "session.jsonl", claude_session())
    list(found_in(IMPORTER, Source("session", path), log))
    assert log.left_out == {"mode": 1, "ai-title": 1}


def test_content_of_another_type_is_kept_as_its_text(tmp_path):
    lines = [claude_line("user", 1, 7), claude_line("assistant", 2, [use("X", [1])])]
    one, two = read_one(tmp_path, lines).steps
    assert one.parameters == {"content": "7"}
    assert two.parameters == {"input": [1]}


def test_half_a_surrogate_pair_is_replaced_and_the_metadata_says_so(tmp_path):
    lines = [
        claude_line("user", 1, "Look"),
        claude_line("assistant", 2, [use("Bash", {"command": "cat x"})]),
        claude_line("user", 3, [used("abc\ud83d")]),
        claude_line("assistant", 4, "It is binary."),
    ]
    episode, notes = noted(tmp_path, lines)
    assert [step.tool for step in episode.steps] == ["message", "Bash", "message"]
    assert episode.steps[1].result == StepResult.success("abc\ufffd")
    assert "surrogate" in episode.steps[1].metadata["repaired"]
    assert "surrogate" in episode.metadata["repaired"]
    assert "line 3: half a surrogate pair replaced" in notes


def test_deep_input_is_kept_as_json_text_where_it_gets_too_deep(tmp_path):
    lines = [
        claude_line("assistant", 1, [use("Tree", {"tree": json.loads("[" * 70 + "1" + "]" * 70)})])
    ]
    value = read_one(tmp_path, lines).steps[0].parameters["tree"]
    while isinstance(value, list):
        (value,) = value
    assert json.loads(value)
    assert value.strip("[]") == "1"


def test_a_number_that_json_has_not_does_not_matter_where_nobody_reads_it(tmp_path):
    line = json.dumps({**claude_line("system", 9, ""), "durationMs": float("nan")})
    episode, notes = noted(tmp_path, [claude_line("user", 1, "q"), line])
    assert (len(episode.steps), notes) == (1, "")
    assert "repaired" not in episode.metadata


def test_a_prompt_typed_while_the_agent_works_is_a_message_of_the_user(tmp_path):
    prompt = {"type": "queued_command", "prompt": "wait, use staging", "commandMode": "prompt"}
    lines = [
        claude_line("user", 1, "Deploy"),
        {
            "type": "queue-operation",
            "operation": "enqueue",
            "sessionId": SESSION,
            "content": "wait",
        },
        {**claude_line("user", 2, ""), "type": "attachment", "uuid": "q", "attachment": prompt},
    ]
    steps = read_one(tmp_path, lines).steps
    assert [step.parameters["content"] for step in steps] == ["Deploy", "wait, use staging"]
    assert steps[1].metadata == {"queued": "true"}


@pytest.mark.parametrize(
    "blocks",
    [
        [
            {"type": "text", "text": "<ide_opened_file>a.go</ide_opened_file>"},
            {"type": "text", "text": "Explain"},
        ],
        [{"type": "text", "text": "<ide_selection>x</ide_selection>\nExplain"}],
        "<system-reminder>be brief</system-reminder>\nExplain",
    ],
)
def test_the_description_is_what_the_user_wrote(tmp_path, blocks):
    assert read_one(tmp_path, [claude_line("user", 1, blocks)]).task_description == "Explain"


def test_an_error_of_a_server_tool_is_an_error_and_titles_of_a_search_are_kept(tmp_path):
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}}
    result = {"type": "web_search_tool_result", "tool_use_id": "s"}
    hit = {
        "type": "web_search_result",
        "title": "The title",
        "url": "https://example.org/page",
        "encrypted_content": "Z" * 3000,
    }
    failure = {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}
    lines = [
        claude_line("assistant", 1, [search, {**result, "content": failure}]),
        claude_line("assistant", 2, [search, {**result, "content": [hit]}]),
    ]
    failed, found = read_one(tmp_path, lines).steps
    assert failed.result.status is ResultStatus.ERROR
    assert "max_uses_exceeded" in failed.result.message
    assert found.result.status is ResultStatus.SUCCESS
    assert "The title" in found.result.output
    assert "https://example.org/page" in found.result.output
    assert "ZZZ" not in found.result.output


def test_what_the_user_went_back_from_is_marked(tmp_path):
    def said(kind, second, parent, text):
        return claude_line(kind, second, text, uuid=f"u{second}", parentUuid=parent)

    lines = [
        said("user", 1, None, "Write a sort"),
        said("assistant", 2, "u1", "Which?"),
        said("user", 3, "u2", "Quick"),
        said("assistant", 4, "u3", "quick it is"),
        said("user", 5, "u2", "Merge, rather"),
        said("assistant", 6, "u5", "merge it is"),
    ]
    episode = read_one(tmp_path, lines)
    abandoned = [step.metadata.get("abandoned") for step in episode.steps]
    assert abandoned == [None, None, "true", "true", None, None]
    assert episode.metadata["abandoned_steps"] == "2"


def test_results_of_parallel_calls_are_no_branches(tmp_path):
    lines = [
        claude_line("user", 1, "Go", uuid="u1"),
        claude_line("assistant", 2, [use("A", {}, "1")], uuid="u2", parentUuid="u1"),
        claude_line("assistant", 3, [use("B", {}, "2")], uuid="u3", parentUuid="u2"),
        claude_line("user", 4, [used("a", "1")], uuid="u4", parentUuid="u2"),
        claude_line("user", 5, [used("b", "2")], uuid="u5", parentUuid="u3"),
        claude_line("assistant", 6, "Done", uuid="u6", parentUuid="u5"),
    ]
    episode = read_one(tmp_path, lines)
    assert "abandoned_steps" not in episode.metadata


def test_a_stream_tells_outcome_cost_and_duration(tmp_path):
    stream = {"session_id": SESSION, "parent_tool_use_id": None}
    lines = [
        {
            "type": "system",
            "subtype": "init",
            "model": "claude-x",
            "cwd": "/a/b",
            "uuid": "v0",
            **stream,
        },
        {"type": "user", "message": {"role": "user", "content": "List"}, "uuid": "v1", **stream},
        {
            "type": "assistant",
            "message": {"role": "assistant", "content": [use("Bash", {"command": "ls"})]},
            "uuid": "v2",
            **stream,
        },
        {"type": "user", "message": {"content": [used("a.py")]}, "uuid": "v3", **stream},
        {
            "type": "result",
            "subtype": "success",
            "is_error": False,
            "duration_ms": 5000,
            "num_turns": 2,
            "result": "There is a.py",
            "total_cost_usd": 0.01,
            "uuid": "v4",
            **stream,
        },
    ]
    episode = read_one(tmp_path, lines)
    assert (episode.outcome.status, episode.outcome.verdict) == ("success", "There is a.py")
    assert [step.tool for step in episode.steps] == ["message", "Bash", "message"]
    assert episode.metadata["session_id"] == SESSION
    assert (episode.metadata["cost"], episode.metadata["duration_ms"]) == ("0.01", "5000")
    lines[-1] |= {"subtype": "error_max_turns", "result": None}
    outcome = read_one(tmp_path, lines).outcome
    assert (outcome.status, outcome.reason) == ("failure", "The run ended with error_max_turns.")


def test_a_subagent_is_a_part_of_its_session_and_a_fork_follows_another(tmp_path):
    lines = [
        claude_line("user", 1, "Find it", isSidechain=True, agentId="a1"),
        claude_line("user", 2, "Go", forkedFrom={"sessionId": "other", "messageUuid": "x"}),
    ]
    path = write_lines(tmp_path / "session.jsonl", lines)
    agent, session = found_in(IMPORTER, Source("session", path), Log("session"))
    assert agent.parent == session.episode.id
    assert agent.episode.metadata["parent_episode"] == str(session.episode.id)
    (other,) = read(tmp_path, [claude_line("user", 1, "Before", sessionId="other")])
    assert session.follows == other.id
    assert session.episode.metadata["forked_from"] == "other"


def test_lines_without_any_session_are_of_the_one_that_the_file_is_named_for(tmp_path):
    lines = [claude_line("user", 1, "Hi"), claude_line("assistant", 2, "Hello")]
    for line in lines:
        del line["sessionId"], line["uuid"]
    episode = read_one(tmp_path, lines)
    assert (len(episode.steps), episode.metadata["session_id"]) == (2, "session")


def read_log(tmp_path, lines):
    log = Log("session.jsonl")
    path = write_lines(tmp_path / "session.jsonl", lines)
    (found,) = found_in(IMPORTER, Source("session.jsonl", path), log)
    return found.episode, log


def system_line(second, subtype, **fields):
    line = claude_line("system", second, "", subtype=subtype, **fields)
    del line["message"]
    return line


def test_errors_of_the_program_are_steps_and_other_lines_of_it_are_counted(tmp_path):
    lines = [
        claude_line("user", 1, "Go"),
        system_line(2, "api_error", error={"message": "overloaded"}, retryAttempt=1),
        system_line(3, "stop_hook_summary", hookErrors=["lint failed"], hookCount=1),
        system_line(4, "stop_hook_summary", hookErrors=[], hookCount=1),
        system_line(5, "turn_duration", durationMs=3),
    ]
    episode, log = read_log(tmp_path, lines)
    _, api, hook = episode.steps
    assert (api.action, api.metadata) == ("system", {"notice": "api_error"})
    assert api.result == StepResult.error('{"message":"overloaded"}')
    assert hook.parameters == {"content": "lint failed"}
    assert hook.result == StepResult.error("lint failed")
    assert log.left_out == {"system stop_hook_summary": 1, "system turn_duration": 1}


def test_a_result_alone_keeps_its_tokens_denials_and_errors(tmp_path):
    result = {
        "type": "result",
        "subtype": "error_during_execution",
        "session_id": SESSION,
        "result": "Hello",
        "errors": ["disk full\nat line 3"],
        "usage": {"input_tokens": 3, "output_tokens": 9, "cache_read_input_tokens": 100},
        "permission_denials": [
            {"tool_name": "Write", "tool_use_id": "x", "tool_input": {"file_path": "/etc/x"}}
        ],
    }
    episode = read_one(tmp_path, [result])
    said, denied = episode.steps
    assert (said.parameters, said.tokens_used) == ({"content": "Hello"}, 12)
    assert (denied.tool, denied.parameters) == ("Write", {"file_path": "/etc/x"})
    assert denied.result == StepResult.error("The permission was denied.")
    assert denied.metadata["permission"] == "denied"
    assert episode.outcome.error_details == "disk full\nat line 3"


def test_a_denied_call_of_the_session_is_marked_and_its_tokens_are_not_counted_twice(tmp_path):
    asked = claude_line("assistant", 1, [use("Write", {})], message={"usage": {"input_tokens": 5}})
    result = {
        "type": "result",
        "subtype": "success",
        "session_id": SESSION,
        "usage": {"input_tokens": 50},
        "permission_denials": [{"tool_name": "Write", "tool_use_id": "toolu_1"}],
    }
    (step,) = read_one(tmp_path, [asked, result]).steps
    assert step.metadata["permission"] == "denied"
    assert step.tokens_used == 5


def test_a_second_model_is_named_by_its_steps(tmp_path):
    lines = [
        claude_line("assistant", second, str(second), message={"model": model})
        for second, model in enumerate(("one", "two", "<synthetic>"))
    ]
    episode = read_one(tmp_path, lines)
    assert episode.metadata["model"] == "one"
    assert [step.metadata.get("model") for step in episode.steps] == [None, "two", None]


def test_a_stream_may_be_an_array(tmp_path):
    """As ``claude -p --output-format json --verbose`` prints it."""
    lines = [
        {"type": "system", "subtype": "init", "session_id": SESSION},
        {"type": "user", "message": {"content": "List"}, "session_id": SESSION},
        {"type": "assistant", "message": {"content": [use("Bash", {})]}, "session_id": SESSION},
        {"type": "result", "subtype": "success", "result": "a.py", "session_id": SESSION},
    ]
    (tmp_path / "array.json").write_text(json.dumps(lines))
    assert detect(tmp_path / "array.json", BUILTIN_IMPORTERS).name == "claude-code"
    (episode,) = IMPORTER.read(tmp_path / "array.json")
    assert episode == read_one(tmp_path, lines)
