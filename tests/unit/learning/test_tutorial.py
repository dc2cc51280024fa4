"""The tutorial runs, without a network."""

import ast
import inspect
import subprocess
import sys

import memory_core
from memory_core import Feedback, Query, open_memory
from tests.architecture.test_docs import blocks
from tests.architecture.tree import ROOT


async def test_the_agent_fails_learns_and_succeeds(capsys):
    text = (ROOT / "docs" / "learning_agent.md").read_text("utf-8")
    async with open_memory("inmemory:") as memory:
        known = {name: getattr(memory_core, name) for name in memory_core.__all__}
        known["memory"] = memory
        for source in blocks(text, "python"):
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile(source, "learning_agent.md", "exec", flags=flags)
            result = eval(code, known)
            if inspect.iscoroutine(result):
                await result
        assert await memory.count(Query(Feedback)) == 3
    printed = capsys.readouterr().out
    assert "its own outcome" in printed
    assert printed.endswith(blocks(text, "text")[0])


def test_the_agent_is_a_program_of_under_60_lines(tmp_path):
    text = (ROOT / "docs" / "learning_agent.md").read_text("utf-8")
    shop, work, _, show, *_, main = blocks(text, "python")
    agent = tmp_path / "agent.py"
    agent.write_text(f"{shop}\n\n{work}\n\n{show}\n\n{main}")
    assert len(agent.read_text().splitlines()) < 60
    for told in (blocks(text, "text")[-1], "success the money is back\n" * 2):
        run = subprocess.run(
            [sys.executable, agent], cwd=tmp_path, capture_output=True, check=True, text=True
        )
        assert run.stdout.strip() == told.strip()
