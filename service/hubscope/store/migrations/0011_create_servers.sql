-- One row per MCP server of a tenant: as it was registered, how it is, and which process watches it.
-- Who may: the writer (the serving process) does everything; the worker reads all but what is sealed.

CREATE TABLE hub.servers (
    tenant_id text NOT NULL DEFAULT 'default' CHECK (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    server_id text NOT NULL CHECK (server_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$'),
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    version text NOT NULL DEFAULT '',
    category text NOT NULL DEFAULT '',
    -- empty for stdio: what starts it stands in the operator's file only
    endpoint text NOT NULL,
    protocol text NOT NULL CHECK (protocol IN ('http', 'sse', 'stdio')),
    auth_type text NOT NULL DEFAULT 'none',
    capabilities text[] NOT NULL DEFAULT '{}',
    tags text[] NOT NULL DEFAULT '{}',
    metadata jsonb NOT NULL DEFAULT '{}',
    health_check jsonb NOT NULL,
    -- api: registered over HTTP; file: of the operator's HUBSCOPE_SERVERS_FILE
    source text NOT NULL DEFAULT 'api' CHECK (source IN ('api', 'file')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- how it is, as the last probe left it; past valid_until it is unknown
    state text NOT NULL DEFAULT 'unknown' CHECK (state IN ('up', 'degraded', 'down', 'maintenance', 'unknown')),
    state_since timestamptz,
    checked_at timestamptz,
    valid_until timestamptz,
    latency_ms double precision,
    error_type text,
    error_message text,
    -- what the state machine remembers, so that another process goes on where one stopped
    memory jsonb,
    -- which process probes it, and until when nobody else does
    lease_holder uuid,
    lease_until timestamptz,
    PRIMARY KEY (tenant_id, server_id),
    CHECK (protocol <> 'stdio' OR source = 'file'),
    CHECK ((endpoint = '') = (protocol = 'stdio'))
);

-- How we prove ourselves to a server, sealed (access/vault.py).
CREATE TABLE hub.server_secrets (
    tenant_id text NOT NULL DEFAULT 'default',
    server_id text NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant_id, server_id),
    -- deferred, so that tables can be copied in any order (`hubscope move`)
    FOREIGN KEY (tenant_id, server_id) REFERENCES hub.servers ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

-- One row per window in which a server may be away: [starts_at, ends_at). Rows outlive their server: an outage of last
-- month stays excused.
CREATE TABLE hub.maintenance_windows (
    tenant_id text NOT NULL DEFAULT 'default',
    window_id uuid NOT NULL,
    server_id text NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    reason text NOT NULL DEFAULT '',
    source text NOT NULL DEFAULT 'api' CHECK (source IN ('api', 'cli', 'file')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- a window that has begun ends then; one that has not never was
    cancelled_at timestamptz,
    PRIMARY KEY (tenant_id, window_id),
    CHECK (starts_at < ends_at)
);
CREATE INDEX maintenance_windows_by_server ON hub.maintenance_windows (tenant_id, server_id, ends_at);
CREATE INDEX maintenance_windows_by_end ON hub.maintenance_windows (tenant_id, ends_at) WHERE cancelled_at IS NULL;
