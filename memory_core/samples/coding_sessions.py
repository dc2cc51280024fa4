"""Sessions of a coding assistant in the sample projects, as Claude Code keeps them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from attrs import define, field

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

__all__ = ["write"]

_START = datetime(2025, 4, 22, 8, 15, tzinfo=UTC)


class _Chore(NamedTuple):
    """What was asked for in a project, and the one file it came down to."""

    project: str
    prompt: str
    title: str
    path: str
    search: str
    old: str
    new: str
    test: str
    failure: str
    closing: str


_CHORES = (
    _Chore(
        "parcel-api", "Retry calls to the carrier when it answers 503, but not for longer than a minute.",
        "Retry carrier calls", "src/parcel/carrier.py", "httpx.post",
        "response = httpx.post(url, json=body)", "response = retrying(httpx.post, url, json=body, within=60)",
        "python -m pytest tests/test_carrier.py -q", "NameError: name 'retrying' is not defined",
        "Calls are repeated with a growing delay, for a minute at most. 503 and timeouts count, 4xx do not.",
    ),
    _Chore(
        "kiosk-web", "Write tests for the coupon parser. I do not trust it with spaces and lower case.",
        "Tests for the coupon parser", "src/coupon/parse.test.ts", "parseCoupon",
        "describe('parseCoupon', () => {})",
        "describe('parseCoupon', () => { it('ignores case and space', () => { /* … */ }) })",
        "npx vitest run src/coupon", "AssertionError: expected null to be 'SPRING10'",
        "Five tests. Your doubt was right: trailing spaces were not removed. I corrected that as well.",
    ),
    _Chore(
        "ledgerd", "The posting rules do not belong in the HTTP handler. Move them where they can be tested.",
        "Move the posting rules", "internal/http/handler.go", "func (h *Handler) Post",
        "if entry.Debit != entry.Credit { … }", "if err := post.Check(entry); err != nil { … }",
        "go test ./...", "internal/http/handler.go:40:14: undefined: post",
        "The rules are in internal/post now, with tests of their own; the handler only translates errors.",
    ),
    _Chore(
        "tidewatch", "Document the export command in the README, with an example that works.",
        "Document the export command", "README.md", "## Commands",
        "## Commands", "## Commands\n\n`tidewatch export --from 2025-01-01 harbour.csv`",
        "python -m tidewatch export --from 2025-01-01 /tmp/out.csv", "error: no gauge is configured",
        "The README explains the command and says that a gauge has to be configured first.",
    ),
    _Chore(
        "fernpool", "The benchmark is 30 % slower than last week. Find out why before you change anything.",
        "Find the slowdown", "src/pool.rs", "fn checkout",
        "self.validate(&connection).await?;", "if connection.idle_for() > VALIDATE_AFTER { … }",
        "cargo bench --bench checkout", "checkout/idle  time: [1.31 ms] change: +31.2%",
        "Every checkout validates its connection since Tuesday. Only after 5 s idle, and it is fast again.",
    ),
    _Chore(
        "marginalia", "Upgrade the web framework to the next major version and fix what breaks.",
        "Upgrade the web framework", "marginalia/app.py", "before_first_request",
        "@app.before_first_request", "with app.app_context():",
        "python -m pytest -q", "AttributeError: 'Flask' object has no attribute 'before_first_request'",
        "Upgraded. One hook is gone in the new version; the set-up runs when the app is made now.",
    ),
    _Chore(
        "rosterly", "shift_spec fails every now and then in CI. Make it stop, but not by retrying.",
        "A flaky shift_spec", "spec/models/shift_spec.rb", "Time.now",
        "let(:today) { Time.now }", "let(:today) { Time.utc(2025, 4, 1, 12) }",
        "bundle exec rspec spec/models/shift_spec.rb --seed 4711", "expected: 1 shift, got: 0",
        "It failed after 23:00, when a shift crosses the day. The time is fixed in the spec now.",
    ),
    _Chore(
        "lighthouse-cli", "Add a --json option to the list command. Look first how the other commands do it.",
        "Add --json to list", "lighthouse/commands/list.py", "def list_lights",
        "def list_lights(all: bool):", "def list_lights(all: bool, json: bool = False):",
        "python -m pytest tests/test_list.py", "error: unrecognized arguments: --json",
        "The list command has --json, in the same form as show and status.",
    ),
)  # fmt: skip
_EXPLORED = 7
"""The chore in which a subagent looks around first."""


def write(folder: Path, random: Random) -> list[Path]:
    """Write a file for each session, and one for the subagent of one of them."""
    time = _START
    paths: list[Path] = []
    for number, chore in enumerate(_CHORES):
        time += timedelta(hours=random.randrange(2, 40), minutes=random.randrange(60))
        session = _Transcript(random, chore, time)
        agent = session.agent() if number == _EXPLORED else None
        session.talk(agent)
        paths.append(session.save(folder / f"{session.id}.jsonl"))
        if agent is not None:
            paths.append(agent.save(folder / f"agent-{agent.agent_id}.jsonl"))
    return paths


@define
class _Transcript:
    """The lines of a session as they come about."""

    random: Random
    chore: _Chore
    time: datetime
    id: str = ""
    agent_id: str | None = None
    lines: list[dict[str, Any]] = field(factory=list[dict[str, Any]])
    _parent: str | None = None

    def __attrs_post_init__(self) -> None:
        self.id = self.id or self._uuid()

    def agent(self) -> _Transcript:
        """The transcript of a subagent that explores the project."""
        agent_id = f"a{self.random.getrandbits(32):08x}"
        agent = _Transcript(self.random, self.chore, self.time, self.id, agent_id)
        agent.user("How do the commands of this project print JSON? Name the files.")
        agent.tool("Grep", {"pattern": "json"}, "lighthouse/commands/show.py\nlighthouse/output.py")
        agent.tool(
            "Read", {"file_path": self._file("lighthouse/output.py")}, "def as_json(rows): …"
        )
        agent.say("show.py and status.py call as_json() of lighthouse/output.py.")
        return agent

    def talk(self, agent: _Transcript | None) -> None:
        """The whole session."""
        chore, file = self.chore, self._file(self.chore.path)
        self.user(chore.prompt)
        if agent is not None:
            answer = agent.lines[-1]["message"]["content"][0]["text"]
            self.tool(
                "Task", {"subagent_type": "Explore", "prompt": "How is JSON printed?"}, answer
            )
        self.say("I will look at the code first.")
        self.tool("Grep", {"pattern": chore.search}, f"{chore.path}:12:{chore.search}")
        edit = {"file_path": file, "old_string": chore.old, "new_string": chore.new}
        if self.random.random() < 0.3:
            self.tool("Edit", edit, "File has not been read yet. Read it first.", is_error=True)
        self.tool("Read", {"file_path": file}, f"    12\u2192{chore.old}")
        self.tool("Edit", edit, f"The file {file} has been updated.")
        if self.random.random() < 0.3:
            slow = "Command timed out after 2m 0.0s"
            self.tool("Bash", {"command": chore.test.split(" -", 1)[0]}, slow, is_error=True)
        if self.random.random() < 0.8:
            self.tool(
                "Bash", {"command": chore.test}, f"Exit code 1\n{chore.failure}", is_error=True
            )
            self.tool("Edit", edit | {"old_string": "import"}, f"The file {file} has been updated.")
        self.tool("Bash", {"command": chore.test, "description": "Run the tests"}, "passed")
        self.say(chore.closing)
        self.lines.append({"type": "ai-title", "aiTitle": chore.title, "sessionId": self.id})
        if self.random.random() < 0.5:
            self.user(self.random.choice(("Thanks, that is it.", "Good. Commit it, please.")))

    def user(self, content: str | list[dict[str, Any]]) -> None:
        """A line of the user, or a tool's result."""
        self.time += timedelta(milliseconds=self.random.randrange(200, 9_000))
        self._add("user", {"role": "user", "content": content})

    def say(self, text: str) -> None:
        """A reply of text."""
        self._reply([{"type": "text", "text": text}])

    def tool(
        self, name: str, given: dict[str, Any], result: str, *, is_error: bool = False
    ) -> None:
        """A use of a tool, and its result."""
        call_id = f"toolu_{self.random.getrandbits(64):016x}"
        self._reply([{"type": "tool_use", "id": call_id, "name": name, "input": given}])
        block = {"type": "tool_result", "tool_use_id": call_id, "content": result}
        self.user([{**block, "is_error": True} if is_error else block])

    def save(self, path: Path) -> Path:
        """Write the lines."""
        lines = [json.dumps(line, ensure_ascii=False) for line in self.lines]
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return path

    def _reply(self, content: list[dict[str, Any]]) -> None:
        self.time += timedelta(milliseconds=self.random.randrange(900, 12_000))
        usage = {
            "input_tokens": self.random.randrange(3, 40),
            "cache_creation_input_tokens": self.random.randrange(100, 2_000),
            "cache_read_input_tokens": 500 * len(self.lines),
            "output_tokens": self.random.randrange(20, 400),
        }
        message = {"id": f"msg_{self.random.getrandbits(64):016x}", "model": "sample-large"}
        self._add("assistant", {**message, "role": "assistant", "content": content, "usage": usage})

    def _add(self, kind: str, message: dict[str, Any]) -> None:
        uuid = self._uuid()
        agent = {"agentId": self.agent_id} if self.agent_id else {}
        self.lines.append(
            {
                "parentUuid": self._parent,
                "isSidechain": self.agent_id is not None,
                "userType": "external",
                "cwd": f"/home/dev/{self.chore.project}",
                "sessionId": self.id,
                "version": "2.1.12",
                "gitBranch": "main",
                **agent,
                "type": kind,
                "message": message,
                "uuid": uuid,
                "timestamp": self.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            }
        )
        self._parent = uuid

    def _file(self, path: str) -> str:
        return f"/home/dev/{self.chore.project}/{path}"

    def _uuid(self) -> str:
        return str(UUID(int=self.random.getrandbits(128), version=4))
