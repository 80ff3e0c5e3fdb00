-- name: engine
SELECT engine FROM ops.store;

-- name: ensure_partitions
SELECT ops.ensure_partitions($1::date, $2::date);

-- name: lock_names
-- One process at a time admits names of a tenant, so that limits hold across replicas.
SELECT pg_advisory_xact_lock(hashtextextended('hubscope.names ' || $1::text, 0));

-- name: known_names
SELECT kind, server, name FROM hub.known_names WHERE tenant_id = $1;

-- name: admit_names
-- Admits names in the order given as far as there is room for the kind ($5); tools only of servers that are admitted.
INSERT INTO hub.known_names (tenant_id, kind, server, name)
SELECT $1, $2, fresh.server, fresh.name
FROM (
    SELECT wanted.server, wanted.name
    FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS wanted (server, name, place)
    WHERE
        NOT EXISTS (
            SELECT 1 FROM hub.known_names AS known
            WHERE
                known.tenant_id = $1 AND known.kind = $2 AND known.server = wanted.server AND known.name = wanted.name
        )
        AND (
            $2 <> 'tool'
            OR EXISTS (
                SELECT 1 FROM hub.known_names AS known
                WHERE known.tenant_id = $1 AND known.kind = 'server' AND known.server = '' AND known.name = wanted.server
            )
        )
    ORDER BY wanted.place
    LIMIT greatest(0, $5::bigint - (SELECT count(*) FROM hub.known_names WHERE tenant_id = $1 AND kind = $2))
) AS fresh
ON CONFLICT DO NOTHING;

-- name: counting_vantages
SELECT server, since, vantage FROM hub.counting_vantages WHERE tenant_id = $1 ORDER BY server, since;

-- name: first_vantage
-- A server's first vantage is in force from the beginning; of two at once the first to come stays.
INSERT INTO hub.counting_vantages (tenant_id, server, since, vantage)
VALUES ($1, $2, 'epoch', $3)
ON CONFLICT DO NOTHING;

-- name: switch_vantage
-- From the next whole minute after $4 seconds on, which no event that was accepted anywhere has reached.
INSERT INTO hub.counting_vantages (tenant_id, server, since, vantage)
SELECT $1, $2, date_trunc('minute', now() + make_interval(secs => $4::double precision + 60)), $3
WHERE $3 IS DISTINCT FROM (
    SELECT vantage FROM hub.counting_vantages WHERE tenant_id = $1 AND server = $2 ORDER BY since DESC LIMIT 1
)
ON CONFLICT DO NOTHING;

-- name: counted_lately
-- Whether any replica stored a counted call of the server within so many seconds.
SELECT EXISTS (
    SELECT 1 FROM raw.tool_calls
    WHERE tenant_id = $1 AND server = $2 AND counted AND time > now() - make_interval(secs => $3::double precision)
);

-- name: tell_reported
-- To the stream of live updates: tenants, topics, names, subjects, servers, times, payloads, hubs, states.
SELECT hub.tell_reported(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::jsonb[], $8::text[], $9::text[]
);
