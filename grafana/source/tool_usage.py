"""The dashboard "Tool usage": how much is called, how well it goes, how long it takes, and how fresh that answer is."""

from pathlib import Path

from grafana_foundation_sdk.builders import common as build
from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, QueryVariable
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, VariableOption, VariableRefresh

from grafana.source.panels import OUTCOME, STATE, STATUS, Column, curves, number, rows
from grafana.source.queries import POSTGRES, PROMETHEUS, SqlQuery, load, promql

SQL = load(Path(__file__).with_suffix(".sql"))

HOUR_MS = 3_600_000
USAGE = (
    "Source: analytics.fct_tool_usage_hourly, one row per tenant, hour (UTC), hub, server, tool, transport and client."
)
LATENCY = "Source: analytics.fct_tool_latency_hourly, one row per tenant, hour (UTC), hub, server, tool and bucket."
SERVERS = "Source: analytics.dim_servers, one row per tenant and server."


def dashboard() -> Dashboard:
    """The builder; uid `hubscope-tool-usage`."""
    board = (
        Dashboard("Tool usage")
        .uid("hubscope-tool-usage")
        .description("Calls, errors and latency of every tool of a tenant's MCP servers, from the hourly marts.")
        .tags(["hubscope"])
        .readonly()
        .time("now-24h", "now")
        .refresh("1m")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(tenant())
        .with_variable(server())
    )
    panels: tuple[stat.Panel | table.Panel | timeseries.Panel, ...] = (
        calls(),
        success_rate(),
        p95(),
        active_tools(),
        freshness(),
        calls_per_hour(),
        latency_per_hour(),
        top_tools(),
        servers(),
        ingest_rate(),
    )
    for identity, panel in enumerate(panels, start=1):
        board.with_panel(panel.id(identity))
    return board


def tenant() -> QueryVariable:
    """One tenant at a time: its rows are all that a panel shows."""
    return (
        QueryVariable("tenant")
        .label("Tenant")
        .datasource(POSTGRES)
        .query(SQL["tenants"])
        .definition(SQL["tenants"])
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
    )


def server() -> QueryVariable:
    """Any number of the tenant's servers; all at first."""
    return (
        QueryVariable("server")
        .label("Server")
        .datasource(POSTGRES)
        .query(SQL["servers_of_tenant"])
        .definition(SQL["servers_of_tenant"])
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
        .multi(True)
        .include_all(True)
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def calls() -> stat.Panel:
    return (
        number(SQL["calls"], Column("Calls", "short"))
        .title("Calls")
        .description(f"Unit: calls in the hours that the range touches, of every status. {USAGE}")
        .span(4)
    )


def success_rate() -> stat.Panel:
    steps = ((None, "red"), (0.95, "orange"), (0.99, "green"))
    return (
        number(SQL["success_rate"], Column("Success rate", "percentunit", steps, decimals=2))
        .title("Success rate")
        .description(
            "Unit: share of calls with status ok; errors, timeouts, cancelled and denied calls all count against it."
            f" {USAGE}"
        )
        .no_value("no calls")
        .span(4)
    )


def p95() -> stat.Panel:
    return (
        number(SQL["p95"], Column("p95", "ms"))
        .title("p95 latency")
        .description(
            "Unit: milliseconds; 95 of 100 timed calls took at most this long, to within 4.4% (the width of a bucket)."
            f" {LATENCY}"
        )
        .no_value("no timed calls")
        .span(4)
    )


def active_tools() -> stat.Panel:
    return (
        number(SQL["active_tools"], Column("Active tools", "short"))
        .title("Active tools")
        .description(f"Unit: tools (a tool of a server) that were called at least once in the range. {USAGE}")
        .span(4)
    )


def freshness() -> stat.Panel:
    """The age of the marts: views are current to the second, tables are as old as the last dbt build."""
    age = ((None, "green"), (1800, "orange"), (3600, "red"))
    waiting = ((None, "text"), (1000, "orange"))
    return (
        number(
            SQL["freshness"],
            Column("Newest event", "s", decimals=0),
            Column("Marts built", "s", age, decimals=0),
            Column("Build", "string", colours={"ok": "green", "failed": "red", "never": "orange"}),
            Column("Pending batches", "short", waiting),
        )
        .title("Freshness")
        .description(
            "Unit: seconds since the tenant's newest event and since the last dbt build (a view is current, a table is"
            " this old), and batches of all tenants that wait to be folded into stored hours."
            " Sources: analytics.mart_status, one row. The newest event is the last_seen_at of analytics.dim_servers."
        )
        .no_value("never")
        .span(8)
    )


def calls_per_hour() -> timeseries.Panel:
    return (
        curves("short", STATUS)
        .datasource(POSTGRES)
        .with_target(SqlQuery(SQL["calls_per_hour"], "time_series"))
        .title("Calls per hour by status")
        .description(
            f"Unit: calls per hour; a bar stands on the hour it counts, and the last hour is not over. {USAGE}"
        )
        .draw_style(common.GraphDrawStyle.BARS)
        .bar_alignment(common.BarAlignment.AFTER)
        .stacking(build.StackingConfig().mode(common.StackingMode.NORMAL).group("status"))
        .fill_opacity(70)
        .line_width(0)
    )


def latency_per_hour() -> timeseries.Panel:
    return (
        curves("ms", {"p50": "green", "p95": "orange", "p99": "red"})
        .datasource(POSTGRES)
        .with_target(SqlQuery(SQL["latency_per_hour"], "time_series"))
        .title("Latency percentiles per hour")
        .description(
            "Unit: milliseconds, to within 4.4% (the width of a bucket). An hour without timed calls is a gap."
            f" {LATENCY}"
        )
        .insert_nulls(HOUR_MS)
    )


def top_tools() -> table.Panel:
    failed = ((None, "text"), (0.01, "orange"), (0.05, "red"))
    return (
        rows(
            SQL["top_tools"],
            Column("Calls", "short"),
            Column("Errors", "percentunit", failed, decimals=2),
            Column("p95", "ms"),
            Column("Last call", "dateTimeFromNow"),
        )
        .title("Top tools")
        .description(
            "One row per server and tool, the 50 with the most calls in the range. Units: calls; share of calls with"
            f" status error or timeout; p95 in milliseconds. {USAGE} {LATENCY}"
        )
        .span(14)
    )


def servers() -> table.Panel:
    return (
        rows(
            SQL["servers"],
            Column("State", colours=STATE),
            Column("In this state", "dateTimeFromNow"),
            Column("Last seen", "dateTimeFromNow"),
            Column("Tools", "short"),
            Column("Calls ever", "short"),
        )
        .title("Servers")
        .description(
            "One row per server, the ones in trouble first; not bound to the time range. Units: tools; calls since the"
            f" server was first seen. {SERVERS}"
        )
        .span(10)
    )


def ingest_rate() -> timeseries.Panel:
    return (
        curves("eps", OUTCOME)
        .datasource(PROMETHEUS)
        .with_target(promql("sum by (outcome) (rate(hubscope_ingest_events_total[$__rate_interval]))", "{{outcome}}"))
        .title("Ingest events per second")
        .description(
            "Unit: events per second that posts delivered, by what became of them; every tenant and replica together."
            " Source: hubscope_ingest_events_total of the service's own metrics, one series per type and outcome."
        )
        .span(24)
    )
