-- Live updates: who writes into the outbox, how it is numbered, what the log forgets. Tables: migration 0013.

-- Tell something, in the transaction of what is told: both happen, or neither. A move of a store is no news: it sets
-- hubscope.quiet.
CREATE OR REPLACE FUNCTION hub.tell(
    tenant text, topic text, name text, subject text, server text, at timestamptz, payload jsonb
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('hubscope.quiet', true) = 'on' THEN
        RETURN;
    END IF;
    INSERT INTO hub.stream_outbox (tenant_id, topic, name, subject, server, time, payload)
    VALUES (tenant, topic, name, coalesce(subject, ''), server, coalesce(at, clock_timestamp()), coalesce(payload, '{}'));
END
$$;
REVOKE ALL ON FUNCTION hub.tell(text, text, text, text, text, timestamptz, jsonb) FROM PUBLIC;

-- Tell what was reported to ingest. Where a state is given, only if it differs from the one that was told last of that
-- server, and did not happen before it. Rows of states are locked in the order of their keys, and only to change them.
CREATE OR REPLACE FUNCTION hub.tell_reported(
    tenants text[], topics text[], names text[], subjects text[], servers text[], times timestamptz[], payloads jsonb[],
    hubs text[], states text[]
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    one record;
    known record;
    told integer := 0;
BEGIN
    FOR one IN
        SELECT *
        FROM unnest(tenants, topics, names, subjects, servers, times, payloads, hubs, states)
            WITH ORDINALITY AS news (tenant, topic, name, subject, server, time, payload, hub, state, place)
        ORDER BY CASE WHEN state IS NULL THEN 0 ELSE 1 END, CASE WHEN state IS NOT NULL THEN tenant END,
            CASE WHEN state IS NOT NULL THEN hub END, CASE WHEN state IS NOT NULL THEN server END,
            CASE WHEN state IS NOT NULL THEN time END, place
    LOOP
        IF one.state IS NOT NULL THEN
            SELECT state, since INTO known FROM hub.server_states AS kept
            WHERE kept.tenant_id = one.tenant AND kept.hub = one.hub AND kept.server = one.server;
            CONTINUE WHEN FOUND AND (known.state = one.state OR known.since > one.time);
            INSERT INTO hub.server_states (tenant_id, hub, server, state, since)
            VALUES (one.tenant, one.hub, one.server, '', '-infinity')
            ON CONFLICT (tenant_id, hub, server) DO NOTHING;
            SELECT state, since INTO known FROM hub.server_states AS kept
            WHERE kept.tenant_id = one.tenant AND kept.hub = one.hub AND kept.server = one.server
            FOR UPDATE;
            -- Another writer may have told the same meanwhile.
            CONTINUE WHEN known.state = one.state OR known.since > one.time;
            UPDATE hub.server_states AS kept SET state = one.state, since = one.time
            WHERE kept.tenant_id = one.tenant AND kept.hub = one.hub AND kept.server = one.server;
            one.payload := jsonb_build_object('before', nullif(known.state, '')) || one.payload;
        END IF;
        PERFORM hub.tell(one.tenant, one.topic, one.name, one.subject, one.server, one.time, one.payload);
        told := told + 1;
    END LOOP;
    RETURN told;
END
$$;
REVOKE ALL ON FUNCTION hub.tell_reported(
    text[], text[], text[], text[], text[], timestamptz[], jsonb[], text[], text[]
) FROM PUBLIC;

-- Number what is committed, and move it into the log. Returns how many events; null where another process numbers.
--
-- Whoever numbers holds the lock on the one row of ops.stream_sequencer until its commit, and looks at outbox and heads
-- after it has it. So every event of the numbers before is visible to whoever sees a number, and a process that believes
-- in a lease that it has lost can do no harm: the lease only saves the others the trouble.
CREATE OR REPLACE FUNCTION hub.sequence_stream(me uuid, lease_ms integer, most integer, most_bytes integer)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lease record;
    moved integer;
BEGIN
    -- The cheap look, which writes nothing.
    SELECT holder, until INTO lease FROM ops.stream_sequencer;
    IF lease.holder <> me AND lease.until > clock_timestamp() THEN
        RETURN NULL;
    ELSIF lease.holder = me AND lease.until > clock_timestamp() + lease_ms * interval '0.5 milliseconds'
        AND NOT EXISTS (SELECT FROM hub.stream_outbox)
    THEN
        RETURN 0;
    END IF;

    SELECT holder, until INTO lease FROM ops.stream_sequencer FOR UPDATE SKIP LOCKED;
    IF NOT FOUND OR (lease.holder <> me AND lease.until > clock_timestamp()) THEN
        RETURN NULL;
    END IF;
    IF lease.holder <> me OR lease.until < clock_timestamp() + lease_ms * interval '0.5 milliseconds' THEN
        UPDATE ops.stream_sequencer
        SET holder = me, until = clock_timestamp() + lease_ms * interval '1 millisecond';
    END IF;

    WITH due AS (
        SELECT tenant_id, id FROM hub.stream_outbox ORDER BY id LIMIT most
    ), taken AS (
        DELETE FROM hub.stream_outbox AS waiting USING due
        WHERE waiting.tenant_id = due.tenant_id AND waiting.id = due.id
        RETURNING waiting.*
    ), counted AS (
        SELECT tenant_id, count(*) AS events FROM taken GROUP BY tenant_id
    ), heads AS (
        INSERT INTO hub.stream_heads AS head (tenant_id, last_seq)
        SELECT tenant_id, events FROM counted
        ON CONFLICT (tenant_id) DO UPDATE SET last_seq = head.last_seq + excluded.last_seq
        RETURNING tenant_id, last_seq
    )
    INSERT INTO hub.stream_events (tenant_id, seq, topic, name, subject, server, time, written_at, payload)
    SELECT
        taken.tenant_id,
        heads.last_seq - counted.events + row_number() OVER (PARTITION BY taken.tenant_id ORDER BY taken.id),
        taken.topic, taken.name, taken.subject, taken.server, taken.time, taken.written_at,
        CASE WHEN octet_length(taken.payload::text) > most_bytes
            THEN jsonb_build_object('truncated', true, 'bytes', octet_length(taken.payload::text))
            ELSE taken.payload
        END
    FROM taken
    INNER JOIN counted USING (tenant_id)
    INNER JOIN heads USING (tenant_id);
    GET DIAGNOSTICS moved = ROW_COUNT;
    RETURN moved;
END
$$;
REVOKE ALL ON FUNCTION hub.sequence_stream(uuid, integer, integer, integer) FROM PUBLIC;

-- Let the next one number at once.
CREATE OR REPLACE FUNCTION hub.release_stream(me uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
UPDATE ops.stream_sequencer SET until = '-infinity' WHERE holder = me
$$;
REVOKE ALL ON FUNCTION hub.release_stream(uuid) FROM PUBLIC;

-- Forget what is too old or too much, oldest first, tenant by tenant. What is told of the beginning of the log changes in
-- the same transaction.
CREATE OR REPLACE FUNCTION hub.prune_stream(most_events bigint, oldest timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    head record;
    keep bigint;
    gone bigint := 0;
    taken bigint;
BEGIN
    FOR head IN SELECT * FROM hub.stream_heads WHERE first_seq <= last_seq ORDER BY tenant_id LOOP
        keep := coalesce(
            (
                SELECT event.seq FROM hub.stream_events AS event
                WHERE event.tenant_id = head.tenant_id AND event.numbered_at >= oldest
                ORDER BY event.seq LIMIT 1
            ),
            head.last_seq + 1
        );
        keep := greatest(keep, head.last_seq - most_events + 1);
        CONTINUE WHEN keep <= head.first_seq;
        DELETE FROM hub.stream_events WHERE tenant_id = head.tenant_id AND seq < keep;
        GET DIAGNOSTICS taken = ROW_COUNT;
        UPDATE hub.stream_heads SET first_seq = keep WHERE tenant_id = head.tenant_id;
        gone := gone + taken;
    END LOOP;
    RETURN gone;
END
$$;
REVOKE ALL ON FUNCTION hub.prune_stream(bigint, timestamptz) FROM PUBLIC;

-- Chains

CREATE OR REPLACE FUNCTION hub.tell_chain() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    said text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        said := 'chain_started';
    ELSIF NEW.status = OLD.status THEN
        said := 'chain_cancel_requested';
    ELSIF NEW.status = 'running' THEN
        said := 'chain_resumed';
    ELSE
        said := 'chain_' || NEW.status;
    END IF;
    PERFORM hub.tell(
        NEW.tenant_id, 'chain', said, NEW.chain_id::text, NULL, NEW.updated_at,
        jsonb_build_object(
            'chain_id', NEW.chain_id, 'status', NEW.status, 'progress_percent', NEW.progress_percent,
            'completed_steps', NEW.completed_steps, 'total_steps', NEW.total_steps, 'failed_steps', NEW.failed_steps,
            'skipped_steps', NEW.skipped_steps, 'duration_ms', NEW.duration_ms, 'runs', NEW.runs,
            'error_message', NEW.error_message, 'metadata', NEW.metadata
        )
    );
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION hub.tell_chain() FROM PUBLIC;

CREATE OR REPLACE TRIGGER tell_begun AFTER INSERT ON hub.enhanced_tool_chain_executions
FOR EACH ROW EXECUTE FUNCTION hub.tell_chain();
CREATE OR REPLACE TRIGGER tell_changed AFTER UPDATE ON hub.enhanced_tool_chain_executions
FOR EACH ROW
WHEN (OLD.status <> NEW.status OR (NEW.cancel_requested AND NOT OLD.cancel_requested))
EXECUTE FUNCTION hub.tell_chain();

CREATE OR REPLACE FUNCTION hub.tell_chain_step() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    chain record;
BEGIN
    -- The row of the chain was written by the same statement.
    SELECT status, progress_percent, completed_steps, total_steps INTO chain
    FROM hub.enhanced_tool_chain_executions WHERE tenant_id = NEW.tenant_id AND chain_id = NEW.chain_id;
    PERFORM hub.tell(
        NEW.tenant_id, 'chain', 'step_' || NEW.status, NEW.chain_id::text, NEW.server_name, NEW.updated_at,
        jsonb_build_object(
            'chain_id', NEW.chain_id, 'status', chain.status, 'progress_percent', chain.progress_percent,
            'completed_steps', chain.completed_steps, 'total_steps', chain.total_steps,
            'step', jsonb_build_object(
                'id', NEW.step_name, 'index', NEW.step_index, 'server', NEW.server_name, 'tool', NEW.tool_name,
                'parallel_group', NEW.parallel_group, 'status', NEW.status, 'reason', NEW.reason,
                'attempts', jsonb_array_length(NEW.attempts), 'started_at', NEW.started_at,
                'completed_at', NEW.completed_at, 'duration_ms', NEW.duration_ms, 'error_type', NEW.error_type,
                'error_message', NEW.error_message, 'result_bytes', NEW.result_bytes
            )
        )
    );
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION hub.tell_chain_step() FROM PUBLIC;

CREATE OR REPLACE TRIGGER tell_changed AFTER UPDATE ON hub.enhanced_chain_execution_steps
FOR EACH ROW
WHEN (OLD.status <> NEW.status OR OLD.attempts <> NEW.attempts)
EXECUTE FUNCTION hub.tell_chain_step();

-- Servers: registrations (how they are comes through ingest), and their maintenance windows

CREATE OR REPLACE FUNCTION hub.tell_server() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    it hub.servers := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    said text := CASE TG_OP
        WHEN 'INSERT' THEN 'server_registered' WHEN 'DELETE' THEN 'server_unregistered' ELSE 'server_changed'
    END;
BEGIN
    -- Neither address nor authentication.
    PERFORM hub.tell(
        it.tenant_id, 'metadata', said, it.server_id, it.server_id, clock_timestamp(),
        jsonb_build_object(
            'server', it.server_id, 'name', it.name, 'version', it.version, 'category', it.category,
            'protocol', it.protocol, 'capabilities', it.capabilities, 'tags', it.tags, 'source', it.source
        )
    );
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION hub.tell_server() FROM PUBLIC;

CREATE OR REPLACE TRIGGER tell_there AFTER INSERT OR DELETE ON hub.servers
FOR EACH ROW EXECUTE FUNCTION hub.tell_server();
-- Not for leases and health, which are written all the time.
CREATE OR REPLACE TRIGGER tell_changed AFTER UPDATE ON hub.servers
FOR EACH ROW WHEN (OLD.updated_at <> NEW.updated_at) EXECUTE FUNCTION hub.tell_server();

CREATE OR REPLACE FUNCTION hub.tell_maintenance() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM hub.tell(
        NEW.tenant_id, 'health', CASE TG_OP WHEN 'INSERT' THEN 'maintenance_planned' ELSE 'maintenance_cancelled' END,
        NEW.server_id, NEW.server_id, clock_timestamp(),
        jsonb_build_object(
            'server', NEW.server_id, 'window', NEW.window_id, 'from', NEW.starts_at, 'until', NEW.ends_at,
            'reason', NEW.reason, 'source', NEW.source, 'cancelled_at', NEW.cancelled_at
        )
    );
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION hub.tell_maintenance() FROM PUBLIC;

CREATE OR REPLACE TRIGGER tell_planned AFTER INSERT ON hub.maintenance_windows
FOR EACH ROW EXECUTE FUNCTION hub.tell_maintenance();
CREATE OR REPLACE TRIGGER tell_cancelled AFTER UPDATE ON hub.maintenance_windows
FOR EACH ROW WHEN (OLD.cancelled_at IS NULL AND NEW.cancelled_at IS NOT NULL) EXECUTE FUNCTION hub.tell_maintenance();

-- The audit log

CREATE OR REPLACE FUNCTION hub.tell_audit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM hub.tell(
        NEW.tenant_id, 'audit', NEW.event_type, NEW.resource_type || '/' || NEW.resource_id, NULL, NEW.time,
        to_jsonb(NEW) - 'tenant_id'
    );
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION hub.tell_audit() FROM PUBLIC;

CREATE OR REPLACE TRIGGER tell AFTER INSERT ON hub.security_audit_log
FOR EACH ROW EXECUTE FUNCTION hub.tell_audit();

-- Jobs that renew what an analyst reads. They are about the rows of all tenants, so each is told, and none of them more
-- than that it happened and how long it took.

CREATE OR REPLACE FUNCTION hub.tell_job() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM hub.tell(
        known.tenant_id, 'analytics',
        CASE NEW.job
            WHEN 'build_marts' THEN 'marts_built'
            WHEN 'check_quality' THEN 'quality_checked'
            WHEN 'refresh_rollups' THEN 'rollups_refreshed'
            WHEN 'recount' THEN 'rollups_recounted'
            ELSE 'retention_done'
        END,
        NEW.job, NULL, NEW.finished_at,
        jsonb_build_object('job', NEW.job, 'ok', NEW.ok, 'seconds', NEW.detail -> 'seconds')
    )
    FROM (
        SELECT 'default' AS tenant_id
        UNION
        SELECT tenant_id FROM hub.stream_heads
        UNION
        SELECT tenant_id FROM hub.api_keys
        WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
    ) AS known
    ORDER BY known.tenant_id;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION hub.tell_job() FROM PUBLIC;

CREATE OR REPLACE TRIGGER tell AFTER UPDATE ON ops.job_runs
FOR EACH ROW
WHEN (
    OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL
    AND NEW.job IN ('build_marts', 'check_quality', 'refresh_rollups', 'recount', 'retention')
)
EXECUTE FUNCTION hub.tell_job();
