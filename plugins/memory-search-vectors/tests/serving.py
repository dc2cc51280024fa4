"""A server with OpenAI's interface for embeddings, on loopback: real HTTP, vectors of `WordEmbedder`."""

import asyncio
import contextlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from embedders import WordEmbedder


class Server(ThreadingHTTPServer):
    """Answers ``POST /v1/embeddings``.

    Attributes:
        requests: the bodies that it was sent, and the headers.
        failures: how many requests it refuses with status 503 from now on.
        answer: returned in place of its own answer, where it is set.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port=0, dimensions=512):
        self.requests = []
        self.failures = 0
        self.answer = None
        self.embedder = WordEmbedder(dimensions=dimensions)
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request, client_address):
        # A client that was cancelled closes its connection.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append((body, dict(self.headers)))
            if server.failures:
                server.failures -= 1
                self._send(503, b'{"error": "overloaded"}')
                return
            if server.answer is not None:
                self._send(200, server.answer)
                return
            vectors = asyncio.run(server.embedder.embed(body["input"], "document"))
        data = [{"index": place, "embedding": each.tolist()} for place, each in enumerate(vectors)]
        # The order is what `index` says, not that of the list.
        self._send(200, json.dumps({"data": data[::-1]}).encode())

    def _send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(**options):
    server = Server(**options)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
