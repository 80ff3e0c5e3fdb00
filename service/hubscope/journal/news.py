"""What is told on the stream: topics, one encoded event, and who wants it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec import Raw, Struct

Topic = Literal["chain", "metadata", "audit", "health", "analytics"]
TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)

FILTERS: Final[Mapping[str, frozenset[Topic]]] = {
    "server": frozenset({"chain", "metadata", "health"}),
    "chain": frozenset({"chain"}),
    "name": frozenset(TOPICS),
}
"""Filter -> the topics whose events it can tell apart."""

_ENCODER: Final = msgspec.json.Encoder()


class _Data(Struct, frozen=True):
    """What stands in the `data` of an event."""

    seq: int
    topic: str
    name: str
    time: datetime
    subject: str
    server: str | None
    payload: Raw


class News(Struct, frozen=True, gc=False):
    """One event, encoded once for everybody.

    Attributes:
        seq: its number in its tenant's log.
        subject: what it is about; the chain's id on the topic chain.
        wire: as it goes out: id, event and data lines, and the empty one.
    """

    seq: int
    topic: str
    name: str
    subject: str
    server: str | None
    wire: bytes


def news_of(row: Mapping[str, Any]) -> News:
    """A row of the log as it goes out."""
    seq, topic, name, subject, server = row["seq"], row["topic"], row["name"], row["subject"], row["server"]
    data = _Data(seq, topic, name, row["time"], subject, server, Raw(row["payload"].encode()))
    wire = b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, topic.encode(), _ENCODER.encode(data))
    return News(seq, topic, name, subject, server, wire)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader asked for: an event of one of the topics that every filter lets pass. An empty filter passes all.

    Attributes:
        servers, chains, names: as in FILTERS.
    """

    topics: frozenset[Topic]
    servers: frozenset[str] = frozenset()
    chains: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    def passes(self, news: News) -> bool:
        """Whether an event is wanted."""
        return (
            news.topic in self.topics
            and (not self.servers or news.server in self.servers)
            and (not self.chains or (news.topic == "chain" and news.subject in self.chains))
            and (not self.names or news.name in self.names)
        )


def control(event: str, data: Mapping[str, Any], *, seq: int | None = None, retry_ms: int | None = None) -> bytes:
    """An event about the stream itself: begin, gap, end. With `seq` the reader resumes from there."""
    lines = [] if seq is None else [b"id: %d" % seq]
    if retry_ms is not None:
        lines.append(b"retry: %d" % retry_ms)
    lines += [b"event: " + event.encode(), b"data: " + _ENCODER.encode(data)]
    return b"\n".join(lines) + b"\n\n"


def heartbeat(seq: int) -> bytes:
    """A comment that keeps the connection, and the position of a reader to whom nothing was told for long.

    A block without data is no event to a reader, but its id counts (WHATWG HTML, 9.2.6), so whoever filters much does
    not resume from before the beginning of the log.
    """
    return b": heartbeat\nid: %d\n\n" % seq
