"""Great Expectations over the raw tables. Runs in the worker's child process only: its import takes seconds."""

from __future__ import annotations

import json
import os
import warnings
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

SUITE = "raw_tool_calls"


def sqlalchemy_url(dsn: str, role: str) -> str:
    """The store's address for SQLAlchemy, under a role.

    Args:
        dsn: postgresql:// URL of the store, over TCP or a socket directory.
        role: the role that the session takes on.
    """
    from sqlalchemy import URL

    parts = urlsplit(dsn)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    query["options"] = f"-c role={role} -c statement_timeout=300000"
    return URL.create(
        "postgresql+psycopg2",
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        # Great Expectations wants a host here; a socket directory in the query takes its place when connecting.
        host=parts.hostname or "localhost",
        port=parts.port,
        database=unquote(parts.path.lstrip("/")) or None,
        query=query,
    ).render_as_string(hide_password=False)


def check_raw(dsn: str, role: str, hours: int = 24) -> dict[str, Any]:
    """Check the tool calls received in the last hours against what they promise.

    Args:
        dsn: URL of the store.
        role: the role that reads.
        hours: how far back, by received_at.

    Returns:
        {"suite", "checked_at": ISO time, "findings": [{"expectation", "subject": the column(s) it is about, "ok",
        "observed": counts as Great Expectations gives them}]}, as JSON values.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        from great_expectations import expectations as gxe

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        source = context.data_sources.add_postgres("store", connection_string=sqlalchemy_url(dsn, role))
        asset = source.add_query_asset(
            "tool_calls",
            "SELECT tenant_id, event_id::text AS event_id, time, received_at, server, tool, status, duration_ms,"
            " request_bytes, response_bytes, extract(epoch FROM time - received_at)::double precision AS ahead_seconds"
            f" FROM raw.tool_calls WHERE time >= now() - interval '{int(hours)} hours'",
        )
        suite = context.suites.add(
            gx.ExpectationSuite(
                name=SUITE,
                expectations=[
                    gxe.ExpectColumnValuesToNotBeNull(column="tenant_id"),
                    gxe.ExpectColumnValueLengthsToBeBetween(column="server", min_value=1, max_value=200),
                    gxe.ExpectColumnValueLengthsToBeBetween(column="tool", min_value=1, max_value=200),
                    gxe.ExpectColumnValuesToBeInSet(
                        column="status", value_set=["ok", "error", "timeout", "cancelled", "denied"]
                    ),
                    gxe.ExpectColumnValuesToBeBetween(column="duration_ms", min_value=0, max_value=1e12),
                    gxe.ExpectColumnValuesToBeBetween(column="request_bytes", min_value=0),
                    gxe.ExpectColumnValuesToBeBetween(column="response_bytes", min_value=0),
                    gxe.ExpectColumnValuesToBeBetween(column="ahead_seconds", max_value=86_400),
                    # The same id with another time is another event: it should not happen, and this counts it.
                    gxe.ExpectCompoundColumnsToBeUnique(column_list=["tenant_id", "event_id"]),
                ],
            )
        )
        batch = asset.add_batch_definition_whole_table("recent")
        definition = context.validation_definitions.add(gx.ValidationDefinition(name=SUITE, data=batch, suite=suite))
        checked_at = datetime.now(UTC)
        result = definition.run()
    return {
        "suite": SUITE,
        "checked_at": checked_at.isoformat(),
        "findings": [_finding(one) for one in result.results],
    }


def _finding(result: Any) -> dict[str, Any]:
    config = result.expectation_config
    column = config.kwargs.get("column") or ",".join(config.kwargs.get("column_list", ())) or "table"
    counts = ("element_count", "unexpected_count", "missing_count", "unexpected_percent", "observed_value")
    observed = {name: result.result[name] for name in counts if name in result.result}
    if result.exception_info and result.exception_info.get("raised_exception"):
        observed["error"] = str(result.exception_info.get("exception_message"))[:300]
    return {
        "expectation": str(config.type),
        "subject": str(column),
        "ok": bool(result.success),
        "observed": json.loads(json.dumps(observed, default=str)),
    }
