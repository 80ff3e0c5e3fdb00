-- name: append
-- One record. recorded_at is the server's.
INSERT INTO hub.security_audit_log (
    tenant_id, id, time, event_type, severity, resource_type, resource_id, action, status, actor, owner, user_agent,
    session_id, request_id, address, permissions, description, details
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18::jsonb)

-- name: sequence
-- Number what is committed. $1: this process; $2: its lease in ms; $3: most events at once; $4: most bytes of a payload.
SELECT hub.sequence_stream($1, $2, $3, $4)

-- name: release
SELECT hub.release_stream($1)

-- name: prune
-- $1: most events of a tenant; $2: for how many hours they are kept.
SELECT hub.prune_stream($1, clock_timestamp() - make_interval(hours => $2))

-- name: heads
-- Where the logs of tenants begin and end; a tenant that was never told anything has none.
SELECT tenant_id, first_seq, last_seq FROM hub.stream_heads WHERE tenant_id = ANY ($1::text[])

-- name: events_after
-- The next events of several tenants, at most $3 of each. $1: tenants; $2: the last that is known of each.
SELECT
    event.tenant_id, event.seq, event.topic, event.name, event.subject, event.server, event.time, event.written_at,
    event.payload::text AS payload
FROM unnest($1::text[], $2::bigint[]) AS wanted (tenant_id, last_seq)
CROSS JOIN LATERAL (
    SELECT * FROM hub.stream_events AS log
    WHERE log.tenant_id = wanted.tenant_id AND log.seq > wanted.last_seq
    ORDER BY log.seq
    LIMIT $3
) AS event
ORDER BY event.tenant_id, event.seq
