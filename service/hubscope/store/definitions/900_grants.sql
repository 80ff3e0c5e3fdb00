-- Who may do what, stated whole each time: each process uses the least it needs.
--   writer   appends to raw and to what the rollups need; reads raw only as far as a duplicate check needs
--   worker   reads everything, folds, owns the mart schemas
--   reader   reads marts and state, never raw and never rollup
--   grafana  reads marts
--   tenant   reads one tenant's rows of the marts, through the views of schema tenant

REVOKE ALL ON ALL TABLES IN SCHEMA raw, rollup, hub, ops FROM :writer, :worker, :reader, :grafana, :tenant;

GRANT USAGE ON SCHEMA raw, rollup, hub, ops TO :writer, :worker;
GRANT SELECT, INSERT ON raw.tool_calls, raw.server_events, raw.hub_events TO :writer;
GRANT EXECUTE ON FUNCTION ops.ensure_partitions(date, date) TO :writer, :worker;
-- Ingest admits names and decides about vantages; neither is ever taken back.
GRANT SELECT, INSERT ON hub.known_names, hub.counting_vantages TO :writer;
-- The serving process runs chains and writes down how they are; what happened is deleted by nobody but retention.
GRANT SELECT, INSERT, UPDATE ON hub.enhanced_tool_chain_executions, hub.enhanced_chain_execution_steps TO :writer;

GRANT SELECT ON ALL TABLES IN SCHEMA raw, rollup, hub, ops TO :worker;
ALTER DEFAULT PRIVILEGES FOR ROLE :owner IN SCHEMA raw GRANT SELECT ON TABLES TO :worker;
-- Keys: the serving process compares and notes the last use; what proves a key is for nobody else to see.
REVOKE ALL ON hub.api_keys FROM :worker;
GRANT SELECT, UPDATE (last_used_at) ON hub.api_keys TO :writer;
-- Audit records are appended, and stamped by the server: the writer names every column but recorded_at, and reads none.
GRANT INSERT (
    tenant_id, id, time, event_type, severity, resource_type, resource_id, action, status, actor, owner, user_agent,
    session_id, request_id, address, permissions, description, details
) ON hub.security_audit_log TO :writer;
GRANT EXECUTE ON FUNCTION ops.ensure_audit_partitions(date, date) TO :writer, :worker;
-- Servers: the serving process registers and watches; what proves us to them is for nobody else to see.
GRANT SELECT, INSERT, UPDATE, DELETE ON hub.servers TO :writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON hub.server_secrets TO :writer;
GRANT SELECT, INSERT, UPDATE ON hub.maintenance_windows TO :writer;
REVOKE ALL ON hub.server_secrets FROM :worker;
-- Live updates: what is told is written by functions and triggers; the serving process numbers it and sends it on.
GRANT SELECT ON hub.stream_heads, hub.stream_events TO :writer, :reader;
GRANT EXECUTE ON FUNCTION hub.tell(text, text, text, text, text, timestamptz, jsonb) TO :writer, :worker;
GRANT EXECUTE ON FUNCTION hub.tell_reported(
    text[], text[], text[], text[], text[], timestamptz[], jsonb[], text[], text[]
) TO :writer;
GRANT EXECUTE ON FUNCTION hub.sequence_stream(uuid, integer, integer, integer) TO :writer;
GRANT EXECUTE ON FUNCTION hub.release_stream(uuid) TO :writer;
GRANT EXECUTE ON FUNCTION hub.prune_stream(bigint, timestamptz) TO :writer;
GRANT INSERT, UPDATE, DELETE ON ops.job_runs, ops.quality_results, ops.touched_hours TO :worker;

-- Percentile functions stand in rollup; readers call them on what marts give them.
GRANT USAGE ON SCHEMA rollup, hub, ops TO :reader;
GRANT USAGE ON SCHEMA rollup TO :grafana;
GRANT SELECT ON ops.migrations, ops.store TO :reader;
GRANT SELECT ON ops.store TO :writer;
REVOKE ALL ON FUNCTION ops.read_database_job_errors() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.read_database_job_errors() TO :worker, :reader, :grafana;
GRANT USAGE ON SCHEMA analytics, health, uptime, audit TO :reader, :grafana;
GRANT SELECT ON ALL TABLES IN SCHEMA analytics, health, uptime, audit TO :reader, :grafana;
ALTER DEFAULT PRIVILEGES FOR ROLE :worker IN SCHEMA analytics, health, uptime, audit
    GRANT SELECT ON TABLES TO :reader, :grafana;

-- What a tenant may ask in SQL: the views of its own rows, and nothing that they are made of.
GRANT USAGE ON SCHEMA tenant TO :tenant;
GRANT USAGE ON SCHEMA rollup TO :tenant;  -- for the functions of latency
GRANT SELECT ON ALL TABLES IN SCHEMA tenant TO :tenant;
ALTER DEFAULT PRIVILEGES FOR ROLE :worker IN SCHEMA tenant GRANT SELECT ON TABLES TO :tenant;
