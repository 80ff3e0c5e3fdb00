"""A real HTTP server in the place of an mcp-hub, which answers as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE_S = 30.0


@dataclass
class Hub:
    """What it answers to a poll, and the bytes of its event stream, which stays open after them unless told."""

    health: dict[str, Any] = field(default_factory=lambda: {"state": "ready", "version": "4.2.1", "servers": []})
    body: bytes | None = None
    status: int = 200
    hangs: bool = False
    stream: bytes = b""
    stream_status: int = 200
    stream_ends: bool = False
    refreshed: tuple[int, dict[str, Any]] = (200, {})
    asked: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.asked.append(self.path)
            if hub.hangs:
                over.wait(PATIENCE_S)
                self.close_connection = True
            elif self.path == "/api/events":
                self._stream()
            else:
                self._answer(hub.status, json.dumps(hub.health).encode() if hub.body is None else hub.body)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            hub.asked.append(f"{self.path} {asked['server_name']}")
            status, said = hub.refreshed
            self._answer(status, json.dumps(said).encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                self.close_connection = True

        def _stream(self) -> None:
            self.send_response(hub.stream_status)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            # Each line a chunk of its own, as the hub sends them.
            for line in hub.stream.splitlines(keepends=True):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            if hub.stream_ends:
                self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()
            if not hub.stream_ends:
                over.wait(PATIENCE_S)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            over.set()
            server.shutdown()
            thread.join()
