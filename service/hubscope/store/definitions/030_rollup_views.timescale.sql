-- rollup.*: at any instant a recount of raw. Hours that late rows were marked for are read from raw, all others from the
-- aggregate, which adds what is newer than its last refresh; days that hold a marked hour are added up from the hours.

CREATE OR REPLACE VIEW rollup.tool_calls_hourly AS
SELECT
    tenant_id, hour, hub, server, tool, transport, client, calls, ok_calls, error_calls, timeout_calls, cancelled_calls,
    denied_calls, timed_calls, duration_sum_us, duration_max_us, request_bytes, response_bytes, last_call_at
FROM rollup.cagg_tool_calls_hourly AS kept
WHERE NOT EXISTS (
    SELECT 1 FROM rollup.late_marks AS mark WHERE mark.tenant_id = kept.tenant_id AND mark.hour = kept.hour
)
UNION ALL
SELECT
    call.tenant_id,
    marked.hour,
    call.hub,
    call.server,
    call.tool,
    call.transport,
    call.client,
    count(*) AS calls,
    count(*) FILTER (WHERE call.status = 'ok') AS ok_calls,
    count(*) FILTER (WHERE call.status = 'error') AS error_calls,
    count(*) FILTER (WHERE call.status = 'timeout') AS timeout_calls,
    count(*) FILTER (WHERE call.status = 'cancelled') AS cancelled_calls,
    count(*) FILTER (WHERE call.status = 'denied') AS denied_calls,
    count(call.duration_ms) AS timed_calls,
    sum(coalesce(round(call.duration_ms * 1000), 0)::bigint)::bigint AS duration_sum_us,
    max(coalesce(round(call.duration_ms * 1000), 0)::bigint) AS duration_max_us,
    sum(coalesce(call.request_bytes, 0))::bigint AS request_bytes,
    sum(coalesce(call.response_bytes, 0))::bigint AS response_bytes,
    max(call.time) AS last_call_at
FROM (SELECT DISTINCT tenant_id, hour FROM rollup.late_marks) AS marked
INNER JOIN raw.tool_calls AS call
    ON
        call.tenant_id = marked.tenant_id
        AND call.time >= marked.hour
        AND call.time < marked.hour + interval '1 hour'
WHERE call.counted
GROUP BY call.tenant_id, marked.hour, call.hub, call.server, call.tool, call.transport, call.client;

CREATE OR REPLACE VIEW rollup.tool_latency_hourly AS
SELECT tenant_id, hour, hub, server, tool, bucket, calls, max_us
FROM rollup.cagg_tool_latency_hourly AS kept
WHERE NOT EXISTS (
    SELECT 1 FROM rollup.late_marks AS mark WHERE mark.tenant_id = kept.tenant_id AND mark.hour = kept.hour
)
UNION ALL
SELECT
    call.tenant_id,
    marked.hour,
    call.hub,
    call.server,
    call.tool,
    rollup.latency_bucket(call.duration_ms) AS bucket,
    count(*) AS calls,
    max(round(call.duration_ms * 1000)::bigint) AS max_us
FROM (SELECT DISTINCT tenant_id, hour FROM rollup.late_marks) AS marked
INNER JOIN raw.tool_calls AS call
    ON
        call.tenant_id = marked.tenant_id
        AND call.time >= marked.hour
        AND call.time < marked.hour + interval '1 hour'
WHERE call.counted AND call.duration_ms IS NOT NULL
GROUP BY call.tenant_id, marked.hour, call.hub, call.server, call.tool, rollup.latency_bucket(call.duration_ms);

CREATE OR REPLACE VIEW rollup.server_checks_hourly AS
SELECT
    tenant_id, hour, hub, server, source, checks, up_checks, degraded_checks, down_checks, maintenance_checks,
    unknown_checks, timed_checks, latency_sum_us, latency_max_us, last_check_at
FROM rollup.cagg_server_checks_hourly AS kept
WHERE NOT EXISTS (
    SELECT 1 FROM rollup.late_marks AS mark WHERE mark.tenant_id = kept.tenant_id AND mark.hour = kept.hour
)
UNION ALL
SELECT
    event.tenant_id,
    marked.hour,
    event.hub,
    event.server,
    event.source,
    count(*) AS checks,
    count(*) FILTER (WHERE event.state = 'up') AS up_checks,
    count(*) FILTER (WHERE event.state = 'degraded') AS degraded_checks,
    count(*) FILTER (WHERE event.state = 'down') AS down_checks,
    count(*) FILTER (WHERE event.state = 'maintenance') AS maintenance_checks,
    count(*) FILTER (WHERE event.state = 'unknown') AS unknown_checks,
    count(event.latency_ms) AS timed_checks,
    sum(coalesce(round(event.latency_ms * 1000), 0)::bigint)::bigint AS latency_sum_us,
    max(coalesce(round(event.latency_ms * 1000), 0)::bigint) AS latency_max_us,
    max(event.time) AS last_check_at
