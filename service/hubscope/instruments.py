"""Measurements of this process itself, summed over replicas by Prometheus. What the data says is in `gauges`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series of creation times per series helps nobody

COMMIT_SECONDS = tuple(0.001 * 2**power for power in range(14))
"""Bounds of commit times: powers of two of a millisecond, 1 ms to 8 s."""

STREAM_SECONDS = tuple(0.001 * 2**power for power in range(3, 15))
"""Bounds of the delay of live updates: powers of two of a millisecond, 8 ms to 16 s."""


class Instruments:
    """The counters and histograms of one process, in a registry of its own (tests never share one)."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self.build = Gauge(
            "hubscope_build_info",
            "Constant 1, with the version and the engine.",
            ("version", "engine"),
            registry=registry,
        )
        self.events = Counter(
            "hubscope_ingest_events_total",
            "Events posted to this process, by outcome (accepted: committed now; duplicate: was there; rejected).",
            ("type", "outcome"),
            registry=registry,
        )
        self.posts = Counter(
            "hubscope_ingest_posts_total", "Posts to /v1/events, by HTTP status.", ("status",), registry=registry
        )
        self.other_names = Counter(
            "hubscope_ingest_other_names_total",
            "Names stored as _other because the tenant has no room for more, by kind (hub, server, tool, client).",
            ("kind",),
            registry=registry,
        )
        self.spans = Counter(
            "hubscope_otlp_spans_total",
            "Spans sent to this process, by outcome (accepted, duplicate, rejected; ignored: no tool call).",
            ("outcome",),
            registry=registry,
        )
        self.exports = Counter(
            "hubscope_otlp_exports_total", "Posts to /v1/traces, by HTTP status.", ("status",), registry=registry
        )
        self.refused = Counter(
            "hubscope_http_refused_total",
            "Requests that were not let in, by the code of the answer.",
            ("code",),
            registry=registry,
        )
        self.chains = Counter(
            "hubscope_chains_total",
            "Runs of tool chains that ended in this process, by status (completed, failed, cancelled, timed_out,"
            " interrupted; lost: stopped because the lease could not be renewed).",
            ("status",),
            registry=registry,
        )
        self.chains_running = Gauge(
            "hubscope_chains_running", "Tool chains that run in this process.", registry=registry
        )
        self.connections_cut = Counter(
            "hubscope_http_connections_cut_total",
            "Connections that were ended by us: late (head, body, idle, unread), malformed, or too many (connections).",
            ("reason",),
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "hubscope_ingest_commit_duration_seconds",
            "Time from taking a group of events off the queue to its commit.",
            buckets=COMMIT_SECONDS,
            registry=registry,
        )
        self.queue_events = Gauge("hubscope_ingest_queue_events", "Events waiting to be committed.", registry=registry)
        self.queue_bytes = Gauge("hubscope_ingest_queue_bytes", "Bytes waiting to be committed.", registry=registry)
        self.peer_requests = Counter(
            "hubscope_peer_requests_total",
            "Requests made to MCP servers, without probes, by outcome (ok, failed).",
            ("outcome",),
            registry=registry,
        )
        self.peer_probes = Counter(
            "hubscope_peer_probes_total",
            "Probes of MCP servers, by outcome (ok, failed).",
            ("outcome",),
            registry=registry,
        )
        self.peer_sessions = Gauge("hubscope_peer_sessions", "Open sessions with MCP servers.", registry=registry)
        self.peers_watched = Gauge(
            "hubscope_peers_watched", "MCP servers that this process probes (it holds their leases).", registry=registry
        )
        self.peer_events_lost = Counter(
            "hubscope_peer_events_lost_total",
            "Events about MCP servers and own calls that could not be recorded.",
            registry=registry,
        )
        self.database_connected = Gauge(
            "hubscope_database_connected", "1 when the last check reached the database, else 0.", registry=registry
        )
        self.database_unsafe = Gauge(
            "hubscope_database_unsafe",
            "1 when fsync, full_page_writes or synchronous_commit is off: what was acknowledged may be lost.",
            registry=registry,
        )
        self.audit_records = Counter(
            "hubscope_audit_records_total",
            "Audit records of this process by outcome: written, lost (queue_full, unstorable, stopped: in the log).",
            ("outcome",),
            registry=registry,
        )
        for outcome in ("written", "queue_full", "unstorable", "stopped"):
            self.audit_records.labels(outcome)
        self.audit_refused = Counter(
            "hubscope_audit_refused_total",
            "Answers that were withheld because their audit record was not written in time.",
            registry=registry,
        )
        self.audit_queue = Gauge(
            "hubscope_audit_queue_records", "Audit records waiting to be written.", registry=registry
        )
        self.stream_subscribers = Gauge(
            "hubscope_stream_subscribers", "Open streams of live updates.", registry=registry
        )
        self.stream_sequencer = Gauge(
            "hubscope_stream_sequencer",
            "1 in the process that numbers live updates, else 0; over all replicas 1.",
            registry=registry,
        )
        self.stream_numbered = Counter(
            "hubscope_stream_numbered_total", "Live updates that this process numbered.", registry=registry
        )
        self.stream_delivered = Counter(
            "hubscope_stream_delivered_total",
            "Live updates handed to streams, counted for each stream.",
            registry=registry,
        )
        self.stream_delay_seconds = Histogram(
            "hubscope_stream_delay_seconds",
            "Time from writing a live update until this process hands it to its streams.",
            buckets=STREAM_SECONDS,
            registry=registry,
        )
        self.stream_ended = Counter(
            "hubscope_stream_ended_total",
            "Streams that ended, by reason: client (hung up), slow (cut off), key (no longer valid), shutdown, error.",
            ("reason",),
            registry=registry,
        )
        for reason in ("client", "slow", "key", "shutdown", "error"):
            self.stream_ended.labels(reason)
        self.stream_refused = Counter(
            "hubscope_stream_refused_total",
            "Streams that were not opened, by reason: tenant (its share is used up), all (no more here).",
            ("reason",),
            registry=registry,
        )
        for reason in ("tenant", "all"):
            self.stream_refused.labels(reason)
        self.collector_seconds = Gauge(
            "hubscope_gauge_duration_seconds", "How long each gauge's query took.", ("gauge",), registry=registry
        )
        self.collector_up = Gauge(
            "hubscope_gauge_up",
            "1 when the gauge's query worked in the last scrape, else 0.",
            ("gauge",),
            registry=registry,
        )


