"""Tables on pipes are those that rich makes, and are made without it."""

import io
import subprocess
import sys

import pytest

from memory_core.cli import cells, output
from memory_core.cli.plain import WIDTH, plain_table, plain_width
from tests.unit.cli.episodes import episode

REST = {"overflow": "ellipsis", "no_wrap": True, "ratio": 1}
COLUMNS = [
    ("id", cells.WHOLE),
    ("kind of it", {}),
    ("outcome", cells.WHOLE),
    ("reward", cells.RIGHT | cells.WHOLE),
    ("about", REST),
]
ROWS = [
    ["52a36fd1", "tool_sequence", cells.Styled("success", "green"), 0.5, "a short text"],
    ["8da5b1b2", "x", cells.Styled("—", "cyan"), None, "words " * 40],
    ["4d0197c6", "", "", 1234567, "取消我的航班" * 20],
    ["134d0953-12", "with [markup]", "a\tb\n c", -1.0, "[bold]e\N{COMBINING ACUTE ACCENT}\x1b[31m"],
    ["漢字", "x", "y", 0, ""],
]


def by_rich(columns, rows, width):
    written = io.StringIO()
    console = output.Console(file=written, width=width, highlight=False)
    console.print(output.table("", columns, rows))
    return written.getvalue().splitlines()


@pytest.mark.parametrize("order", [COLUMNS, [COLUMNS[-1], *COLUMNS[:-1]]])
@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], []])
def test_a_table_is_the_one_that_rich_makes(order, rows):
    places = [COLUMNS.index(column) for column in order]
    rows = [[row[place] for place in places] for row in rows]
    least = next(width for width in range(200) if plain_table(order, rows, width) is not None)
    assert least < 70
    for width in range(least, 200):
        assert plain_table(order, rows, width) == by_rich(order, rows, width), width


def test_rich_decides_what_is_cut_where_no_width_is_left():
    assert plain_table(COLUMNS, ROWS, 20) is None


@pytest.mark.parametrize(
    ("environment", "width"),
    [
        ({}, WIDTH),
        ({"COLUMNS": "77"}, 77),
        ({"COLUMNS": "wide"}, None),
        ({"FORCE_COLOR": "1"}, None),
        ({"TTY_COMPATIBLE": "1"}, None),
    ],
)
def test_rich_is_left_out_on_pipes_only(monkeypatch, environment, width):
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert plain_width() == width
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert plain_width() is None


def test_a_list_on_a_pipe_loads_no_console_of_rich(cli):
    cli.put(episode(1, task_description="cancel the flight"))
    shown = (
        "import atexit, sys\n"
        "from memory_core.cli import main\n"
        "atexit.register(lambda: print('rich.console' in sys.modules))\n"
        "main()"
    )
    listed = subprocess.run(
        [sys.executable, "-c", shown, "list"], capture_output=True, text=True, check=True
    )
    header, line, loaded = listed.stdout.splitlines()
    assert header.split()[-1] == "description"
    assert line.rstrip().endswith("cancel the flight")
    assert loaded == "False"
