-- One row per API key ever made. What is kept of a key is an HMAC-SHA-256 under a pepper that is not in the database.
-- Who may: the owner writes; the writer (the serving process) reads and notes the last use; nobody else sees it.

CREATE TABLE hub.api_keys (
    tenant_id text NOT NULL DEFAULT 'default' CHECK (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    -- 71 random bits, so one id is one key over all tenants. There are few keys, and the service reads all of them at
    -- once: nothing looks one up by its id alone that a scan would not serve
    key_id text NOT NULL CHECK (key_id ~ '^[0-9A-Za-z]{12}$'),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    owner text NOT NULL DEFAULT '' CHECK (length(owner) <= 200),
    scopes text[] NOT NULL
        CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['ingest', 'read', 'chains', 'sql', 'admin']),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    -- names the pepper that the hash was made under
    pepper_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz,
    -- to the minute or so
    last_used_at timestamptz,
    PRIMARY KEY (tenant_id, key_id)
);
CREATE INDEX api_keys_by_name ON hub.api_keys (tenant_id, name) WHERE revoked_at IS NULL;
