-- Every panel of the dashboard "Tool usage". Readers name only marts (analytics.*).
-- Hourly rows count for a range that touches their hour, so a range from 10:20 starts with the hour of 10:00.
-- ARRAY[...]::text[] rather than IN (...): with no server yet, "All" expands to nothing.

-- name: tenants
SELECT DISTINCT tenant_id FROM analytics.dim_servers ORDER BY tenant_id

-- name: servers_of_tenant
SELECT server FROM analytics.dim_servers WHERE tenant_id = ${tenant:sqlstring} ORDER BY server

-- name: calls
SELECT coalesce(sum(calls), 0)::bigint AS "Calls"
FROM analytics.fct_tool_usage_hourly
WHERE tenant_id = ${tenant:sqlstring}
  AND server = ANY (ARRAY[${server:sqlstring}]::text[])
  AND hour > $__timeFrom()::timestamptz - interval '1 hour' AND hour <= $__timeTo()::timestamptz

-- name: success_rate
SELECT sum(ok_calls)::float8 / nullif(sum(calls), 0)::float8 AS "Success rate"
FROM analytics.fct_tool_usage_hourly
WHERE tenant_id = ${tenant:sqlstring}
  AND server = ANY (ARRAY[${server:sqlstring}]::text[])
  AND hour > $__timeFrom()::timestamptz - interval '1 hour' AND hour <= $__timeTo()::timestamptz

-- name: p95
SELECT rollup.latency_percentile(array_agg(bucket), array_agg(n), 0.95, max(max_us) / 1000.0) AS "p95"
FROM (
  SELECT bucket, sum(calls)::bigint AS n, max(max_us) AS max_us
  FROM analytics.fct_tool_latency_hourly
  WHERE tenant_id = ${tenant:sqlstring}
    AND server = ANY (ARRAY[${server:sqlstring}]::text[])
    AND hour > $__timeFrom()::timestamptz - interval '1 hour' AND hour <= $__timeTo()::timestamptz
  GROUP BY bucket
) AS buckets

-- name: active_tools
SELECT count(DISTINCT (server, tool)) AS "Active tools"
FROM analytics.fct_tool_usage_hourly
WHERE tenant_id = ${tenant:sqlstring}
  AND server = ANY (ARRAY[${server:sqlstring}]::text[])
  AND hour > $__timeFrom()::timestamptz - interval '1 hour' AND hour <= $__timeTo()::timestamptz

-- name: freshness
SELECT
  date_part('epoch', now() - (
    SELECT max(last_seen_at) FROM analytics.dim_servers WHERE tenant_id = ${tenant:sqlstring}
  )) AS "Newest event",
  date_part('epoch', now() - last_build_at) AS "Marts built",
  CASE WHEN last_build_at IS NULL THEN 'never' WHEN last_build_ok THEN 'ok' ELSE 'failed' END AS "Build",
  pending_batches AS "Pending batches"
FROM analytics.mart_status

-- name: calls_per_hour
SELECT
  hour AS "time",
  sum(ok_calls)::bigint AS "ok",
  sum(error_calls)::bigint AS "error",
  sum(timeout_calls)::bigint AS "timeout",
  sum(cancelled_calls)::bigint AS "cancelled",
  sum(denied_calls)::bigint AS "denied"
FROM analytics.fct_tool_usage_hourly
WHERE tenant_id = ${tenant:sqlstring}
  AND server = ANY (ARRAY[${server:sqlstring}]::text[])
  AND hour > $__timeFrom()::timestamptz - interval '1 hour' AND hour <= $__timeTo()::timestamptz
GROUP BY hour
ORDER BY hour

-- name: latency_per_hour
SELECT
  hour AS "time",
  rollup.latency_percentile(array_agg(bucket), array_agg(n), 0.50, max(max_us) / 1000.0) AS "p50",
  rollup.latency_percentile(array_agg(bucket), array_agg(n), 0.95, max(max_us) / 1000.0) AS "p95",
  rollup.latency_percentile(array_agg(bucket), array_agg(n), 0.99, max(max_us) / 1000.0) AS "p99"
FROM (
  SELECT hour, bucket, sum(calls)::bigint AS n, max(max_us) AS max_us
  FROM analytics.fct_tool_latency_hourly
  WHERE tenant_id = ${tenant:sqlstring}
    AND server = ANY (ARRAY[${server:sqlstring}]::text[])
    AND hour > $__timeFrom()::timestamptz - interval '1 hour' AND hour <= $__timeTo()::timestamptz
  GROUP BY hour, bucket
) AS buckets
GROUP BY hour
ORDER BY hour

-- name: top_tools
WITH used AS (
  SELECT
    server,
    tool,
    sum(calls) AS calls,
    sum(error_calls + timeout_calls) AS failed,
    max(last_call_at) AS last_call_at
  FROM analytics.fct_tool_usage_hourly
  WHERE tenant_id = ${tenant:sqlstring}
    AND server = ANY (ARRAY[${server:sqlstring}]::text[])
    AND hour > $__timeFrom()::timestamptz - interval '1 hour' AND hour <= $__timeTo()::timestamptz
  GROUP BY server, tool
  ORDER BY calls DESC, server, tool
  LIMIT 50
), buckets AS (
  SELECT server, tool, latency.bucket, sum(latency.calls)::bigint AS n, max(latency.max_us) AS max_us
  FROM analytics.fct_tool_latency_hourly AS latency
  JOIN used USING (server, tool)
  WHERE latency.tenant_id = ${tenant:sqlstring}
    AND hour > $__timeFrom()::timestamptz - interval '1 hour' AND hour <= $__timeTo()::timestamptz
  GROUP BY server, tool, latency.bucket
), percentiles AS (
  SELECT
    server,
    tool,
    rollup.latency_percentile(array_agg(bucket), array_agg(n), 0.95, max(max_us) / 1000.0) AS p95
  FROM buckets
  GROUP BY server, tool
)
SELECT
  server AS "Server",
  tool AS "Tool",
  calls::bigint AS "Calls",
  failed::float8 / calls::float8 AS "Errors",
  p95 AS "p95",
  last_call_at AS "Last call"
FROM used
LEFT JOIN percentiles USING (server, tool)
ORDER BY calls DESC, server, tool

-- name: servers
SELECT
  server AS "Server",
  state AS "State",
  state_since AS "In this state",
  last_seen_at AS "Last seen",
  transport AS "Transport",
  tools AS "Tools",
  calls AS "Calls ever"
FROM analytics.dim_servers
WHERE tenant_id = ${tenant:sqlstring}
  AND server = ANY (ARRAY[${server:sqlstring}]::text[])
ORDER BY array_position(ARRAY['down', 'degraded', 'unknown', 'maintenance', 'up'], state), server
