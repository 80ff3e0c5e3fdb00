-- Days of latency that change no more, one row per tool instead of one per bucket: a tenth of the room, and a long answer
-- reads a thirtieth of the rows. A day of a tenant is packed whole or not at all; a late event has fold unpack it.
-- The three arrays run side by side, in the order of buckets.

CREATE TABLE rollup.packed_tool_latency_daily (
    tenant_id text NOT NULL DEFAULT 'default',
    day timestamptz NOT NULL,
    hub text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    buckets smallint[] NOT NULL,
    calls bigint[] NOT NULL,
    max_us bigint[] NOT NULL,
    PRIMARY KEY (tenant_id, day, server, tool, hub)
);
