-- name: append
-- One record. recorded_at is the server's.
INSERT INTO hub.security_audit_log (
    tenant_id, id, time, event_type, severity, resource_type, resource_id, action, status, actor, owner, user_agent,
    session_id, request_id, address, permissions, description, details
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18::jsonb)
