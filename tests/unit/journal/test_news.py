"""What goes out on a stream: the form of events, and who gets which."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hubscope.journal.news import FILTERS, TOPICS, News, Wanted, control, heartbeat, news_of

TEXTS = st.text(max_size=20)
VALUES = st.sampled_from(["a", "b", "c"])


def parsed(wire: bytes) -> list[dict[str, str]]:
    """Blocks as WHATWG HTML, 9.2.6 reads them: fields by name; lines end with CR LF, LF or CR."""
    blocks: list[dict[str, str]] = [{}]
    for line in wire.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            blocks.append({})
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            assert name not in blocks[-1]
            blocks[-1][name] = value.removeprefix(" ")
    return [block for block in blocks if block]


@given(
    seq=st.integers(1, 2**62),
    topic=st.sampled_from(TOPICS),
    name=TEXTS,
    subject=TEXTS,
    server=st.none() | TEXTS,
    payload=st.dictionaries(TEXTS, TEXTS | st.integers(-5, 5) | st.none() | st.lists(TEXTS)),
)
def test_whatever_an_event_holds_it_is_one_block_that_says_it(
    seq: int, topic: str, name: str, subject: str, server: str | None, payload: dict[str, Any]
) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    row = {
        "seq": seq, "topic": topic, "name": name, "subject": subject, "server": server, "time": at,
        "payload": json.dumps(payload),
    }  # fmt: skip
    (block,) = parsed(news_of(row).wire)
    assert block.keys() == {"id", "event", "data"}
    assert (block["id"], block["event"]) == (str(seq), topic)
    data = json.loads(block["data"])
    assert datetime.fromisoformat(data.pop("time")) == at
    assert data == {"seq": seq, "topic": topic, "name": name, "subject": subject, "server": server, "payload": payload}


@given(
    topics=st.frozensets(st.sampled_from(TOPICS)),
    servers=st.frozensets(VALUES),
    chains=st.frozensets(VALUES),
    names=st.frozensets(VALUES),
    topic=st.sampled_from(TOPICS),
    name=VALUES,
    subject=VALUES,
    server=st.none() | VALUES,
)
def test_an_event_passes_when_its_topic_is_wanted_and_no_filter_stops_it(
    topics: Any, servers: Any, chains: Any, names: Any, topic: str, name: str, subject: str, server: str | None
) -> None:
    news = News(1, topic, name, subject, server, b"")
    stopped = (
        topic not in topics
        or (servers and server not in servers)
        or (chains and (topic != "chain" or subject not in chains))
        or (names and name not in names)
    )
    assert Wanted(topics, servers, chains, names).passes(news) == (not stopped)


def test_every_filter_fits_some_topic() -> None:
    assert all(topics and topics <= set(TOPICS) for topics in FILTERS.values())


def test_a_heartbeat_is_no_event_and_moves_the_position() -> None:
    assert parsed(heartbeat(7)) == [{"id": "7"}]


def test_an_event_about_the_stream_has_a_position_only_where_it_is_one() -> None:
    assert parsed(control("end", {"reason": "key"})) == [{"event": "end", "data": '{"reason":"key"}'}]
    assert parsed(control("gap", {"to": 3}, seq=3, retry_ms=5)) == [
        {"id": "3", "retry": "5", "event": "gap", "data": '{"to":3}'}
    ]
