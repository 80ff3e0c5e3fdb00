-- name: usage
-- Calls of a tenant in [$2, $5), added up four ways at once: in all, per point in time, per server, per tool. Hours are read
-- from $2 to $3 and from $4 to $5, whole days (UTC) from $3 to $4. $6 is the length of a point: hour or day.
SELECT
    CASE
        WHEN GROUPING(server, tool) = 0 THEN 'tool'
        WHEN GROUPING(server) = 0 THEN 'server'
        WHEN GROUPING(date_trunc($6, time, 'UTC')) = 0 THEN 'time'
        ELSE 'all'
    END AS part,
    date_trunc($6, time, 'UTC') AS time,
    server,
    tool,
    sum(calls)::bigint AS calls,
    sum(ok_calls)::bigint AS ok_calls,
    sum(error_calls)::bigint AS error_calls,
    sum(timeout_calls)::bigint AS timeout_calls,
    sum(cancelled_calls)::bigint AS cancelled_calls,
    sum(denied_calls)::bigint AS denied_calls,
    sum(timed_calls)::bigint AS timed_calls,
    (sum(duration_sum_us) / nullif(sum(timed_calls), 0) / 1000)::double precision AS avg_ms,
    sum(request_bytes)::bigint AS request_bytes,
    sum(response_bytes)::bigint AS response_bytes,
    max(last_call_at) AS last_call_at
FROM (
    SELECT
        hour AS time, server, tool, calls, ok_calls, error_calls, timeout_calls, cancelled_calls, denied_calls,
        timed_calls, duration_sum_us, request_bytes, response_bytes, last_call_at
    FROM analytics.fct_tool_usage_hourly
    WHERE tenant_id = $1 AND hour >= $2 AND hour < $3
    UNION ALL
    SELECT
        day, server, tool, calls, ok_calls, error_calls, timeout_calls, cancelled_calls, denied_calls,
        timed_calls, duration_sum_us, request_bytes, response_bytes, last_call_at
    FROM analytics.fct_tool_usage_daily_live
    WHERE tenant_id = $1 AND day >= $3 AND day < $4
    UNION ALL
    SELECT
        hour, server, tool, calls, ok_calls, error_calls, timeout_calls, cancelled_calls, denied_calls,
        timed_calls, duration_sum_us, request_bytes, response_bytes, last_call_at
    FROM analytics.fct_tool_usage_hourly
    WHERE tenant_id = $1 AND hour >= $4 AND hour < $5
) AS spans
GROUP BY GROUPING SETS ((), (date_trunc($6, time, 'UTC')), (server), (server, tool));

-- name: latency
-- Percentiles in ms of the same calls, added up the same four ways. Rank is ceil(q * n), as in rollup.latency_percentile,
-- for all groups in one pass. Servers and the whole are added up from tools, of which there are far fewer rows.
WITH fine AS MATERIALIZED (
    SELECT
        date_trunc($6, time, 'UTC') AS time,
        server,
        tool,
        GROUPING(server) = 1 AS of_time,
        bucket,
        sum(calls) AS calls,
        max(max_us) AS max_us
    FROM (
        SELECT hour AS time, server, tool, bucket, calls, max_us
        FROM analytics.fct_tool_latency_hourly
        WHERE tenant_id = $1 AND hour >= $2 AND hour < $3
        UNION ALL
        SELECT day, server, tool, bucket, calls, max_us
        FROM analytics.fct_tool_latency_daily
        WHERE tenant_id = $1 AND day >= $3 AND day < $4
        UNION ALL
        SELECT hour, server, tool, bucket, calls, max_us
        FROM analytics.fct_tool_latency_hourly
        WHERE tenant_id = $1 AND hour >= $4 AND hour < $5
    ) AS spans
    GROUP BY GROUPING SETS ((date_trunc($6, time, 'UTC'), bucket), (server, tool, bucket))
),

