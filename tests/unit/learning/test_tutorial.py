"""The tutorial runs, without a network."""

import ast
import inspect
import subprocess
import sys
from datetime import UTC, datetime

import memory_core
from memory_core import Feedback, Query, open_memory
from tests.architecture.test_docs import blocks
from tests.architecture.tree import ROOT


async def test_the_agent_fails_learns_and_succeeds(capsys):
    text = (ROOT / "docs" / "learning_agent.md").read_text("utf-8")
    async with open_memory("inmemory:") as memory:
        known = {name: getattr(memory_core, name) for name in memory_core.__all__}
        known |= {"memory": memory, "datetime": datetime, "UTC": UTC}
        for source in blocks(text, "python"):
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile(source, "learning_agent.md", "exec", flags=flags)
            result = eval(code, known)
            if inspect.iscoroutine(result):
                await result
        assert await memory.count(Query(Feedback)) == 1
    assert "its own outcome" in capsys.readouterr().out


def test_the_agent_is_a_program_of_under_60_lines(tmp_path):
    text = (ROOT / "docs" / "learning_agent.md").read_text("utf-8")
    shop, work, *_, main = blocks(text, "python")
    agent = tmp_path / "agent.py"
    agent.write_text(f"{shop}\n\n{work}\n\n{main}")
    assert len(agent.read_text().splitlines()) < 60
    for _ in range(2):
        run = subprocess.run([sys.executable, agent], cwd=tmp_path, capture_output=True, check=True)
        assert run.stdout.startswith(b"failure refund refused")
