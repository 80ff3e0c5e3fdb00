-- rollup.*: at any instant a recount of raw, in one snapshot. Hours and days that have pending calls are added up from
-- what is stored and what is pending; all others are read as they are stored, which a long range is made of.

CREATE OR REPLACE VIEW rollup.tool_calls_hourly AS
SELECT
    tenant_id, hour, hub, server, tool, transport, client, calls, ok_calls, error_calls, timeout_calls,
    cancelled_calls, denied_calls, timed_calls, duration_sum_us, duration_max_us, request_bytes, response_bytes,
    last_call_at
FROM rollup.stored_tool_calls_hourly AS stored
WHERE NOT EXISTS (
    SELECT 1
    FROM rollup.pending, unnest(pending.call_hours) AS d (hour)
    WHERE pending.tenant_id = stored.tenant_id AND d.hour = stored.hour
)
UNION ALL
SELECT
    tenant_id,
    hour,
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
FROM (
    SELECT
        stored.tenant_id, stored.hour, stored.hub, stored.server, stored.tool, stored.transport, stored.client,
        stored.calls, stored.ok_calls, stored.error_calls, stored.timeout_calls, stored.cancelled_calls,
        stored.denied_calls, stored.timed_calls, stored.duration_sum_us, stored.duration_max_us, stored.request_bytes,
        stored.response_bytes, stored.last_call_at
    FROM (
        SELECT DISTINCT pending.tenant_id, d.hour AS hour
        FROM rollup.pending, unnest(pending.call_hours) AS d (hour)
    ) AS touched
    INNER JOIN rollup.stored_tool_calls_hourly AS stored
        ON stored.tenant_id = touched.tenant_id AND stored.hour = touched.hour
    UNION ALL
    SELECT
        d.tenant_id, d.hour, d.hub, d.server, d.tool, d.transport, d.client, d.calls, d.ok_calls, d.error_calls,
        d.timeout_calls, d.cancelled_calls, d.denied_calls, d.timed_calls, d.duration_sum_us, d.duration_max_us,
        d.request_bytes, d.response_bytes, d.last_call_at
    FROM rollup.pending_calls AS d
) AS parts
GROUP BY tenant_id, hour, hub, server, tool, transport, client;

CREATE OR REPLACE VIEW rollup.tool_latency_hourly AS
SELECT
    tenant_id, hour, hub, server, tool, bucket, calls, max_us
FROM rollup.stored_tool_latency_hourly AS stored
WHERE NOT EXISTS (
    SELECT 1
    FROM rollup.pending, unnest(pending.call_hours) AS d (hour)
    WHERE pending.tenant_id = stored.tenant_id AND d.hour = stored.hour
)
UNION ALL
SELECT
    tenant_id,
    hour,
    hub,
    server,
    tool,
    bucket,
    sum(calls)::bigint AS calls,
    max(max_us) AS max_us
FROM (
    SELECT
        stored.tenant_id, stored.hour, stored.hub, stored.server, stored.tool, stored.bucket, stored.calls,
        stored.max_us
    FROM (
        SELECT DISTINCT pending.tenant_id, d.hour AS hour
        FROM rollup.pending, unnest(pending.call_hours) AS d (hour)
    ) AS touched
    INNER JOIN rollup.stored_tool_latency_hourly AS stored
        ON stored.tenant_id = touched.tenant_id AND stored.hour = touched.hour
    UNION ALL
    SELECT
        d.tenant_id, d.hour, d.hub, d.server, d.tool, d.bucket, d.calls, d.max_us
    FROM rollup.pending_latency AS d
) AS parts
GROUP BY tenant_id, hour, hub, server, tool, bucket;

CREATE OR REPLACE VIEW rollup.server_checks_hourly AS
SELECT
    tenant_id, hour, hub, server, source, checks, up_checks, degraded_checks, down_checks, maintenance_checks,
    unknown_checks, timed_checks, latency_sum_us, latency_max_us, last_check_at
FROM rollup.stored_server_checks_hourly AS stored
WHERE NOT EXISTS (
    SELECT 1
    FROM rollup.pending, unnest(pending.check_hours) AS d (hour)
    WHERE pending.tenant_id = stored.tenant_id AND d.hour = stored.hour
)
UNION ALL
SELECT
    tenant_id,
    hour,
    hub,
    server,
    source,
    sum(checks)::bigint AS checks,
    sum(up_checks)::bigint AS up_checks,
    sum(degraded_checks)::bigint AS degraded_checks,
    sum(down_checks)::bigint AS down_checks,
    sum(maintenance_checks)::bigint AS maintenance_checks,
    sum(unknown_checks)::bigint AS unknown_checks,
    sum(timed_checks)::bigint AS timed_checks,
    sum(latency_sum_us)::bigint AS latency_sum_us,
    max(latency_max_us) AS latency_max_us,
    max(last_check_at) AS last_check_at
FROM (
    SELECT
        stored.tenant_id, stored.hour, stored.hub, stored.server, stored.source, stored.checks, stored.up_checks,
        stored.degraded_checks, stored.down_checks, stored.maintenance_checks, stored.unknown_checks,
        stored.timed_checks, stored.latency_sum_us, stored.latency_max_us, stored.last_check_at
    FROM (
        SELECT DISTINCT pending.tenant_id, d.hour AS hour
        FROM rollup.pending, unnest(pending.check_hours) AS d (hour)
    ) AS touched
    INNER JOIN rollup.stored_server_checks_hourly AS stored
        ON stored.tenant_id = touched.tenant_id AND stored.hour = touched.hour
    UNION ALL
    SELECT
        d.tenant_id, d.hour, d.hub, d.server, d.source, d.checks, d.up_checks, d.degraded_checks, d.down_checks,
        d.maintenance_checks, d.unknown_checks, d.timed_checks, d.latency_sum_us, d.latency_max_us, d.last_check_at
    FROM rollup.pending_checks AS d
) AS parts
GROUP BY tenant_id, hour, hub, server, source;

