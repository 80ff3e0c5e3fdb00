-- name: tool_calls
-- Calls since recording began, per tenant, server and tool: a counter never goes down, not by retention either.
SELECT
    tenant_id,
    server,
    tool,
    ok_calls AS ok,
    error_calls AS error,
    timeout_calls AS timeout,
    cancelled_calls AS cancelled,
    denied_calls AS denied
FROM analytics.fct_tool_call_totals
ORDER BY tenant_id, server, tool;

-- name: server_states
SELECT tenant_id, server, state
FROM analytics.dim_servers
ORDER BY tenant_id, server;

-- name: rollup_state
SELECT engine, pending_batches, extract(epoch FROM now() - last_build_at)::double precision AS mart_age_seconds
FROM analytics.mart_status;

-- name: jobs
SELECT job, ok, extract(epoch FROM last_success_at)::double precision AS last_success FROM analytics.job_status ORDER BY job;

-- name: database_job_errors
SELECT job, errors FROM analytics.database_job_errors ORDER BY job;
