-- Rollups on plain PostgreSQL: stored hours and days plus what is pending.
-- Each ingest transaction appends one row per tenant to rollup.pending, holding what it adds to each hour; a fold moves
-- pending rows into the stored hours and days. Writers never upsert, so they never wait for each other.
-- Sums are whole microseconds and bytes: whole numbers add up to the same total in every order.

CREATE TYPE rollup.tool_calls_delta AS (
    hour timestamptz,
    hub text,
    server text,
    tool text,
    transport text,
    client text,
    calls bigint,
    ok_calls bigint,
    error_calls bigint,
    timeout_calls bigint,
    cancelled_calls bigint,
    denied_calls bigint,
    timed_calls bigint,
    duration_sum_us bigint,
    duration_max_us bigint,
    request_bytes bigint,
    response_bytes bigint,
    last_call_at timestamptz
);

CREATE TYPE rollup.tool_latency_delta AS (
    hour timestamptz,
    hub text,
    server text,
    tool text,
    bucket smallint,
    calls bigint,
    max_us bigint
);

CREATE TYPE rollup.server_checks_delta AS (
    hour timestamptz,
    hub text,
    server text,
    source text,
    checks bigint,
    up_checks bigint,
    degraded_checks bigint,
    down_checks bigint,
    maintenance_checks bigint,
    unknown_checks bigint,
    timed_checks bigint,
    latency_sum_us bigint,
    latency_max_us bigint,
    last_check_at timestamptz
);

CREATE TABLE rollup.pending (
    tenant_id text NOT NULL DEFAULT 'default',
    batch_id uuid NOT NULL,
    tool_calls rollup.tool_calls_delta[] NOT NULL DEFAULT '{}',
    tool_latency rollup.tool_latency_delta[] NOT NULL DEFAULT '{}',
    server_checks rollup.server_checks_delta[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, batch_id)
);
-- Rows live for a second: the table is vacuumed by their number, not by a share of it.
ALTER TABLE rollup.pending SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE rollup.stored_tool_calls_hourly (
    tenant_id text NOT NULL DEFAULT 'default',
    hour timestamptz NOT NULL,
    hub text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    transport text NOT NULL,
    client text NOT NULL,
    calls bigint NOT NULL,
    ok_calls bigint NOT NULL,
    error_calls bigint NOT NULL,
    timeout_calls bigint NOT NULL,
    cancelled_calls bigint NOT NULL,
    denied_calls bigint NOT NULL,
    timed_calls bigint NOT NULL,
    duration_sum_us bigint NOT NULL,
    duration_max_us bigint NOT NULL,
    request_bytes bigint NOT NULL,
    response_bytes bigint NOT NULL,
    last_call_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, hour, server, tool, hub, transport, client)
);

CREATE TABLE rollup.stored_tool_latency_hourly (
    tenant_id text NOT NULL DEFAULT 'default',
    hour timestamptz NOT NULL,
    hub text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    bucket smallint NOT NULL,
    calls bigint NOT NULL,
    max_us bigint NOT NULL,
    PRIMARY KEY (tenant_id, hour, server, tool, hub, bucket)
);

CREATE TABLE rollup.stored_server_checks_hourly (
    tenant_id text NOT NULL DEFAULT 'default',
    hour timestamptz NOT NULL,
    hub text NOT NULL,
    server text NOT NULL,
    source text NOT NULL,
    checks bigint NOT NULL,
    up_checks bigint NOT NULL,
    degraded_checks bigint NOT NULL,
    down_checks bigint NOT NULL,
    maintenance_checks bigint NOT NULL,
    unknown_checks bigint NOT NULL,
    timed_checks bigint NOT NULL,
    latency_sum_us bigint NOT NULL,
    latency_max_us bigint NOT NULL,
    last_check_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, hour, server, source, hub)
);

-- Days (UTC) are kept for ever; hours only as long as their retention says.
CREATE TABLE rollup.stored_tool_calls_daily (LIKE rollup.stored_tool_calls_hourly);
ALTER TABLE rollup.stored_tool_calls_daily RENAME COLUMN hour TO day;
ALTER TABLE rollup.stored_tool_calls_daily ADD PRIMARY KEY (tenant_id, day, server, tool, hub, transport, client);

CREATE TABLE rollup.stored_tool_latency_daily (LIKE rollup.stored_tool_latency_hourly);
ALTER TABLE rollup.stored_tool_latency_daily RENAME COLUMN hour TO day;
ALTER TABLE rollup.stored_tool_latency_daily ADD PRIMARY KEY (tenant_id, day, server, tool, hub, bucket);
