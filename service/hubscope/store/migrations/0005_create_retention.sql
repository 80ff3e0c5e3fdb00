-- What retention has taken, and what must outlive it.

-- From when on each relation is still whole: older rows are gone, or going. Raised before anything is deleted, and no
-- refresh or recount starts before it. relation: raw, hourly, hourly_latency, daily.
CREATE TABLE ops.retained (
    relation text PRIMARY KEY CHECK (relation IN ('raw', 'hourly', 'hourly_latency', 'daily')),
    since timestamptz NOT NULL
);

-- Calls of the days that retention took: counters never go down.
CREATE TABLE rollup.archived_tool_calls (
    tenant_id text NOT NULL DEFAULT 'default',
    server text NOT NULL,
    tool text NOT NULL,
    ok_calls bigint NOT NULL,
    error_calls bigint NOT NULL,
    timeout_calls bigint NOT NULL,
    cancelled_calls bigint NOT NULL,
    denied_calls bigint NOT NULL,
    PRIMARY KEY (tenant_id, server, tool)
);
