"""From the spool to hubscope: batches over HTTP, from a thread of its own, until they are taken."""

from __future__ import annotations

import gzip
import http.client
import ipaddress
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

from hubscope.delivery import Outcome, Verdict, judge, pause_seconds
from hubscope.wrap.spool import Say, Spool

PATH: Final = "/v1/events"
BATCH_MAX_EVENTS: Final = 500
BATCH_MAX_BYTES: Final = 512 * 1024
REQUEST_TIMEOUT_S: Final = 15.0
BUSY_LINGERS: Final = 5
LOOK_FOR_LEFTOVERS_S: Final = 30.0
"""How often to look for what other wrappers left."""
GZIP_FROM_BYTES: Final = 1_024
"""Smaller bodies, and those that stay on this machine, are not worth it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Post(Protocol):
    """Sends a body within a time.

    Raises:
        OSError, http.client.HTTPException: there was no answer.
    """

    def __call__(self, body: bytes, timeout_s: float) -> Answer: ...

    def close(self) -> None: ...


class HttpPost:
    """Posts NDJSON to hubscope over one connection that is kept."""

    def __init__(self, url: str, api_key: str | None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/") + PATH
        self._zip = not _is_here(parts.hostname)
        self._headers = {"Content-Type": "application/x-ndjson", "User-Agent": "hubscope-wrap"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._connection: http.client.HTTPConnection | None = None

    def __call__(self, body: bytes, timeout_s: float) -> Answer:
        headers = self._headers
        if self._zip and len(body) >= GZIP_FROM_BYTES:
            body = gzip.compress(body, 5)
            headers = headers | {"Content-Encoding": "gzip"}
        deadline = time.monotonic() + timeout_s
        if self._connection is not None:
            try:
                return self._once(body, headers, deadline)
            except (OSError, http.client.HTTPException):
                # Most likely it was closed for being idle. Sending again is safe: the ids are the same.
                if time.monotonic() >= deadline:
                    raise
        return self._once(body, headers, deadline)

    def _once(self, body: bytes, headers: dict[str, str], deadline: float) -> Answer:
        left = max(deadline - time.monotonic(), 0.001)
        try:
            if self._connection is None:
                kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
                self._connection = kind(self._host, self._port, timeout=left)
            elif self._connection.sock is not None:
                self._connection.sock.settimeout(left)
            self._connection.request("POST", self._path, body, headers)
            answer = self._connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Sender:
    """Empties a spool. `run` is a thread's; the rest is for others to call.

    Args:
        linger_s: how long an event waits for others when nothing was sent lately. Under steady traffic posts are
            `BUSY_LINGERS` times as far apart: every post costs hubscope a commit, and the calls some of the processor.
        say: told once of each thing that a person may want to change.
    """

    def __init__(self, spool: Spool, post: Post, *, linger_s: float, say: Say) -> None:
        self._spool = spool
        self._post = post
        self._linger_s = linger_s
        self._say = say
        self._news = threading.Event()
        self._ending = threading.Event()
        self._ended = threading.Event()
        self._deadline: float | None = None
        self._failures = 0
        self._posted_at = -math.inf
        self.refused = 0

    def poke(self) -> None:
        """There is something new in the spool."""
        self._news.set()

    def finish(self, within_s: float) -> bool:
        """Send what is left without waiting for more, as far as it goes; True when `run` has ended by then."""
        self._deadline = time.monotonic() + within_s
        self._ending.set()
        self._news.set()
        return self._ended.wait(within_s)

    def run(self) -> None:
        """Send until `finish` is called."""
        try:
            next_look = 0.0
            while not self._ending.is_set():
                look = time.monotonic() >= next_look
                pause = self._empty(leftovers=look)
                if pause is not None:
                    self._ending.wait(pause)
                    continue
                if look:
                    next_look = time.monotonic() + LOOK_FOR_LEFTOVERS_S
                if self._news.wait(LOOK_FOR_LEFTOVERS_S):
                    since = time.monotonic() - self._posted_at
                    self._ending.wait(max(self._linger_s, BUSY_LINGERS * self._linger_s - since))
                    self._news.clear()
            self._empty(leftovers=False)
        finally:
            self._post.close()
            self._ended.set()

    def _empty(self, *, leftovers: bool) -> float | None:
        """Send all there is. The pause before the next try in seconds if that did not work, else None.

        What comes in meanwhile waits for the next time, so that steady traffic goes out in batches.
        """
        new = True
        while self._left_s() > 0:
            batch = self._spool.take(
                max_events=BATCH_MAX_EVENTS, max_bytes=BATCH_MAX_BYTES, leftovers=leftovers, new=new
            )
            if batch is None:
                return None
            asked = self._deliver(batch.lines)
            if asked is not None:
                self._failures += 1
                return pause_seconds(self._failures, asked.retry_after_seconds)
            self._failures = 0
            self._spool.done(batch)
            if batch.new and len(batch.lines) < BATCH_MAX_EVENTS:
                new = self._ending.is_set()
        return None

    def _deliver(self, lines: list[bytes]) -> Outcome | None:
        """Send some events, in pieces where they are too many; what stood in the way, if they are not through."""
        outcome = self._try(lines)
        if outcome.verdict is Verdict.TAKEN:
            self._lost(outcome.rejected, "rejected", outcome.reason)
        elif outcome.verdict is Verdict.SPLIT and len(lines) > 1:
            half = len(lines) // 2
            return self._deliver(lines[:half]) or self._deliver(lines[half:])
        elif outcome.verdict in (Verdict.SPLIT, Verdict.REFUSED):
            self._lost(len(lines), "refused", outcome.reason)
        else:
            if outcome.verdict is Verdict.HELD:
                self._say("held", f"hubscope does not take events ({outcome.reason}); they are kept for later")
            return outcome
        return None

    def _try(self, lines: list[bytes]) -> Outcome:
        self._posted_at = time.monotonic()
        body = b"\n".join(lines) + b"\n"
        try:
            answer = self._post(body, min(REQUEST_TIMEOUT_S, max(self._left_s(), 0.05)))
        except (OSError, http.client.HTTPException) as error:
            return Outcome(Verdict.LATER, type(error).__name__)
        return judge(answer.status, answer.headers, answer.body, len(lines))

    def _lost(self, count: int, how: str, reason: str) -> None:
        if count:
            self.refused += count
            self._say(how, f"{count} events were {how} by hubscope and are dropped, the first: {reason}"[:500])

    def _left_s(self) -> float:
        return REQUEST_TIMEOUT_S if self._deadline is None else self._deadline - time.monotonic()


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
