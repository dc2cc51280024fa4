"""Small transcripts of every format, as the tests' raw material."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zstandard import ZstdCompressor

from memory_core.importers import BUILTIN_IMPORTERS
from memory_core.importers.base import found_in, recognised
from memory_core.importers.log import Log
from memory_core.importers.source import opened

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memory_core.records import Episode

POLICY = "# Library agent policy\n\nThe current time is 2024-03-01 09:30:00 EST.\n\nBe kind."
PATCH = (
    "diff --git a/src/clock.py b/src/clock.py\n--- a/src/clock.py\n+++ b/src/clock.py\n"
    "@@ -1 +1 @@\n-old\n+new\n"
)
ISSUE = "The clock shows 24:00.\nIt should show 00:00."


def write(path: Path, value: Any) -> Path:
    return write_bytes(path, json.dumps(value).encode())


def write_lines(path: Path, values: Iterable[Any]) -> Path:
    lines = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return write_bytes(path, "\n".join([*lines, ""]).encode())


def write_bytes(path: Path, data: bytes) -> Path:
    packers = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": ZstdCompressor().compress}
    pack = packers.get(path.suffix.lower(), bytes)
    path.write_bytes(pack(data))
    return path


def call(name: str, arguments: object, call_id: str = "call_1") -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


def answer(content: str, call_id: str = "call_1", name: str = "lookup") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "name": name, "content": content}


def tau_entry(**changes: Any) -> dict[str, Any]:
    return {
        "task_id": 7,
        "reward": 1.0,
        "info": {
            "task": {
                "user_id": "ada_42",
                "instruction": "You want to renew two books.",
                "actions": [
                    {"name": "renew", "kwargs": {"book": 1}},
                    {"name": "renew", "kwargs": {}},
                ],
                "outputs": [],
            },
            "user_cost": 0.25,
            "reward_info": {"reward": 1.0, "info": {"r_actions": 1.0}, "actions": []},
        },
        "traj": [
            {"role": "system", "content": POLICY},
            {"role": "user", "content": "Please renew my books."},
            {
                "role": "assistant",
                "content": "One moment.",
                "tool_calls": [call("renew", {"book": 1})],
            },
            answer("Error: book 1 is reserved", name="renew"),
            {"role": "assistant", "content": None, "tool_calls": [call("renew", {"book": 2})]},
            answer('{"due": "2024-04-01"}', name="renew"),
            {"role": "assistant", "content": "One of them is renewed."},
        ],
        "trial": 2,
        **changes,
    }


def swe_run(**changes: Any) -> dict[str, Any]:
    return {
        "environment": "main",
        "trajectory": [
            {
                "action": "grep -rn 24:00 src",
                "observation": "src/clock.py:1:old",
                "response": "Search first.\n```\ngrep -rn 24:00 src\n```",
                "thought": "Search first.",
                "state": {"working_dir": "/repo", "open_file": "n/a"},
                "execution_time": 0.5,
                "query": [{"role": "user", "content": "repeated"}],
            },
            {
                "action": "python src/clock.py",
                "observation": "Traceback (most recent call last):\n  File\nValueError: hour",
                "thought": "Run it.",
                "state": '{"working_dir": "/repo", "open_file": "src/clock.py"}',
                "execution_time": 1.5,
            },
            {"action": "submit", "observation": PATCH, "thought": "Done.", "state": {}},
        ],
        "history": [
            {"role": "system", "content": "You fix bugs.", "agent": "main"},
            {"role": "user", "content": "An example.", "is_demo": True},
            {
                "role": "user",
                "content": f"Solve this.\nISSUE:\n{ISSUE}\n\nINSTRUCTIONS:\nEdit files.",
            },
            {"role": "assistant", "content": "Search first.", "action": "grep -rn 24:00 src"},
        ],
        "info": {
            "exit_status": "submitted",
            "submission": PATCH,
            "model_stats": {"instance_cost": 0.5, "tokens_sent": 900, "api_calls": 3},
        },
        "replay_config": json.dumps(
            {
                "env": {"repo": {"github_url": "https://example.org/clock"}},
                "agent": {"model": {"name": "a-model"}},
                "problem_statement": {"id": "clock-1"},
            }
        ),
        **changes,
    }


def chat_entry(**changes: Any) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "content": "You help."},
            {"role": "user", "content": [{"type": "text", "text": "How warm is it in Oslo?"}]},
            {"role": "assistant", "tool_calls": [call("weather", {"city": "Oslo"})]},
            answer("4 degrees", name="weather"),
            {"role": "assistant", "content": "4 degrees."},
        ],
        **changes,
    }


SESSION = "0b8e2f6a-6a57-4d1c-9d8b-3f2a7c1e5d90"


def claude_line(kind: str, second: int, content: Any, **changes: Any) -> dict[str, Any]:
    message = {"role": kind, "content": content, **changes.pop("message", {})}
    return {
        "type": kind,
        "sessionId": SESSION,
        "uuid": f"line-{second}-{kind}",
        "parentUuid": None,
        "isSidechain": False,
        "userType": "external",
        "cwd": "/home/ada/clock",
        "gitBranch": "main",
        "version": "2.1.12",
        "timestamp": f"2025-05-04T12:00:{second:02d}.250Z",
        "message": message,
        **changes,
    }


def use(name: str, parameters: Any, call_id: str = "toolu_1") -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": parameters}


def used(content: Any, call_id: str = "toolu_1", **changes: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **changes}


def reply(message_id: str, output: int) -> dict[str, Any]:
    usage = {"input_tokens": 10, "cache_creation_input_tokens": 5, "output_tokens": output}
    return {
        "id": message_id,
        "model": "claude-x",
        "usage": usage | {"cache_read_input_tokens": 999},
    }


def claude_session() -> list[dict[str, Any]]:
    return [
        {"type": "mode", "mode": "normal", "sessionId": SESSION},
        claude_line("user", 0, "<command-name>/clear</command-name>"),
        claude_line("user", 1, "Fix the clock."),
        claude_line("assistant", 2, [{"type": "thinking", "thinking": ""}], message=reply("m1", 1)),
        claude_line(
            "assistant", 3, [{"type": "text", "text": "I will look."}], message=reply("m1", 20)
        ),
        claude_line(
            "assistant", 4, [use("Read", {"file_path": "/clock.py"})], message=reply("m1", 20)
        ),
        claude_line(
            "user",
            6,
            [used([{"type": "text", "text": "old"}])],
            toolUseResult={"type": "text", "file": {"content": "old"}},
        ),
        claude_line(
            "assistant",
            7,
            [use("Edit", {"file_path": "/clock.py"}, "toolu_2")],
            message=reply("m2", 30),
        ),
        claude_line("user", 8, [used("not found", "toolu_2", is_error=True)]),
        {"type": "ai-title", "aiTitle": "Clock", "sessionId": SESSION},
        claude_line("assistant", 9, [{"type": "text", "text": "Sorry."}], message=reply("m3", 2)),
    ]


CASES = Path(__file__).parent / "cases"


def read(path: Path) -> tuple[str, list[Episode], Log]:
    """The format of a file, its episodes, and what was listed; nothing may be skipped."""
    log = Log(path.name)
    with opened(path) as source:
        importer = recognised(source, BUILTIN_IMPORTERS)
        found = [item.episode for item in found_in(importer, source, log)]
    assert [str(error) for error in log.skipped] == []
    for episode in found:
        episode.index_values()
        assert episode.metadata["source"] == importer.name
    return importer.name, found, log


def case(name: str) -> tuple[str, Episode]:
    """The format and the only episode of a case."""
    form, (episode,), _ = read(CASES / name)
    return form, episode


def shape(episode: Episode) -> list[tuple[str, str, str | None]]:
    """Tool, action and status of each step."""
    return [(s.tool, s.action, s.result and s.result.status.value) for s in episode.steps]
