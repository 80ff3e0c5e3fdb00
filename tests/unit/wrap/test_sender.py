"""The sender, against a real HTTP server that answers as it is told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hubscope.wrap.sender import BUSY_LINGERS, HttpPost, Sender
from hubscope.wrap.spool import Spool
from tests.scripted_service import DEADLINE_S, Service, serving


@pytest.fixture
def service() -> Iterator[Service]:
    with serving(Service()) as started:
        yield started


class Bench:
    """A spool, a sender over it, and what was said."""

    def __init__(self, folder: Path, url: str, *, linger_s: float = 0.0, api_key: str | None = None) -> None:
        self.said: list[tuple[str, str]] = []
        self.spool = Spool(folder, max_bytes=10_000_000, say=lambda about, words: self.said.append((about, words)))
        self.sender = Sender(
            self.spool,
            HttpPost(url, api_key),
            linger_s=linger_s,
            say=lambda about, words: self.said.append((about, words)),
        )
        self.thread = threading.Thread(target=self.sender.run, daemon=True)

    def append(self, *numbers: int) -> None:
        for number in numbers:
            self.spool.append(json.dumps({"event": number}).encode())
            self.sender.poke()

    def start(self) -> Bench:
        self.thread.start()
        return self

    def finish(self, within_s: float = DEADLINE_S) -> bool:
        done = self.sender.finish(within_s)
        self.spool.close()
        return done


@pytest.fixture
def bench(tmp_path: Path, service: Service) -> Iterator[Bench]:
    made = Bench(tmp_path / "spool", service.url)
    yield made
    made.finish(0.5)


def test_events_go_out_in_order_with_the_key(tmp_path: Path, service: Service) -> None:
    bench = Bench(tmp_path, service.url, api_key="hsk_x").start()
    for number in range(20):
        bench.append(number)
    assert bench.finish()
    assert service.taken == list(range(20))
    headers = service.posts[0][0]
    assert (headers["authorization"], headers["path"]) == ("Bearer hsk_x", "/v1/events")
    assert headers["content-type"] == "application/x-ndjson"
    assert "content-encoding" not in headers  # it stays on this machine
    assert bench.said == []


def test_more_than_a_segment_holds_goes_out_at_once(tmp_path: Path, service: Service) -> None:
    bench = Bench(tmp_path, service.url).start()
    bench.append(0)
    service.until(1)  # it has looked for leftovers, and will not for a while
    bench.append(*range(1, 20_000))
    service.until(20_000)
    assert sorted(service.taken) == list(range(20_000))
    assert bench.finish()
    assert list(tmp_path.glob("*.ndjson")) == []


def test_events_gather_for_the_time_of_the_linger(tmp_path: Path, service: Service) -> None:
    bench = Bench(tmp_path, service.url, linger_s=DEADLINE_S).start()
    bench.append(1, 2)
    time.sleep(0.05)
    bench.append(3)
    assert bench.finish()  # the end does not linger
    assert [numbers for _, numbers in service.posts] == [[1, 2, 3]]


def test_under_steady_traffic_posts_are_further_apart(tmp_path: Path, service: Service) -> None:
    bench = Bench(tmp_path, service.url, linger_s=0.1).start()
    began = time.monotonic()
    for number in range(40):
        bench.append(number)
        time.sleep(0.02)
    assert bench.finish()
    took = time.monotonic() - began
    assert service.taken == list(range(40))
    assert len(service.posts) <= 2 + took / (0.1 * BUSY_LINGERS)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_work_later_is_sent_again(service: Service, bench: Bench, status: int) -> None:
    service.script = [(status, {"Retry-After": "0"}, {"code": "unavailable"})] * 2
    bench.append(1, 2)
    bench.start()
    service.until(2)
    assert (service.taken, bench.said) == ([1, 2], [])


def test_a_service_that_was_away_gets_everything_when_it_is_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    bench = Bench(tmp_path, f"http://127.0.0.1:{port}").start()
    bench.append(*range(1_200))
    assert bench.finish()
    again = Service()
    with serving(again):
        other = Bench(tmp_path, again.url).start()
        again.until(1_200)
        assert other.finish()
    assert sorted(again.taken) == list(range(1_200))
    assert bench.said == other.said == []


def test_too_many_at_once_are_sent_in_pieces_and_one_too_large_is_dropped(service: Service, bench: Bench) -> None:
    service.most_events = 3
    bench.append(*range(10))
    bench.start()
    service.until(10)
    assert service.taken == list(range(10))
    service.most_events = 0
    bench.append(99)
    assert bench.finish()
    assert bench.sender.refused == 1
    assert bench.said == [
        ("refused", "1 events were refused by hubscope and are dropped, the first: status 413, too_large: too many")
    ]


def test_events_that_are_rejected_are_dropped_and_told_of(service: Service, bench: Bench) -> None:
    rejected = [{"index": 0, "event_id": None, "code": "too_old", "detail": "time: long ago"}]
    service.script = [(200, {}, {"accepted": 1, "duplicates": 0, "rejected": rejected})]
    bench.append(1, 2)
    bench.start()
    assert bench.finish()
    assert (bench.sender.refused, service.taken) == (1, [])
    assert bench.said == [
        ("rejected", "1 events were rejected by hubscope and are dropped, the first: too_old: time: long ago")
    ]


def test_a_post_that_can_never_be_taken_does_not_stop_the_next(service: Service, bench: Bench) -> None:
    service.script = [(400, {}, {"code": "invalid_request", "detail": "no"})]
    bench.append(1)
    bench.start()
    deadline = time.monotonic() + DEADLINE_S
    while not bench.said and time.monotonic() < deadline:
        time.sleep(0.01)
    bench.append(2)
    service.until(1)
    assert service.taken == [2]


@pytest.mark.parametrize(
    ("status", "body"), [(401, {"code": "unauthenticated"}), (403, {}), (404, b"nginx"), (200, b"<html>")]
)
def test_a_wrong_key_or_address_keeps_events_for_later(
    tmp_path: Path, service: Service, status: int, body: Any
) -> None:
    service.script = [(status, {}, body)]
    bench = Bench(tmp_path, service.url).start()
    bench.append(1)
    service.until(1)
    assert service.taken == [1]
    ((about, words),) = bench.said
    assert (about, "kept for later" in words) == ("held", True)
    bench.finish()


def test_a_connection_that_was_closed_for_being_idle_costs_nothing(service: Service, bench: Bench) -> None:
    service.closes = True
    bench.start()
    for number in range(3):
        bench.append(number)
        service.until(number + 1)
    assert service.taken == [0, 1, 2]


def test_the_end_waits_for_a_silent_service_no_longer_than_told(tmp_path: Path, service: Service) -> None:
    service.hangs = True
    bench = Bench(tmp_path, service.url).start()
    bench.append(1)
    time.sleep(0.05)
    began = time.monotonic()
    assert not bench.finish(within_s=0.2)
    assert time.monotonic() - began < DEADLINE_S / 3  # the silence lasts as long as the test lets it


def test_what_other_wrappers_left_is_sent_at_the_start(tmp_path: Path, service: Service) -> None:
    left = Bench(tmp_path, "http://127.0.0.1:1")
    left.append(1, 2, 3)
    left.spool.close()
    bench = Bench(tmp_path, service.url).start()
    service.until(3)
    assert bench.finish()
    assert service.taken == [1, 2, 3]


def test_a_body_for_another_machine_is_zipped(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    real, port = socket.getaddrinfo, service.url.rpartition(":")[2]
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *rest, **more: real("127.0.0.1", *rest, **more))
    post = HttpPost(f"http://hubscope.example:{port}/prefix/", None)
    assert post(b"".join(b'{"event": %d}\n' % number for number in range(500)), 5.0).status == 200
    post.close()
    (headers, numbers) = service.posts[0]
    assert (headers["content-encoding"], headers["path"]) == ("gzip", "/prefix/v1/events")
    assert numbers == list(range(500))
