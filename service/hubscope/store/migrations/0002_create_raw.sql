-- What was reported, as it was reported. Partitioned by day (UTC): range partitions made by ops.ensure_partitions, or the
-- chunks of a hypertable.
-- Identity of an event is (tenant_id, event_id, time): a retry sends the same three.

CREATE TABLE raw.tool_calls (
    tenant_id text NOT NULL DEFAULT 'default',
    event_id uuid NOT NULL,
    time timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    hub text NOT NULL DEFAULT '',
    server text NOT NULL,
    tool text NOT NULL,
    status text NOT NULL CHECK (status IN ('ok', 'error', 'timeout', 'cancelled', 'denied')),
    duration_ms double precision CHECK (duration_ms >= 0 AND duration_ms < 'infinity'),
    error_type text,
    error_message text,
    error_fingerprint text,
    session_id text,
    client text NOT NULL DEFAULT '',
    transport text NOT NULL DEFAULT '',
    trace_id text,
    span_id text,
    chain_id text,
    step_index integer,
    request_bytes bigint,
    response_bytes bigint,
    -- who saw the call, and whether this observation is the one that counts (one call, one count)
    vantage text NOT NULL DEFAULT 'hub',
    counted boolean NOT NULL DEFAULT true,
    attrs jsonb,
    PRIMARY KEY (tenant_id, event_id, time)
) :partitioned_by_day;
CREATE INDEX tool_calls_by_time ON raw.tool_calls (tenant_id, time);

CREATE TABLE raw.server_events (
    tenant_id text NOT NULL DEFAULT 'default',
    event_id uuid NOT NULL,
    time timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    hub text NOT NULL DEFAULT '',
    server text NOT NULL,
    source text NOT NULL CHECK (source IN ('connection', 'probe')),
    outcome text NOT NULL,
    state text NOT NULL CHECK (state IN ('up', 'degraded', 'down', 'maintenance', 'unknown')),
    valid_until timestamptz,
    latency_ms double precision CHECK (latency_ms >= 0 AND latency_ms < 'infinity'),
    transport text NOT NULL DEFAULT '',
    tools integer,
    resources integer,
    prompts integer,
    error_type text,
    error_message text,
    attrs jsonb,
    PRIMARY KEY (tenant_id, event_id, time)
) :partitioned_by_day;
CREATE INDEX server_events_by_server ON raw.server_events (tenant_id, server, time DESC);

CREATE TABLE raw.hub_events (
    tenant_id text NOT NULL DEFAULT 'default',
    event_id uuid NOT NULL,
    time timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    hub text NOT NULL DEFAULT '',
    type text NOT NULL CHECK (type IN ('hub_event', 'audit', 'chain', 'chain_step')),
    name text NOT NULL,
    payload jsonb,
    PRIMARY KEY (tenant_id, event_id, time)
) :partitioned_by_day;
CREATE INDEX hub_events_by_name ON raw.hub_events (tenant_id, type, name, time DESC);
