-- Rollups on plain PostgreSQL: stored hours plus what is pending.
-- Each ingest transaction appends one row per tenant to rollup.pending, holding what it adds to each hour; a fold moves
-- pending rows into the stored hours. Nothing is ever upserted by a writer, so writers never wait for each other.
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

CREATE TABLE rollup.pending (
    tenant_id text NOT NULL DEFAULT 'default',
    batch_id uuid NOT NULL,
    tool_calls rollup.tool_calls_delta[] NOT NULL,
    tool_latency rollup.tool_latency_delta[] NOT NULL,
    PRIMARY KEY (tenant_id, batch_id)
);

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
