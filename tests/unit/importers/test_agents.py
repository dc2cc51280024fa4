"""Transcripts of other agents, in the shapes that they write."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime

import pytest
import zstandard

from memory_core import open_memory
from memory_core.cli.imports import import_file
from memory_core.errors import ImportFormatError
from memory_core.importers import OpenHandsImporter
from memory_core.records import OutcomeStatus, ResultStatus
from tests.unit.importers.transcripts import CASES, case, read, shape, write, write_lines


def test_codex_rollout():
    form, episode = case("codex_rollout.jsonl")
    assert form == "codex"
    assert episode.task_description == "Run the tests"
    assert shape(episode) == [
        ("message", "user", None),
        ("message", "thinking", None),
        ("shell", "call", "error"),
        ("message", "assistant", None),
    ]
    shell = episode.steps[2]
    assert shell.parameters == {"command": ["bash", "-lc", "pytest"]}
    assert shell.result.message == "1 failed"
    assert (shell.metadata["exit_code"], shell.latency_ms, shell.tokens_used) == ("1", 2000, 1685)
    assert episode.outcome is None
    assert episode.metadata == {
        "source": "codex",
        "session_id": "019e9625-0000-7e91-840a-cfe88d14117a",
        "cwd": "/home/dev/app",
        "version": "0.135.0",
        "originator": "codex_cli_rs",
        "model": "gpt-5.5",
        "tokens": "22549",
        "timing": "steps",
    }


def codex_line(second, kind, **payload):
    return {"timestamp": f"2026-06-05T04:58:{second:02d}Z", "type": kind, "payload": payload}


@pytest.mark.parametrize(
    ("output", "status", "text", "code"),
    [
        ("Exit code: 2\nWall time: 1 seconds\nOutput:\nno", "error", "Exit code: 2", "2"),
        (
            "Chunk ID: a\nWall time: 1 s\nProcess exited with code 0\nOutput:\nok",
            "success",
            "ok",
            "0",
        ),
        ({"content": "denied", "success": False}, "error", "denied", None),
        ([{"type": "input_text", "text": "two"}], "success", "two", None),
        ("plain", "success", "plain", None),
        ("command timed out after 1000 ms", "timeout", None, None),
        (
            "Exit code: 124\nWall time: 10 s\nOutput:\ncommand timed out after 10000 milliseconds",
            "timeout",
            None,
            "124",
        ),
        ("Exit code: 1\nOutput:\nit said: command timed out", "error", "it said", "1"),
        ('{"output": "", "metadata": {"exit_code": 0}}', "success", None, "0"),
    ],
)
def test_codex_outputs(tmp_path, output, status, text, code):
    lines = [
        codex_line(0, "session_meta", id="s", cwd="/a"),
        codex_line(
            1, "response_item", type="custom_tool_call", name="apply", input="x", call_id="1"
        ),
        codex_line(2, "response_item", type="custom_tool_call_output", call_id="1", output=output),
    ]
    _, (episode,), _ = read(write_lines(tmp_path / "r.jsonl", lines))
    (step,) = episode.steps
    assert step.parameters == {"input": "x"}
    assert step.result.status == status
    assert step.metadata.get("exit_code") == code
    if text is not None:
        assert text in (step.result.output or step.result.message)


def test_codex_context_is_not_the_prompt_and_errors_are_kept(tmp_path):
    def said(second, text):
        content = [{"type": "input_text", "text": text}]
        return codex_line(second, "response_item", type="message", role="user", content=content)

    lines = [
        codex_line(0, "session_meta", id="s", forked_from_id="before"),
        said(1, "<environment_context>\n  <cwd>/a</cwd>\n</environment_context>"),
        said(2, "Fix it"),
        codex_line(3, "event_msg", type="user_message", message="Fix it"),
        codex_line(4, "event_msg", type="error", message="quota"),
        codex_line(5, "event_msg", type="turn_aborted", reason="interrupted"),
        codex_line(6, "compacted", message="so far"),
    ]
    path = write_lines(tmp_path / "r.jsonl", lines)
    _, (episode,), log = read(path)
    assert episode.task_description == "Fix it"
    assert [step.action for step in episode.steps] == ["user", "user", "system", "system", "system"]
    assert episode.steps[0].metadata["meta"] == "true"
    assert episode.steps[2].result.message == "quota"
    assert log.left_out == {"event user_message": 1}
    assert episode.metadata["forked_from"] == "before"


def test_codex_subagents_are_parts_of_their_session(tmp_path):
    spawn = {"subagent": {"thread_spawn": {"parent_thread_id": "s", "depth": 1}}}
    hi = codex_line(1, "response_item", type="message", role="user", content="Hi")
    paths = [
        write_lines(tmp_path / "a.jsonl", [codex_line(0, "session_meta", id="s"), hi]),
        write_lines(
            tmp_path / "b.jsonl", [codex_line(0, "session_meta", id="t", source=spawn), hi]
        ),
    ]
    (_, (session,), _), (_, (agent,), _) = map(read, paths)
    assert agent.metadata["parent_episode"] == str(session.id)


def test_codex_bare_items_of_older_versions(tmp_path):
    lines = [
        {
            "id": "s",
            "timestamp": "2025-05-01T10:00:00Z",
            "instructions": None,
            "git": {"branch": "main"},
        },
        {"record_type": "state"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "function_call", "name": "shell", "arguments": "{}", "call_id": "1"},
        {"type": "function_call_output", "call_id": "1", "output": "done"},
    ]
    form, (episode,), _ = read(write_lines(tmp_path / "r.jsonl", lines))
    assert form == "codex"
    assert [step.tool for step in episode.steps] == ["message", "shell"]
    assert (episode.metadata["session_id"], episode.metadata["git_branch"]) == ("s", "main")
    assert episode.start_time.year == 2025


def test_gemini_cli_chat():
    form, episode = case("gemini_cli_chat.json")
    assert form == "gemini-cli"
    assert shape(episode) == [
        ("message", "user", None),
        ("message", "thinking", None),
        ("message", "assistant", None),
        ("read_file", "call", "error"),
    ]
    assert episode.steps[1].tokens_used == 125
    assert episode.steps[1].parameters["content"] == "Plan\nI read it."
    call = episode.steps[3]
    assert (call.parameters, call.result.message) == ({"file_path": "a.txt"}, "File not found")
    assert call.metadata == {"call_id": "read_file-1", "status": "error"}
    assert episode.metadata["model"] == "gemini-3-pro-preview"
    assert episode.end_time == datetime(2026, 1, 30, 6, 17, 50, 756000, tzinfo=UTC)


def test_gemini_cli_notices_of_errors_are_failed(tmp_path):
    messages = [
        {
            "id": str(number),
            "timestamp": "2026-01-30T06:08:50Z",
            "type": kind,
            "content": f"An {kind}",
        }
        for number, kind in enumerate(["info", "error"])
    ]
    chat = {
        "sessionId": "s",
        "projectHash": "p",
        "startTime": "2026-01-30T06:08:50Z",
        "messages": messages,
    }
    form, (episode,), _ = read(write(tmp_path / "session.json", chat))
    assert form == "gemini-cli"
    assert shape(episode) == [("message", "system", None), ("message", "system", "error")]
    assert episode.steps[1].result.message == "An error"


@pytest.mark.parametrize("name", ["gemini_contents.json", "gemini_messages_with_parts.json"])
def test_gemini_contents(name):
    form, episode = case(name)
    assert form == "gemini"
    assert [step.parameters for step in episode.steps] in (
        [{"content": "Read"}, {"p": "a"}],
        [{"content": "hello"}, {"content": "hi"}],
    )
    if len(episode.steps[1].parameters) and episode.steps[1].tool == "read_file":
        assert episode.steps[1].result.output == "A"
        assert episode.steps[1].metadata == {"call_id": "x"}


def test_gemini_requests_with_thoughts_code_and_media(tmp_path):
    image = {"inlineData": {"mimeType": "image/png", "data": "iVBOR" + "A" * 2000}}
    request = {
        "model": "gemini-x",
        "systemInstruction": {"parts": [{"text": "Be brief"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "See"}, image]},
            {
                "role": "model",
                "parts": [
                    {"text": "Hm", "thought": True},
                    {"executableCode": {"language": "PYTHON", "code": "1/0"}},
                    {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "division"}},
                    {"functionCall": {"name": "f", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [{"functionResponse": {"name": "f", "response": {"error": "no"}}}],
            },
        ],
        "candidates": [{"content": {"role": "model", "parts": [{"text": "Done"}]}}],
    }
    _, (episode,), _ = read(write_lines(tmp_path / "log.jsonl", [request]))
    assert shape(episode) == [
        ("message", "system", None),
        ("message", "user", None),
        ("message", "user", None),
        ("message", "thinking", None),
        ("code_execution", "call", "error"),
        ("f", "call", "error"),
        ("message", "assistant", None),
    ]
    assert "image/png, 1503 bytes, sha256 " in episode.steps[2].parameters["content"]


def test_mini_swe_agent_of_version_1():
    form, episode = case("mini_swe_agent.traj.json")
    assert form == "mini-swe-agent"
    assert episode.task_description == "Fix the parser"
    look, end = episode.steps[2:]
    assert (look.tool, look.parameters) == ("bash", {"command": "cat a.py"})
    assert look.result.message == "cat: a.py: No such file"
    assert look.metadata == {"thought": "look", "exit_code": "1"}
    assert (look.tokens_used, look.latency_ms) == (900, 1000)
    assert end.result.output == "diff --git a/a.py b/a.py\n"
    assert episode.outcome.status is OutcomeStatus.SUCCESS
    assert episode.outcome.artifacts == ("a.py",)
    assert episode.context.language == "python"
    wanted = {
        "model": "claude-sonnet-4-5",
        "cost": "0.031",
        "api_calls": "3",
        "exit_status": "Submitted",
    }
    assert wanted.items() <= episode.metadata.items()


def test_mini_swe_agent_of_version_2():
    _, episode = case("mini_swe_agent_v2.traj.json")
    step = episode.steps[2]
    assert (step.tool, step.parameters) == ("bash", {"command": "cat a.py"})
    assert step.result.message == "cat: a.py: No such file or directory"
    assert step.metadata == {"call_id": "call_1", "thought": "Look.", "exit_code": "1"}
    assert (step.tokens_used, step.latency_ms) == (930, pytest.approx(900))
    assert episode.outcome.status is OutcomeStatus.FAILURE
    assert "LimitsExceeded" in episode.outcome.reason


def test_mini_swe_agent_of_messages_alone(tmp_path):
    messages = [
        {"role": "system", "content": "You can use bash."},
        {
            "role": "user",
            "content": "Please solve this issue: It is slow\n\nYou can execute bash commands",
        },
        {"role": "assistant", "content": "Two:\n```bash\nls\n```\n```bash\npwd\n```"},
        {"role": "user", "content": "Please give exactly one action."},
        {"role": "assistant", "content": "Run\n\n```mswea_bash_command\nmake\n```"},
        {
            "role": "user",
            "content": "The last command <command>make</command> timed out and was killed.",
        },
        {"role": "assistant", "content": "Again\n\n```bash\nls\n```"},
        {"role": "user", "content": "<returncode>0</returncode>\n<output>\na.py\n</output>"},
    ]
    form, (episode,), _ = read(write(tmp_path / "x.traj.json", messages))
    assert form == "mini-swe-agent"
    assert episode.task_description == "It is slow"
    assert shape(episode)[2:] == [
        ("message", "assistant", None),
        ("message", "user", None),
        ("bash", "run", "timeout"),
        ("bash", "run", "success"),
    ]
    assert episode.outcome is None


def test_swe_agent_of_version_1():
    form, episode = case("swe_agent_1x.traj")
    assert form == "swe-agent"
    assert shape(episode)[2:] == [
        ("bash", "run", "error"),
        ("bash", "run", "success"),
        ("bash", "run", "success"),
        ("submit", "run", "success"),
    ]
    assert episode.steps[2].parameters == {"command": "cd /testbed && python -m pytest tests"}


@pytest.mark.parametrize("name", ["openhands_events.json", "openhands_output.jsonl"])
def test_openhands_events(name):
    form, episode = case(name)
    assert form == "openhands"
    assert episode.task_description == "Fix it"
    assert shape(episode) == [
        ("message", "user", None),
        ("execute_bash", "run", "error"),
        ("finish", "finish", None),
    ]
    step = episode.steps[1]
    assert step.parameters == {"command": "ls", "is_input": False}
    assert (step.result.message, step.latency_ms) == ("ls: no", 1000)
    assert step.metadata == {"call_id": "c1", "thought": "look", "exit_code": "1"}
    assert episode.outcome.status is OutcomeStatus.SUCCESS
    assert episode.metadata["cost"] == "0.01"
    if name == "openhands_output.jsonl":
        assert episode.outcome.verdict == "The instance is resolved."
        assert episode.metadata["model"] == "claude"


def test_openhands_events_of_version_1():
    _, episode = case("openhands_v1_event.json")
    (step,) = episode.steps
    assert (step.tool, step.parameters) == ("execute_bash", {"command": "ls"})
    assert step.metadata == {"call_id": "c1", "thought": "look", "event_id": "e1"}


def openhands_v1():
    common = {"timestamp": "2026-03-01T10:00:0", "source": "agent"}
    call = {"tool_name": "execute_bash", "tool_call_id": "c1"}
    events = [
        {"kind": "SystemPromptEvent", "system_prompt": {"type": "text", "text": "You code."}},
        {"kind": "MessageEvent", "source": "user",
         "llm_message": {"role": "user", "content": [{"type": "text", "text": "Fix it"}]}},
        {"kind": "ActionEvent", "thought": [], "action": {"kind": "X", "command": "ls"}, **call},
        {"kind": "ObservationEvent", "source": "environment", **call,
         "observation": {"kind": "Y", "content": [{"type": "text", "text": "no"}], "exit_code": 2}},
        {"kind": "ConversationStateUpdateEvent", "key": "x", "value": 1},
    ]  # fmt: skip
    for number, event in enumerate(events):
        stamp = f"{common['timestamp']}{number}"
        yield {**common, "id": f"e{number}", **event, "timestamp": stamp}


@pytest.mark.parametrize("order", [1, -1])
async def test_openhands_events_of_a_folder_become_one_episode(tmp_path, order):
    folder = tmp_path / "conversation-1" / "events"
    folder.mkdir(parents=True)
    events = list(openhands_v1())
    paths = [
        write(folder / f"event-{number:05d}.json", event) for number, event in enumerate(events)
    ]
    async with open_memory("inmemory:") as memory:
        for path in paths[::order] * 2:
            await import_file(memory, path, OpenHandsImporter())
        (apart,) = [episode async for episode in memory.iter_episodes()]
    _, (together,), log = read(write_lines(tmp_path / "all.jsonl", events))
    assert (
        shape(apart)
        == shape(together)
        == [
            ("message", "system", None),
            ("message", "user", None),
            ("execute_bash", "call", "error"),
        ]
    )
    assert apart.task_description == together.task_description == "Fix it"
    assert apart.steps[2].latency_ms == together.steps[2].latency_ms == 1000
    assert apart.steps[2].metadata["exit_code"] == "2"
    assert log.left_out == {"ConversationStateUpdateEvent": 1}


def test_tau2_results():
    form, episode = case("tau2_results.json")
    assert form == "tau2-bench"
    assert episode.task_description.startswith("You want to return the bottle.")
    assert episode.context.domain == "retail"
    assert (episode.reward.total, episode.outcome.status) == (1.0, OutcomeStatus.SUCCESS)
    step = episode.steps[2]
    assert (step.tool, step.parameters) == ("get_order", {"order_id": "#W1"})
    assert (step.result.message, step.tokens_used, step.latency_ms) == (
        "Error: not found",
        7040,
        1000,
    )
    assert step.metadata["cost"] == "0.02"
    assert episode.start_time == datetime(2025, 10, 31, 7, 16, 30, tzinfo=UTC)
    assert episode.end_time == datetime(2025, 10, 31, 7, 18, tzinfo=UTC)
    wanted = {
        "task_id": "0",
        "trial": "0",
        "termination_reason": "user_stop",
        "model": "claude-sonnet-4-5",
        "expected_actions": "return_items",
        "expected_calls": "return_items()",
    }
    assert wanted.items() <= episode.metadata.items()


def test_tau2_failures_say_why_and_thoughts_are_kept(tmp_path):
    results = json.loads((CASES / "tau2_results.json").read_text())
    (simulation,) = results["simulations"]
    simulation["messages"][0]["raw_data"] = {
        "thinking_blocks": [{"thinking": "Hm", "signature": "x"}]
    }
    simulation |= {
        "termination_reason": "max_steps",
        "reward_info": {
            "reward": 0.0,
            "db_check": {"db_match": False},
            "communicate_checks": [{"info": "42", "met": False}],
        },
    }
    _, (episode,), _ = read(write(tmp_path / "results.json", results))
    assert episode.outcome.status is OutcomeStatus.FAILURE
    assert episode.outcome.reason == (
        "The conversation ended with max_steps. The database is not as expected. The user was not told: 42."
    )
    assert episode.steps[0].parameters == {"content": "Hm"}
    assert episode.steps[0].action == "thinking"
    blocks = [{"thinking": json.dumps(part)} for part in (
        {"text": "Hi! How can I help?"}, {"text": "Hm, hm", "thought": True}, {"text": "More"},
    )]  # fmt: skip
    simulation["messages"][0]["raw_data"] = {"message": {"thinking_blocks": blocks}}
    _, (episode,), _ = read(write(tmp_path / "results.json", results))
    said = [(step.action, step.parameters["content"]) for step in episode.steps[:3]]
    # What Gemini's parts say more than the message.
    assert said == [
        ("thinking", "Hm, hm"),
        ("thinking", '{"text": "More"}'),
        ("assistant", "Hi! How can I help?"),
    ]
    simulation["reward_info"] = None
    _, (episode,), _ = read(write(tmp_path / "results.json", results))
    assert (episode.outcome, episode.reward) == (None, None)


def test_inspect_logs_of_both_kinds_are_the_same_episode():
    (form, one), (_, two) = case("inspect_log.json"), case("inspect_log.eval")
    assert form == "inspect-ai"
    assert one == two
    assert one.task_description == "Add 2 and 3"
    call = one.steps[1]
    assert (call.tool, call.parameters) == ("add", {"a": 2, "b": 3})
    assert call.result.status is ResultStatus.TIMEOUT
    assert call.metadata["error_type"] == "timeout"
    assert (one.reward.total, one.outcome.status) == (1.0, OutcomeStatus.SUCCESS)
    assert one.metadata["score.includes"] == "C"
    assert one.start_time == datetime(2025, 5, 13, 0, 27, 36, tzinfo=UTC)


def test_inspect_times_usage_thoughts_and_attachments(tmp_path):
    log = json.loads((CASES / "inspect_log.json").read_text())
    (sample,) = log["samples"]
    digest = "0123456789abcdef0123456789abcdef"
    sample |= {
        "attachments": {digest: "the long text"},
        "messages": [
            {"role": "user", "content": f"attachment://{digest}", "id": "m0"},
            {
                "id": "m1",
                "role": "assistant",
                "source": "generate",
                "content": [
                    {"type": "reasoning", "reasoning": "Hm"},
                    {"type": "text", "text": "Adding"},
                ],
                "tool_calls": [{"id": "c1", "function": "add", "arguments": {"a": 2}}],
            },
            {"role": "tool", "content": "5", "tool_call_id": "c1", "function": "add"},
        ],
        "events": [
            {
                "event": "model",
                "timestamp": "2025-05-13T00:27:40+00:00",
                "output": {
                    "choices": [{"message": {"id": "m1"}}],
                    "usage": {"total_tokens": 15},
                    "time": 1.5,
                },
            },
            {
                "event": "tool",
                "id": "c1",
                "timestamp": "2025-05-13T00:27:42+00:00",
                "completed": "2025-05-13T00:27:44+00:00",
            },
        ],
        "scores": {"p": {"value": "P"}, "q": {"value": {"x": 1}}},
        "error": {"message": "sandbox gone", "traceback": "…"},
    }
    _, (episode,), _ = read(write(tmp_path / "log.json", log))
    user, thought, said, call = episode.steps
    assert user.parameters == {"content": "the long text"}
    assert (thought.action, thought.tokens_used, thought.latency_ms) == ("thinking", 15, 1500)
    assert said.timestamp.second == 40
    assert (call.timestamp.second, call.latency_ms) == (42, 2000)
    assert episode.reward.total == 0.5
    assert (episode.outcome.status, episode.outcome.reason) == ("failure", "sandbox gone")
    assert episode.metadata["score.q"] == '{"x":1}'


def test_inspect_archives_packed_with_zstd_are_read(tmp_path):
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(CASES / "inspect_log.eval") as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, zstandard.compress(old.read(info)))
    data = bytearray(path.read_bytes())
    # Method 93, in the entries and in the directory at the end: Python before 3.14 cannot write it.
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        place = -1
        while (place := data.find(mark, place + 1)) >= 0:
            data[place + offset] = 93
    path.write_bytes(data)
    _, (episode,), _ = read(path)
    assert episode == case("inspect_log.eval")[1]


def test_inspect_keeps_what_every_scorer_and_the_log_say(tmp_path):
    log = json.loads((CASES / "inspect_log.json").read_text())
    (sample,) = log["samples"]
    del sample["target"]
    log |= {"status": "error", "error": {"message": "boom", "traceback": "Traceback: here"}}
    sample |= {
        "target": ["a", "b"],
        "metadata": {"level": 3},
        "scores": {
            "a": {"value": "C", "answer": "5", "explanation": "as wanted"},
            "b": {"value": "I", "answer": "6", "explanation": "no", "metadata": {"k": "v"}},
        },
    }
    _, (episode,), record = read(write(tmp_path / "log.json", log))
    kept = {
        "target": '["a","b"]',
        "metadata": '{"level":3}',
        "score.a.explanation": "as wanted",
        "score.b": "I",
        "score.b.answer": "6",
        "score.b.explanation": "no",
        "score.b.metadata": '{"k":"v"}',
        "run_error": "boom",
        "run_traceback": "Traceback: here",
    }
    assert kept.items() <= episode.metadata.items()
    assert episode.outcome.verdict == "a: C, answer 5"
    assert "score.a.answer" not in episode.metadata
    assert record.notes == []
    sample["scores"]["a"] = {"value": "I", "explanation": "why"}
    _, (episode,), _ = read(write(tmp_path / "log.json", log))
    assert episode.outcome.error_details == "why"
    assert "score.a.explanation" not in episode.metadata
    log["samples"] = []
    _, episodes, record = read(write(tmp_path / "log.json", log))
    assert episodes == []
    assert record.notes[0].reason == "has no samples; its status is error (boom)"


def test_codex_keeps_instructions_and_names_the_steps_of_a_second_model(tmp_path):
    def said(second, role, text):
        return codex_line(second, "response_item", type="message", role=role, content=text)

    lines = [
        codex_line(0, "session_meta", id="s", instructions="Use tabs"),
        codex_line(1, "turn_context", model="one"),
        said(2, "user", "Go"),
        codex_line(3, "turn_context", model="two"),
        said(4, "assistant", "Gone"),
    ]
    _, (episode,), _ = read(write_lines(tmp_path / "r.jsonl", lines))
    assert (episode.metadata["model"], episode.metadata["instructions"]) == ("one", "Use tabs")
    assert [step.metadata.get("model") for step in episode.steps] == [None, "two"]


def test_mini_swe_agent_keeps_with_what_a_run_crashed(tmp_path):
    run = json.loads((CASES / "mini_swe_agent_v2.traj.json").read_text())
    crash = {"exception_str": "no credit", "traceback": "Traceback: here"}
    run["messages"].append({"role": "exit", "content": "Crashed", "extra": crash})
    _, (episode,), _ = read(write(tmp_path / "x.traj.json", run))
    assert crash.items() <= episode.metadata.items()


def gemini_message(number, kind, content, **fields):
    time = f"2026-03-06T11:00:{number:02d}.000Z"
    return {"id": f"m{number}", "timestamp": time, "type": kind, "content": content, **fields}


GEMINI_FACTS = {
    "sessionId": "s1",
    "projectHash": "p",
    "startTime": "2026-03-06T11:00:00.000Z",
    "lastUpdated": "2026-03-06T11:00:00.000Z",
    "kind": "main",
}
GEMINI_CALL = {"id": "c1", "name": "ls", "args": {}, "timestamp": "2026-03-06T11:00:04Z"}


def gemini_lines():
    response = [{"functionResponse": {"id": "c1", "name": "ls", "response": {"output": "a.py"}}}]
    done = {**GEMINI_CALL, "status": "success", "result": response}
    return [
        GEMINI_FACTS,
        gemini_message(1, "user", [{"text": "List"}]),
        {"$set": {"lastUpdated": "2026-03-06T11:00:59.000Z", "summary": "Lists files"}},
        gemini_message(2, "gemini", "Sure", model="one", tokens={"total": 5, "cached": 2}),
        gemini_message(2, "gemini", "Sure", model="one", toolCalls=[GEMINI_CALL]),
        gemini_message(2, "gemini", "Sure", model="one", toolCalls=[done]),
        gemini_message(5, "user", "Delete it"),
        gemini_message(6, "gemini", "Deleted", model="two"),
        {"$rewindTo": "m5"},
        gemini_message(7, "user", "Keep it"),
    ]


def test_gemini_sessions_of_lines(tmp_path):
    form, (episode,), log = read(write_lines(tmp_path / "session-x.jsonl", gemini_lines()))
    assert form == "gemini-cli"
    assert shape(episode) == [
        ("message", "user", None),
        ("message", "assistant", None),
        ("ls", "call", "success"),
        ("message", "user", None),
        ("message", "assistant", None),
        ("message", "user", None),
    ]
    assert episode.steps[2].result.output == "a.py"
    abandoned = [step.metadata.get("abandoned") for step in episode.steps]
    assert abandoned == [None, None, None, "true", "true", None]
    assert episode.steps[4].metadata["model"] == "two"
    kept = {"title": "Lists files", "model": "one", "abandoned_messages": "2", "project": "p"}
    assert kept.items() <= episode.metadata.items()
    assert episode.end_time == datetime(2026, 3, 6, 11, 0, 59, tzinfo=UTC)
    assert (log.skipped, log.notes, log.left_out) == ([], [], {})


def test_gemini_sessions_grow_line_by_line_and_never_lose_a_step(tmp_path):
    lines = gemini_lines()
    counts = []
    for end in range(1, len(lines) + 1):
        form, episodes, log = read(write_lines(tmp_path / "session-x.jsonl", lines[:end]))
        assert form == "gemini-cli"
        assert log.skipped == []
        counts.append(len(episodes[0].steps) if episodes else 0)
    assert counts == [0, 1, 1, 2, 3, 3, 4, 5, 5, 6]


def test_a_history_that_gemini_cli_shortens_loses_nothing(tmp_path):
    responses = [{"functionResponse": {"id": "c1", "response": {"output": "<masked>"}}}]
    history = [
        gemini_message(1, "user", [{"text": "<masked>"}]),
        gemini_message(8, "user", responses),
        gemini_message(9, "user", "What happened so far"),
    ]
    lines = [*gemini_lines(), {"$set": {"messages": history}}, {"$rewindTo": "unknown"}]
    _, (episode,), log = read(write_lines(tmp_path / "session-x.jsonl", lines))
    said = [step.parameters.get("content") for step in episode.steps]
    assert said == ["List", "Sure", None, "Delete it", "Deleted", "Keep it", "What happened so far"]
    # Without the message that is named, all that the model is sent is taken back.
    abandoned = [step.number for step in episode.steps if "abandoned" in step.metadata]
    assert abandoned == [1, 4, 5, 7]
    assert log.left_out == {
        "contents changed for the model": 1,
        "responses said again for the model": 1,
    }


def test_subagents_of_gemini_cli_are_parts_of_the_session_that_names_their_folder(tmp_path):
    folder = tmp_path / "chats" / "s1"
    folder.mkdir(parents=True)
    facts = {**GEMINI_FACTS, "sessionId": "sub", "kind": "subagent"}
    lines = [facts, gemini_message(1, "user", "Look")]
    _, (agent,), _ = read(write_lines(folder / "sub.jsonl", lines))
    _, (session,), _ = read(write_lines(tmp_path / "session-x.jsonl", gemini_lines()))
    assert agent.metadata["parent_episode"] == str(session.id)
    assert agent.tags == ("gemini-cli", "subagent")


def test_the_prompts_of_gemini_cli_are_refused_by_name(tmp_path):
    prompt = {"sessionId": "s", "messageId": 0, "type": "user", "message": "Go", "timestamp": "x"}
    with pytest.raises(ImportFormatError, match="the prompts of Gemini CLI"):
        read(write(tmp_path / "logs.json", [prompt]))