QUERY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds of query times: those of the server's specification and its alert on 5 s, and more on both sides."""


class SqlInstruments:
    """The SQL server's own: names as its specification has them, each with the name of the database.

    Args:
        databases: their names; every series of them is there from the start.
    """

    def __init__(self, databases: Iterable[str]) -> None:
        registry = self.registry = CollectorRegistry()
        self._databases = frozenset(databases)
        self._counted: dict[tuple[str, str, str], Callable[[float], None]] = {}
        self.queries = Counter(
            "postgres_mcp_queries_total",
            "Total number of queries, by status (success, error, refused, timeout).",
            ("database", "status"),
            registry=registry,
        )
        self.duration = Histogram(
            "postgres_mcp_query_duration_seconds",
            "Query execution duration, from the call to its answer.",
            ("database",),
            buckets=QUERY_SECONDS,
            registry=registry,
        )
        self.calls = Counter(
            "postgres_mcp_calls_total",
            "Tool calls and reads of resources, by what came of them (success, error, refused, timeout, cancelled).",
            ("database", "tool", "status"),
            registry=registry,
        )
        self.active = Gauge(
            "postgres_mcp_connections_active", "Active database connections.", ("database",), registry=registry
        )
        self.idle = Gauge(
            "postgres_mcp_connections_idle", "Idle database connections.", ("database",), registry=registry
        )
        self.waiting = Gauge(
            "postgres_mcp_queries_waiting", "Queries that wait for their turn.", ("database",), registry=registry
        )
        self.connected = Gauge(
            "postgres_mcp_database_connected",
            "1 when the database answered just now, else 0.",
            ("database",),
            registry=registry,
        )
        self.memory = Gauge(
            "postgres_mcp_memory_usage_bytes",
            "Memory of this process: rss; heap_used is what would be given back if it ended, heap_total what no file"
            " backs.",
            ("type",),
            registry=registry,
        )
        self.memory_limit = Gauge(
            "postgres_mcp_memory_limit_bytes",
            "The container's memory limit, or the machine's memory where there is none.",
            registry=registry,
        )
        for database in self._databases:
            self.duration.labels(database)
            for status in ("success", "error", "refused", "timeout"):
                self.queries.labels(database, status)

    def count(self, database: str, tool: str, outcome: str, seconds: float) -> None:
        """One call, whatever came of it. A database that there is not, which anybody may make up, is `none`."""
        database = database if database in self._databases else "none"
        count = self._counted.get((database, tool, outcome))
        if count is None:
            count = self._counted[database, tool, outcome] = self._counter(database, tool, outcome)
        count(seconds)

    def _counter(self, database: str, tool: str, outcome: str) -> Callable[[float], None]:
        """What counts such calls. To look series up by their labels takes longer than to count."""
        calls = self.calls.labels(database, tool, outcome)
        if tool in NO_QUERIES:
            return lambda _seconds: calls.inc()
        queries = self.queries.labels(database, "error" if outcome == "cancelled" else outcome)
        duration = self.duration.labels(database)

        def count(seconds: float) -> None:
            calls.inc()
            queries.inc()
            duration.observe(seconds)

        return count


NO_QUERIES = frozenset({"list_tables", "describe_table", "analyze_query", "list_resources", "read_resource"})
"""Calls of the SQL server that run none: all others do, tools of the operator's own included."""