FROM (SELECT DISTINCT tenant_id, hour FROM rollup.late_marks) AS marked
INNER JOIN raw.server_events AS event
    ON
        event.tenant_id = marked.tenant_id
        AND event.time >= marked.hour
        AND event.time < marked.hour + interval '1 hour'
GROUP BY event.tenant_id, marked.hour, event.hub, event.server, event.source;

CREATE OR REPLACE VIEW rollup.tool_calls_daily AS
SELECT
    tenant_id, day, hub, server, tool, transport, client, calls, ok_calls, error_calls, timeout_calls, cancelled_calls,
    denied_calls, timed_calls, duration_sum_us, duration_max_us, request_bytes, response_bytes, last_call_at
FROM rollup.cagg_tool_calls_daily AS kept
WHERE NOT EXISTS (
    SELECT 1
    FROM rollup.late_marks AS mark
    WHERE mark.tenant_id = kept.tenant_id AND mark.hour >= kept.day AND mark.hour < kept.day + interval '1 day'
)
UNION ALL
SELECT
    hourly.tenant_id,
    marked.day,
    hourly.hub,
    hourly.server,
    hourly.tool,
    hourly.transport,
    hourly.client,
    sum(hourly.calls)::bigint AS calls,
    sum(hourly.ok_calls)::bigint AS ok_calls,
    sum(hourly.error_calls)::bigint AS error_calls,
    sum(hourly.timeout_calls)::bigint AS timeout_calls,
    sum(hourly.cancelled_calls)::bigint AS cancelled_calls,
    sum(hourly.denied_calls)::bigint AS denied_calls,
    sum(hourly.timed_calls)::bigint AS timed_calls,
    sum(hourly.duration_sum_us)::bigint AS duration_sum_us,
    max(hourly.duration_max_us) AS duration_max_us,
    sum(hourly.request_bytes)::bigint AS request_bytes,
    sum(hourly.response_bytes)::bigint AS response_bytes,
    max(hourly.last_call_at) AS last_call_at
FROM (SELECT DISTINCT tenant_id, date_trunc('day', hour, 'UTC') AS day FROM rollup.late_marks) AS marked
INNER JOIN rollup.tool_calls_hourly AS hourly
    ON
        hourly.tenant_id = marked.tenant_id
        AND hourly.hour >= marked.day
        AND hourly.hour < marked.day + interval '1 day'
GROUP BY
    hourly.tenant_id, marked.day, hourly.hub, hourly.server, hourly.tool, hourly.transport, hourly.client;

CREATE OR REPLACE VIEW rollup.tool_latency_daily AS
SELECT tenant_id, day, hub, server, tool, bucket, calls, max_us
FROM rollup.cagg_tool_latency_daily AS kept
WHERE NOT EXISTS (
    SELECT 1
    FROM rollup.late_marks AS mark
    WHERE mark.tenant_id = kept.tenant_id AND mark.hour >= kept.day AND mark.hour < kept.day + interval '1 day'
)
UNION ALL
SELECT
    hourly.tenant_id,
    marked.day,
    hourly.hub,
    hourly.server,
    hourly.tool,
    hourly.bucket,
    sum(hourly.calls)::bigint AS calls,
    max(hourly.max_us) AS max_us
FROM (SELECT DISTINCT tenant_id, date_trunc('day', hour, 'UTC') AS day FROM rollup.late_marks) AS marked
INNER JOIN rollup.tool_latency_hourly AS hourly
    ON
        hourly.tenant_id = marked.tenant_id
        AND hourly.hour >= marked.day
        AND hourly.hour < marked.day + interval '1 day'
GROUP BY hourly.tenant_id, marked.day, hourly.hub, hourly.server, hourly.tool, hourly.bucket;

-- What is committed and waits to be settled, here: late hours to be refreshed.
CREATE OR REPLACE VIEW rollup.backlog AS SELECT count(*) AS batches FROM rollup.late_marks;

-- Hours whose changes nobody notes in ops.touched_hours as long as they are recent. Here only late hours are noted, when
-- their marks are settled.
CREATE OR REPLACE VIEW rollup.unnoted_hours AS
SELECT DISTINCT tenant_id, hour FROM rollup.tool_calls_hourly;
