-- One row per security event that hubscope itself has seen: who asked for what, and what came of it. Only ever appended
-- to. Partitions are months (UTC) of recorded_at, made ahead by ops.ensure_audit_partitions; retention takes whole ones.

CREATE TABLE hub.security_audit_log (
    tenant_id text NOT NULL DEFAULT 'default',
    -- made by the writer; a record that is written again after a commit of unknown outcome keeps its id
    id uuid NOT NULL,
    -- by the clock of this server: the writer may not name it (900_grants)
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- by the clock of the process that saw it
    time timestamptz NOT NULL,
    event_type text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('info', 'low', 'medium', 'high', 'critical')),
    resource_type text NOT NULL,
    resource_id text NOT NULL,
    action text NOT NULL,
    status text NOT NULL,
    actor text NOT NULL DEFAULT '',
    owner text NOT NULL DEFAULT '',
    user_agent text NOT NULL DEFAULT '',
    session_id text NOT NULL DEFAULT '',
    request_id text NOT NULL DEFAULT '',
    address text NOT NULL DEFAULT '',
    permissions text[] NOT NULL DEFAULT '{}',
    description text NOT NULL DEFAULT '',
    details jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, recorded_at, id)
) PARTITION BY RANGE (recorded_at);

-- Nobody has the right to change or delete a record; this refuses the owner of the table, too.
CREATE FUNCTION hub.refuse_audit_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'hub.security_audit_log is only ever appended to: % is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON hub.security_audit_log
FOR EACH ROW EXECUTE FUNCTION hub.refuse_audit_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON hub.security_audit_log
FOR EACH STATEMENT EXECUTE FUNCTION hub.refuse_audit_change();
