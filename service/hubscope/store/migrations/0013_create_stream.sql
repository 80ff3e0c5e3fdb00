-- Live updates: what is told is written beside what it tells of (the outbox), numbered after its commit by one process at a
-- time, and kept in a bounded log, from which every replica sends it on. How: definitions/027_stream.

-- What is committed and not numbered yet. id is the order of writing, which is not that of committing.
CREATE TABLE hub.stream_outbox (
    tenant_id text NOT NULL DEFAULT 'default',
    id bigint GENERATED ALWAYS AS IDENTITY,
    topic text NOT NULL CHECK (topic IN ('chain', 'metadata', 'audit', 'health', 'analytics')),
    name text NOT NULL,
    -- what it is about: a chain, a server, a resource, a job
    subject text NOT NULL DEFAULT '',
    -- the MCP server that it is about, if it is about one
    server text,
    -- when it happened
    time timestamptz NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    payload jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, id)
);

-- One row per tenant that was ever told something: its log holds first_seq to last_seq, all of them.
CREATE TABLE hub.stream_heads (
    tenant_id text PRIMARY KEY,
    first_seq bigint NOT NULL DEFAULT 1,
    last_seq bigint NOT NULL CHECK (last_seq >= first_seq - 1)
);

-- One row per event that can still be sent. seq counts from 1 in each tenant, without gaps, in the order in which events
-- became visible.
CREATE TABLE hub.stream_events (
    tenant_id text NOT NULL,
    seq bigint NOT NULL,
    topic text NOT NULL,
    name text NOT NULL,
    subject text NOT NULL,
    server text,
    time timestamptz NOT NULL,
    written_at timestamptz NOT NULL,
    numbered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    payload jsonb NOT NULL,
    PRIMARY KEY (tenant_id, seq)
);

-- Which process numbers, and until when nobody else does. One row, whose lock is what makes it one at a time.
CREATE TABLE ops.stream_sequencer (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder uuid NOT NULL,
    until timestamptz NOT NULL
);
INSERT INTO ops.stream_sequencer (holder, until) VALUES ('00000000-0000-0000-0000-000000000000', '-infinity');

-- The last state that was told of each server that anybody reports, so that only changes are told.
CREATE TABLE hub.server_states (
    tenant_id text NOT NULL DEFAULT 'default',
    hub text NOT NULL DEFAULT '',
    server text NOT NULL,
    state text NOT NULL,
    -- time of the event that said so
    since timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, hub, server)
);
