-- What is committed and not folded yet, one row per call or check, in the columns of the rollup that it will be added to.

CREATE OR REPLACE VIEW rollup.pending_tool_calls AS
SELECT
    pending.tenant_id,
    pending.batch_id,
    date_trunc('hour', one.time, 'UTC') AS hour,
    one.hub,
    one.server,
    one.tool,
    one.transport,
    one.client,
    1::bigint AS calls,
    (one.status = 'ok')::integer::bigint AS ok_calls,
    (one.status = 'error')::integer::bigint AS error_calls,
    (one.status = 'timeout')::integer::bigint AS timeout_calls,
    (one.status = 'cancelled')::integer::bigint AS cancelled_calls,
    (one.status = 'denied')::integer::bigint AS denied_calls,
    (one.duration_ms IS NOT NULL)::integer::bigint AS timed_calls,
    coalesce(round(one.duration_ms * 1000)::bigint, 0) AS duration_sum_us,
    coalesce(round(one.duration_ms * 1000)::bigint, 0) AS duration_max_us,
    coalesce(one.request_bytes, 0) AS request_bytes,
    coalesce(one.response_bytes, 0) AS response_bytes,
    one.time AS last_call_at
FROM
    rollup.pending,
    unnest(
        pending.call_times, pending.call_hubs, pending.call_servers, pending.call_tools, pending.call_statuses,
        pending.call_durations_ms, pending.call_clients, pending.call_transports, pending.call_request_bytes,
        pending.call_response_bytes
    ) AS one (time, hub, server, tool, status, duration_ms, client, transport, request_bytes, response_bytes);

CREATE OR REPLACE VIEW rollup.pending_tool_latency AS
SELECT
    pending.tenant_id,
    pending.batch_id,
    date_trunc('hour', one.time, 'UTC') AS hour,
    one.hub,
    one.server,
    one.tool,
    rollup.latency_bucket(one.duration_ms) AS bucket,
    1::bigint AS calls,
    round(one.duration_ms * 1000)::bigint AS max_us
FROM
    rollup.pending,
    unnest(
        pending.call_times, pending.call_hubs, pending.call_servers, pending.call_tools, pending.call_durations_ms
    ) AS one (time, hub, server, tool, duration_ms)
WHERE one.duration_ms IS NOT NULL;

CREATE OR REPLACE VIEW rollup.pending_server_checks AS
SELECT
    pending.tenant_id,
    pending.batch_id,
    date_trunc('hour', one.time, 'UTC') AS hour,
    one.hub,
    one.server,
    one.source,
    1::bigint AS checks,
    (one.state = 'up')::integer::bigint AS up_checks,
    (one.state = 'degraded')::integer::bigint AS degraded_checks,
    (one.state = 'down')::integer::bigint AS down_checks,
    (one.state = 'maintenance')::integer::bigint AS maintenance_checks,
    (one.state = 'unknown')::integer::bigint AS unknown_checks,
    (one.latency_ms IS NOT NULL)::integer::bigint AS timed_checks,
    coalesce(round(one.latency_ms * 1000)::bigint, 0) AS latency_sum_us,
    coalesce(round(one.latency_ms * 1000)::bigint, 0) AS latency_max_us,
    one.time AS last_check_at
FROM
    rollup.pending,
    unnest(
        pending.check_times, pending.check_hubs, pending.check_servers, pending.check_sources, pending.check_states,
        pending.check_latencies_ms
    ) AS one (time, hub, server, source, state, latency_ms);