buckets AS (
    SELECT 'time' AS part, time, server, tool, bucket, calls, max_us
    FROM fine
    WHERE of_time
    UNION ALL
    SELECT
        CASE WHEN GROUPING(tool) = 0 THEN 'tool' WHEN GROUPING(server) = 0 THEN 'server' ELSE 'all' END,
        NULL,
        server,
        tool,
        bucket,
        sum(calls),
        max(max_us)
    FROM fine
    WHERE NOT of_time
    GROUP BY GROUPING SETS ((bucket), (server, bucket), (server, tool, bucket))
),

ranked AS (
    SELECT
        part,
        time,
        server,
        tool,
        bucket,
        max_us,
        sum(calls) OVER (PARTITION BY part, time, server, tool ORDER BY bucket) AS reached,
        sum(calls) OVER (PARTITION BY part, time, server, tool) AS total
    FROM buckets
)

SELECT
    part,
    time,
    server,
    tool,
    least(
        rollup.latency_value(min(bucket) FILTER (WHERE reached >= ceil(0.50 * total::double precision))),
        max(max_us) / 1000.0
    ) AS p50_ms,
    least(
        rollup.latency_value(min(bucket) FILTER (WHERE reached >= ceil(0.90 * total::double precision))),
        max(max_us) / 1000.0
    ) AS p90_ms,
    least(
        rollup.latency_value(min(bucket) FILTER (WHERE reached >= ceil(0.95 * total::double precision))),
        max(max_us) / 1000.0
    ) AS p95_ms,
    least(
        rollup.latency_value(min(bucket) FILTER (WHERE reached >= ceil(0.99 * total::double precision))),
        max(max_us) / 1000.0
    ) AS p99_ms,
    (max(max_us) / 1000.0)::double precision AS max_ms
FROM ranked
GROUP BY part, time, server, tool;

-- name: usage_by_minute
-- The same from single calls, for short spans: points are minutes, percentiles are exact (percentile_disc).
SELECT
    CASE
        WHEN GROUPING(server, tool) = 0 THEN 'tool'
        WHEN GROUPING(server) = 0 THEN 'server'
        WHEN GROUPING(date_trunc('minute', time, 'UTC')) = 0 THEN 'time'
        ELSE 'all'
    END AS part,
    date_trunc('minute', time, 'UTC') AS time,
    server,
    tool,
    count(*) AS calls,
    count(*) FILTER (WHERE status = 'ok') AS ok_calls,
    count(*) FILTER (WHERE status = 'error') AS error_calls,
    count(*) FILTER (WHERE status = 'timeout') AS timeout_calls,
    count(*) FILTER (WHERE status = 'cancelled') AS cancelled_calls,
    count(*) FILTER (WHERE status = 'denied') AS denied_calls,
    count(duration_ms) AS timed_calls,
    avg(duration_ms) AS avg_ms,
    sum(request_bytes)::bigint AS request_bytes,
    sum(response_bytes)::bigint AS response_bytes,
    max(time) AS last_call_at,
    percentile_disc(0.50) WITHIN GROUP (ORDER BY duration_ms) AS p50_ms,
    percentile_disc(0.90) WITHIN GROUP (ORDER BY duration_ms) AS p90_ms,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms,
    percentile_disc(0.99) WITHIN GROUP (ORDER BY duration_ms) AS p99_ms,
    max(duration_ms) AS max_ms
FROM analytics.fct_tool_calls
WHERE tenant_id = $1 AND time >= $2 AND time < $3
GROUP BY GROUPING SETS ((), (date_trunc('minute', time, 'UTC')), (server), (server, tool));

-- name: servers
-- Every server that the tenant has ever used or reported.
SELECT server, transport, state, state_since, first_seen_at, last_seen_at, tools, calls
FROM analytics.dim_servers
WHERE tenant_id = $1
ORDER BY server;

-- name: freshness
-- How current the marts are.
SELECT
    status.engine,
    status.last_build_at,
    status.last_build_ok,
    status.pending_batches,
    status.schema_version
FROM analytics.mart_status AS status;

-- name: last_event
SELECT max(last_seen_at) FROM analytics.dim_servers WHERE tenant_id = $1;

-- name: jobs
SELECT job, started_at, finished_at, ok, error, last_success_at FROM analytics.job_status ORDER BY job;

-- name: database_job_errors
SELECT job, errors, last_error_at, last_error FROM analytics.database_job_errors ORDER BY job;
