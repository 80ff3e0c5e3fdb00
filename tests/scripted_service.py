"""A real HTTP server in the place of hubscope, which answers as a test tells it to."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import itemgetter
from typing import Any

DEADLINE_S = 30.0


@dataclass
class Service:
    """What hubscope would answer: scripted statuses first, then 200."""

    script: list[tuple[int, dict[str, str], Any]] = field(default_factory=list)
    posts: list[tuple[dict[str, str], list[Any]]] = field(default_factory=list)
    read: Callable[[dict[str, Any]], Any] = itemgetter("event")
    most_events: int = 1_000
    hangs: bool = False
    closes: bool = False
    url: str = ""

    @property
    def taken(self) -> list[Any]:
        return [number for _, numbers in self.posts for number in numbers]

    def until(self, count: int) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while len(self.taken) < count:
            assert time.monotonic() < deadline, f"{len(self.taken)} of {count} events after {DEADLINE_S} s"
            time.sleep(0.01)

    def answer(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], Any]:
        events = [self.read(json.loads(line)) for line in body.splitlines()]
        if self.script:
            return self.script.pop(0)
        if len(events) > self.most_events:
            return 413, {}, {"code": "too_large", "detail": "too many"}
        self.posts.append((headers, events))
        return 200, {}, {"accepted": len(events), "duplicates": 0, "rejected": []}


@contextmanager
def serving(service: Service) -> Iterator[Service]:
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if service.hangs:
                over.wait(DEADLINE_S)
                return
            headers = {name.lower(): value for name, value in self.headers.items()} | {"path": self.path}
            if headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            status, more, said = service.answer(headers, body)
            encoded = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            for name, value in {**more, "content-length": str(len(encoded))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(encoded)
            self.close_connection = service.closes

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        service.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield service
        finally:
            over.set()
            server.shutdown()
            thread.join()
