-- name: servers_of
-- The servers of a tenant, one or all, with the window that is open now. $2: an id or null; $3: a category or null.
SELECT
    server.*,
    secret.sealed,
    now() AS read_at,
    (
        SELECT max(open_window.ends_at)
        FROM hub.maintenance_windows AS open_window
        WHERE
            open_window.tenant_id = server.tenant_id
            AND open_window.server_id = server.server_id
            AND open_window.cancelled_at IS NULL
            AND open_window.starts_at <= now()
            AND open_window.ends_at > now()
    ) AS maintenance_until
FROM hub.servers AS server
LEFT JOIN hub.server_secrets AS secret USING (tenant_id, server_id)
WHERE
    server.tenant_id = $1
    AND ($2::text IS NULL OR server.server_id = $2)
    AND ($3::text IS NULL OR server.category = $3)
ORDER BY server.server_id;

-- name: lock_tenant
-- Two registrations of a tenant at once must not both find room for one more.
SELECT pg_advisory_xact_lock(hashtextextended('hubscope.servers.' || $1, 0));

-- name: count_servers
SELECT count(*) FROM hub.servers WHERE tenant_id = $1 AND source = 'api';

-- name: insert_server
-- Nothing comes back where the id is taken.
INSERT INTO hub.servers (
    tenant_id, server_id, name, description, version, category, endpoint, protocol, auth_type, capabilities, tags,
    metadata, health_check
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text[], $11::text[], $12::jsonb, $13::jsonb)
ON CONFLICT (tenant_id, server_id) DO NOTHING
RETURNING created_at;

-- name: put_file_server
-- A server of the operator's file, as it stands there now. It takes the place of one that was registered over HTTP.
INSERT INTO hub.servers (
    tenant_id, server_id, name, description, version, category, endpoint, protocol, auth_type, capabilities, tags,
    metadata, health_check, source
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text[], $11::text[], $12::jsonb, $13::jsonb, 'file')
ON CONFLICT (tenant_id, server_id) DO UPDATE SET
    name = excluded.name,
    description = excluded.description,
    version = excluded.version,
    category = excluded.category,
    endpoint = excluded.endpoint,
    protocol = excluded.protocol,
    auth_type = excluded.auth_type,
    capabilities = excluded.capabilities,
    tags = excluded.tags,
    metadata = excluded.metadata,
    health_check = excluded.health_check,
    source = 'file',
    updated_at = clock_timestamp()
WHERE
    (
        servers.name, servers.description, servers.version, servers.category, servers.endpoint, servers.protocol,
        servers.auth_type, servers.capabilities, servers.tags, servers.metadata, servers.health_check, servers.source
    ) IS DISTINCT FROM (
        excluded.name, excluded.description, excluded.version, excluded.category, excluded.endpoint, excluded.protocol,
        excluded.auth_type, excluded.capabilities, excluded.tags, excluded.metadata, excluded.health_check, 'file'
    );

-- name: forget_file_servers
-- Servers of a file that no process has any more. $1, $2: tenants and ids of those that stand in ours.
DELETE FROM hub.servers
WHERE
    source = 'file'
    AND (lease_until IS NULL OR lease_until < now() - interval '5 minutes')
    AND updated_at < now() - interval '5 minutes'
    AND (tenant_id, server_id) NOT IN (SELECT * FROM unnest($1::text[], $2::text[]));

-- name: put_secret
INSERT INTO hub.server_secrets (tenant_id, server_id, sealed) VALUES ($1, $2, $3)
ON CONFLICT (tenant_id, server_id) DO UPDATE SET sealed = excluded.sealed;

-- name: delete_server
DELETE FROM hub.servers WHERE tenant_id = $1 AND server_id = $2 AND source = 'api' RETURNING server_id;

-- name: hold_leases
-- The servers that this process probes from now on: its own, and those that nobody holds. $1: this process; $2: for how
-- long, in ms; $3, $4: tenants and ids of the operator's file, whose commands only those know who have the file.
WITH free AS (
    SELECT tenant_id, server_id
    FROM hub.servers
    WHERE
        (lease_holder = $1 OR lease_until IS NULL OR lease_until < now())
        AND (health_check ->> 'enabled')::boolean
        AND (source = 'api' OR (tenant_id, server_id) IN (SELECT * FROM unnest($3::text[], $4::text[])))
    ORDER BY tenant_id, server_id
    FOR UPDATE SKIP LOCKED
),

held AS (
    UPDATE hub.servers AS server
    SET lease_holder = $1, lease_until = now() + $2 * interval '1 millisecond'
    FROM free
    WHERE server.tenant_id = free.tenant_id AND server.server_id = free.server_id
    RETURNING server.*
)

SELECT
    held.*,
    secret.sealed,
    now() AS read_at,
    (
        SELECT max(open_window.ends_at)
        FROM hub.maintenance_windows AS open_window
        WHERE
            open_window.tenant_id = held.tenant_id
            AND open_window.server_id = held.server_id
            AND open_window.cancelled_at IS NULL
            AND open_window.starts_at <= now()
            AND open_window.ends_at > now()
    ) AS maintenance_until
FROM held
LEFT JOIN hub.server_secrets AS secret USING (tenant_id, server_id);

-- name: record_health
-- What a probe found, unless the lease was lost meanwhile: then another process knows better.
UPDATE hub.servers
SET
    state = $4,
    state_since = $5,
    checked_at = $6,
    valid_until = $7,
    latency_ms = $8,
    error_type = $9,
    error_message = $10,
    memory = $11::jsonb
WHERE tenant_id = $2 AND server_id = $3 AND lease_holder = $1 AND lease_until > now()
RETURNING true;

-- name: release_leases
UPDATE hub.servers SET lease_holder = NULL, lease_until = NULL WHERE lease_holder = $1;

-- name: insert_window
INSERT INTO hub.maintenance_windows (tenant_id, window_id, server_id, starts_at, ends_at, reason, source)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (tenant_id, window_id) DO NOTHING
RETURNING window_id;

-- name: count_windows
SELECT count(*) FROM hub.maintenance_windows
WHERE tenant_id = $1 AND server_id = $2 AND cancelled_at IS NULL AND ends_at > now();

-- name: cancel_window
UPDATE hub.maintenance_windows SET cancelled_at = clock_timestamp()
WHERE tenant_id = $1 AND server_id = $2 AND window_id = $3 AND cancelled_at IS NULL AND ends_at > now()
RETURNING window_id;

-- name: windows_of
-- $2: a server or null; $3: those that are over and those that were cancelled, too.
SELECT window_id, server_id, starts_at, ends_at, reason, source, created_at, cancelled_at
FROM hub.maintenance_windows
WHERE
    tenant_id = $1
    AND ($2::text IS NULL OR server_id = $2)
    AND ($3 OR (cancelled_at IS NULL AND ends_at > now()))
ORDER BY starts_at, window_id
LIMIT 1000;
