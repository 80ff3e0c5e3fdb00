"""Each bench at a tiny size: that it runs and says what others rely on. Its figures mean nothing at this size."""

from __future__ import annotations

import json

import pytest

from hubscope.settings import Settings
from tests.bench import ingest, query, stream, wrap
from tests.bench.peers import Peer, PeerUnavailable
from tests.bench.result import Result

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench brings its own database, which is safe."""
    monkeypatch.delenv("HUBSCOPE_ALLOW_UNSAFE_DATABASE", raising=False)
    assert not Settings.load().allow_unsafe_database


def figures(name: str, result: Result) -> dict[str, float | None]:
    """The figures as they are printed."""
    printed = json.loads(json.dumps(result.as_json(name)))
    assert printed.keys() == {"bench", "figures", "context"}
    found: dict[str, float | None] = printed["figures"]
    return found


async def test_ingest() -> None:
    sizes = ingest.Sizes(rounds=1, posted=2_500, single_rounds=1, singles=256, watched=3, overload_s=1.0)
    result = await ingest.measure(sizes)
    found = figures("ingest", result)
    assert found.keys() == {
        "batched_vs_copy",
        "batched_one_duplicate_vs_copy",
        "single_vs_pgbench",
        "single_p99_vs_pgbench_avg",
        "freshness_p95_ms",
        "rss_max_mb",
    }
    assert all(value is not None and value > 0 for value in found.values())
    assert result.context["overload"]["posts_by_status"]


async def test_wrap() -> None:
    result = await wrap.measure(calls=40, rounds=1)
    found = figures("wrap", result)
    assert found.keys() == {"added_p50_ms", "added_p99_ms", "added_p50_ms_down", "added_p99_ms_down"}
    assert result.context["reported_calls"] == wrap.WARM_UP + 2 * 40


async def test_stream() -> None:
    result = await stream.measure(stream.Sizes(clients=20, seconds=4))
    found = figures("stream", result)
    assert found.keys() == {
        "clients", "p50_delay_ms", "p95_delay_ms", "p99_delay_ms", "p95_delay_apart_from_restart_ms", "lost",
        "duplicates", "out_of_order", "strays", "cut_off", "deliveries_per_s", "ingest_per_s",
    }  # fmt: skip
    assert found["clients"] == 20
    assert [found[name] for name in ("lost", "duplicates", "out_of_order", "strays", "cut_off")] == [0] * 5
    assert result.context["told_to_come_back"] == 20


async def test_query() -> None:
    def gone(_dsn: str) -> Peer:
        raise PeerUnavailable("not in this test")

    def broken(_dsn: str) -> Peer:
        return Peer("broken", "query", "false", ())

    result = await query.measure(20, {"checked_peer": gone, "unchecked_peer": broken}, rounds=2)
    found = figures("query", result)
    peers = {"calls_vs_checked_peer", "p50_vs_unchecked_peer", "p99_vs_unchecked_peer"}
    assert {name for name, value in found.items() if value is None} == peers
    assert found.keys() - peers == {"p50_vs_noop", "p50_vs_noop_cached_verdict"}
    assert result.context["checked_peer"] == "not in this test"
    assert "broken does not answer" in result.context["unchecked_peer"]
    assert result.context["ways"].keys() == {
        "query", "query_cached_verdict", "query_http", "query_http_cached_verdict", "query_new_text",
        "noop", "noop_http", "asyncpg",
    }  # fmt: skip
