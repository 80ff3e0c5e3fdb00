-- name: tool_calls
-- Calls since recording began, per tenant, server and tool.
SELECT
    tenant_id,
    server,
    tool,
    sum(ok_calls)::bigint AS ok,
    sum(error_calls)::bigint AS error,
    sum(timeout_calls)::bigint AS timeout,
    sum(cancelled_calls)::bigint AS cancelled,
    sum(denied_calls)::bigint AS denied
FROM analytics.fct_tool_usage_hourly
GROUP BY tenant_id, server, tool
ORDER BY tenant_id, server, tool;

-- name: server_states
SELECT tenant_id, server, state
FROM analytics.dim_servers
ORDER BY tenant_id, server;

-- name: rollup_state
SELECT engine, pending_batches, extract(epoch FROM now() - last_build_at)::double precision AS mart_age_seconds
FROM analytics.mart_status;
