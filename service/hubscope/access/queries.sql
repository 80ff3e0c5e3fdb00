-- name: any_key
-- Whether there has ever been a key: from then on loopback is not trusted any more, not even when all have expired.
SELECT EXISTS (SELECT FROM hub.api_keys) AS ever;

-- name: known_keys
-- Every key that is not revoked, those that expired lately included: their holders are told why they are refused.
SELECT tenant_id, key_id, name, owner, scopes, hash, pepper_id, expires_at
FROM hub.api_keys
WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now() - interval '30 days');

-- name: note_use
-- Remember when keys were used last: $1 ids, $2 times. Never backwards, so replicas do not undo each other.
UPDATE hub.api_keys AS keys
SET last_used_at = used.at
FROM unnest($1::text[], $2::timestamptz[]) AS used (key_id, at)
WHERE keys.key_id = used.key_id AND (keys.last_used_at IS NULL OR keys.last_used_at < used.at);

-- name: insert_key
INSERT INTO hub.api_keys (tenant_id, key_id, name, owner, scopes, hash, pepper_id, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
RETURNING *;

-- name: live_keys_of
-- The live keys of a tenant ($1) that have a name ($2), oldest first.
SELECT * FROM hub.api_keys
WHERE tenant_id = $1 AND name = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
ORDER BY created_at, key_id;

-- name: key_by_id
SELECT * FROM hub.api_keys WHERE key_id = $1;

-- name: list_keys
-- Keys by tenant and name; $1 is a tenant or null for all, $2 whether revoked and expired ones are wanted, too.
SELECT * FROM hub.api_keys
WHERE ($1::text IS NULL OR tenant_id = $1)
    AND ($2::boolean OR (revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())))
ORDER BY tenant_id, name, created_at, key_id;

-- name: revoke_key
-- From now on, for ever. A key that is revoked already keeps its time.
UPDATE hub.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE key_id = $1 RETURNING *;

-- name: shorten_key
-- Let a key ($1) end at $2 at the latest.
UPDATE hub.api_keys SET expires_at = least(expires_at, $2) WHERE key_id = $1 RETURNING *;
