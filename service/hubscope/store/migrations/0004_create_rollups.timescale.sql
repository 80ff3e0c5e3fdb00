-- Rollups on TimescaleDB Community: hypertables, hourly continuous aggregates and daily ones on top of them, real-time on.
-- Real-time aggregation adds what is newer than the last refresh, but does not see rows that arrive later for an hour that
-- was refreshed already. Ingest therefore marks every hour that is older than an hour (rollup.late_marks); the views read
-- marked hours from raw, and a job refreshes just those hours and then deletes the marks that it had read before.
-- No refresh goes past the hour before the last full one, so an hour without a mark is never below the watermark while a
-- transaction that saw it as recent is still running.

SELECT :ts.create_hypertable('raw.tool_calls', :ts.by_range('time', INTERVAL '1 day'), create_default_indexes => false);
SELECT :ts.create_hypertable('raw.server_events', :ts.by_range('time', INTERVAL '1 day'), create_default_indexes => false);
SELECT :ts.create_hypertable('raw.hub_events', :ts.by_range('time', INTERVAL '1 day'), create_default_indexes => false);

CREATE TABLE rollup.late_marks (
    tenant_id text NOT NULL DEFAULT 'default',
    hour timestamptz NOT NULL,
    mark_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, hour, mark_id)
);

-- How far each aggregate was refreshed; the next refresh goes on from there.
CREATE TABLE rollup.refreshed (
    aggregate text PRIMARY KEY,
    until timestamptz NOT NULL
);

CREATE MATERIALIZED VIEW rollup.cagg_tool_calls_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    tenant_id,
    :ts.time_bucket(INTERVAL '1 hour', time) AS hour,
    hub,
    server,
    tool,
    transport,
    client,
    count(*) AS calls,
    count(*) FILTER (WHERE status = 'ok') AS ok_calls,
    count(*) FILTER (WHERE status = 'error') AS error_calls,
    count(*) FILTER (WHERE status = 'timeout') AS timeout_calls,
    count(*) FILTER (WHERE status = 'cancelled') AS cancelled_calls,
    count(*) FILTER (WHERE status = 'denied') AS denied_calls,
    count(duration_ms) AS timed_calls,
    sum(coalesce(round(duration_ms * 1000), 0)::bigint)::bigint AS duration_sum_us,
    max(coalesce(round(duration_ms * 1000), 0)::bigint) AS duration_max_us,
    sum(coalesce(request_bytes, 0))::bigint AS request_bytes,
    sum(coalesce(response_bytes, 0))::bigint AS response_bytes,
    max(time) AS last_call_at
FROM raw.tool_calls
WHERE counted
GROUP BY tenant_id, hour, hub, server, tool, transport, client
WITH NO DATA;

CREATE MATERIALIZED VIEW rollup.cagg_tool_latency_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    tenant_id,
    :ts.time_bucket(INTERVAL '1 hour', time) AS hour,
    hub,
    server,
    tool,
    rollup.latency_bucket(duration_ms) AS bucket,
    count(*) AS calls,
    max(round(duration_ms * 1000)::bigint) AS max_us
FROM raw.tool_calls
WHERE counted AND duration_ms IS NOT NULL
GROUP BY tenant_id, hour, hub, server, tool, bucket
WITH NO DATA;

CREATE MATERIALIZED VIEW rollup.cagg_server_checks_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    tenant_id,
    :ts.time_bucket(INTERVAL '1 hour', time) AS hour,
    hub,
    server,
    source,
    count(*) AS checks,
    count(*) FILTER (WHERE state = 'up') AS up_checks,
    count(*) FILTER (WHERE state = 'degraded') AS degraded_checks,
    count(*) FILTER (WHERE state = 'down') AS down_checks,
    count(*) FILTER (WHERE state = 'maintenance') AS maintenance_checks,
    count(*) FILTER (WHERE state = 'unknown') AS unknown_checks,
    count(latency_ms) AS timed_checks,
    sum(coalesce(round(latency_ms * 1000), 0)::bigint)::bigint AS latency_sum_us,
    max(coalesce(round(latency_ms * 1000), 0)::bigint) AS latency_max_us,
    max(time) AS last_check_at
FROM raw.server_events
GROUP BY tenant_id, hour, hub, server, source
WITH NO DATA;

CREATE MATERIALIZED VIEW rollup.cagg_tool_calls_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    tenant_id,
    :ts.time_bucket(INTERVAL '1 day', hour) AS day,
    hub,
    server,
    tool,
    transport,
    client,
    sum(calls)::bigint AS calls,
    sum(ok_calls)::bigint AS ok_calls,
    sum(error_calls)::bigint AS error_calls,
    sum(timeout_calls)::bigint AS timeout_calls,
    sum(cancelled_calls)::bigint AS cancelled_calls,
    sum(denied_calls)::bigint AS denied_calls,
    sum(timed_calls)::bigint AS timed_calls,
    sum(duration_sum_us)::bigint AS duration_sum_us,
    max(duration_max_us) AS duration_max_us,
    sum(request_bytes)::bigint AS request_bytes,
    sum(response_bytes)::bigint AS response_bytes,
    max(last_call_at) AS last_call_at
FROM rollup.cagg_tool_calls_hourly
GROUP BY tenant_id, day, hub, server, tool, transport, client
WITH NO DATA;

CREATE MATERIALIZED VIEW rollup.cagg_tool_latency_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    tenant_id,
    :ts.time_bucket(INTERVAL '1 day', hour) AS day,
    hub,
    server,
    tool,
    bucket,
    sum(calls)::bigint AS calls,
    max(max_us) AS max_us
FROM rollup.cagg_tool_latency_hourly
GROUP BY tenant_id, day, hub, server, tool, bucket
WITH NO DATA;
