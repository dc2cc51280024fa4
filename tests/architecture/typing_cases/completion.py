"""What an editor offers: keywords that the language server of pyright completes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

HEAD = """\
from memory_core import Episode, Memory, Outcome, Query, ToolSequence
async def f(episode: Episode, memory: Memory, outcome: Outcome) -> None:
    """


class LanguageServer:
    """A client of pyright's language server, for one folder.

    Args:
        folder: where the files would be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._requests = 0
        command = [sys.executable, "-m", "pyright.langserver", "--stdio"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        self._ask(
            "initialize",
            processId=os.getpid(),
            rootUri=self._folder.as_uri(),
            workspaceFolders=[{"uri": self._folder.as_uri(), "name": "user"}],
            capabilities={"workspace": {"configuration": True}},
        )
        self._send(method="initialized", params={})
        return self

    def __exit__(self, *_: object) -> None:
        # The server is a child of the process that was started here, and ends when its input does.
        self._process.communicate(timeout=30)

    def keywords(self, call: str) -> list[str]:
        """The keywords that complete a call: ``"Query(Episode).where("``."""
        text = f"{HEAD}{call})\n"
        file = {"uri": (self._folder / f"call_{self._requests}.py").as_uri()}
        document = {**file, "languageId": "python", "version": 1, "text": text}
        self._send(method="textDocument/didOpen", params={"textDocument": document})
        before = text[: -len(")\n")]
        place = {"line": before.count("\n"), "character": len(before.rpartition("\n")[2])}
        found = self._ask("textDocument/completion", textDocument=file, position=place)
        labels = [item["label"] for item in found["items"]]
        return [label.removesuffix("=") for label in labels if label.endswith("=")]

    def _ask(self, method: str, **params: Any) -> Any:
        self._requests += 1
        self._send(id=self._requests, method=method, params=params)
        while True:
            message = self._receive()
            if "method" not in message and message["id"] == self._requests:
                return message["result"]
            if "id" in message:
                asked = message["params"]["items"] if "items" in message.get("params", {}) else []
                self._send(id=message["id"], result=[{"pythonPath": sys.executable} for _ in asked])

    def _send(self, **message: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._process.stdin.flush()

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        length = 0
        while line := self._process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        assert length, "the language server has ended"
        return json.loads(self._process.stdout.read(length))