CREATE OR REPLACE VIEW rollup.tool_calls_daily AS
SELECT
    tenant_id, day, hub, server, tool, transport, client, calls, ok_calls, error_calls, timeout_calls,
    cancelled_calls, denied_calls, timed_calls, duration_sum_us, duration_max_us, request_bytes, response_bytes,
    last_call_at
FROM rollup.stored_tool_calls_daily AS stored
WHERE NOT EXISTS (
    SELECT 1
    FROM rollup.pending, unnest(pending.call_hours) AS d (hour)
    WHERE pending.tenant_id = stored.tenant_id AND date_trunc('day', d.hour, 'UTC') = stored.day
)
UNION ALL
SELECT
    tenant_id,
    day,
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
FROM (
    SELECT
        stored.tenant_id, stored.day, stored.hub, stored.server, stored.tool, stored.transport, stored.client,
        stored.calls, stored.ok_calls, stored.error_calls, stored.timeout_calls, stored.cancelled_calls,
        stored.denied_calls, stored.timed_calls, stored.duration_sum_us, stored.duration_max_us, stored.request_bytes,
        stored.response_bytes, stored.last_call_at
    FROM (
        SELECT DISTINCT pending.tenant_id, date_trunc('day', d.hour, 'UTC') AS day
        FROM rollup.pending, unnest(pending.call_hours) AS d (hour)
    ) AS touched
    INNER JOIN rollup.stored_tool_calls_daily AS stored
        ON stored.tenant_id = touched.tenant_id AND stored.day = touched.day
    UNION ALL
    SELECT
        d.tenant_id, d.day, d.hub, d.server, d.tool, d.transport, d.client, d.calls, d.ok_calls, d.error_calls,
        d.timeout_calls, d.cancelled_calls, d.denied_calls, d.timed_calls, d.duration_sum_us, d.duration_max_us,
        d.request_bytes, d.response_bytes, d.last_call_at
    FROM rollup.pending_calls_of_days AS d
) AS parts
GROUP BY tenant_id, day, hub, server, tool, transport, client;

CREATE OR REPLACE VIEW rollup.tool_latency_daily AS
-- Side by side in the select list: half the time of a join with unnest(..., ..., ...).
SELECT
    packed.tenant_id, packed.day, packed.hub, packed.server, packed.tool, unnest(packed.buckets) AS bucket,
    unnest(packed.calls) AS calls, unnest(packed.max_us) AS max_us
FROM rollup.packed_tool_latency_daily AS packed
WHERE NOT EXISTS (
    SELECT 1
    FROM rollup.pending, unnest(pending.call_hours) AS d (hour)
    WHERE pending.tenant_id = packed.tenant_id AND date_trunc('day', d.hour, 'UTC') = packed.day
)
UNION ALL
SELECT
    tenant_id, day, hub, server, tool, bucket, calls, max_us
FROM rollup.stored_tool_latency_daily AS stored
WHERE NOT EXISTS (
    SELECT 1
    FROM rollup.pending, unnest(pending.call_hours) AS d (hour)
    WHERE pending.tenant_id = stored.tenant_id AND date_trunc('day', d.hour, 'UTC') = stored.day
)
UNION ALL
SELECT
    tenant_id,
    day,
    hub,
    server,
    tool,
    bucket,
    sum(calls)::bigint AS calls,
    max(max_us) AS max_us
FROM (
    SELECT
        stored.tenant_id, stored.day, stored.hub, stored.server, stored.tool, stored.bucket, stored.calls,
        stored.max_us
    FROM (
        SELECT DISTINCT pending.tenant_id, date_trunc('day', d.hour, 'UTC') AS day
        FROM rollup.pending, unnest(pending.call_hours) AS d (hour)
    ) AS touched
    INNER JOIN rollup.stored_tool_latency_daily AS stored
        ON stored.tenant_id = touched.tenant_id AND stored.day = touched.day
    UNION ALL
    SELECT
        packed.tenant_id, packed.day, packed.hub, packed.server, packed.tool, part.bucket, part.calls, part.max_us
    FROM (
        SELECT DISTINCT pending.tenant_id, date_trunc('day', d.hour, 'UTC') AS day
        FROM rollup.pending, unnest(pending.call_hours) AS d (hour)
    ) AS touched
    INNER JOIN rollup.packed_tool_latency_daily AS packed
        ON packed.tenant_id = touched.tenant_id AND packed.day = touched.day
    CROSS JOIN unnest(packed.buckets, packed.calls, packed.max_us) AS part (bucket, calls, max_us)
    UNION ALL
    SELECT
        d.tenant_id, d.day, d.hub, d.server, d.tool, d.bucket, d.calls, d.max_us
    FROM rollup.pending_latency_of_days AS d
) AS parts
GROUP BY tenant_id, day, hub, server, tool, bucket;

-- What is committed and waits to be settled, here: to be folded.
CREATE OR REPLACE VIEW rollup.backlog AS SELECT count(*) AS batches FROM rollup.pending;

-- Hours whose changes nobody notes in ops.touched_hours as long as they are recent. Here a fold notes every hour.
CREATE OR REPLACE VIEW rollup.unnoted_hours AS
SELECT NULL::text AS tenant_id, NULL::timestamptz AS hour WHERE false;
