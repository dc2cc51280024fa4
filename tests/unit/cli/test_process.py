"""The command as a process: signals, pipes, start-up."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from memory_core.samples import write_samples
from tests.unit.cli.episodes import episode

pytestmark = pytest.mark.slow

MEMORY = [sys.executable, "-m", "memory_core.cli"]

# Runs the command line with a storage that stops at one of its calls, so that it is certain what the
# signal interrupts.
WAITING = textwrap.dedent("""
    import asyncio, sys
    from memory_core.cli import main
    from memory_core.plugins import load_class

    backend, method, calls = load_class(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    original = getattr(backend, method)

    async def waiting(self, *arguments):
        global calls
        if (calls := calls - 1) < 0:
            print("waiting", file=sys.stderr, flush=True)
            await asyncio.Event().wait()
        return await original(self, *arguments)

    setattr(backend, method, waiting)
    sys.argv[1:] = sys.argv[4:]
    main()
""")


# Says when the first transcript is about to be opened.
READING = textwrap.dedent("""
    import os
    import memory_core.cli.imports as imports
    import memory_core.cli.stopping
    from memory_core import cli

    opened = imports.opened

    def announced(path):
        os.write(2, b"reading\\n")
        return opened(path)

    imports.opened = announced
    cli.main()
""")


# Says when a signal waits for the event loop, and lets it wait.
PATIENT = textwrap.dedent("""
    stop = memory_core.cli.stopping._Stop
    on_signal = stop.on_signal

    def announced(self, *given):
        on_signal(self, *given)
        os.write(2, b"waiting\\n")

    stop.on_signal = announced
    memory_core.cli.stopping.PATIENCE = 1000
    cli.main()
""")


@pytest.fixture
def environment(tmp_path):
    # Unbuffered, Python does not notice that a pipe took only a part of what was written.
    left_out = ("MEMORY_", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return kept | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def run(*arguments, environment, **options):
    command = [*MEMORY, *map(str, arguments)]
    return subprocess.run(
        command, env=environment, capture_output=True, check=False, timeout=60, **options
    )


def signalled(number, arguments, environment, cwd):
    """Send a signal once the storage waits; return the exit code and standard error after that."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, *map(str, arguments)],
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr.readline() == "waiting\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


IN_MEMORY = "memory_core.inmemory:InMemoryStorage"
LMDB = "memory_storage_lmdb.storage:LmdbStorage"
SIGNALS = [
    (signal.SIGINT, 130, "memory: interrupted\n"),
    (signal.SIGTERM, 143, "memory: terminated\n"),
]


@pytest.mark.parametrize(("number", "code", "said"), SIGNALS)
def test_a_signal_during_an_export_leaves_no_file(environment, tmp_path, number, code, said):
    file = tmp_path / "all.jsonl"
    arguments = [IN_MEMORY, "query", 2, "--url", "inmemory:", "export", file]
    assert signalled(number, arguments, environment, tmp_path) == (code, said)
    assert not list(tmp_path.glob("*all.jsonl*"))
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(("number", "code", "said"), SIGNALS)
def test_a_signal_during_an_import(environment, tmp_path, number, code, said):
    files = write_samples(tmp_path / "transcripts")
    arguments = [IN_MEMORY, "commit", 1, "--url", "inmemory:", "import", *files]
    assert signalled(number, arguments, environment, tmp_path) == (code, said)


def test_a_copy_that_was_interrupted_goes_on(environment, cli, tmp_path):
    cli.put(*(episode(number) for number in range(1, 100)))
    other = f"lmdb:{tmp_path / 'other.lmdb'}"
    copying = ["copy", cli.url, other]
    code, said = signalled(signal.SIGINT, [LMDB, "commit", 1, *copying], environment, tmp_path)
    assert (code, said) == (130, "memory: interrupted\n")
    there = len(cli.json("list", "--url", other, "--limit", 200)["records"])
    assert 0 < there < 99
    report = cli.json(*copying, "--verify")
    assert report["unchanged"] == {"episode": there}
    assert report["copied"] == {"episode": 99 - there}
    assert report["verified"]["ok"]


def test_a_signal_while_waiting_for_input(environment, tmp_path):
    with subprocess.Popen(
        [*MEMORY, "--url", "inmemory:", "load", "-"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # More than a pipe holds: when it is written, most of it was read.
        process.stdin.write("x" * 2**18)
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "memory: interrupted\n")


@pytest.fixture
def endless(tmp_path):
    """Inputs whose reading does not end by itself, or not soon."""
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "sparse.json").open("wb") as file:
        file.truncate(200 * 2**30)
    return {name: tmp_path / name for name in ("pipe", "sparse.json")} | {
        "pagemap": Path("/proc/self/pagemap"),
        "zero": Path("/dev/zero"),
    }


@pytest.mark.skipif(sys.platform != "linux", reason="has other pseudo-files")
@pytest.mark.parametrize("name", ["pipe", "sparse.json", "pagemap", "zero"])
@pytest.mark.parametrize("sent", SIGNALS)
def test_a_signal_while_one_file_is_read(environment, endless, name, sent):
    number, code, said = sent
    with subprocess.Popen(
        [sys.executable, "-c", READING, "--url", "inmemory:", "import", endless[name]],
        env=environment | {"TMPDIR": str(endless["pipe"].parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr.readline() == "reading\n"
        process.send_signal(number)
        began = time.monotonic()
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, said)
    assert time.monotonic() - began < 20
    # Temporary files are gone, too.
    assert not list(endless["pipe"].parent.glob("memory-import-*"))


@pytest.mark.parametrize(("number", "code", "said"), SIGNALS)
def test_a_second_signal_does_not_wait(environment, tmp_path, number, code, said):
    os.mkfifo(tmp_path / "pipe")
    patient = READING.replace("cli.main()", PATIENT)
    with subprocess.Popen(
        [sys.executable, "-c", patient, "--url", "inmemory:", "import", tmp_path / "pipe"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr.readline() == "reading\n"
        process.send_signal(number)
        assert process.stderr.readline() == "waiting\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, said)


@pytest.mark.parametrize(("arguments", "code"), [(["import", "-"], 3), (["load", "-"], 2)])
def test_standard_input_that_is_closed_is_one_line(environment, arguments, code):
    done = run(
        *("--url", "inmemory:", *arguments), environment=environment, preexec_fn=lambda: os.close(0)
    )
    said = done.stderr.decode()
    assert done.returncode == code, said
    assert said.startswith("memory: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("shape", [[], ["--json"]])
def test_a_reader_that_goes_away(environment, cli, shape):
    cli.put(*(episode(number, task_description="x" * 5_000) for number in range(1, 100)))
    reading, writing = os.pipe()
    with subprocess.Popen(
        [*MEMORY, "--url", cli.url, "list", "--limit", "100", *shape],
        env=environment | {"COLUMNS": "6000"},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(writing)
        os.read(reading, 10)
        os.close(reading)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (141, "")


def test_export_through_a_pipe_into_load(environment, cli, tmp_path):
    cli.put(*(episode(number) for number in range(1, 50)))
    exported = run("--url", cli.url, "export", "-", environment=environment)
    assert exported.returncode == 0
    other = f"lmdb:{tmp_path / 'other.lmdb'}"
    loaded = run(
        "--url", other, "load", "-", "--json", environment=environment, input=exported.stdout
    )
    assert json.loads(loaded.stdout)["counts"] == {"episode": 49}
    assert loaded.stderr == b""


def test_a_pipe_gets_no_progress_bar(environment, tmp_path):
    files = write_samples(tmp_path / "transcripts")
    done = run("--url", "inmemory:", "import", *files, environment=environment)
    assert done.returncode == 0
    assert b"\r" not in done.stderr
    assert b"\x1b" not in done.stderr
    # What an import leaves out is said all the same.
    assert all(line.startswith(b"note: ") for line in done.stderr.splitlines())


def test_help_loads_no_driver_no_table_and_nothing_that_plugins_use(environment):
    code = textwrap.dedent("""
        import sys
        from memory_core.cli import main
        sys.argv = ["memory", "list", "--help"]
        try:
            main()
        except SystemExit:
            print(sorted(sys.modules), file=sys.stderr)
    """)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    loaded = set(eval(done.stderr))
    assert not loaded & {
        "aiohttp",
        "aiosqlite",
        "libsql_client",
        "lmdb",
        "memory_core.cli.output",
        "memory_core.samples",
        "memory_core.testing",
        "memory_core.transfer",
        "sqlite3",
        # Those of the plugins of this repository:
        "jinja2",
        "numpy",
        "opentelemetry",
        "prometheus_client",
        "starlette",
        "tantivy",
        "uvicorn",
    }


def test_a_blocked_plugin_is_not_even_imported(environment):
    code = textwrap.dedent("""
        import sys
        from memory_core.cli import main
        sys.argv = ["memory", "plugins"]
        try:
            main()
        except SystemExit:
            print(sorted(name for name in sys.modules if "lmdb" in name), file=sys.stderr)
    """)
    command = [sys.executable, "-c", code]
    blocking = environment | {"MEMORY_BLOCK_PLUGINS": "lmdb"}
    done = subprocess.run(command, env=blocking, capture_output=True, check=True, timeout=60)
    assert done.stderr.strip() == b"[]"


def test_the_installed_command(environment):
    entry = "from importlib.metadata import entry_points as e; print(*e(name='memory').names)"
    done = subprocess.run(
        [sys.executable, "-c", entry], env=environment, capture_output=True, check=True, timeout=60
    )
    assert b"memory" in done.stdout
    assert run("--version", environment=environment).stdout.startswith(b"memory-core ")


COLLECTING = textwrap.dedent("""
    import atexit, gc
    # What is registered first runs last.
    atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 10_000))
    from memory_core.cli import main
    main()
""")


def test_a_command_collects_garbage_rarely_and_leaves_it_on_exit(environment):
    done = subprocess.run(
        [sys.executable, "-c", COLLECTING, "--version"],
        env=environment, capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "100000 True"


WARNED = textwrap.dedent("""
    import logging, sys
    from memory_core.cli import main
    from memory_core.errors import StorageFullError
    from memory_core.inmemory import InMemoryStorage

    async def full(self, query):
        logging.getLogger("some_backend").warning("something is tried again later")
        logging.getLogger("some_backend").error("something is wrong besides")
        raise StorageFullError("no space is left")

    InMemoryStorage.query = full
    main()
""")


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_stands_alone(environment, debug):
    """Warnings of a backend are shown with --debug only; its errors are always shown."""
    given = ["--url", "inmemory:", "list", *(["--debug"] if debug else [])]
    done = subprocess.run(
        [sys.executable, "-c", WARNED, *given],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    assert lines[-1] == "memory: no space is left"
    assert "something is wrong besides" in lines
    assert ("something is tried again later" in lines) is debug
    assert debug or len(lines) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_disk_that_fills_up_is_one_line(environment, tmp_path):
    import resource

    files = write_samples(tmp_path / "transcripts")

    def almost_full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))

    for limit in ("turso", "lmdb", "jsonl"):
        done = run(
            *("--url", f"{limit}:{tmp_path / limit}", "import", *files),
            environment=environment,
            preexec_fn=almost_full,
        )
        said = done.stderr.decode()
        assert done.returncode == 3, said
        assert said.startswith("memory: ")
        assert said.count("\n") == 1


@pytest.mark.parametrize("scheme", ["turso+http", "turso+ws"])
def test_a_server_that_cannot_be_reached_is_one_line(environment, scheme):
    pytest.importorskip("aiohttp")
    with socket.socket() as taken:
        # Bound, and nobody listens.
        taken.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{taken.getsockname()[1]}"
        done = run("--url", url, "list", environment=environment)
    said = done.stderr.decode()
    assert done.returncode == 3, said
    assert said.startswith("memory: ")
    assert said.count("\n") == 1
