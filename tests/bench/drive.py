"""A client that costs its machine little: requests made beforehand, over a few connections that are kept, one thread.

The bench shares its cores with what it measures, so a client library would be measured along with the server. This one
spends some ten microseconds on a request.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_READ: Final = 65_536
STALLED_S: Final = 60.0
"""Nothing moves for so long: something is wrong."""


@dataclass(slots=True)
class Driven:
    """What became of the requests.

    Attributes:
        seconds: from the first byte sent to the last answer.
        latencies_ms: of each answered request, in the order of the answers.
        answers: status and body of each, in the same order.
        broken: connections that the server closed without an answer; their requests are not sent again.
    """

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    broken: int = 0


class DriveStalled(RuntimeError):
    """No answer came for a minute."""


def request(body: bytes, key: str, *, path: str = "/v1/events", content_type: str = "application/x-ndjson") -> bytes:
    """A whole POST as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
        f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answer(data: bytes) -> tuple[int, bytes] | None:
    """Status and body of one HTTP answer with a Content-Length; None as long as it is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    told = _LENGTH.search(data, 0, end)
    length = int(told[1]) if told else 0
    if len(data) < end + 4 + length:
        return None
    return int(data[9:12]), data[end + 4 : end + 4 + length]


class _Connection:
    """One socket and the request that is under way on it."""

    __slots__ = ("rest", "said", "since", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.rest: memoryview | None = None
        self.said = b""
        self.since = 0.0

    def send(self, whole: bytes) -> None:
        self.since = time.perf_counter()
        self.said = b""
        self.rest = memoryview(whole)
        self.go_on()

    def go_on(self) -> None:
        """Send what the kernel takes now."""
        assert self.rest is not None
        try:
            sent = self.socket.send(self.rest)
        except BlockingIOError:
            return
        self.rest = self.rest[sent:] if sent < len(self.rest) else None


def drive(port: int, requests: Iterable[bytes], connections: int, *, until: float | None = None) -> Driven:
    """Send the requests over so many connections to 127.0.0.1, on each the next one as soon as the last is answered.

    Args:
        requests: whole ones, see `request`; may be endless where `until` is given.
        until: time.perf_counter() after which nothing new is sent.

    Raises:
        DriveStalled.
    """
    waiting = iter(requests)
    driven = Driven()
    poll = select.epoll()
    open_ones: dict[int, _Connection] = {}
    try:
        for _ in range(connections):
            one = _Connection(port)
            open_ones[one.socket.fileno()] = one
        begun = time.perf_counter()
        for fd, one in list(open_ones.items()):
            poll.register(fd, select.EPOLLIN)
            if not _next(one, waiting, until, poll):
                _close(one, open_ones, poll)
        while open_ones:
            events = poll.poll(STALLED_S)
            if not events:
                raise DriveStalled(f"{len(open_ones)} requests have been without an answer for {STALLED_S:.0f} s")
            for fd, event in events:
                one = open_ones[fd]
                try:
                    if event & select.EPOLLOUT and one.rest is not None:
                        one.go_on()
                        if one.rest is None:
                            poll.modify(fd, select.EPOLLIN)
                    if not event & ~select.EPOLLOUT:
                        continue
                    data = one.socket.recv(_READ)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if not data:
                    driven.broken += 1
                    _close(one, open_ones, poll)
                    one = _Connection(port)
                    open_ones[one.socket.fileno()] = one
                    poll.register(one.socket.fileno(), select.EPOLLIN)
                else:
                    one.said = one.said + data if one.said else data
                    whole = answer(one.said)
                    if whole is None:
                        continue
                    driven.latencies_ms.append((time.perf_counter() - one.since) * 1000)
                    driven.answers.append(whole)
                    if one.rest is not None:  # answered before it was sent: the connection is of no more use
                        _close(one, open_ones, poll)
                        one = _Connection(port)
                        open_ones[one.socket.fileno()] = one
                        poll.register(one.socket.fileno(), select.EPOLLIN)
                if not _next(one, waiting, until, poll):
                    _close(one, open_ones, poll)
        driven.seconds = time.perf_counter() - begun
    finally:
        for one in open_ones.values():
            one.socket.close()
        poll.close()
    return driven


def _next(one: _Connection, waiting: Iterator[bytes], until: float | None, poll: select.epoll) -> bool:
    """Send the next request, if there is one."""
    if until is not None and time.perf_counter() >= until:
        return False
    whole = next(waiting, None)
    if whole is None:
        return False
    one.send(whole)
    if one.rest is not None:
        poll.modify(one.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
    return True


def _close(one: _Connection, open_ones: dict[int, _Connection], poll: select.epoll) -> None:
    fd = one.socket.fileno()
    poll.unregister(fd)
    del open_ones[fd]
    one.socket.close()
