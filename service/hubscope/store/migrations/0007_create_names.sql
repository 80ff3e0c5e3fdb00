-- Names that a tenant's events may carry, so that their number is bounded: once admitted, always admitted, in every
-- replica. server is '' for all kinds but tools, which belong to a server.

CREATE TABLE hub.known_names (
    tenant_id text NOT NULL DEFAULT 'default',
    kind text NOT NULL CHECK (kind IN ('hub', 'server', 'tool', 'client')),
    server text NOT NULL DEFAULT '',
    name text NOT NULL,
    admitted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, kind, server, name)
);

-- One call, one count: whose observations of a server's calls count, from which event time on. Only ever appended to, and
-- a later row begins in the future when it is made, so what was counted stays counted. The first row of a server is in
-- force from the beginning. 'hub' stands for all callers that report their own calls (hub and own).
CREATE TABLE hub.counting_vantages (
    tenant_id text NOT NULL DEFAULT 'default',
    server text NOT NULL,
    since timestamptz NOT NULL,
    vantage text NOT NULL CHECK (vantage IN ('server', 'wrapper', 'hub', 'client')),
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, server, since)
);
