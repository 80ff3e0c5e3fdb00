-- Chains of tool calls: one row per chain, one per step with all its attempts. Written as they happen by the process that
-- holds the lease; read by everybody who asks how a chain is doing.
-- What a chain needs to be resumed (its definition with arguments, results that later steps read) is sealed: the key is not
-- in the database. What stands here in the clear holds neither arguments nor results.

CREATE TABLE hub.enhanced_tool_chain_executions (
    tenant_id text NOT NULL DEFAULT 'default',
    chain_id uuid NOT NULL,
    -- the graph: ids, servers, tools, dependencies, names of arguments
    chain_config jsonb NOT NULL,
    chain_type text NOT NULL CHECK (chain_type IN ('sequential', 'parallel', 'graph')),
    -- chains with the same one have the same graph
    signature text NOT NULL,
    status text NOT NULL DEFAULT 'running'
        CHECK (status IN ('running', 'completed', 'failed', 'cancelled', 'timed_out', 'interrupted')),
    progress_percent integer NOT NULL DEFAULT 0 CHECK (progress_percent BETWEEN 0 AND 100),
    -- settled steps, in whatever way
    completed_steps integer NOT NULL DEFAULT 0,
    total_steps integer NOT NULL,
    failed_steps integer NOT NULL DEFAULT 0,
    skipped_steps integer NOT NULL DEFAULT 0,
    metadata jsonb NOT NULL DEFAULT '{}',
    -- false where the caller wanted no analytics: such a chain is left out of them
    analytics boolean NOT NULL DEFAULT true,
    -- how often it was started: 1, and 1 for each time it was resumed
    runs integer NOT NULL DEFAULT 1,
    error_message text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at timestamptz,
    -- time that it ran, without the time it waited to be resumed
    duration_ms double precision NOT NULL DEFAULT 0 CHECK (duration_ms >= 0),
    lease_owner uuid,
    lease_expires_at timestamptz,
    cancel_requested boolean NOT NULL DEFAULT false,
    sealed_definition bytea,
    not_resumable_because text,
    PRIMARY KEY (tenant_id, chain_id)
);
CREATE INDEX enhanced_tool_chain_executions_by_time
    ON hub.enhanced_tool_chain_executions (tenant_id, created_at DESC);
CREATE INDEX enhanced_tool_chain_executions_by_signature
    ON hub.enhanced_tool_chain_executions (tenant_id, signature, created_at DESC);
CREATE INDEX enhanced_tool_chain_executions_running
    ON hub.enhanced_tool_chain_executions (tenant_id, lease_expires_at) WHERE status = 'running';

CREATE TABLE hub.enhanced_chain_execution_steps (
    tenant_id text NOT NULL DEFAULT 'default',
    step_id uuid NOT NULL,
    chain_id uuid NOT NULL,
    step_index integer NOT NULL CHECK (step_index >= 0),
    step_name text NOT NULL,
    server_name text NOT NULL,
    tool_name text NOT NULL,
    parallel_group text,
    -- indexes of steps it needs, and of steps that only come before it
    depends_on integer[] NOT NULL DEFAULT '{}',
    comes_after integer[] NOT NULL DEFAULT '{}',
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'running', 'retrying', 'completed', 'failed', 'skipped', 'cancelled', 'unknown')),
    -- why it was skipped
    reason text,
    -- [{number, started_at, duration_ms, outcome, error_type, error_message}]
    attempts jsonb NOT NULL DEFAULT '[]',
    started_at timestamptz,
    completed_at timestamptz,
    -- time of its attempts, without the pauses between them
    duration_ms double precision CHECK (duration_ms >= 0),
    error_type text,
    error_message text,
    result_bytes bigint,
    -- the result was too large to be kept
    result_truncated boolean NOT NULL DEFAULT false,
    sealed_result bytea,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, step_id),
    UNIQUE (tenant_id, chain_id, step_index),
    FOREIGN KEY (tenant_id, chain_id) REFERENCES hub.enhanced_tool_chain_executions ON DELETE CASCADE
);
