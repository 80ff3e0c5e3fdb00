-- Chains and their steps, under the writer role. Every write of a running chain renews its lease and fails to match when
-- another process has taken it over: the row of the chain is locked first, so no write of the old one comes later.
-- Times of leases are the database's own.

-- name: insert_chain
INSERT INTO hub.enhanced_tool_chain_executions (
    tenant_id, chain_id, chain_config, chain_type, signature, total_steps, metadata, analytics, lease_owner,
    lease_expires_at, sealed_definition, not_resumable_because
)
VALUES ($1, $2, $3::jsonb, $4, $5, $6, $7::jsonb, $8, $9, clock_timestamp() + make_interval(secs => $10), $11, $12)

-- name: insert_steps
INSERT INTO hub.enhanced_chain_execution_steps (
    tenant_id, step_id, chain_id, step_index, step_name, server_name, tool_name, parallel_group, depends_on, comes_after
)
SELECT
    $1, step.step_id, $2, step.step_index, step.step_name, step.server_name, step.tool_name, step.parallel_group,
    ARRAY(SELECT jsonb_array_elements_text(step.depends_on)::integer),
    ARRAY(SELECT jsonb_array_elements_text(step.comes_after)::integer)
FROM jsonb_to_recordset($3::jsonb) AS step (
    step_id uuid, step_index integer, step_name text, server_name text, tool_name text, parallel_group text,
    depends_on jsonb, comes_after jsonb
)

-- name: write_step
WITH chain AS (
    UPDATE hub.enhanced_tool_chain_executions
    SET
        lease_expires_at = clock_timestamp() + make_interval(secs => $4),
        progress_percent = $5,
        completed_steps = $6,
        failed_steps = $7,
        skipped_steps = $8,
        duration_ms = $9,
        not_resumable_because = coalesce(not_resumable_because, $10),
        updated_at = clock_timestamp()
    WHERE tenant_id = $1 AND chain_id = $2 AND lease_owner = $3 AND status = 'running'
    RETURNING cancel_requested
), step AS (
    UPDATE hub.enhanced_chain_execution_steps
    SET
        status = $12,
        reason = $13,
        attempts = $14::jsonb,
        started_at = $15,
        completed_at = $16,
        duration_ms = $17,
        error_type = $18,
        error_message = $19,
        result_bytes = $20,
        result_truncated = $21,
        sealed_result = $22,
        updated_at = clock_timestamp()
    WHERE tenant_id = $1 AND chain_id = $2 AND step_index = $11 AND EXISTS (SELECT FROM chain)
)
SELECT cancel_requested FROM chain

-- name: renew
UPDATE hub.enhanced_tool_chain_executions
SET lease_expires_at = clock_timestamp() + make_interval(secs => $4), duration_ms = $5, updated_at = clock_timestamp()
WHERE tenant_id = $1 AND chain_id = $2 AND lease_owner = $3 AND status = 'running'
RETURNING cancel_requested

-- name: finish
UPDATE hub.enhanced_tool_chain_executions
SET
    status = $4,
    progress_percent = $5,
    completed_steps = $6,
    failed_steps = $7,
    skipped_steps = $8,
    duration_ms = $9,
    error_message = $10,
    completed_at = CASE WHEN $4 = 'interrupted' THEN NULL ELSE clock_timestamp() END,
    updated_at = clock_timestamp(),
    -- the owner stays: whoever does not know whether this was committed says it again
    lease_expires_at = NULL,
    -- what is done needs nothing to go on
    sealed_definition = CASE WHEN $4 = 'completed' THEN NULL ELSE sealed_definition END
WHERE tenant_id = $1 AND chain_id = $2 AND lease_owner = $3 AND status IN ('running', $4)
RETURNING true

-- name: forget_results
UPDATE hub.enhanced_chain_execution_steps
SET sealed_result = NULL
WHERE tenant_id = $1 AND chain_id = $2 AND sealed_result IS NOT NULL

-- name: lock_chain
SELECT status FROM hub.enhanced_tool_chain_executions WHERE tenant_id = $1 AND chain_id = $2 FOR UPDATE

-- name: take
-- A chain that stopped, or whose lease ran out.
UPDATE hub.enhanced_tool_chain_executions
SET
    status = 'running',
    runs = runs + 1,
    lease_owner = $3,
    lease_expires_at = clock_timestamp() + make_interval(secs => $4),
    cancel_requested = false,
    completed_at = NULL,
    error_message = NULL,
    updated_at = clock_timestamp()
WHERE
    tenant_id = $1
    AND chain_id = $2
    AND (
        status IN ('failed', 'cancelled', 'timed_out', 'interrupted')
        OR (status = 'running' AND lease_expires_at < clock_timestamp())
    )
RETURNING *

-- name: select_chain
SELECT *, status = 'running' AND lease_expires_at < clock_timestamp() AS expired
FROM hub.enhanced_tool_chain_executions
WHERE tenant_id = $1 AND chain_id = $2

-- name: select_steps
SELECT * FROM hub.enhanced_chain_execution_steps WHERE tenant_id = $1 AND chain_id = $2 ORDER BY step_index

-- name: list_chains
SELECT
    chain_id, chain_type, status, progress_percent, completed_steps, total_steps, failed_steps, skipped_steps, metadata,
    runs, created_at, updated_at, completed_at, duration_ms, error_message
FROM hub.enhanced_tool_chain_executions
WHERE tenant_id = $1 AND ($2::text IS NULL OR status = $2)
ORDER BY created_at DESC
LIMIT $3

-- name: request_cancel
UPDATE hub.enhanced_tool_chain_executions
SET cancel_requested = true, updated_at = clock_timestamp()
WHERE tenant_id = $1 AND chain_id = $2 AND status = 'running'
RETURNING true

-- name: expire
-- Only a lease that ran out says that nobody runs a chain any more.
UPDATE hub.enhanced_tool_chain_executions
SET
    status = 'interrupted',
    lease_owner = NULL,
    lease_expires_at = NULL,
    error_message = 'the process that ran it is gone',
    updated_at = clock_timestamp()
WHERE status = 'running' AND lease_expires_at < clock_timestamp()
RETURNING chain_id

-- name: step_history
-- The steps of the newest chains, all or of one graph.
WITH chain AS (
    SELECT tenant_id, chain_id, status, duration_ms
    FROM hub.enhanced_tool_chain_executions
    WHERE
        tenant_id = $1
        AND analytics
        AND status <> 'running'
        AND created_at >= $2
        AND ($3::text IS NULL OR signature = $3)
    ORDER BY created_at DESC
    LIMIT $4
)
SELECT
    chain.chain_id,
    chain.status AS chain_status,
    chain.duration_ms AS chain_duration_ms,
    step.step_index,
    step.step_name,
    step.server_name,
    step.tool_name,
    step.status,
    step.reason,
    step.duration_ms,
    jsonb_array_length(step.attempts) AS attempts
FROM chain
INNER JOIN hub.enhanced_chain_execution_steps AS step USING (tenant_id, chain_id)
ORDER BY chain.chain_id, step.step_index
