"""The observer: from copies of chunks to events, with gaps, heartbeats and trouble of its own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubscope.wrap.observer import Observer
from hubscope.wrap.protocol import Session
from hubscope.wrap.pump import Moment
from hubscope.wrap.tap import Ending, Side, Tap

DEADLINE_S = 30.0
CALL = b'{"jsonrpc": "2.0", "id": %d, "method": "tools/call", "params": {"name": "read"}}\n'
RESULT = b'{"jsonrpc": "2.0", "id": %d, "result": {}}\n'


class Watched:
    """A tap with an observer at its end, in this thread."""

    def __init__(self, *, max_bytes: int = 10_000_000, heartbeat_s: float = 0, limit: int = 10_000) -> None:
        self.tap = Tap(max_bytes)
        self.session = Session("s")
        self.kept: list[dict[str, Any]] = []
        self.trouble: list[str] = []
        self.observer = Observer(
            self.session,
            self.tap,
            max_message_bytes=limit,
            heartbeat_s=heartbeat_s,
            keep=lambda event: self.kept.append(json.loads(event)),
            trouble=self.trouble.append,
        )
        self.watch = {"client": self.tap.of("client"), "server": self.tap.of("server")}

    def show(self, side: Side, data: bytes) -> None:
        self.watch[side](data, Moment.now())

    def end(self) -> list[dict[str, Any]]:
        self.tap.items.put(Ending(1))
        self.observer.run()
        return self.kept

    def outcomes(self) -> list[str]:
        return [event.get("outcome") or event["status"] for event in self.kept]


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    for start, end in pairwise(at):
        yield data[start:end]


@given(st.lists(st.integers(0, 10_000), max_size=30), st.lists(st.integers(0, 10_000), max_size=30))
def test_a_conversation_reads_the_same_however_it_is_chopped(first: list[int], second: list[int]) -> None:
    watched = Watched()
    for piece in cut(b"".join(CALL % number for number in range(5)), first):
        watched.show("client", piece)
    for piece in cut(b"noise\n" + b"".join(RESULT % number for number in range(4)), second):
        watched.show("server", piece)
    watched.end()
    assert watched.outcomes() == ["connected", "ok", "ok", "ok", "ok", "error", "crashed"]
    assert watched.session.counts.unreadable_lines == 1
    assert watched.trouble == []


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["client", "server"]), st.binary(max_size=80)), max_size=20))
def test_no_bytes_at_all_are_trouble(chunks: list[tuple[Side, bytes]]) -> None:
    watched = Watched(max_bytes=1_000, limit=30)
    for side, chunk in chunks:
        watched.show(side, chunk)
    watched.end()
    assert watched.trouble == []
    assert watched.outcomes()[-1] == "crashed"


def test_bytes_that_were_missed_are_told_at_the_end() -> None:
    watched = Watched(max_bytes=1_000)
    watched.show("client", CALL % 1)
    watched.show("server", b"x" * 900)
    watched.end()
    assert watched.kept[-1]["attrs"]["missed_bytes"] == 900
    assert watched.outcomes() == ["crashed"]  # its answer may have been in there
    assert watched.kept[-1]["attrs"]["unreported_calls"] == 1


def test_in_a_hurry_what_is_queued_counts_as_missed() -> None:
    watched = Watched()
    watched.show("client", CALL % 1)
    watched.tap.hurry = True
    watched.end()
    assert watched.kept[-1]["attrs"]["missed_bytes"] == len(CALL % 1)


@pytest.mark.parametrize("busy", [False, True])
def test_a_connected_server_is_reported_alive_in_silence_and_under_steady_traffic(busy: bool) -> None:
    watched = Watched(heartbeat_s=0.05)
    watched.show("client", CALL % 1)
    watched.show("server", RESULT % 1)
    thread = threading.Thread(target=watched.observer.run)
    thread.start()
    deadline = time.monotonic() + DEADLINE_S
    while watched.outcomes().count("alive") < 3 and time.monotonic() < deadline:
        if busy:
            watched.show("server", b"{}\n" * 1_000)
        time.sleep(0.001)
    watched.tap.items.put(Ending(0))
    thread.join(DEADLINE_S)
    assert watched.outcomes().count("alive") >= 3


def test_a_mistake_of_ours_costs_one_message_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    real = watched.session.sent

    def broken(line: Any, at: Moment) -> Any:
        if line.whole.startswith(b"{}"):
            raise KeyError("bug")
        return real(line, at)

    monkeypatch.setattr(watched.session, "sent", broken)
    watched.show("client", b"{}\n" + CALL % 1)
    watched.show("server", RESULT % 1)
    watched.end()
    assert watched.trouble == ["a message could not be read: KeyError: 'bug'"]
    assert "ok" in watched.outcomes()
