-- name: add_pending
-- What one transaction adds to the rollups, one row per tenant.
INSERT INTO rollup.pending (tenant_id, batch_id, tool_calls, tool_latency, server_checks)
VALUES ($1, $2, $3::rollup.tool_calls_delta[], $4::rollup.tool_latency_delta[], $5::rollup.server_checks_delta[]);
