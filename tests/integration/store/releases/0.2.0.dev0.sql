--
-- PostgreSQL database dump
--



SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: analytics; Type: SCHEMA; Schema: -; Owner: hubscope_test_worker
--

CREATE SCHEMA analytics;


ALTER SCHEMA analytics OWNER TO hubscope_test_worker;

--
-- Name: audit; Type: SCHEMA; Schema: -; Owner: hubscope_test_worker
--

CREATE SCHEMA audit;


ALTER SCHEMA audit OWNER TO hubscope_test_worker;

--
-- Name: health; Type: SCHEMA; Schema: -; Owner: hubscope_test_worker
--

CREATE SCHEMA health;


ALTER SCHEMA health OWNER TO hubscope_test_worker;

--
-- Name: hub; Type: SCHEMA; Schema: -; Owner: hubscope_test_owner
--

CREATE SCHEMA hub;


ALTER SCHEMA hub OWNER TO hubscope_test_owner;

--
-- Name: ops; Type: SCHEMA; Schema: -; Owner: hubscope_test_owner
--

CREATE SCHEMA ops;


ALTER SCHEMA ops OWNER TO hubscope_test_owner;

--
-- Name: raw; Type: SCHEMA; Schema: -; Owner: hubscope_test_owner
--

CREATE SCHEMA raw;


ALTER SCHEMA raw OWNER TO hubscope_test_owner;

--
-- Name: rollup; Type: SCHEMA; Schema: -; Owner: hubscope_test_owner
--

CREATE SCHEMA rollup;


ALTER SCHEMA rollup OWNER TO hubscope_test_owner;

--
-- Name: tenant; Type: SCHEMA; Schema: -; Owner: hubscope_test_worker
--

CREATE SCHEMA tenant;


ALTER SCHEMA tenant OWNER TO hubscope_test_worker;

--
-- Name: SCHEMA tenant; Type: COMMENT; Schema: -; Owner: hubscope_test_worker
--

COMMENT ON SCHEMA tenant IS 'The rows of one tenant: of the one that the session says (hubscope.tenant). Without one, none.';


--
-- Name: uptime; Type: SCHEMA; Schema: -; Owner: hubscope_test_worker
--

CREATE SCHEMA uptime;


ALTER SCHEMA uptime OWNER TO hubscope_test_worker;

--
-- Name: btree_gin; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS btree_gin WITH SCHEMA public;


--
-- Name: EXTENSION btree_gin; Type: COMMENT; Schema: -; Owner: 
--

COMMENT ON EXTENSION btree_gin IS 'support for indexing common datatypes in GIN';


--
-- Name: refuse_audit_change(); Type: FUNCTION; Schema: hub; Owner: hubscope_test_owner
--

CREATE FUNCTION hub.refuse_audit_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RAISE EXCEPTION 'hub.security_audit_log is only ever appended to: % is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;


ALTER FUNCTION hub.refuse_audit_change() OWNER TO hubscope_test_owner;

--
-- Name: ensure_audit_partitions(date, date); Type: FUNCTION; Schema: ops; Owner: hubscope_test_owner
--

CREATE FUNCTION ops.ensure_audit_partitions(first_day date, last_day date) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    SET "TimeZone" TO 'UTC'
    AS $$
DECLARE
    month date;
    child text;
    made integer := 0;
BEGIN
    IF last_day - first_day > 36600 THEN
        RAISE EXCEPTION 'ensure_audit_partitions: % to % is more than a hundred years', first_day, last_day;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('hubscope.ensure_audit_partitions', 0));
    FOR month IN SELECT generate_series(date_trunc('month', first_day), last_day, interval '1 month')::date LOOP
        child := format('security_audit_log_p%s', to_char(month, 'YYYYMM'));
        CONTINUE WHEN to_regclass(format('hub.%I', child)) IS NOT NULL;
        EXECUTE format(
            'CREATE TABLE hub.%I (LIKE hub.security_audit_log INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', child
        );
        EXECUTE format(
            'ALTER TABLE hub.security_audit_log ATTACH PARTITION hub.%I FOR VALUES FROM (%L) TO (%L)',
            child, month::timestamp AT TIME ZONE 'UTC', (month + interval '1 month')::timestamp AT TIME ZONE 'UTC'
        );
        -- Triggers on rows come with the parent's; those on statements do not.
        EXECUTE format(
            'CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON hub.%I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION hub.refuse_audit_change()', child
        );
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;


ALTER FUNCTION ops.ensure_audit_partitions(first_day date, last_day date) OWNER TO hubscope_test_owner;

--
-- Name: ensure_partitions(date, date); Type: FUNCTION; Schema: ops; Owner: hubscope_test_owner
--

CREATE FUNCTION ops.ensure_partitions(first_day date, last_day date) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    SET "TimeZone" TO 'UTC'
    AS $$
DECLARE
    parent text;
    day date;
    child text;
    made integer := 0;
BEGIN
    IF last_day - first_day > 3700 THEN
        RAISE EXCEPTION 'ensure_partitions: % to % is more than ten years', first_day, last_day;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('hubscope.ensure_partitions', 0));
    FOREACH parent IN ARRAY ARRAY['tool_calls', 'server_events', 'hub_events'] LOOP
        FOR day IN SELECT generate_series(first_day, last_day, interval '1 day')::date LOOP
            child := format('%s_p%s', parent, to_char(day, 'YYYYMMDD'));
            CONTINUE WHEN to_regclass(format('raw.%I', child)) IS NOT NULL;
            EXECUTE format('CREATE TABLE raw.%I (LIKE raw.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', child, parent);
            EXECUTE format(
                'ALTER TABLE raw.%I ATTACH PARTITION raw.%I FOR VALUES FROM (%L) TO (%L)',
                parent, child, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
            );
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;


ALTER FUNCTION ops.ensure_partitions(first_day date, last_day date) OWNER TO hubscope_test_owner;

--
-- Name: read_database_job_errors(); Type: FUNCTION; Schema: ops; Owner: hubscope_test_owner
--

CREATE FUNCTION ops.read_database_job_errors() RETURNS TABLE(job_id integer, job text, errors bigint, last_error_at timestamp with time zone, last_error text)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT NULL::integer AS int4,
     NULL::text AS text,
     NULL::bigint AS int8,
     NULL::timestamp with time zone AS timestamptz,
     NULL::text AS text
   WHERE false;
END;


ALTER FUNCTION ops.read_database_job_errors() OWNER TO hubscope_test_owner;

--
-- Name: check_server_checks_hourly(timestamp with time zone, boolean); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.check_server_checks_hourly(day timestamp with time zone, repair boolean) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    past CONSTANT timestamptz := day + interval '1 day';
    found bigint;
BEGIN
    SELECT count(*) INTO found
    FROM (
        (
            SELECT * FROM rollup.server_checks_hourly AS kept WHERE kept.hour >= $1 AND kept.hour < past
            EXCEPT ALL
            SELECT * FROM rollup.recount_server_checks('hour', $1, past)
        )
        UNION ALL
        (
            SELECT * FROM rollup.recount_server_checks('hour', $1, past)
            EXCEPT ALL
            SELECT * FROM rollup.server_checks_hourly AS kept WHERE kept.hour >= $1 AND kept.hour < past
        )
    ) AS differences;
    IF found = 0 OR NOT repair THEN
        RETURN found;
    END IF;
    DELETE FROM rollup.stored_server_checks_hourly AS stored WHERE stored.hour >= $1 AND stored.hour < past;
    INSERT INTO rollup.stored_server_checks_hourly (
        tenant_id, hour, hub, server, source, checks, up_checks, degraded_checks, down_checks, maintenance_checks,
        unknown_checks, timed_checks, latency_sum_us, latency_max_us, last_check_at
    )
    SELECT
        r.tenant_id, r.unit, r.hub, r.server, r.source, r.checks - coalesce(p.checks, 0),
        r.up_checks - coalesce(p.up_checks, 0), r.degraded_checks - coalesce(p.degraded_checks, 0),
        r.down_checks - coalesce(p.down_checks, 0), r.maintenance_checks - coalesce(p.maintenance_checks, 0),
        r.unknown_checks - coalesce(p.unknown_checks, 0), r.timed_checks - coalesce(p.timed_checks, 0),
        r.latency_sum_us - coalesce(p.latency_sum_us, 0), r.latency_max_us, r.last_check_at
    FROM rollup.recount_server_checks('hour', $1, past) AS r
    LEFT JOIN (
        SELECT
            d.tenant_id, d.hour AS unit, d.hub, d.server, d.source, sum(d.checks)::bigint AS checks,
            sum(d.up_checks)::bigint AS up_checks, sum(d.degraded_checks)::bigint AS degraded_checks,
            sum(d.down_checks)::bigint AS down_checks, sum(d.maintenance_checks)::bigint AS maintenance_checks,
            sum(d.unknown_checks)::bigint AS unknown_checks, sum(d.timed_checks)::bigint AS timed_checks,
            sum(d.latency_sum_us)::bigint AS latency_sum_us
        FROM rollup.pending_server_checks AS d
        WHERE d.hour >= $1 AND d.hour < past
        GROUP BY 1, 2, 3, 4, 5
    ) AS p USING (tenant_id, unit, hub, server, source)
    WHERE r.checks > coalesce(p.checks, 0);
    RETURN found;
END
$_$;


ALTER FUNCTION rollup.check_server_checks_hourly(day timestamp with time zone, repair boolean) OWNER TO hubscope_test_owner;

--
-- Name: check_tool_calls_daily(timestamp with time zone, boolean); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.check_tool_calls_daily(day timestamp with time zone, repair boolean) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    past CONSTANT timestamptz := day + interval '1 day';
    found bigint;
BEGIN
    SELECT count(*) INTO found
    FROM (
        (
            SELECT * FROM rollup.tool_calls_daily AS kept WHERE kept.day >= $1 AND kept.day < past
            EXCEPT ALL
            SELECT * FROM rollup.recount_tool_calls('day', $1, past)
        )
        UNION ALL
        (
            SELECT * FROM rollup.recount_tool_calls('day', $1, past)
            EXCEPT ALL
            SELECT * FROM rollup.tool_calls_daily AS kept WHERE kept.day >= $1 AND kept.day < past
        )
    ) AS differences;
    IF found = 0 OR NOT repair THEN
        RETURN found;
    END IF;
    DELETE FROM rollup.stored_tool_calls_daily AS stored WHERE stored.day >= $1 AND stored.day < past;
    INSERT INTO rollup.stored_tool_calls_daily (
        tenant_id, day, hub, server, tool, transport, client, calls, ok_calls, error_calls, timeout_calls,
        cancelled_calls, denied_calls, timed_calls, duration_sum_us, duration_max_us, request_bytes, response_bytes,
        last_call_at
    )
    SELECT
        r.tenant_id, r.unit, r.hub, r.server, r.tool, r.transport, r.client, r.calls - coalesce(p.calls, 0),
        r.ok_calls - coalesce(p.ok_calls, 0), r.error_calls - coalesce(p.error_calls, 0),
        r.timeout_calls - coalesce(p.timeout_calls, 0), r.cancelled_calls - coalesce(p.cancelled_calls, 0),
        r.denied_calls - coalesce(p.denied_calls, 0), r.timed_calls - coalesce(p.timed_calls, 0),
        r.duration_sum_us - coalesce(p.duration_sum_us, 0), r.duration_max_us,
        r.request_bytes - coalesce(p.request_bytes, 0), r.response_bytes - coalesce(p.response_bytes, 0),
        r.last_call_at
    FROM rollup.recount_tool_calls('day', $1, past) AS r
    LEFT JOIN (
        SELECT
            d.tenant_id, date_trunc('day', d.hour, 'UTC') AS unit, d.hub, d.server, d.tool, d.transport,
            d.client, sum(d.calls)::bigint AS calls, sum(d.ok_calls)::bigint AS ok_calls,
            sum(d.error_calls)::bigint AS error_calls, sum(d.timeout_calls)::bigint AS timeout_calls,
            sum(d.cancelled_calls)::bigint AS cancelled_calls, sum(d.denied_calls)::bigint AS denied_calls,
            sum(d.timed_calls)::bigint AS timed_calls, sum(d.duration_sum_us)::bigint AS duration_sum_us,
            sum(d.request_bytes)::bigint AS request_bytes, sum(d.response_bytes)::bigint AS response_bytes
        FROM rollup.pending_tool_calls AS d
        WHERE d.hour >= $1 AND d.hour < past
        GROUP BY 1, 2, 3, 4, 5, 6, 7
    ) AS p USING (tenant_id, unit, hub, server, tool, transport, client)
    WHERE r.calls > coalesce(p.calls, 0);
    RETURN found;
END
$_$;


ALTER FUNCTION rollup.check_tool_calls_daily(day timestamp with time zone, repair boolean) OWNER TO hubscope_test_owner;

--
-- Name: check_tool_calls_hourly(timestamp with time zone, boolean); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.check_tool_calls_hourly(day timestamp with time zone, repair boolean) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    past CONSTANT timestamptz := day + interval '1 day';
    found bigint;
BEGIN
    SELECT count(*) INTO found
    FROM (
        (
            SELECT * FROM rollup.tool_calls_hourly AS kept WHERE kept.hour >= $1 AND kept.hour < past
            EXCEPT ALL
            SELECT * FROM rollup.recount_tool_calls('hour', $1, past)
        )
        UNION ALL
        (
            SELECT * FROM rollup.recount_tool_calls('hour', $1, past)
            EXCEPT ALL
            SELECT * FROM rollup.tool_calls_hourly AS kept WHERE kept.hour >= $1 AND kept.hour < past
        )
    ) AS differences;
    IF found = 0 OR NOT repair THEN
        RETURN found;
    END IF;
    DELETE FROM rollup.stored_tool_calls_hourly AS stored WHERE stored.hour >= $1 AND stored.hour < past;
    INSERT INTO rollup.stored_tool_calls_hourly (
        tenant_id, hour, hub, server, tool, transport, client, calls, ok_calls, error_calls, timeout_calls,
        cancelled_calls, denied_calls, timed_calls, duration_sum_us, duration_max_us, request_bytes, response_bytes,
        last_call_at
    )
    SELECT
        r.tenant_id, r.unit, r.hub, r.server, r.tool, r.transport, r.client, r.calls - coalesce(p.calls, 0),
        r.ok_calls - coalesce(p.ok_calls, 0), r.error_calls - coalesce(p.error_calls, 0),
        r.timeout_calls - coalesce(p.timeout_calls, 0), r.cancelled_calls - coalesce(p.cancelled_calls, 0),
        r.denied_calls - coalesce(p.denied_calls, 0), r.timed_calls - coalesce(p.timed_calls, 0),
        r.duration_sum_us - coalesce(p.duration_sum_us, 0), r.duration_max_us,
        r.request_bytes - coalesce(p.request_bytes, 0), r.response_bytes - coalesce(p.response_bytes, 0),
        r.last_call_at
    FROM rollup.recount_tool_calls('hour', $1, past) AS r
    LEFT JOIN (
        SELECT
            d.tenant_id, d.hour AS unit, d.hub, d.server, d.tool, d.transport, d.client,
            sum(d.calls)::bigint AS calls, sum(d.ok_calls)::bigint AS ok_calls,
            sum(d.error_calls)::bigint AS error_calls, sum(d.timeout_calls)::bigint AS timeout_calls,
            sum(d.cancelled_calls)::bigint AS cancelled_calls, sum(d.denied_calls)::bigint AS denied_calls,
            sum(d.timed_calls)::bigint AS timed_calls, sum(d.duration_sum_us)::bigint AS duration_sum_us,
            sum(d.request_bytes)::bigint AS request_bytes, sum(d.response_bytes)::bigint AS response_bytes
        FROM rollup.pending_tool_calls AS d
        WHERE d.hour >= $1 AND d.hour < past
        GROUP BY 1, 2, 3, 4, 5, 6, 7
    ) AS p USING (tenant_id, unit, hub, server, tool, transport, client)
    WHERE r.calls > coalesce(p.calls, 0);
    RETURN found;
END
$_$;


ALTER FUNCTION rollup.check_tool_calls_hourly(day timestamp with time zone, repair boolean) OWNER TO hubscope_test_owner;

--
-- Name: check_tool_latency_daily(timestamp with time zone, boolean); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.check_tool_latency_daily(day timestamp with time zone, repair boolean) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    past CONSTANT timestamptz := day + interval '1 day';
    found bigint;
BEGIN
    SELECT count(*) INTO found
    FROM (
        (
            SELECT * FROM rollup.tool_latency_daily AS kept WHERE kept.day >= $1 AND kept.day < past
            EXCEPT ALL
            SELECT * FROM rollup.recount_tool_latency('day', $1, past)
        )
        UNION ALL
        (
            SELECT * FROM rollup.recount_tool_latency('day', $1, past)
            EXCEPT ALL
            SELECT * FROM rollup.tool_latency_daily AS kept WHERE kept.day >= $1 AND kept.day < past
        )
    ) AS differences;
    IF found = 0 OR NOT repair THEN
        RETURN found;
    END IF;
    DELETE FROM rollup.stored_tool_latency_daily AS stored WHERE stored.day >= $1 AND stored.day < past;
    DELETE FROM rollup.packed_tool_latency_daily AS packed WHERE packed.day >= $1 AND packed.day < past;
    INSERT INTO rollup.stored_tool_latency_daily (
        tenant_id, day, hub, server, tool, bucket, calls, max_us
    )
    SELECT
        r.tenant_id, r.unit, r.hub, r.server, r.tool, r.bucket, r.calls - coalesce(p.calls, 0), r.max_us
    FROM rollup.recount_tool_latency('day', $1, past) AS r
    LEFT JOIN (
        SELECT
            d.tenant_id, date_trunc('day', d.hour, 'UTC') AS unit, d.hub, d.server, d.tool, d.bucket,
            sum(d.calls)::bigint AS calls
        FROM rollup.pending_tool_latency AS d
        WHERE d.hour >= $1 AND d.hour < past
        GROUP BY 1, 2, 3, 4, 5, 6
    ) AS p USING (tenant_id, unit, hub, server, tool, bucket)
    WHERE r.calls > coalesce(p.calls, 0);
    RETURN found;
END
$_$;


ALTER FUNCTION rollup.check_tool_latency_daily(day timestamp with time zone, repair boolean) OWNER TO hubscope_test_owner;

--
-- Name: check_tool_latency_hourly(timestamp with time zone, boolean); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.check_tool_latency_hourly(day timestamp with time zone, repair boolean) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    past CONSTANT timestamptz := day + interval '1 day';
    found bigint;
BEGIN
    SELECT count(*) INTO found
    FROM (
        (
            SELECT * FROM rollup.tool_latency_hourly AS kept WHERE kept.hour >= $1 AND kept.hour < past
            EXCEPT ALL
            SELECT * FROM rollup.recount_tool_latency('hour', $1, past)
        )
        UNION ALL
        (
            SELECT * FROM rollup.recount_tool_latency('hour', $1, past)
            EXCEPT ALL
            SELECT * FROM rollup.tool_latency_hourly AS kept WHERE kept.hour >= $1 AND kept.hour < past
        )
    ) AS differences;
    IF found = 0 OR NOT repair THEN
        RETURN found;
    END IF;
    DELETE FROM rollup.stored_tool_latency_hourly AS stored WHERE stored.hour >= $1 AND stored.hour < past;
    INSERT INTO rollup.stored_tool_latency_hourly (
        tenant_id, hour, hub, server, tool, bucket, calls, max_us
    )
    SELECT
        r.tenant_id, r.unit, r.hub, r.server, r.tool, r.bucket, r.calls - coalesce(p.calls, 0), r.max_us
    FROM rollup.recount_tool_latency('hour', $1, past) AS r
    LEFT JOIN (
        SELECT
            d.tenant_id, d.hour AS unit, d.hub, d.server, d.tool, d.bucket, sum(d.calls)::bigint AS calls
        FROM rollup.pending_tool_latency AS d
        WHERE d.hour >= $1 AND d.hour < past
        GROUP BY 1, 2, 3, 4, 5, 6
    ) AS p USING (tenant_id, unit, hub, server, tool, bucket)
    WHERE r.calls > coalesce(p.calls, 0);
    RETURN found;
END
$_$;


ALTER FUNCTION rollup.check_tool_latency_hourly(day timestamp with time zone, repair boolean) OWNER TO hubscope_test_owner;

--
-- Name: fold(integer); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.fold(max_batches integer DEFAULT 2000) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    moved bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('hubscope.rollup.fold', 0)) THEN
        RETURN 0;
    END IF;
    WITH taken AS (
        DELETE FROM rollup.pending
        WHERE (tenant_id, batch_id) IN (
            SELECT tenant_id, batch_id FROM rollup.pending ORDER BY tenant_id, batch_id LIMIT max_batches
        )
        RETURNING tenant_id, batch_id
    ),
    -- Of the snapshot of this statement, in which what it deletes is still there. Each call is looked at once: what it
    -- adds to a day is added up from hours.
    new_calls AS MATERIALIZED (
        SELECT
            d.tenant_id, d.hour, d.hub, d.server, d.tool, d.transport, d.client, sum(d.calls)::bigint AS calls,
            sum(d.ok_calls)::bigint AS ok_calls, sum(d.error_calls)::bigint AS error_calls,
            sum(d.timeout_calls)::bigint AS timeout_calls, sum(d.cancelled_calls)::bigint AS cancelled_calls,
            sum(d.denied_calls)::bigint AS denied_calls, sum(d.timed_calls)::bigint AS timed_calls,
            sum(d.duration_sum_us)::bigint AS duration_sum_us, max(d.duration_max_us) AS duration_max_us,
            sum(d.request_bytes)::bigint AS request_bytes, sum(d.response_bytes)::bigint AS response_bytes,
            max(d.last_call_at) AS last_call_at
        FROM rollup.pending_tool_calls AS d
        INNER JOIN taken ON taken.tenant_id = d.tenant_id AND taken.batch_id = d.batch_id
        GROUP BY d.tenant_id, d.hour, d.hub, d.server, d.tool, d.transport, d.client
    ),
    new_latency AS MATERIALIZED (
        SELECT
            d.tenant_id, d.hour, d.hub, d.server, d.tool, d.bucket, sum(d.calls)::bigint AS calls,
            max(d.max_us) AS max_us
        FROM rollup.pending_tool_latency AS d
        INNER JOIN taken ON taken.tenant_id = d.tenant_id AND taken.batch_id = d.batch_id
        GROUP BY d.tenant_id, d.hour, d.hub, d.server, d.tool, d.bucket
    ),
    hours AS (
        INSERT INTO rollup.stored_tool_calls_hourly AS stored (
            tenant_id, hour, hub, server, tool, transport, client, calls, ok_calls, error_calls, timeout_calls,
            cancelled_calls, denied_calls, timed_calls, duration_sum_us, duration_max_us, request_bytes,
            response_bytes, last_call_at
        )
        SELECT
            tenant_id, hour, hub, server, tool, transport, client, calls, ok_calls, error_calls, timeout_calls,
            cancelled_calls, denied_calls, timed_calls, duration_sum_us, duration_max_us, request_bytes,
            response_bytes, last_call_at
        FROM new_calls
        ORDER BY tenant_id, hour, server, tool, hub, transport, client
        ON CONFLICT (tenant_id, hour, server, tool, hub, transport, client) DO UPDATE SET
            calls = stored.calls + excluded.calls,
            ok_calls = stored.ok_calls + excluded.ok_calls,
            error_calls = stored.error_calls + excluded.error_calls,
            timeout_calls = stored.timeout_calls + excluded.timeout_calls,
            cancelled_calls = stored.cancelled_calls + excluded.cancelled_calls,
            denied_calls = stored.denied_calls + excluded.denied_calls,
            timed_calls = stored.timed_calls + excluded.timed_calls,
            duration_sum_us = stored.duration_sum_us + excluded.duration_sum_us,
            duration_max_us = greatest(stored.duration_max_us, excluded.duration_max_us),
            request_bytes = stored.request_bytes + excluded.request_bytes,
            response_bytes = stored.response_bytes + excluded.response_bytes,
            last_call_at = greatest(stored.last_call_at, excluded.last_call_at)
        RETURNING tenant_id, hour
    ),
    hours_latency AS (
        INSERT INTO rollup.stored_tool_latency_hourly AS stored (
            tenant_id, hour, hub, server, tool, bucket, calls, max_us
        )
        SELECT tenant_id, hour, hub, server, tool, bucket, calls, max_us
        FROM new_latency
        ORDER BY tenant_id, hour, server, tool, hub, bucket
        ON CONFLICT (tenant_id, hour, server, tool, hub, bucket) DO UPDATE SET
            calls = stored.calls + excluded.calls,
            max_us = greatest(stored.max_us, excluded.max_us)
    ),
    hours_checks AS (
        INSERT INTO rollup.stored_server_checks_hourly AS stored (
            tenant_id, hour, hub, server, source, checks, up_checks, degraded_checks, down_checks,
            maintenance_checks, unknown_checks, timed_checks, latency_sum_us, latency_max_us, last_check_at
        )
        SELECT
            d.tenant_id, d.hour, d.hub, d.server, d.source, sum(d.checks), sum(d.up_checks),
            sum(d.degraded_checks), sum(d.down_checks), sum(d.maintenance_checks), sum(d.unknown_checks),
            sum(d.timed_checks), sum(d.latency_sum_us), max(d.latency_max_us), max(d.last_check_at)
        FROM rollup.pending_server_checks AS d
        INNER JOIN taken ON taken.tenant_id = d.tenant_id AND taken.batch_id = d.batch_id
        GROUP BY d.tenant_id, d.hour, d.hub, d.server, d.source
        ORDER BY d.tenant_id, d.hour, d.server, d.source, d.hub
        ON CONFLICT (tenant_id, hour, server, source, hub) DO UPDATE SET
            checks = stored.checks + excluded.checks,
            up_checks = stored.up_checks + excluded.up_checks,
            degraded_checks = stored.degraded_checks + excluded.degraded_checks,
            down_checks = stored.down_checks + excluded.down_checks,
            maintenance_checks = stored.maintenance_checks + excluded.maintenance_checks,
            unknown_checks = stored.unknown_checks + excluded.unknown_checks,
            timed_checks = stored.timed_checks + excluded.timed_checks,
            latency_sum_us = stored.latency_sum_us + excluded.latency_sum_us,
            latency_max_us = greatest(stored.latency_max_us, excluded.latency_max_us),
            last_check_at = greatest(stored.last_check_at, excluded.last_check_at)
    ),
    days AS (
        INSERT INTO rollup.stored_tool_calls_daily AS stored (
            tenant_id, day, hub, server, tool, transport, client, calls, ok_calls, error_calls, timeout_calls,
            cancelled_calls, denied_calls, timed_calls, duration_sum_us, duration_max_us, request_bytes,
            response_bytes, last_call_at
        )
        SELECT
            d.tenant_id, date_trunc('day', d.hour, 'UTC'), d.hub, d.server, d.tool, d.transport, d.client,
            sum(d.calls), sum(d.ok_calls), sum(d.error_calls), sum(d.timeout_calls), sum(d.cancelled_calls),
            sum(d.denied_calls), sum(d.timed_calls), sum(d.duration_sum_us), max(d.duration_max_us),
            sum(d.request_bytes), sum(d.response_bytes), max(d.last_call_at)
        FROM new_calls AS d
        GROUP BY d.tenant_id, date_trunc('day', d.hour, 'UTC'), d.hub, d.server, d.tool, d.transport, d.client
        ORDER BY d.tenant_id, date_trunc('day', d.hour, 'UTC'), d.server, d.tool, d.hub, d.transport, d.client
        ON CONFLICT (tenant_id, day, server, tool, hub, transport, client) DO UPDATE SET
            calls = stored.calls + excluded.calls,
            ok_calls = stored.ok_calls + excluded.ok_calls,
            error_calls = stored.error_calls + excluded.error_calls,
            timeout_calls = stored.timeout_calls + excluded.timeout_calls,
            cancelled_calls = stored.cancelled_calls + excluded.cancelled_calls,
            denied_calls = stored.denied_calls + excluded.denied_calls,
            timed_calls = stored.timed_calls + excluded.timed_calls,
            duration_sum_us = stored.duration_sum_us + excluded.duration_sum_us,
            duration_max_us = greatest(stored.duration_max_us, excluded.duration_max_us),
            request_bytes = stored.request_bytes + excluded.request_bytes,
            response_bytes = stored.response_bytes + excluded.response_bytes,
            last_call_at = greatest(stored.last_call_at, excluded.last_call_at)
    ),
    -- A packed day that changes becomes rows again, and is packed another night.
    unpacked AS (
        DELETE FROM rollup.packed_tool_latency_daily AS packed
        USING (
            SELECT DISTINCT d.tenant_id, date_trunc('day', d.hour, 'UTC') AS day FROM new_latency AS d
        ) AS touched
        WHERE packed.tenant_id = touched.tenant_id AND packed.day = touched.day
        RETURNING
            packed.tenant_id, packed.day, packed.hub, packed.server, packed.tool, packed.buckets, packed.calls,
            packed.max_us
    ),
    days_latency AS (
        INSERT INTO rollup.stored_tool_latency_daily AS stored (
            tenant_id, day, hub, server, tool, bucket, calls, max_us
        )
        SELECT tenant_id, day, hub, server, tool, bucket, sum(calls), max(max_us)
        FROM (
            SELECT
                d.tenant_id, date_trunc('day', d.hour, 'UTC') AS day, d.hub, d.server, d.tool, d.bucket, d.calls, d.max_us
            FROM new_latency AS d
            UNION ALL
            SELECT
                unpacked.tenant_id, unpacked.day, unpacked.hub, unpacked.server, unpacked.tool, part.bucket,
                part.calls, part.max_us
            FROM unpacked, unnest(unpacked.buckets, unpacked.calls, unpacked.max_us) AS part (bucket, calls, max_us)
        ) AS parts
        GROUP BY tenant_id, day, hub, server, tool, bucket
        ORDER BY tenant_id, day, server, tool, hub, bucket
        ON CONFLICT (tenant_id, day, server, tool, hub, bucket) DO UPDATE SET
            calls = stored.calls + excluded.calls,
            max_us = greatest(stored.max_us, excluded.max_us)
    ),
    noted AS (
        INSERT INTO ops.touched_hours (tenant_id, hour)
        SELECT DISTINCT tenant_id, hour FROM hours
        ON CONFLICT DO NOTHING
    )
    SELECT count(*) INTO moved FROM taken;
    RETURN moved;
END
$$;


ALTER FUNCTION rollup.fold(max_batches integer) OWNER TO hubscope_test_owner;

--
-- Name: latency_bucket(double precision); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.latency_bucket(ms double precision) RETURNS smallint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ((181 - width_bucket((- ms), ARRAY[('-593164.1601515723'::numeric)::double precision, ('-543933.9331430949'::numeric)::double precision, ('-498789.6159284373'::numeric)::double precision, ('-457392.09451488213'::numeric)::double precision, ('-419430.4'::numeric)::double precision, ('-384619.37264295254'::numeric)::double precision, ('-352697.5198084316'::numeric)::double precision, ('-323425.0516925914'::numeric)::double precision, ('-296582.08007578616'::numeric)::double precision, ('-271966.96657154744'::numeric)::double precision, ('-249394.80796421866'::numeric)::double precision, ('-228696.04725744107'::numeric)::double precision, ('-209715.2'::numeric)::double precision, ('-192309.68632147627'::numeric)::double precision, ('-176348.7599042158'::numeric)::double precision, ('-161712.5258462957'::numeric)::double precision, ('-148291.04003789308'::numeric)::double precision, ('-135983.48328577372'::numeric)::double precision, ('-124697.40398210933'::numeric)::double precision, ('-114348.02362872053'::numeric)::double precision, ('-104857.6'::numeric)::double precision, ('-96154.84316073814'::numeric)::double precision, ('-88174.3799521079'::numeric)::double precision, ('-80856.26292314785'::numeric)::double precision, ('-74145.52001894654'::numeric)::double precision, ('-67991.74164288686'::numeric)::double precision, ('-62348.701991054666'::numeric)::double precision, ('-57174.01181436027'::numeric)::double precision, ('-52428.8'::numeric)::double precision, ('-48077.42158036907'::numeric)::double precision, ('-44087.18997605395'::numeric)::double precision, ('-40428.131461573925'::numeric)::double precision, ('-37072.76000947327'::numeric)::double precision, ('-33995.87082144343'::numeric)::double precision, ('-31174.350995527333'::numeric)::double precision, ('-28587.005907180133'::numeric)::double precision, ('-26214.4'::numeric)::double precision, ('-24038.710790184534'::numeric)::double precision, ('-22043.594988026976'::numeric)::double precision, ('-20214.065730786962'::numeric)::double precision, ('-18536.380004736635'::numeric)::double precision, ('-16997.935410721715'::numeric)::double precision, ('-15587.175497763666'::numeric)::double precision, ('-14293.502953590067'::numeric)::double precision, ('-13107.2'::numeric)::double precision, ('-12019.355395092267'::numeric)::double precision, ('-11021.797494013488'::numeric)::double precision, ('-10107.032865393481'::numeric)::double precision, ('-9268.190002368317'::numeric)::double precision, ('-8498.967705360858'::numeric)::double precision, ('-7793.587748881833'::numeric)::double precision, ('-7146.751476795033'::numeric)::double precision, ('-6553.6'::numeric)::double precision, ('-6009.6776975461335'::numeric)::double precision, ('-5510.898747006744'::numeric)::double precision, ('-5053.516432696741'::numeric)::double precision, ('-4634.095001184159'::numeric)::double precision, ('-4249.483852680429'::numeric)::double precision, ('-3896.7938744409166'::numeric)::double precision, ('-3573.3757383975167'::numeric)::double precision, ('-3276.8'::numeric)::double precision, ('-3004.8388487730667'::numeric)::double precision, ('-2755.449373503372'::numeric)::double precision, ('-2526.7582163483703'::numeric)::double precision, ('-2317.0475005920794'::numeric)::double precision, ('-2124.7419263402144'::numeric)::double precision, ('-1948.3969372204583'::numeric)::double precision, ('-1786.6878691987583'::numeric)::double precision, ('-1638.4'::numeric)::double precision, ('-1502.4194243865334'::numeric)::double precision, ('-1377.724686751686'::numeric)::double precision, ('-1263.3791081741851'::numeric)::double precision, ('-1158.5237502960397'::numeric)::double precision, ('-1062.3709631701072'::numeric)::double precision, ('-974.1984686102292'::numeric)::double precision, ('-893.3439345993792'::numeric)::double precision, ('-819.2'::numeric)::double precision, ('-751.2097121932667'::numeric)::double precision, ('-688.862343375843'::numeric)::double precision, ('-631.6895540870926'::numeric)::double precision, ('-579.2618751480198'::numeric)::double precision, ('-531.1854815850536'::numeric)::double precision, ('-487.0992343051146'::numeric)::double precision, ('-446.6719672996896'::numeric)::double precision, ('-409.6'::numeric)::double precision, ('-375.60485609663334'::numeric)::double precision, ('-344.4311716879215'::numeric)::double precision, ('-315.8447770435463'::numeric)::double precision, ('-289.6309375740099'::numeric)::double precision, ('-265.5927407925268'::numeric)::double precision, ('-243.5496171525573'::numeric)::double precision, ('-223.3359836498448'::numeric)::double precision, ('-204.8'::numeric)::double precision, ('-187.80242804831667'::numeric)::double precision, ('-172.21558584396075'::numeric)::double precision, ('-157.92238852177314'::numeric)::double precision, ('-144.81546878700496'::numeric)::double precision, ('-132.7963703962634'::numeric)::double precision, ('-121.77480857627864'::numeric)::double precision, ('-111.6679918249224'::numeric)::double precision, ('-102.4'::numeric)::double precision, ('-93.90121402415834'::numeric)::double precision, ('-86.10779292198038'::numeric)::double precision, ('-78.96119426088657'::numeric)::double precision, ('-72.40773439350248'::numeric)::double precision, ('-66.3981851981317'::numeric)::double precision, ('-60.88740428813932'::numeric)::double precision, ('-55.8339959124612'::numeric)::double precision, ('-51.2'::numeric)::double precision, ('-46.95060701207917'::numeric)::double precision, ('-43.05389646099019'::numeric)::double precision, ('-39.480597130443286'::numeric)::double precision, ('-36.20386719675124'::numeric)::double precision, ('-33.19909259906585'::numeric)::double precision, ('-30.44370214406966'::numeric)::double precision, ('-27.9169979562306'::numeric)::double precision, ('-25.6'::numeric)::double precision, ('-23.475303506039584'::numeric)::double precision, ('-21.526948230495094'::numeric)::double precision, ('-19.740298565221643'::numeric)::double precision, ('-18.10193359837562'::numeric)::double precision, ('-16.599546299532925'::numeric)::double precision, ('-15.22185107203483'::numeric)::double precision, ('-13.9584989781153'::numeric)::double precision, ('-12.8'::numeric)::double precision, ('-11.737651753019792'::numeric)::double precision, ('-10.763474115247547'::numeric)::double precision, ('-9.870149282610821'::numeric)::double precision, ('-9.05096679918781'::numeric)::double precision, ('-8.299773149766462'::numeric)::double precision, ('-7.610925536017415'::numeric)::double precision, ('-6.97924948905765'::numeric)::double precision, ('-6.4'::numeric)::double precision, ('-5.868825876509896'::numeric)::double precision, ('-5.3817370576237735'::numeric)::double precision, ('-4.935074641305411'::numeric)::double precision, ('-4.525483399593905'::numeric)::double precision, ('-4.149886574883231'::numeric)::double precision, ('-3.8054627680087076'::numeric)::double precision, ('-3.489624744528825'::numeric)::double precision, ('-3.2'::numeric)::double precision, ('-2.934412938254948'::numeric)::double precision, ('-2.6908685288118868'::numeric)::double precision, ('-2.4675373206527054'::numeric)::double precision, ('-2.2627416997969525'::numeric)::double precision, ('-2.0749432874416156'::numeric)::double precision, ('-1.9027313840043538'::numeric)::double precision, ('-1.7448123722644124'::numeric)::double precision, ('-1.6'::numeric)::double precision, ('-1.467206469127474'::numeric)::double precision, ('-1.3454342644059434'::numeric)::double precision, ('-1.2337686603263527'::numeric)::double precision, ('-1.1313708498984762'::numeric)::double precision, ('-1.0374716437208078'::numeric)::double precision, ('-0.9513656920021769'::numeric)::double precision, ('-0.8724061861322062'::numeric)::double precision, ('-0.8'::numeric)::double precision, ('-0.733603234563737'::numeric)::double precision, ('-0.6727171322029717'::numeric)::double precision, ('-0.6168843301631763'::numeric)::double precision, ('-0.5656854249492381'::numeric)::double precision, ('-0.5187358218604039'::numeric)::double precision, ('-0.47568284600108846'::numeric)::double precision, ('-0.4362030930661031'::numeric)::double precision, ('-0.4'::numeric)::double precision, ('-0.3668016172818685'::numeric)::double precision, ('-0.33635856610148585'::numeric)::double precision, ('-0.30844216508158817'::numeric)::double precision, ('-0.28284271247461906'::numeric)::double precision, ('-0.25936791093020195'::numeric)::double precision, ('-0.23784142300054423'::numeric)::double precision, ('-0.21810154653305155'::numeric)::double precision, ('-0.2'::numeric)::double precision, ('-0.18340080864093425'::numeric)::double precision, ('-0.16817928305074292'::numeric)::double precision, ('-0.15422108254079409'::numeric)::double precision, ('-0.14142135623730953'::numeric)::double precision, ('-0.12968395546510098'::numeric)::double precision, ('-0.11892071150027211'::numeric)::double precision, ('-0.10905077326652578'::numeric)::double precision, ('-0.1'::numeric)::double precision])))::smallint;


ALTER FUNCTION rollup.latency_bucket(ms double precision) OWNER TO hubscope_test_owner;

--
-- Name: latency_edges(); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.latency_edges() RETURNS double precision[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY[(0.1)::double precision, (0.10905077326652578)::double precision, (0.11892071150027211)::double precision, (0.12968395546510098)::double precision, (0.14142135623730953)::double precision, (0.15422108254079409)::double precision, (0.16817928305074292)::double precision, (0.18340080864093425)::double precision, (0.2)::double precision, (0.21810154653305155)::double precision, (0.23784142300054423)::double precision, (0.25936791093020195)::double precision, (0.28284271247461906)::double precision, (0.30844216508158817)::double precision, (0.33635856610148585)::double precision, (0.3668016172818685)::double precision, (0.4)::double precision, (0.4362030930661031)::double precision, (0.47568284600108846)::double precision, (0.5187358218604039)::double precision, (0.5656854249492381)::double precision, (0.6168843301631763)::double precision, (0.6727171322029717)::double precision, (0.733603234563737)::double precision, (0.8)::double precision, (0.8724061861322062)::double precision, (0.9513656920021769)::double precision, (1.0374716437208078)::double precision, (1.1313708498984762)::double precision, (1.2337686603263527)::double precision, (1.3454342644059434)::double precision, (1.467206469127474)::double precision, (1.6)::double precision, (1.7448123722644124)::double precision, (1.9027313840043538)::double precision, (2.0749432874416156)::double precision, (2.2627416997969525)::double precision, (2.4675373206527054)::double precision, (2.6908685288118868)::double precision, (2.934412938254948)::double precision, (3.2)::double precision, (3.489624744528825)::double precision, (3.8054627680087076)::double precision, (4.149886574883231)::double precision, (4.525483399593905)::double precision, (4.935074641305411)::double precision, (5.3817370576237735)::double precision, (5.868825876509896)::double precision, (6.4)::double precision, (6.97924948905765)::double precision, (7.610925536017415)::double precision, (8.299773149766462)::double precision, (9.05096679918781)::double precision, (9.870149282610821)::double precision, (10.763474115247547)::double precision, (11.737651753019792)::double precision, (12.8)::double precision, (13.9584989781153)::double precision, (15.22185107203483)::double precision, (16.599546299532925)::double precision, (18.10193359837562)::double precision, (19.740298565221643)::double precision, (21.526948230495094)::double precision, (23.475303506039584)::double precision, (25.6)::double precision, (27.9169979562306)::double precision, (30.44370214406966)::double precision, (33.19909259906585)::double precision, (36.20386719675124)::double precision, (39.480597130443286)::double precision, (43.05389646099019)::double precision, (46.95060701207917)::double precision, (51.2)::double precision, (55.8339959124612)::double precision, (60.88740428813932)::double precision, (66.3981851981317)::double precision, (72.40773439350248)::double precision, (78.96119426088657)::double precision, (86.10779292198038)::double precision, (93.90121402415834)::double precision, (102.4)::double precision, (111.6679918249224)::double precision, (121.77480857627864)::double precision, (132.7963703962634)::double precision, (144.81546878700496)::double precision, (157.92238852177314)::double precision, (172.21558584396075)::double precision, (187.80242804831667)::double precision, (204.8)::double precision, (223.3359836498448)::double precision, (243.5496171525573)::double precision, (265.5927407925268)::double precision, (289.6309375740099)::double precision, (315.8447770435463)::double precision, (344.4311716879215)::double precision, (375.60485609663334)::double precision, (409.6)::double precision, (446.6719672996896)::double precision, (487.0992343051146)::double precision, (531.1854815850536)::double precision, (579.2618751480198)::double precision, (631.6895540870926)::double precision, (688.862343375843)::double precision, (751.2097121932667)::double precision, (819.2)::double precision, (893.3439345993792)::double precision, (974.1984686102292)::double precision, (1062.3709631701072)::double precision, (1158.5237502960397)::double precision, (1263.3791081741851)::double precision, (1377.724686751686)::double precision, (1502.4194243865334)::double precision, (1638.4)::double precision, (1786.6878691987583)::double precision, (1948.3969372204583)::double precision, (2124.7419263402144)::double precision, (2317.0475005920794)::double precision, (2526.7582163483703)::double precision, (2755.449373503372)::double precision, (3004.8388487730667)::double precision, (3276.8)::double precision, (3573.3757383975167)::double precision, (3896.7938744409166)::double precision, (4249.483852680429)::double precision, (4634.095001184159)::double precision, (5053.516432696741)::double precision, (5510.898747006744)::double precision, (6009.6776975461335)::double precision, (6553.6)::double precision, (7146.751476795033)::double precision, (7793.587748881833)::double precision, (8498.967705360858)::double precision, (9268.190002368317)::double precision, (10107.032865393481)::double precision, (11021.797494013488)::double precision, (12019.355395092267)::double precision, (13107.2)::double precision, (14293.502953590067)::double precision, (15587.175497763666)::double precision, (16997.935410721715)::double precision, (18536.380004736635)::double precision, (20214.065730786962)::double precision, (22043.594988026976)::double precision, (24038.710790184534)::double precision, (26214.4)::double precision, (28587.005907180133)::double precision, (31174.350995527333)::double precision, (33995.87082144343)::double precision, (37072.76000947327)::double precision, (40428.131461573925)::double precision, (44087.18997605395)::double precision, (48077.42158036907)::double precision, (52428.8)::double precision, (57174.01181436027)::double precision, (62348.701991054666)::double precision, (67991.74164288686)::double precision, (74145.52001894654)::double precision, (80856.26292314785)::double precision, (88174.3799521079)::double precision, (96154.84316073814)::double precision, (104857.6)::double precision, (114348.02362872053)::double precision, (124697.40398210933)::double precision, (135983.48328577372)::double precision, (148291.04003789308)::double precision, (161712.5258462957)::double precision, (176348.7599042158)::double precision, (192309.68632147627)::double precision, (209715.2)::double precision, (228696.04725744107)::double precision, (249394.80796421866)::double precision, (271966.96657154744)::double precision, (296582.08007578616)::double precision, (323425.0516925914)::double precision, (352697.5198084316)::double precision, (384619.37264295254)::double precision, (419430.4)::double precision, (457392.09451488213)::double precision, (498789.6159284373)::double precision, (543933.9331430949)::double precision, (593164.1601515723)::double precision];


ALTER FUNCTION rollup.latency_edges() OWNER TO hubscope_test_owner;

--
-- Name: latency_value(smallint); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.latency_value(bucket smallint) RETURNS double precision
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE WHEN (bucket <= 0) THEN (0.1)::double precision WHEN (bucket >= 181) THEN NULL::double precision ELSE ((((0.1)::double precision * power((2)::double precision, (((bucket)::numeric / 8.0))::double precision)) * (2)::double precision) / ((1)::double precision + power((2)::double precision, (0.125)::double precision))) END;


ALTER FUNCTION rollup.latency_value(bucket smallint) OWNER TO hubscope_test_owner;

--
-- Name: latency_percentile(smallint[], numeric[], double precision, double precision); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.latency_percentile(buckets smallint[], calls numeric[], q double precision, max_ms double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT LEAST(rollup.latency_value(ranked.bucket), latency_percentile.max_ms) AS "least"
    FROM ( SELECT pair.bucket,
             sum(pair.n) OVER (ORDER BY pair.bucket) AS reached,
             sum(pair.n) OVER () AS total
            FROM UNNEST(latency_percentile.buckets, latency_percentile.calls) pair(bucket, n)) ranked
   WHERE ((ranked.total > (0)::numeric) AND ((ranked.reached)::double precision >= ceil((latency_percentile.q * (ranked.total)::double precision))))
   ORDER BY ranked.bucket
  LIMIT 1;
END;


ALTER FUNCTION rollup.latency_percentile(buckets smallint[], calls numeric[], q double precision, max_ms double precision) OWNER TO hubscope_test_owner;

--
-- Name: pack_day(timestamp with time zone); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.pack_day(packed_day timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    moved bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('hubscope.rollup.fold', 0));
    WITH rows AS (
        DELETE FROM rollup.stored_tool_latency_daily AS stored
        WHERE stored.day = packed_day
        RETURNING tenant_id, day, hub, server, tool, bucket, calls, max_us
    ),
    packed AS (
        INSERT INTO rollup.packed_tool_latency_daily (tenant_id, day, hub, server, tool, buckets, calls, max_us)
        SELECT
            tenant_id, day, hub, server, tool, array_agg(bucket ORDER BY bucket), array_agg(calls ORDER BY bucket),
            array_agg(max_us ORDER BY bucket)
        FROM rows
        GROUP BY tenant_id, day, hub, server, tool
        ORDER BY tenant_id, server, tool
    )
    SELECT count(*) INTO moved FROM rows;
    RETURN moved;
END
$$;


ALTER FUNCTION rollup.pack_day(packed_day timestamp with time zone) OWNER TO hubscope_test_owner;

SET default_tablespace = '';

--
-- Name: server_events; Type: TABLE; Schema: raw; Owner: hubscope_test_owner
--

CREATE TABLE raw.server_events (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    event_id uuid NOT NULL,
    "time" timestamp with time zone NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    hub text DEFAULT ''::text NOT NULL,
    server text NOT NULL,
    source text NOT NULL,
    outcome text NOT NULL,
    state text NOT NULL,
    valid_until timestamp with time zone,
    latency_ms double precision,
    transport text DEFAULT ''::text NOT NULL,
    tools integer,
    resources integer,
    prompts integer,
    error_type text,
    error_message text,
    attrs jsonb,
    CONSTRAINT server_events_latency_ms_check CHECK (((latency_ms >= (0)::double precision) AND (latency_ms < 'Infinity'::double precision))),
    CONSTRAINT server_events_source_check CHECK ((source = ANY (ARRAY['connection'::text, 'probe'::text]))),
    CONSTRAINT server_events_state_check CHECK ((state = ANY (ARRAY['up'::text, 'degraded'::text, 'down'::text, 'maintenance'::text, 'unknown'::text])))
)
PARTITION BY RANGE ("time");


ALTER TABLE raw.server_events OWNER TO hubscope_test_owner;

--
-- Name: recount_server_checks(text, timestamp with time zone, timestamp with time zone); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.recount_server_checks(grain text, first timestamp with time zone, past timestamp with time zone) RETURNS TABLE(tenant_id text, unit timestamp with time zone, hub text, server text, source text, checks bigint, up_checks bigint, degraded_checks bigint, down_checks bigint, maintenance_checks bigint, unknown_checks bigint, timed_checks bigint, latency_sum_us bigint, latency_max_us bigint, last_check_at timestamp with time zone)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    BEGIN ATOMIC
 SELECT server_events.tenant_id,
     date_trunc(recount_server_checks.grain, server_events."time", 'UTC'::text) AS date_trunc,
     server_events.hub,
     server_events.server,
     server_events.source,
     count(*) AS count,
     count(*) FILTER (WHERE (server_events.state = 'up'::text)) AS count,
     count(*) FILTER (WHERE (server_events.state = 'degraded'::text)) AS count,
     count(*) FILTER (WHERE (server_events.state = 'down'::text)) AS count,
     count(*) FILTER (WHERE (server_events.state = 'maintenance'::text)) AS count,
     count(*) FILTER (WHERE (server_events.state = 'unknown'::text)) AS count,
     count(server_events.latency_ms) AS count,
     (COALESCE(sum((round((server_events.latency_ms * (1000)::double precision)))::bigint), (0)::numeric))::bigint AS "coalesce",
     COALESCE(max((round((server_events.latency_ms * (1000)::double precision)))::bigint), (0)::bigint) AS "coalesce",
     max(server_events."time") AS max
    FROM raw.server_events
   WHERE ((server_events."time" >= recount_server_checks.first) AND (server_events."time" < recount_server_checks.past))
   GROUP BY server_events.tenant_id, (date_trunc(recount_server_checks.grain, server_events."time", 'UTC'::text)), server_events.hub, server_events.server, server_events.source;
END;


ALTER FUNCTION rollup.recount_server_checks(grain text, first timestamp with time zone, past timestamp with time zone) OWNER TO hubscope_test_owner;

--
-- Name: tool_calls; Type: TABLE; Schema: raw; Owner: hubscope_test_owner
--

CREATE TABLE raw.tool_calls (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    event_id uuid NOT NULL,
    "time" timestamp with time zone NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    hub text DEFAULT ''::text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    status text NOT NULL,
    duration_ms double precision,
    error_type text,
    error_message text,
    error_fingerprint text,
    session_id text,
    client text DEFAULT ''::text NOT NULL,
    transport text DEFAULT ''::text NOT NULL,
    trace_id text,
    span_id text,
    chain_id text,
    step_index integer,
    request_bytes bigint,
    response_bytes bigint,
    vantage text DEFAULT 'hub'::text NOT NULL,
    counted boolean DEFAULT true NOT NULL,
    attrs jsonb,
    CONSTRAINT tool_calls_duration_ms_check CHECK (((duration_ms >= (0)::double precision) AND (duration_ms < 'Infinity'::double precision))),
    CONSTRAINT tool_calls_status_check CHECK ((status = ANY (ARRAY['ok'::text, 'error'::text, 'timeout'::text, 'cancelled'::text, 'denied'::text])))
)
PARTITION BY RANGE ("time");


ALTER TABLE raw.tool_calls OWNER TO hubscope_test_owner;

--
-- Name: recount_tool_calls(text, timestamp with time zone, timestamp with time zone); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.recount_tool_calls(grain text, first timestamp with time zone, past timestamp with time zone) RETURNS TABLE(tenant_id text, unit timestamp with time zone, hub text, server text, tool text, transport text, client text, calls bigint, ok_calls bigint, error_calls bigint, timeout_calls bigint, cancelled_calls bigint, denied_calls bigint, timed_calls bigint, duration_sum_us bigint, duration_max_us bigint, request_bytes bigint, response_bytes bigint, last_call_at timestamp with time zone)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    BEGIN ATOMIC
 SELECT tool_calls.tenant_id,
     date_trunc(recount_tool_calls.grain, tool_calls."time", 'UTC'::text) AS date_trunc,
     tool_calls.hub,
     tool_calls.server,
     tool_calls.tool,
     tool_calls.transport,
     tool_calls.client,
     count(*) AS count,
     count(*) FILTER (WHERE (tool_calls.status = 'ok'::text)) AS count,
     count(*) FILTER (WHERE (tool_calls.status = 'error'::text)) AS count,
     count(*) FILTER (WHERE (tool_calls.status = 'timeout'::text)) AS count,
     count(*) FILTER (WHERE (tool_calls.status = 'cancelled'::text)) AS count,
     count(*) FILTER (WHERE (tool_calls.status = 'denied'::text)) AS count,
     count(tool_calls.duration_ms) AS count,
     (COALESCE(sum((round((tool_calls.duration_ms * (1000)::double precision)))::bigint), (0)::numeric))::bigint AS "coalesce",
     COALESCE(max((round((tool_calls.duration_ms * (1000)::double precision)))::bigint), (0)::bigint) AS "coalesce",
     (COALESCE(sum(tool_calls.request_bytes), (0)::numeric))::bigint AS "coalesce",
     (COALESCE(sum(tool_calls.response_bytes), (0)::numeric))::bigint AS "coalesce",
     max(tool_calls."time") AS max
    FROM raw.tool_calls
   WHERE ((tool_calls."time" >= recount_tool_calls.first) AND (tool_calls."time" < recount_tool_calls.past) AND tool_calls.counted)
   GROUP BY tool_calls.tenant_id, (date_trunc(recount_tool_calls.grain, tool_calls."time", 'UTC'::text)), tool_calls.hub, tool_calls.server, tool_calls.tool, tool_calls.transport, tool_calls.client;
END;


ALTER FUNCTION rollup.recount_tool_calls(grain text, first timestamp with time zone, past timestamp with time zone) OWNER TO hubscope_test_owner;

--
-- Name: recount_tool_latency(text, timestamp with time zone, timestamp with time zone); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.recount_tool_latency(grain text, first timestamp with time zone, past timestamp with time zone) RETURNS TABLE(tenant_id text, unit timestamp with time zone, hub text, server text, tool text, bucket smallint, calls bigint, max_us bigint)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    BEGIN ATOMIC
 SELECT tool_calls.tenant_id,
     date_trunc(recount_tool_latency.grain, tool_calls."time", 'UTC'::text) AS date_trunc,
     tool_calls.hub,
     tool_calls.server,
     tool_calls.tool,
     rollup.latency_bucket(tool_calls.duration_ms) AS latency_bucket,
     count(*) AS count,
     max((round((tool_calls.duration_ms * (1000)::double precision)))::bigint) AS max
    FROM raw.tool_calls
   WHERE ((tool_calls."time" >= recount_tool_latency.first) AND (tool_calls."time" < recount_tool_latency.past) AND tool_calls.counted AND (tool_calls.duration_ms IS NOT NULL))
   GROUP BY tool_calls.tenant_id, (date_trunc(recount_tool_latency.grain, tool_calls."time", 'UTC'::text)), tool_calls.hub, tool_calls.server, tool_calls.tool, (rollup.latency_bucket(tool_calls.duration_ms));
END;


ALTER FUNCTION rollup.recount_tool_latency(grain text, first timestamp with time zone, past timestamp with time zone) OWNER TO hubscope_test_owner;

--
-- Name: database_job_errors; Type: VIEW; Schema: ops; Owner: hubscope_test_owner
--

CREATE VIEW ops.database_job_errors AS
 SELECT job_id,
    job,
    errors,
    last_error_at,
    last_error
   FROM ops.read_database_job_errors() read_database_job_errors(job_id, job, errors, last_error_at, last_error);


ALTER VIEW ops.database_job_errors OWNER TO hubscope_test_owner;

--
-- Name: database_job_errors; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.database_job_errors AS
 SELECT job_id,
    job,
    errors,
    last_error_at,
    last_error
   FROM ops.database_job_errors;


ALTER VIEW analytics.database_job_errors OWNER TO hubscope_test_worker;

SET default_table_access_method = heap;

--
-- Name: pending; Type: TABLE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TABLE rollup.pending (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    batch_id uuid NOT NULL,
    call_hours timestamp with time zone[] DEFAULT '{}'::timestamp with time zone[] NOT NULL,
    call_times timestamp with time zone[] DEFAULT '{}'::timestamp with time zone[] NOT NULL,
    call_hubs text[] DEFAULT '{}'::text[] NOT NULL,
    call_servers text[] DEFAULT '{}'::text[] NOT NULL,
    call_tools text[] DEFAULT '{}'::text[] NOT NULL,
    call_statuses text[] DEFAULT '{}'::text[] NOT NULL,
    call_durations_ms double precision[] DEFAULT '{}'::double precision[] NOT NULL,
    call_clients text[] DEFAULT '{}'::text[] NOT NULL,
    call_transports text[] DEFAULT '{}'::text[] NOT NULL,
    call_request_bytes bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    call_response_bytes bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    check_hours timestamp with time zone[] DEFAULT '{}'::timestamp with time zone[] NOT NULL,
    check_times timestamp with time zone[] DEFAULT '{}'::timestamp with time zone[] NOT NULL,
    check_hubs text[] DEFAULT '{}'::text[] NOT NULL,
    check_servers text[] DEFAULT '{}'::text[] NOT NULL,
    check_sources text[] DEFAULT '{}'::text[] NOT NULL,
    check_states text[] DEFAULT '{}'::text[] NOT NULL,
    check_latencies_ms double precision[] DEFAULT '{}'::double precision[] NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');
ALTER TABLE ONLY rollup.pending ALTER COLUMN call_times SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN call_hubs SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN call_servers SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN call_tools SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN call_statuses SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN call_durations_ms SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN call_clients SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN call_transports SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN call_request_bytes SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN call_response_bytes SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN check_times SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN check_hubs SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN check_servers SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN check_sources SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN check_states SET STORAGE EXTERNAL;
ALTER TABLE ONLY rollup.pending ALTER COLUMN check_latencies_ms SET STORAGE EXTERNAL;


ALTER TABLE rollup.pending OWNER TO hubscope_test_owner;

--
-- Name: pending_tool_calls; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.pending_tool_calls AS
 SELECT pending.tenant_id,
    pending.batch_id,
    date_trunc('hour'::text, one."time", 'UTC'::text) AS hour,
    one.hub,
    one.server,
    one.tool,
    one.transport,
    one.client,
    (1)::bigint AS calls,
    (((one.status = 'ok'::text))::integer)::bigint AS ok_calls,
    (((one.status = 'error'::text))::integer)::bigint AS error_calls,
    (((one.status = 'timeout'::text))::integer)::bigint AS timeout_calls,
    (((one.status = 'cancelled'::text))::integer)::bigint AS cancelled_calls,
    (((one.status = 'denied'::text))::integer)::bigint AS denied_calls,
    (((one.duration_ms IS NOT NULL))::integer)::bigint AS timed_calls,
    COALESCE((round((one.duration_ms * (1000)::double precision)))::bigint, (0)::bigint) AS duration_sum_us,
    COALESCE((round((one.duration_ms * (1000)::double precision)))::bigint, (0)::bigint) AS duration_max_us,
    COALESCE(one.request_bytes, (0)::bigint) AS request_bytes,
    COALESCE(one.response_bytes, (0)::bigint) AS response_bytes,
    one."time" AS last_call_at
   FROM rollup.pending,
    LATERAL UNNEST(pending.call_times, pending.call_hubs, pending.call_servers, pending.call_tools, pending.call_statuses, pending.call_durations_ms, pending.call_clients, pending.call_transports, pending.call_request_bytes, pending.call_response_bytes) one("time", hub, server, tool, status, duration_ms, client, transport, request_bytes, response_bytes);


ALTER VIEW rollup.pending_tool_calls OWNER TO hubscope_test_owner;

--
-- Name: stored_tool_calls_daily; Type: TABLE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TABLE rollup.stored_tool_calls_daily (
    tenant_id text NOT NULL,
    day timestamp with time zone NOT NULL,
    hub text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    transport text NOT NULL,
    client text NOT NULL,
    calls bigint NOT NULL,
    ok_calls bigint NOT NULL,
    error_calls bigint NOT NULL,
    timeout_calls bigint NOT NULL,
    cancelled_calls bigint NOT NULL,
    denied_calls bigint NOT NULL,
    timed_calls bigint NOT NULL,
    duration_sum_us bigint NOT NULL,
    duration_max_us bigint NOT NULL,
    request_bytes bigint NOT NULL,
    response_bytes bigint NOT NULL,
    last_call_at timestamp with time zone NOT NULL
);


ALTER TABLE rollup.stored_tool_calls_daily OWNER TO hubscope_test_owner;

--
-- Name: tool_calls_daily; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.tool_calls_daily AS
 SELECT stored.tenant_id,
    stored.day,
    stored.hub,
    stored.server,
    stored.tool,
    stored.transport,
    stored.client,
    stored.calls,
    stored.ok_calls,
    stored.error_calls,
    stored.timeout_calls,
    stored.cancelled_calls,
    stored.denied_calls,
    stored.timed_calls,
    stored.duration_sum_us,
    stored.duration_max_us,
    stored.request_bytes,
    stored.response_bytes,
    stored.last_call_at
   FROM rollup.stored_tool_calls_daily stored
  WHERE (NOT (EXISTS ( SELECT 1
           FROM rollup.pending,
            LATERAL unnest(pending.call_hours) d(hour)
          WHERE ((pending.tenant_id = stored.tenant_id) AND (date_trunc('day'::text, d.hour, 'UTC'::text) = stored.day)))))
UNION ALL
 SELECT parts.tenant_id,
    parts.day,
    parts.hub,
    parts.server,
    parts.tool,
    parts.transport,
    parts.client,
    (sum(parts.calls))::bigint AS calls,
    (sum(parts.ok_calls))::bigint AS ok_calls,
    (sum(parts.error_calls))::bigint AS error_calls,
    (sum(parts.timeout_calls))::bigint AS timeout_calls,
    (sum(parts.cancelled_calls))::bigint AS cancelled_calls,
    (sum(parts.denied_calls))::bigint AS denied_calls,
    (sum(parts.timed_calls))::bigint AS timed_calls,
    (sum(parts.duration_sum_us))::bigint AS duration_sum_us,
    max(parts.duration_max_us) AS duration_max_us,
    (sum(parts.request_bytes))::bigint AS request_bytes,
    (sum(parts.response_bytes))::bigint AS response_bytes,
    max(parts.last_call_at) AS last_call_at
   FROM ( SELECT stored.tenant_id,
            stored.day,
            stored.hub,
            stored.server,
            stored.tool,
            stored.transport,
            stored.client,
            stored.calls,
            stored.ok_calls,
            stored.error_calls,
            stored.timeout_calls,
            stored.cancelled_calls,
            stored.denied_calls,
            stored.timed_calls,
            stored.duration_sum_us,
            stored.duration_max_us,
            stored.request_bytes,
            stored.response_bytes,
            stored.last_call_at
           FROM (( SELECT DISTINCT pending.tenant_id,
                    date_trunc('day'::text, d.hour, 'UTC'::text) AS day
                   FROM rollup.pending,
                    LATERAL unnest(pending.call_hours) d(hour)) touched
             JOIN rollup.stored_tool_calls_daily stored ON (((stored.tenant_id = touched.tenant_id) AND (stored.day = touched.day))))
        UNION ALL
         SELECT d.tenant_id,
            date_trunc('day'::text, d.hour, 'UTC'::text) AS day,
            d.hub,
            d.server,
            d.tool,
            d.transport,
            d.client,
            d.calls,
            d.ok_calls,
            d.error_calls,
            d.timeout_calls,
            d.cancelled_calls,
            d.denied_calls,
            d.timed_calls,
            d.duration_sum_us,
            d.duration_max_us,
            d.request_bytes,
            d.response_bytes,
            d.last_call_at
           FROM rollup.pending_tool_calls d) parts
  GROUP BY parts.tenant_id, parts.day, parts.hub, parts.server, parts.tool, parts.transport, parts.client;


ALTER VIEW rollup.tool_calls_daily OWNER TO hubscope_test_owner;

--
-- Name: dim_servers; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.dim_servers AS
 WITH tools_used AS (
         SELECT tool_calls_daily.tenant_id,
            tool_calls_daily.server,
            tool_calls_daily.tool,
            min(tool_calls_daily.day) AS first_day,
            max(tool_calls_daily.last_call_at) AS last_call_at,
            sum(tool_calls_daily.calls) AS calls,
            max(tool_calls_daily.transport) AS transport
           FROM rollup.tool_calls_daily
          GROUP BY tool_calls_daily.tenant_id, tool_calls_daily.server, tool_calls_daily.tool
        ), used AS (
         SELECT tools_used.tenant_id,
            tools_used.server,
            min(tools_used.first_day) AS first_seen_at,
            max(tools_used.last_call_at) AS last_seen_at,
            count(*) AS tools,
            (sum(tools_used.calls))::bigint AS calls,
            max(tools_used.transport) AS transport
           FROM tools_used
          GROUP BY tools_used.tenant_id, tools_used.server
        ), latest AS (
         SELECT DISTINCT ON (server_events.tenant_id, server_events.server) server_events.tenant_id,
            server_events.server,
            server_events."time",
            server_events.state,
            server_events.valid_until,
            server_events.transport
           FROM raw.server_events
          ORDER BY server_events.tenant_id, server_events.server, server_events."time" DESC, server_events.event_id DESC
        ), seen AS (
         SELECT server_events.tenant_id,
            server_events.server,
            min(server_events."time") AS first_seen_at
           FROM raw.server_events
          GROUP BY server_events.tenant_id, server_events.server
        )
 SELECT tenant_id,
    server,
    COALESCE(NULLIF(latest.transport, ''::text), used.transport, ''::text) AS transport,
        CASE
            WHEN ((latest.state IS NULL) OR (latest.valid_until < now())) THEN 'unknown'::text
            ELSE latest.state
        END AS state,
    ( SELECT min(event."time") AS min
           FROM raw.server_events event
          WHERE ((event.tenant_id = latest.tenant_id) AND (event.server = latest.server) AND (event.state = latest.state) AND (event."time" > COALESCE(( SELECT max(other."time") AS max
                   FROM raw.server_events other
                  WHERE ((other.tenant_id = latest.tenant_id) AND (other.server = latest.server) AND (other.state <> latest.state))), '-infinity'::timestamp with time zone)))) AS state_since,
    LEAST(used.first_seen_at, seen.first_seen_at) AS first_seen_at,
    GREATEST(used.last_seen_at, latest."time") AS last_seen_at,
    COALESCE(used.tools, (0)::bigint) AS tools,
    COALESCE(used.calls, (0)::bigint) AS calls
   FROM ((used
     FULL JOIN latest USING (tenant_id, server))
     FULL JOIN seen USING (tenant_id, server));


ALTER VIEW analytics.dim_servers OWNER TO hubscope_test_worker;

--
-- Name: archived_tool_calls; Type: TABLE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TABLE rollup.archived_tool_calls (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    ok_calls bigint NOT NULL,
    error_calls bigint NOT NULL,
    timeout_calls bigint NOT NULL,
    cancelled_calls bigint NOT NULL,
    denied_calls bigint NOT NULL
);


ALTER TABLE rollup.archived_tool_calls OWNER TO hubscope_test_owner;

--
-- Name: fct_tool_call_totals; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.fct_tool_call_totals AS
 SELECT tenant_id,
    server,
    tool,
    (sum(ok_calls))::bigint AS ok_calls,
    (sum(error_calls))::bigint AS error_calls,
    (sum(timeout_calls))::bigint AS timeout_calls,
    (sum(cancelled_calls))::bigint AS cancelled_calls,
    (sum(denied_calls))::bigint AS denied_calls
   FROM ( SELECT tool_calls_daily.tenant_id,
            tool_calls_daily.server,
            tool_calls_daily.tool,
            tool_calls_daily.ok_calls,
            tool_calls_daily.error_calls,
            tool_calls_daily.timeout_calls,
            tool_calls_daily.cancelled_calls,
            tool_calls_daily.denied_calls
           FROM rollup.tool_calls_daily
        UNION ALL
         SELECT archived_tool_calls.tenant_id,
            archived_tool_calls.server,
            archived_tool_calls.tool,
            archived_tool_calls.ok_calls,
            archived_tool_calls.error_calls,
            archived_tool_calls.timeout_calls,
            archived_tool_calls.cancelled_calls,
            archived_tool_calls.denied_calls
           FROM rollup.archived_tool_calls) days
  GROUP BY tenant_id, server, tool;


ALTER VIEW analytics.fct_tool_call_totals OWNER TO hubscope_test_worker;

--
-- Name: fct_tool_calls; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.fct_tool_calls AS
 SELECT tenant_id,
    event_id,
    "time",
    hub,
    server,
    tool,
    status,
    duration_ms,
    error_type,
    session_id,
    client,
    transport,
    request_bytes,
    response_bytes
   FROM raw.tool_calls
  WHERE counted;


ALTER VIEW analytics.fct_tool_calls OWNER TO hubscope_test_worker;

--
-- Name: packed_tool_latency_daily; Type: TABLE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TABLE rollup.packed_tool_latency_daily (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    day timestamp with time zone NOT NULL,
    hub text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    buckets smallint[] NOT NULL,
    calls bigint[] NOT NULL,
    max_us bigint[] NOT NULL
);


ALTER TABLE rollup.packed_tool_latency_daily OWNER TO hubscope_test_owner;

--
-- Name: pending_tool_latency; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.pending_tool_latency AS
 SELECT pending.tenant_id,
    pending.batch_id,
    date_trunc('hour'::text, one."time", 'UTC'::text) AS hour,
    one.hub,
    one.server,
    one.tool,
    rollup.latency_bucket(one.duration_ms) AS bucket,
    (1)::bigint AS calls,
    (round((one.duration_ms * (1000)::double precision)))::bigint AS max_us
   FROM rollup.pending,
    LATERAL UNNEST(pending.call_times, pending.call_hubs, pending.call_servers, pending.call_tools, pending.call_durations_ms) one("time", hub, server, tool, duration_ms)
  WHERE (one.duration_ms IS NOT NULL);


ALTER VIEW rollup.pending_tool_latency OWNER TO hubscope_test_owner;

--
-- Name: stored_tool_latency_daily; Type: TABLE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TABLE rollup.stored_tool_latency_daily (
    tenant_id text NOT NULL,
    day timestamp with time zone NOT NULL,
    hub text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    bucket smallint NOT NULL,
    calls bigint NOT NULL,
    max_us bigint NOT NULL
);


ALTER TABLE rollup.stored_tool_latency_daily OWNER TO hubscope_test_owner;

--
-- Name: tool_latency_daily; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.tool_latency_daily AS
 SELECT packed.tenant_id,
    packed.day,
    packed.hub,
    packed.server,
    packed.tool,
    unnest(packed.buckets) AS bucket,
    unnest(packed.calls) AS calls,
    unnest(packed.max_us) AS max_us
   FROM rollup.packed_tool_latency_daily packed
  WHERE (NOT (EXISTS ( SELECT 1
           FROM rollup.pending,
            LATERAL unnest(pending.call_hours) d(hour)
          WHERE ((pending.tenant_id = packed.tenant_id) AND (date_trunc('day'::text, d.hour, 'UTC'::text) = packed.day)))))
UNION ALL
 SELECT stored.tenant_id,
    stored.day,
    stored.hub,
    stored.server,
    stored.tool,
    stored.bucket,
    stored.calls,
    stored.max_us
   FROM rollup.stored_tool_latency_daily stored
  WHERE (NOT (EXISTS ( SELECT 1
           FROM rollup.pending,
            LATERAL unnest(pending.call_hours) d(hour)
          WHERE ((pending.tenant_id = stored.tenant_id) AND (date_trunc('day'::text, d.hour, 'UTC'::text) = stored.day)))))
UNION ALL
 SELECT parts.tenant_id,
    parts.day,
    parts.hub,
    parts.server,
    parts.tool,
    parts.bucket,
    (sum(parts.calls))::bigint AS calls,
    max(parts.max_us) AS max_us
   FROM ( SELECT stored.tenant_id,
            stored.day,
            stored.hub,
            stored.server,
            stored.tool,
            stored.bucket,
            stored.calls,
            stored.max_us
           FROM (( SELECT DISTINCT pending.tenant_id,
                    date_trunc('day'::text, d.hour, 'UTC'::text) AS day
                   FROM rollup.pending,
                    LATERAL unnest(pending.call_hours) d(hour)) touched
             JOIN rollup.stored_tool_latency_daily stored ON (((stored.tenant_id = touched.tenant_id) AND (stored.day = touched.day))))
        UNION ALL
         SELECT packed.tenant_id,
            packed.day,
            packed.hub,
            packed.server,
            packed.tool,
            part.bucket,
            part.calls,
            part.max_us
           FROM ((( SELECT DISTINCT pending.tenant_id,
                    date_trunc('day'::text, d.hour, 'UTC'::text) AS day
                   FROM rollup.pending,
                    LATERAL unnest(pending.call_hours) d(hour)) touched
             JOIN rollup.packed_tool_latency_daily packed ON (((packed.tenant_id = touched.tenant_id) AND (packed.day = touched.day))))
             CROSS JOIN LATERAL UNNEST(packed.buckets, packed.calls, packed.max_us) part(bucket, calls, max_us))
        UNION ALL
         SELECT d.tenant_id,
            date_trunc('day'::text, d.hour, 'UTC'::text) AS day,
            d.hub,
            d.server,
            d.tool,
            d.bucket,
            d.calls,
            d.max_us
           FROM rollup.pending_tool_latency d) parts
  GROUP BY parts.tenant_id, parts.day, parts.hub, parts.server, parts.tool, parts.bucket;


ALTER VIEW rollup.tool_latency_daily OWNER TO hubscope_test_owner;

--
-- Name: fct_tool_latency_daily; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.fct_tool_latency_daily AS
 SELECT tenant_id,
    day,
    hub,
    server,
    tool,
    bucket,
    calls,
    max_us
   FROM rollup.tool_latency_daily;


ALTER VIEW analytics.fct_tool_latency_daily OWNER TO hubscope_test_worker;

--
-- Name: stored_tool_latency_hourly; Type: TABLE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TABLE rollup.stored_tool_latency_hourly (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    hour timestamp with time zone NOT NULL,
    hub text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    bucket smallint NOT NULL,
    calls bigint NOT NULL,
    max_us bigint NOT NULL
);


ALTER TABLE rollup.stored_tool_latency_hourly OWNER TO hubscope_test_owner;

--
-- Name: tool_latency_hourly; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.tool_latency_hourly AS
 SELECT stored.tenant_id,
    stored.hour,
    stored.hub,
    stored.server,
    stored.tool,
    stored.bucket,
    stored.calls,
    stored.max_us
   FROM rollup.stored_tool_latency_hourly stored
  WHERE (NOT (EXISTS ( SELECT 1
           FROM rollup.pending,
            LATERAL unnest(pending.call_hours) d(hour)
          WHERE ((pending.tenant_id = stored.tenant_id) AND (d.hour = stored.hour)))))
UNION ALL
 SELECT parts.tenant_id,
    parts.hour,
    parts.hub,
    parts.server,
    parts.tool,
    parts.bucket,
    (sum(parts.calls))::bigint AS calls,
    max(parts.max_us) AS max_us
   FROM ( SELECT stored.tenant_id,
            stored.hour,
            stored.hub,
            stored.server,
            stored.tool,
            stored.bucket,
            stored.calls,
            stored.max_us
           FROM (( SELECT DISTINCT pending.tenant_id,
                    d.hour
                   FROM rollup.pending,
                    LATERAL unnest(pending.call_hours) d(hour)) touched
             JOIN rollup.stored_tool_latency_hourly stored ON (((stored.tenant_id = touched.tenant_id) AND (stored.hour = touched.hour))))
        UNION ALL
         SELECT d.tenant_id,
            d.hour,
            d.hub,
            d.server,
            d.tool,
            d.bucket,
            d.calls,
            d.max_us
           FROM rollup.pending_tool_latency d) parts
  GROUP BY parts.tenant_id, parts.hour, parts.hub, parts.server, parts.tool, parts.bucket;


ALTER VIEW rollup.tool_latency_hourly OWNER TO hubscope_test_owner;

--
-- Name: fct_tool_latency_hourly; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.fct_tool_latency_hourly AS
 SELECT tenant_id,
    hour,
    hub,
    server,
    tool,
    bucket,
    calls,
    max_us
   FROM rollup.tool_latency_hourly;


ALTER VIEW analytics.fct_tool_latency_hourly OWNER TO hubscope_test_worker;

--
-- Name: fct_tool_usage_daily_live; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.fct_tool_usage_daily_live AS
 SELECT tenant_id,
    day,
    hub,
    server,
    tool,
    transport,
    client,
    calls,
    ok_calls,
    error_calls,
    timeout_calls,
    cancelled_calls,
    denied_calls,
    timed_calls,
    duration_sum_us,
    duration_max_us,
    request_bytes,
    response_bytes,
    last_call_at
   FROM rollup.tool_calls_daily;


ALTER VIEW analytics.fct_tool_usage_daily_live OWNER TO hubscope_test_worker;

--
-- Name: stored_tool_calls_hourly; Type: TABLE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TABLE rollup.stored_tool_calls_hourly (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    hour timestamp with time zone NOT NULL,
    hub text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    transport text NOT NULL,
    client text NOT NULL,
    calls bigint NOT NULL,
    ok_calls bigint NOT NULL,
    error_calls bigint NOT NULL,
    timeout_calls bigint NOT NULL,
    cancelled_calls bigint NOT NULL,
    denied_calls bigint NOT NULL,
    timed_calls bigint NOT NULL,
    duration_sum_us bigint NOT NULL,
    duration_max_us bigint NOT NULL,
    request_bytes bigint NOT NULL,
    response_bytes bigint NOT NULL,
    last_call_at timestamp with time zone NOT NULL
);


ALTER TABLE rollup.stored_tool_calls_hourly OWNER TO hubscope_test_owner;

--
-- Name: tool_calls_hourly; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.tool_calls_hourly AS
 SELECT stored.tenant_id,
    stored.hour,
    stored.hub,
    stored.server,
    stored.tool,
    stored.transport,
    stored.client,
    stored.calls,
    stored.ok_calls,
    stored.error_calls,
    stored.timeout_calls,
    stored.cancelled_calls,
    stored.denied_calls,
    stored.timed_calls,
    stored.duration_sum_us,
    stored.duration_max_us,
    stored.request_bytes,
    stored.response_bytes,
    stored.last_call_at
   FROM rollup.stored_tool_calls_hourly stored
  WHERE (NOT (EXISTS ( SELECT 1
           FROM rollup.pending,
            LATERAL unnest(pending.call_hours) d(hour)
          WHERE ((pending.tenant_id = stored.tenant_id) AND (d.hour = stored.hour)))))
UNION ALL
 SELECT parts.tenant_id,
    parts.hour,
    parts.hub,
    parts.server,
    parts.tool,
    parts.transport,
    parts.client,
    (sum(parts.calls))::bigint AS calls,
    (sum(parts.ok_calls))::bigint AS ok_calls,
    (sum(parts.error_calls))::bigint AS error_calls,
    (sum(parts.timeout_calls))::bigint AS timeout_calls,
    (sum(parts.cancelled_calls))::bigint AS cancelled_calls,
    (sum(parts.denied_calls))::bigint AS denied_calls,
    (sum(parts.timed_calls))::bigint AS timed_calls,
    (sum(parts.duration_sum_us))::bigint AS duration_sum_us,
    max(parts.duration_max_us) AS duration_max_us,
    (sum(parts.request_bytes))::bigint AS request_bytes,
    (sum(parts.response_bytes))::bigint AS response_bytes,
    max(parts.last_call_at) AS last_call_at
   FROM ( SELECT stored.tenant_id,
            stored.hour,
            stored.hub,
            stored.server,
            stored.tool,
            stored.transport,
            stored.client,
            stored.calls,
            stored.ok_calls,
            stored.error_calls,
            stored.timeout_calls,
            stored.cancelled_calls,
            stored.denied_calls,
            stored.timed_calls,
            stored.duration_sum_us,
            stored.duration_max_us,
            stored.request_bytes,
            stored.response_bytes,
            stored.last_call_at
           FROM (( SELECT DISTINCT pending.tenant_id,
                    d.hour
                   FROM rollup.pending,
                    LATERAL unnest(pending.call_hours) d(hour)) touched
             JOIN rollup.stored_tool_calls_hourly stored ON (((stored.tenant_id = touched.tenant_id) AND (stored.hour = touched.hour))))
        UNION ALL
         SELECT d.tenant_id,
            d.hour,
            d.hub,
            d.server,
            d.tool,
            d.transport,
            d.client,
            d.calls,
            d.ok_calls,
            d.error_calls,
            d.timeout_calls,
            d.cancelled_calls,
            d.denied_calls,
            d.timed_calls,
            d.duration_sum_us,
            d.duration_max_us,
            d.request_bytes,
            d.response_bytes,
            d.last_call_at
           FROM rollup.pending_tool_calls d) parts
  GROUP BY parts.tenant_id, parts.hour, parts.hub, parts.server, parts.tool, parts.transport, parts.client;


ALTER VIEW rollup.tool_calls_hourly OWNER TO hubscope_test_owner;

--
-- Name: fct_tool_usage_hourly; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.fct_tool_usage_hourly AS
 SELECT tenant_id,
    hour,
    hub,
    server,
    tool,
    transport,
    client,
    calls,
    ok_calls,
    error_calls,
    timeout_calls,
    cancelled_calls,
    denied_calls,
    timed_calls,
    duration_sum_us,
    duration_max_us,
    request_bytes,
    response_bytes,
    last_call_at
   FROM rollup.tool_calls_hourly;


ALTER VIEW analytics.fct_tool_usage_hourly OWNER TO hubscope_test_worker;

--
-- Name: job_runs; Type: TABLE; Schema: ops; Owner: hubscope_test_owner
--

CREATE TABLE ops.job_runs (
    job text NOT NULL,
    slot timestamp with time zone NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone,
    ok boolean,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL
);


ALTER TABLE ops.job_runs OWNER TO hubscope_test_owner;

--
-- Name: job_status; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.job_status AS
 SELECT DISTINCT ON (job) job,
    started_at,
    finished_at,
    ok,
    (detail ->> 'error'::text) AS error,
    ( SELECT max(good.finished_at) AS max
           FROM ops.job_runs good
          WHERE ((good.job = run.job) AND good.ok)) AS last_success_at
   FROM ops.job_runs run
  WHERE (finished_at IS NOT NULL)
  ORDER BY job, finished_at DESC;


ALTER VIEW analytics.job_status OWNER TO hubscope_test_worker;

--
-- Name: migrations; Type: TABLE; Schema: ops; Owner: hubscope_test_owner
--

CREATE TABLE ops.migrations (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    duration_ms double precision NOT NULL,
    hubscope_version text NOT NULL
);


ALTER TABLE ops.migrations OWNER TO hubscope_test_owner;

--
-- Name: store; Type: TABLE; Schema: ops; Owner: hubscope_test_owner
--

CREATE TABLE ops.store (
    engine text NOT NULL,
    reason text NOT NULL,
    made_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    only_one boolean DEFAULT true NOT NULL,
    CONSTRAINT store_engine_check CHECK ((engine = ANY (ARRAY['postgres'::text, 'timescale'::text]))),
    CONSTRAINT store_only_one_check CHECK (only_one)
);


ALTER TABLE ops.store OWNER TO hubscope_test_owner;

--
-- Name: backlog; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.backlog AS
 SELECT count(*) AS batches
   FROM rollup.pending;


ALTER VIEW rollup.backlog OWNER TO hubscope_test_owner;

--
-- Name: mart_status; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.mart_status AS
 SELECT ( SELECT store.engine
           FROM ops.store store) AS engine,
    ( SELECT max(run.finished_at) AS max
           FROM ops.job_runs run
          WHERE ((run.job = 'build_marts'::text) AND run.ok)) AS last_build_at,
    ( SELECT run.ok
           FROM ops.job_runs run
          WHERE ((run.job = 'build_marts'::text) AND (run.finished_at IS NOT NULL))
          ORDER BY run.finished_at DESC
         LIMIT 1) AS last_build_ok,
    ( SELECT max(run.started_at) AS max
           FROM ops.job_runs run
          WHERE ((run.job = 'build_marts'::text) AND run.ok)) AS last_build_started_at,
    ( SELECT backlog.batches
           FROM rollup.backlog backlog) AS pending_batches,
    ( SELECT max(migration.version) AS max
           FROM ops.migrations migration) AS schema_version;


ALTER VIEW analytics.mart_status OWNER TO hubscope_test_worker;

--
-- Name: api_keys; Type: TABLE; Schema: hub; Owner: hubscope_test_owner
--

CREATE TABLE hub.api_keys (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    key_id text NOT NULL,
    name text NOT NULL,
    owner text DEFAULT ''::text NOT NULL,
    scopes text[] NOT NULL,
    hash bytea NOT NULL,
    pepper_id text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    CONSTRAINT api_keys_hash_check CHECK ((octet_length(hash) = 32)),
    CONSTRAINT api_keys_key_id_check CHECK ((key_id ~ '^[0-9A-Za-z]{12}$'::text)),
    CONSTRAINT api_keys_name_check CHECK (((length(name) >= 1) AND (length(name) <= 100))),
    CONSTRAINT api_keys_owner_check CHECK ((length(owner) <= 200)),
    CONSTRAINT api_keys_scopes_check CHECK (((cardinality(scopes) > 0) AND (scopes <@ ARRAY['ingest'::text, 'read'::text, 'chains'::text, 'sql'::text, 'admin'::text]))),
    CONSTRAINT api_keys_tenant_id_check CHECK ((tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'::text))
);


ALTER TABLE hub.api_keys OWNER TO hubscope_test_owner;

--
-- Name: counting_vantages; Type: TABLE; Schema: hub; Owner: hubscope_test_owner
--

CREATE TABLE hub.counting_vantages (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    server text NOT NULL,
    since timestamp with time zone NOT NULL,
    vantage text NOT NULL,
    decided_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT counting_vantages_vantage_check CHECK ((vantage = ANY (ARRAY['server'::text, 'wrapper'::text, 'hub'::text, 'client'::text])))
);


ALTER TABLE hub.counting_vantages OWNER TO hubscope_test_owner;

--
-- Name: enhanced_chain_execution_steps; Type: TABLE; Schema: hub; Owner: hubscope_test_owner
--

CREATE TABLE hub.enhanced_chain_execution_steps (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    step_id uuid NOT NULL,
    chain_id uuid NOT NULL,
    step_index integer NOT NULL,
    step_name text NOT NULL,
    server_name text NOT NULL,
    tool_name text NOT NULL,
    parallel_group text,
    depends_on integer[] DEFAULT '{}'::integer[] NOT NULL,
    comes_after integer[] DEFAULT '{}'::integer[] NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    reason text,
    attempts jsonb DEFAULT '[]'::jsonb NOT NULL,
    started_at timestamp with time zone,
    completed_at timestamp with time zone,
    duration_ms double precision,
    error_type text,
    error_message text,
    result_bytes bigint,
    result_truncated boolean DEFAULT false NOT NULL,
    sealed_result bytea,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT enhanced_chain_execution_steps_duration_ms_check CHECK ((duration_ms >= (0)::double precision)),
    CONSTRAINT enhanced_chain_execution_steps_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'running'::text, 'retrying'::text, 'completed'::text, 'failed'::text, 'skipped'::text, 'cancelled'::text, 'unknown'::text]))),
    CONSTRAINT enhanced_chain_execution_steps_step_index_check CHECK ((step_index >= 0))
);


ALTER TABLE hub.enhanced_chain_execution_steps OWNER TO hubscope_test_owner;

--
-- Name: enhanced_tool_chain_executions; Type: TABLE; Schema: hub; Owner: hubscope_test_owner
--

CREATE TABLE hub.enhanced_tool_chain_executions (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    chain_id uuid NOT NULL,
    chain_config jsonb NOT NULL,
    chain_type text NOT NULL,
    signature text NOT NULL,
    status text DEFAULT 'running'::text NOT NULL,
    progress_percent integer DEFAULT 0 NOT NULL,
    completed_steps integer DEFAULT 0 NOT NULL,
    total_steps integer NOT NULL,
    failed_steps integer DEFAULT 0 NOT NULL,
    skipped_steps integer DEFAULT 0 NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    analytics boolean DEFAULT true NOT NULL,
    runs integer DEFAULT 1 NOT NULL,
    error_message text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    completed_at timestamp with time zone,
    duration_ms double precision DEFAULT 0 NOT NULL,
    lease_owner uuid,
    lease_expires_at timestamp with time zone,
    cancel_requested boolean DEFAULT false NOT NULL,
    sealed_definition bytea,
    not_resumable_because text,
    CONSTRAINT enhanced_tool_chain_executions_chain_type_check CHECK ((chain_type = ANY (ARRAY['sequential'::text, 'parallel'::text, 'graph'::text]))),
    CONSTRAINT enhanced_tool_chain_executions_duration_ms_check CHECK ((duration_ms >= (0)::double precision)),
    CONSTRAINT enhanced_tool_chain_executions_progress_percent_check CHECK (((progress_percent >= 0) AND (progress_percent <= 100))),
    CONSTRAINT enhanced_tool_chain_executions_status_check CHECK ((status = ANY (ARRAY['running'::text, 'completed'::text, 'failed'::text, 'cancelled'::text, 'timed_out'::text, 'interrupted'::text])))
);


ALTER TABLE hub.enhanced_tool_chain_executions OWNER TO hubscope_test_owner;

--
-- Name: known_names; Type: TABLE; Schema: hub; Owner: hubscope_test_owner
--

CREATE TABLE hub.known_names (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    kind text NOT NULL,
    server text DEFAULT ''::text NOT NULL,
    name text NOT NULL,
    admitted_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT known_names_kind_check CHECK ((kind = ANY (ARRAY['hub'::text, 'server'::text, 'tool'::text, 'client'::text])))
);


ALTER TABLE hub.known_names OWNER TO hubscope_test_owner;

--
-- Name: maintenance_windows; Type: TABLE; Schema: hub; Owner: hubscope_test_owner
--

CREATE TABLE hub.maintenance_windows (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    window_id uuid NOT NULL,
    server_id text NOT NULL,
    starts_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone NOT NULL,
    reason text DEFAULT ''::text NOT NULL,
    source text DEFAULT 'api'::text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    cancelled_at timestamp with time zone,
    CONSTRAINT maintenance_windows_check CHECK ((starts_at < ends_at)),
    CONSTRAINT maintenance_windows_source_check CHECK ((source = ANY (ARRAY['api'::text, 'cli'::text, 'file'::text])))
);


ALTER TABLE hub.maintenance_windows OWNER TO hubscope_test_owner;

--
-- Name: security_audit_log; Type: TABLE; Schema: hub; Owner: hubscope_test_owner
--

CREATE TABLE hub.security_audit_log (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    id uuid NOT NULL,
    recorded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    "time" timestamp with time zone NOT NULL,
    event_type text NOT NULL,
    severity text NOT NULL,
    resource_type text NOT NULL,
    resource_id text NOT NULL,
    action text NOT NULL,
    status text NOT NULL,
    actor text DEFAULT ''::text NOT NULL,
    owner text DEFAULT ''::text NOT NULL,
    user_agent text DEFAULT ''::text NOT NULL,
    session_id text DEFAULT ''::text NOT NULL,
    request_id text DEFAULT ''::text NOT NULL,
    address text DEFAULT ''::text NOT NULL,
    permissions text[] DEFAULT '{}'::text[] NOT NULL,
    description text DEFAULT ''::text NOT NULL,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT security_audit_log_severity_check CHECK ((severity = ANY (ARRAY['info'::text, 'low'::text, 'medium'::text, 'high'::text, 'critical'::text])))
)
PARTITION BY RANGE (recorded_at);


ALTER TABLE hub.security_audit_log OWNER TO hubscope_test_owner;

--
-- Name: server_secrets; Type: TABLE; Schema: hub; Owner: hubscope_test_owner
--

CREATE TABLE hub.server_secrets (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    server_id text NOT NULL,
    sealed bytea NOT NULL
);


ALTER TABLE hub.server_secrets OWNER TO hubscope_test_owner;

--
-- Name: servers; Type: TABLE; Schema: hub; Owner: hubscope_test_owner
--

CREATE TABLE hub.servers (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    server_id text NOT NULL,
    name text NOT NULL,
    description text DEFAULT ''::text NOT NULL,
    version text DEFAULT ''::text NOT NULL,
    category text DEFAULT ''::text NOT NULL,
    endpoint text NOT NULL,
    protocol text NOT NULL,
    auth_type text DEFAULT 'none'::text NOT NULL,
    capabilities text[] DEFAULT '{}'::text[] NOT NULL,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    health_check jsonb NOT NULL,
    source text DEFAULT 'api'::text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    state text DEFAULT 'unknown'::text NOT NULL,
    state_since timestamp with time zone,
    checked_at timestamp with time zone,
    valid_until timestamp with time zone,
    latency_ms double precision,
    error_type text,
    error_message text,
    memory jsonb,
    lease_holder uuid,
    lease_until timestamp with time zone,
    CONSTRAINT servers_check CHECK (((protocol <> 'stdio'::text) OR (source = 'file'::text))),
    CONSTRAINT servers_check1 CHECK (((endpoint = ''::text) = (protocol = 'stdio'::text))),
    CONSTRAINT servers_protocol_check CHECK ((protocol = ANY (ARRAY['http'::text, 'sse'::text, 'stdio'::text]))),
    CONSTRAINT servers_server_id_check CHECK ((server_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$'::text)),
    CONSTRAINT servers_source_check CHECK ((source = ANY (ARRAY['api'::text, 'file'::text]))),
    CONSTRAINT servers_state_check CHECK ((state = ANY (ARRAY['up'::text, 'degraded'::text, 'down'::text, 'maintenance'::text, 'unknown'::text]))),
    CONSTRAINT servers_tenant_id_check CHECK ((tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'::text))
);


ALTER TABLE hub.servers OWNER TO hubscope_test_owner;

--
-- Name: definitions; Type: TABLE; Schema: ops; Owner: hubscope_test_owner
--

CREATE TABLE ops.definitions (
    name text NOT NULL,
    checksum text NOT NULL,
    replayed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);


ALTER TABLE ops.definitions OWNER TO hubscope_test_owner;

--
-- Name: quality_results; Type: TABLE; Schema: ops; Owner: hubscope_test_owner
--

CREATE TABLE ops.quality_results (
    suite text NOT NULL,
    checked_at timestamp with time zone NOT NULL,
    expectation text NOT NULL,
    subject text NOT NULL,
    ok boolean NOT NULL,
    observed jsonb DEFAULT '{}'::jsonb NOT NULL
);


ALTER TABLE ops.quality_results OWNER TO hubscope_test_owner;

--
-- Name: retained; Type: TABLE; Schema: ops; Owner: hubscope_test_owner
--

CREATE TABLE ops.retained (
    relation text NOT NULL,
    since timestamp with time zone NOT NULL,
    CONSTRAINT retained_relation_check CHECK ((relation = ANY (ARRAY['raw'::text, 'hourly'::text, 'hourly_latency'::text, 'daily'::text])))
);


ALTER TABLE ops.retained OWNER TO hubscope_test_owner;

--
-- Name: touched_hours; Type: TABLE; Schema: ops; Owner: hubscope_test_owner
--

CREATE TABLE ops.touched_hours (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    hour timestamp with time zone NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL
);


ALTER TABLE ops.touched_hours OWNER TO hubscope_test_owner;

--
-- Name: hub_events; Type: TABLE; Schema: raw; Owner: hubscope_test_owner
--

CREATE TABLE raw.hub_events (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    event_id uuid NOT NULL,
    "time" timestamp with time zone NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    hub text DEFAULT ''::text NOT NULL,
    type text NOT NULL,
    name text NOT NULL,
    payload jsonb,
    CONSTRAINT hub_events_type_check CHECK ((type = ANY (ARRAY['hub_event'::text, 'audit'::text, 'chain'::text, 'chain_step'::text])))
)
PARTITION BY RANGE ("time");


ALTER TABLE raw.hub_events OWNER TO hubscope_test_owner;

--
-- Name: pending_server_checks; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.pending_server_checks AS
 SELECT pending.tenant_id,
    pending.batch_id,
    date_trunc('hour'::text, one."time", 'UTC'::text) AS hour,
    one.hub,
    one.server,
    one.source,
    (1)::bigint AS checks,
    (((one.state = 'up'::text))::integer)::bigint AS up_checks,
    (((one.state = 'degraded'::text))::integer)::bigint AS degraded_checks,
    (((one.state = 'down'::text))::integer)::bigint AS down_checks,
    (((one.state = 'maintenance'::text))::integer)::bigint AS maintenance_checks,
    (((one.state = 'unknown'::text))::integer)::bigint AS unknown_checks,
    (((one.latency_ms IS NOT NULL))::integer)::bigint AS timed_checks,
    COALESCE((round((one.latency_ms * (1000)::double precision)))::bigint, (0)::bigint) AS latency_sum_us,
    COALESCE((round((one.latency_ms * (1000)::double precision)))::bigint, (0)::bigint) AS latency_max_us,
    one."time" AS last_check_at
   FROM rollup.pending,
    LATERAL UNNEST(pending.check_times, pending.check_hubs, pending.check_servers, pending.check_sources, pending.check_states, pending.check_latencies_ms) one("time", hub, server, source, state, latency_ms);


ALTER VIEW rollup.pending_server_checks OWNER TO hubscope_test_owner;

--
-- Name: stored_server_checks_hourly; Type: TABLE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TABLE rollup.stored_server_checks_hourly (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    hour timestamp with time zone NOT NULL,
    hub text NOT NULL,
    server text NOT NULL,
    source text NOT NULL,
    checks bigint NOT NULL,
    up_checks bigint NOT NULL,
    degraded_checks bigint NOT NULL,
    down_checks bigint NOT NULL,
    maintenance_checks bigint NOT NULL,
    unknown_checks bigint NOT NULL,
    timed_checks bigint NOT NULL,
    latency_sum_us bigint NOT NULL,
    latency_max_us bigint NOT NULL,
    last_check_at timestamp with time zone NOT NULL
);


ALTER TABLE rollup.stored_server_checks_hourly OWNER TO hubscope_test_owner;

--
-- Name: server_checks_hourly; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.server_checks_hourly AS
 SELECT stored.tenant_id,
    stored.hour,
    stored.hub,
    stored.server,
    stored.source,
    stored.checks,
    stored.up_checks,
    stored.degraded_checks,
    stored.down_checks,
    stored.maintenance_checks,
    stored.unknown_checks,
    stored.timed_checks,
    stored.latency_sum_us,
    stored.latency_max_us,
    stored.last_check_at
   FROM rollup.stored_server_checks_hourly stored
  WHERE (NOT (EXISTS ( SELECT 1
           FROM rollup.pending,
            LATERAL unnest(pending.check_hours) d(hour)
          WHERE ((pending.tenant_id = stored.tenant_id) AND (d.hour = stored.hour)))))
UNION ALL
 SELECT parts.tenant_id,
    parts.hour,
    parts.hub,
    parts.server,
    parts.source,
    (sum(parts.checks))::bigint AS checks,
    (sum(parts.up_checks))::bigint AS up_checks,
    (sum(parts.degraded_checks))::bigint AS degraded_checks,
    (sum(parts.down_checks))::bigint AS down_checks,
    (sum(parts.maintenance_checks))::bigint AS maintenance_checks,
    (sum(parts.unknown_checks))::bigint AS unknown_checks,
    (sum(parts.timed_checks))::bigint AS timed_checks,
    (sum(parts.latency_sum_us))::bigint AS latency_sum_us,
    max(parts.latency_max_us) AS latency_max_us,
    max(parts.last_check_at) AS last_check_at
   FROM ( SELECT stored.tenant_id,
            stored.hour,
            stored.hub,
            stored.server,
            stored.source,
            stored.checks,
            stored.up_checks,
            stored.degraded_checks,
            stored.down_checks,
            stored.maintenance_checks,
            stored.unknown_checks,
            stored.timed_checks,
            stored.latency_sum_us,
            stored.latency_max_us,
            stored.last_check_at
           FROM (( SELECT DISTINCT pending.tenant_id,
                    d.hour
                   FROM rollup.pending,
                    LATERAL unnest(pending.check_hours) d(hour)) touched
             JOIN rollup.stored_server_checks_hourly stored ON (((stored.tenant_id = touched.tenant_id) AND (stored.hour = touched.hour))))
        UNION ALL
         SELECT d.tenant_id,
            d.hour,
            d.hub,
            d.server,
            d.source,
            d.checks,
            d.up_checks,
            d.degraded_checks,
            d.down_checks,
            d.maintenance_checks,
            d.unknown_checks,
            d.timed_checks,
            d.latency_sum_us,
            d.latency_max_us,
            d.last_check_at
           FROM rollup.pending_server_checks d) parts
  GROUP BY parts.tenant_id, parts.hour, parts.hub, parts.server, parts.source;


ALTER VIEW rollup.server_checks_hourly OWNER TO hubscope_test_owner;

--
-- Name: unnoted_hours; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.unnoted_hours AS
 SELECT NULL::text AS tenant_id,
    NULL::timestamp with time zone AS hour
  WHERE false;


ALTER VIEW rollup.unnoted_hours OWNER TO hubscope_test_owner;

--
-- Name: dim_servers; Type: VIEW; Schema: tenant; Owner: hubscope_test_worker
--

CREATE VIEW tenant.dim_servers WITH (security_barrier='true') AS
 SELECT tenant_id,
    server,
    transport,
    state,
    state_since,
    first_seen_at,
    last_seen_at,
    tools,
    calls
   FROM ( WITH tools_used AS (
                 SELECT tool_calls_daily.tenant_id,
                    tool_calls_daily.server,
                    tool_calls_daily.tool,
                    min(tool_calls_daily.day) AS first_day,
                    max(tool_calls_daily.last_call_at) AS last_call_at,
                    sum(tool_calls_daily.calls) AS calls,
                    max(tool_calls_daily.transport) AS transport
                   FROM rollup.tool_calls_daily
                  GROUP BY tool_calls_daily.tenant_id, tool_calls_daily.server, tool_calls_daily.tool
                ), used AS (
                 SELECT tools_used.tenant_id,
                    tools_used.server,
                    min(tools_used.first_day) AS first_seen_at,
                    max(tools_used.last_call_at) AS last_seen_at,
                    count(*) AS tools,
                    (sum(tools_used.calls))::bigint AS calls,
                    max(tools_used.transport) AS transport
                   FROM tools_used
                  GROUP BY tools_used.tenant_id, tools_used.server
                ), latest AS (
                 SELECT DISTINCT ON (server_events.tenant_id, server_events.server) server_events.tenant_id,
                    server_events.server,
                    server_events."time",
                    server_events.state,
                    server_events.valid_until,
                    server_events.transport
                   FROM raw.server_events
                  ORDER BY server_events.tenant_id, server_events.server, server_events."time" DESC, server_events.event_id DESC
                ), seen AS (
                 SELECT server_events.tenant_id,
                    server_events.server,
                    min(server_events."time") AS first_seen_at
                   FROM raw.server_events
                  GROUP BY server_events.tenant_id, server_events.server
                )
         SELECT tenant_id,
            server,
            COALESCE(NULLIF(latest.transport, ''::text), used.transport, ''::text) AS transport,
                CASE
                    WHEN ((latest.state IS NULL) OR (latest.valid_until < now())) THEN 'unknown'::text
                    ELSE latest.state
                END AS state,
            ( SELECT min(event."time") AS min
                   FROM raw.server_events event
                  WHERE ((event.tenant_id = latest.tenant_id) AND (event.server = latest.server) AND (event.state = latest.state) AND (event."time" > COALESCE(( SELECT max(other."time") AS max
                           FROM raw.server_events other
                          WHERE ((other.tenant_id = latest.tenant_id) AND (other.server = latest.server) AND (other.state <> latest.state))), '-infinity'::timestamp with time zone)))) AS state_since,
            LEAST(used.first_seen_at, seen.first_seen_at) AS first_seen_at,
            GREATEST(used.last_seen_at, latest."time") AS last_seen_at,
            COALESCE(used.tools, (0)::bigint) AS tools,
            COALESCE(used.calls, (0)::bigint) AS calls
           FROM ((used
             FULL JOIN latest USING (tenant_id, server))
             FULL JOIN seen USING (tenant_id, server))) mart
  WHERE (tenant_id = current_setting('hubscope.tenant'::text, true));


ALTER VIEW tenant.dim_servers OWNER TO hubscope_test_worker;

--
-- Name: fct_tool_call_totals; Type: VIEW; Schema: tenant; Owner: hubscope_test_worker
--

CREATE VIEW tenant.fct_tool_call_totals WITH (security_barrier='true') AS
 SELECT tenant_id,
    server,
    tool,
    ok_calls,
    error_calls,
    timeout_calls,
    cancelled_calls,
    denied_calls
   FROM ( SELECT days.tenant_id,
            days.server,
            days.tool,
            (sum(days.ok_calls))::bigint AS ok_calls,
            (sum(days.error_calls))::bigint AS error_calls,
            (sum(days.timeout_calls))::bigint AS timeout_calls,
            (sum(days.cancelled_calls))::bigint AS cancelled_calls,
            (sum(days.denied_calls))::bigint AS denied_calls
           FROM ( SELECT tool_calls_daily.tenant_id,
                    tool_calls_daily.server,
                    tool_calls_daily.tool,
                    tool_calls_daily.ok_calls,
                    tool_calls_daily.error_calls,
                    tool_calls_daily.timeout_calls,
                    tool_calls_daily.cancelled_calls,
                    tool_calls_daily.denied_calls
                   FROM rollup.tool_calls_daily
                UNION ALL
                 SELECT archived_tool_calls.tenant_id,
                    archived_tool_calls.server,
                    archived_tool_calls.tool,
                    archived_tool_calls.ok_calls,
                    archived_tool_calls.error_calls,
                    archived_tool_calls.timeout_calls,
                    archived_tool_calls.cancelled_calls,
                    archived_tool_calls.denied_calls
                   FROM rollup.archived_tool_calls) days
          GROUP BY days.tenant_id, days.server, days.tool) mart
  WHERE (tenant_id = current_setting('hubscope.tenant'::text, true));


ALTER VIEW tenant.fct_tool_call_totals OWNER TO hubscope_test_worker;

--
-- Name: fct_tool_calls; Type: VIEW; Schema: tenant; Owner: hubscope_test_worker
--

CREATE VIEW tenant.fct_tool_calls WITH (security_barrier='true') AS
 SELECT tenant_id,
    event_id,
    "time",
    hub,
    server,
    tool,
    status,
    duration_ms,
    error_type,
    session_id,
    client,
    transport,
    request_bytes,
    response_bytes
   FROM ( SELECT tool_calls.tenant_id,
            tool_calls.event_id,
            tool_calls."time",
            tool_calls.hub,
            tool_calls.server,
            tool_calls.tool,
            tool_calls.status,
            tool_calls.duration_ms,
            tool_calls.error_type,
            tool_calls.session_id,
            tool_calls.client,
            tool_calls.transport,
            tool_calls.request_bytes,
            tool_calls.response_bytes
           FROM raw.tool_calls
          WHERE tool_calls.counted) mart
  WHERE (tenant_id = current_setting('hubscope.tenant'::text, true));


ALTER VIEW tenant.fct_tool_calls OWNER TO hubscope_test_worker;

--
-- Name: fct_tool_latency_daily; Type: VIEW; Schema: tenant; Owner: hubscope_test_worker
--

CREATE VIEW tenant.fct_tool_latency_daily WITH (security_barrier='true') AS
 SELECT tenant_id,
    day,
    hub,
    server,
    tool,
    bucket,
    calls,
    max_us
   FROM ( SELECT tool_latency_daily.tenant_id,
            tool_latency_daily.day,
            tool_latency_daily.hub,
            tool_latency_daily.server,
            tool_latency_daily.tool,
            tool_latency_daily.bucket,
            tool_latency_daily.calls,
            tool_latency_daily.max_us
           FROM rollup.tool_latency_daily) mart
  WHERE (tenant_id = current_setting('hubscope.tenant'::text, true));


ALTER VIEW tenant.fct_tool_latency_daily OWNER TO hubscope_test_worker;

--
-- Name: fct_tool_latency_hourly; Type: VIEW; Schema: tenant; Owner: hubscope_test_worker
--

CREATE VIEW tenant.fct_tool_latency_hourly WITH (security_barrier='true') AS
 SELECT tenant_id,
    hour,
    hub,
    server,
    tool,
    bucket,
    calls,
    max_us
   FROM ( SELECT tool_latency_hourly.tenant_id,
            tool_latency_hourly.hour,
            tool_latency_hourly.hub,
            tool_latency_hourly.server,
            tool_latency_hourly.tool,
            tool_latency_hourly.bucket,
            tool_latency_hourly.calls,
            tool_latency_hourly.max_us
           FROM rollup.tool_latency_hourly) mart
  WHERE (tenant_id = current_setting('hubscope.tenant'::text, true));


ALTER VIEW tenant.fct_tool_latency_hourly OWNER TO hubscope_test_worker;

--
-- Name: fct_tool_usage_daily_live; Type: VIEW; Schema: tenant; Owner: hubscope_test_worker
--

CREATE VIEW tenant.fct_tool_usage_daily_live WITH (security_barrier='true') AS
 SELECT tenant_id,
    day,
    hub,
    server,
    tool,
    transport,
    client,
    calls,
    ok_calls,
    error_calls,
    timeout_calls,
    cancelled_calls,
    denied_calls,
    timed_calls,
    duration_sum_us,
    duration_max_us,
    request_bytes,
    response_bytes,
    last_call_at
   FROM ( SELECT tool_calls_daily.tenant_id,
            tool_calls_daily.day,
            tool_calls_daily.hub,
            tool_calls_daily.server,
            tool_calls_daily.tool,
            tool_calls_daily.transport,
            tool_calls_daily.client,
            tool_calls_daily.calls,
            tool_calls_daily.ok_calls,
            tool_calls_daily.error_calls,
            tool_calls_daily.timeout_calls,
            tool_calls_daily.cancelled_calls,
            tool_calls_daily.denied_calls,
            tool_calls_daily.timed_calls,
            tool_calls_daily.duration_sum_us,
            tool_calls_daily.duration_max_us,
            tool_calls_daily.request_bytes,
            tool_calls_daily.response_bytes,
            tool_calls_daily.last_call_at
           FROM rollup.tool_calls_daily) mart
  WHERE (tenant_id = current_setting('hubscope.tenant'::text, true));


ALTER VIEW tenant.fct_tool_usage_daily_live OWNER TO hubscope_test_worker;

--
-- Name: fct_tool_usage_hourly; Type: VIEW; Schema: tenant; Owner: hubscope_test_worker
--

CREATE VIEW tenant.fct_tool_usage_hourly WITH (security_barrier='true') AS
 SELECT tenant_id,
    hour,
    hub,
    server,
    tool,
    transport,
    client,
    calls,
    ok_calls,
    error_calls,
    timeout_calls,
    cancelled_calls,
    denied_calls,
    timed_calls,
    duration_sum_us,
    duration_max_us,
    request_bytes,
    response_bytes,
    last_call_at
   FROM ( SELECT tool_calls_hourly.tenant_id,
            tool_calls_hourly.hour,
            tool_calls_hourly.hub,
            tool_calls_hourly.server,
            tool_calls_hourly.tool,
            tool_calls_hourly.transport,
            tool_calls_hourly.client,
            tool_calls_hourly.calls,
            tool_calls_hourly.ok_calls,
            tool_calls_hourly.error_calls,
            tool_calls_hourly.timeout_calls,
            tool_calls_hourly.cancelled_calls,
            tool_calls_hourly.denied_calls,
            tool_calls_hourly.timed_calls,
            tool_calls_hourly.duration_sum_us,
            tool_calls_hourly.duration_max_us,
            tool_calls_hourly.request_bytes,
            tool_calls_hourly.response_bytes,
            tool_calls_hourly.last_call_at
           FROM rollup.tool_calls_hourly) mart
  WHERE (tenant_id = current_setting('hubscope.tenant'::text, true));


ALTER VIEW tenant.fct_tool_usage_hourly OWNER TO hubscope_test_worker;

--
-- Data for Name: api_keys; Type: TABLE DATA; Schema: hub; Owner: hubscope_test_owner
--



--
-- Data for Name: counting_vantages; Type: TABLE DATA; Schema: hub; Owner: hubscope_test_owner
--



--
-- Data for Name: enhanced_chain_execution_steps; Type: TABLE DATA; Schema: hub; Owner: hubscope_test_owner
--



--
-- Data for Name: enhanced_tool_chain_executions; Type: TABLE DATA; Schema: hub; Owner: hubscope_test_owner
--



--
-- Data for Name: known_names; Type: TABLE DATA; Schema: hub; Owner: hubscope_test_owner
--



--
-- Data for Name: maintenance_windows; Type: TABLE DATA; Schema: hub; Owner: hubscope_test_owner
--



--
-- Data for Name: server_secrets; Type: TABLE DATA; Schema: hub; Owner: hubscope_test_owner
--



--
-- Data for Name: servers; Type: TABLE DATA; Schema: hub; Owner: hubscope_test_owner
--



--
-- Data for Name: definitions; Type: TABLE DATA; Schema: ops; Owner: hubscope_test_owner
--

INSERT INTO ops.definitions VALUES ('latency_percentiles', 'df474a461560a2c2e5ad0abe35c89fbba1fcf2b1953e8d681ccf5bdb144f5239', '2026-11-22 09:15:26.694926+00');
INSERT INTO ops.definitions VALUES ('partitions', 'e6646bb447312f969b5ee04ca6b5f221c3c4c391ed29dfe70610d4b9e9aeb7aa', '2026-11-22 09:15:26.695607+00');
INSERT INTO ops.definitions VALUES ('pending', 'e8307122fa6fc19e38327836a30d9bcb205bba04cb49ec8fc3e4541b61d82dd2', '2026-11-22 09:15:26.697655+00');
INSERT INTO ops.definitions VALUES ('audit_partitions', '04b649bdb495a84847a4a9bd3f03da5b6fcbedc853f02daca3854f38b13788a9', '2026-11-22 09:15:26.698065+00');
INSERT INTO ops.definitions VALUES ('rollup_views', 'bfd5958ee8f728c7957f4cd9b4f9be5bf6eae21cdac33c6dae504b23a5acf781', '2026-11-22 09:15:26.713146+00');
INSERT INTO ops.definitions VALUES ('fold', '0157cc994715d81731a383360a90750757f2a33181d6bb73b3ce95ad81469dde', '2026-11-22 09:15:26.714095+00');
INSERT INTO ops.definitions VALUES ('pack', 'a3b8f0737d103f90e19421a22a190572c57124b2cc34ac5b14578f6600037a3e', '2026-11-22 09:15:26.714399+00');
INSERT INTO ops.definitions VALUES ('recount', '5998ac7e5c4ef010187830a30d9825a0381c4cce4ebe51dc784c451c6feb6555', '2026-11-22 09:15:26.719535+00');
INSERT INTO ops.definitions VALUES ('drop_old_pending', '5a124d4d703b6a9f53fec02a1fc4ee3d6499f29a4934fe5800c4d1900cc9bfd2', '2026-11-22 09:15:26.720713+00');
INSERT INTO ops.definitions VALUES ('database_jobs', '61d61476c4fc85e7f14ac638f1988cc924b8dd53984dd1405065d36e3d6c6ee8', '2026-11-22 09:15:26.721375+00');
INSERT INTO ops.definitions VALUES ('tenant_schema', '3dcc8706918b21b24614447444376ebf86a5b9ae839a8b6e2cd88f39b00a95f4', '2026-11-22 09:15:26.721611+00');
INSERT INTO ops.definitions VALUES ('grants', '600dc997df8581ea9491c76ec8e8675bc1861f8abd6e47d112676182ef60364b', '2026-11-22 09:15:26.736522+00');
INSERT INTO ops.definitions VALUES ('engine_grants', '889a96b8777c5881adf3befb3dfb8599d057087b4bba133bb711e9b65d15477a', '2026-11-22 09:15:26.736957+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.database_job_errors', 'e49d69935134011c4b68b38da0853976d18b227eea6ec7f8d8b95647acd1ed4e', '2026-11-22 09:15:27.491558+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.dim_servers', '50493f5e0b5c35d00b8179e59f2bd7615a5fb2d1b0843090cc3b47ed8a3eace2', '2026-11-22 09:15:27.511751+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.fct_tool_call_totals', '5d3ee09775938fb1c068787ca7fdb3d2ba3ed0c64324e0a55479087c77b39288', '2026-11-22 09:15:27.522253+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.fct_tool_calls', '617ecaac7d00c3ede467cd4ab9737edb519104571d84e86d9ea5555258a30333', '2026-11-22 09:15:27.529522+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.fct_tool_latency_daily', '0336259b66f8128882108e8819ebec168af31fea97a5c7558193db4f3f2624af', '2026-11-22 09:15:27.534816+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.fct_tool_latency_hourly', '8e4e3a0d05cc821ff53a7a0ba7c9e110a2e022bbdcd9023fe477ec8228df4260', '2026-11-22 09:15:27.539404+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.fct_tool_usage_daily_live', '0e3d66030e283965ca1651236fb1e6d02759b5c10e8fe5711fa5de90f5eb36d0', '2026-11-22 09:15:27.546113+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.fct_tool_usage_hourly', '64e48a7c2eea9f2fe213e11080a6525c71181ca25f867a3df0ffac98ead8a123', '2026-11-22 09:15:27.55294+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.job_status', 'f0f852c6a925b99439f53c779e8813c6200f0acdfb98fc874a3d3b6d4b4756d5', '2026-11-22 09:15:27.554734+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.mart_status', '0108b80355c865625672507954bb0831b46a402e09c5d59a4bf4d615cb8f3323', '2026-11-22 09:15:27.55629+00');
INSERT INTO ops.definitions VALUES ('mart:tenant.dim_servers', '9cef0ee575232da76e686b57165cd3eb981f282409ce4978faedc792a6dd8c9f', '2026-11-22 09:15:27.559641+00');
INSERT INTO ops.definitions VALUES ('mart:tenant.fct_tool_call_totals', '6085af3b1db4dc974857a7ddea3432c53e0a19727f80fb6459fb0116ebb53ada', '2026-11-22 09:15:27.566455+00');
INSERT INTO ops.definitions VALUES ('mart:tenant.fct_tool_calls', '19b1c10a6969088db4e8ae74445cf15d0f574b5cfce3a95595454f09ea689ac6', '2026-11-22 09:15:27.571368+00');
INSERT INTO ops.definitions VALUES ('mart:tenant.fct_tool_latency_daily', '973c3bf5d734ef7756301d40588acdb9122a64192875a3cfd6870ca3eaa93143', '2026-11-22 09:15:27.585062+00');
INSERT INTO ops.definitions VALUES ('mart:tenant.fct_tool_latency_hourly', '3a8163e45b7d8503d7270aa8a09ac056f136027eea722b2466c0cfe8d55c8477', '2026-11-22 09:15:27.609064+00');
INSERT INTO ops.definitions VALUES ('mart:tenant.fct_tool_usage_daily_live', '651fa06e3d64ce74044d1afa9dd9dcf8993c62a78875c61c497932198a7e6f30', '2026-11-22 09:15:27.614646+00');
INSERT INTO ops.definitions VALUES ('mart:tenant.fct_tool_usage_hourly', '1a739c403ae2ee1d6df72df40f0225a4df72e170ad0518ff77963f39a7746b1d', '2026-11-22 09:15:27.6211+00');


--
-- Data for Name: job_runs; Type: TABLE DATA; Schema: ops; Owner: hubscope_test_owner
--



--
-- Data for Name: migrations; Type: TABLE DATA; Schema: ops; Owner: hubscope_test_owner
--

INSERT INTO ops.migrations VALUES (1, 'create_schemas', '51f74528c820fc44636c2cf44258ded5d86437b2f4fb7da3ecba83fb0c443bfe', '2026-11-22 09:15:26.427426+00', 18.260656994243618, '0.2.0');
INSERT INTO ops.migrations VALUES (2, 'create_raw', '2c1dfb348c87196d908d500dca3c1c472cf5a8dcd14074556e8e5b254854ddf0', '2026-11-22 09:15:26.433915+00', 5.2634570020018145, '0.2.0');
INSERT INTO ops.migrations VALUES (3, 'create_latency_buckets', '1468cc103285b6a10142f9737a8a940a63ba28d10e40f97b0cf7b9cabb8c9cbe', '2026-11-22 09:15:26.437332+00', 2.40019600460073, '0.2.0');
INSERT INTO ops.migrations VALUES (4, 'create_rollups', '183eb2a34d73a92d18b966c95ac99136a53a3005bd4d2096786b239909a40b9f', '2026-11-22 09:15:26.503634+00', 64.67009400512325, '0.2.0');
INSERT INTO ops.migrations VALUES (5, 'create_retention', '07f3b2b68d30eb1e66a16002e1d754eaa10d7fd92d13ac9a475cd3148ffcf58a', '2026-11-22 09:15:26.536582+00', 20.157351995294448, '0.2.0');
INSERT INTO ops.migrations VALUES (6, 'create_packed_latency', '9f7d746ca51bd568537503d56157b5dd663b7e0e3f3dd16ba23ebb4cc6292e32', '2026-11-22 09:15:26.542963+00', 5.412730999523774, '0.2.0');
INSERT INTO ops.migrations VALUES (7, 'create_names', '807d1371c273a3adba6d2ab8dffb458a9f0f2ba8a806ca5667b8821fab26c9aa', '2026-11-22 09:15:26.553876+00', 9.739251996506937, '0.2.0');
INSERT INTO ops.migrations VALUES (8, 'create_api_keys', 'ca2f628381e5fbe06d221db4ffcf99f06d559ede6ac6b58515b5ceff6d20b682', '2026-11-22 09:15:26.580117+00', 16.37165500142146, '0.2.0');
INSERT INTO ops.migrations VALUES (9, 'list_pending_calls', '6a33e4d7da9dcbe8404b8614cf806bee2a93618a6ec92daa36eea3a76244f056', '2026-11-22 09:15:26.596462+00', 12.690451003436465, '0.2.0');
INSERT INTO ops.migrations VALUES (10, 'create_security_audit_log', '71b55db2e66972ee4268cb0ceb204d51492e8066efb54e0d52f1ac3da4e51067', '2026-11-22 09:15:26.607641+00', 7.871694993809797, '0.2.0');
INSERT INTO ops.migrations VALUES (11, 'create_servers', '199ece9cdab1615e128ea77a9f39787e9aaae93429279fdf0fff595c6ce09c4b', '2026-11-22 09:15:26.648074+00', 36.3901890013949, '0.2.0');
INSERT INTO ops.migrations VALUES (12, 'create_chains', '180b9979118ec8891511f0ed6f2be96ed1f53ca09ee2a87a55b0f77acf8d1613', '2026-11-22 09:15:26.685888+00', 34.18084000441013, '0.2.0');


--
-- Data for Name: quality_results; Type: TABLE DATA; Schema: ops; Owner: hubscope_test_owner
--



--
-- Data for Name: retained; Type: TABLE DATA; Schema: ops; Owner: hubscope_test_owner
--



--
-- Data for Name: store; Type: TABLE DATA; Schema: ops; Owner: hubscope_test_owner
--

INSERT INTO ops.store VALUES ('postgres', 'TimescaleDB is not installed', '2026-11-22 09:15:26.403849+00', true);


--
-- Data for Name: touched_hours; Type: TABLE DATA; Schema: ops; Owner: hubscope_test_owner
--



--
-- Data for Name: archived_tool_calls; Type: TABLE DATA; Schema: rollup; Owner: hubscope_test_owner
--



--
-- Data for Name: packed_tool_latency_daily; Type: TABLE DATA; Schema: rollup; Owner: hubscope_test_owner
--



--
-- Data for Name: pending; Type: TABLE DATA; Schema: rollup; Owner: hubscope_test_owner
--



--
-- Data for Name: stored_server_checks_hourly; Type: TABLE DATA; Schema: rollup; Owner: hubscope_test_owner
--



--
-- Data for Name: stored_tool_calls_daily; Type: TABLE DATA; Schema: rollup; Owner: hubscope_test_owner
--



--
-- Data for Name: stored_tool_calls_hourly; Type: TABLE DATA; Schema: rollup; Owner: hubscope_test_owner
--



--
-- Data for Name: stored_tool_latency_daily; Type: TABLE DATA; Schema: rollup; Owner: hubscope_test_owner
--



--
-- Data for Name: stored_tool_latency_hourly; Type: TABLE DATA; Schema: rollup; Owner: hubscope_test_owner
--



--
-- Name: api_keys api_keys_pkey; Type: CONSTRAINT; Schema: hub; Owner: hubscope_test_owner
--

ALTER TABLE ONLY hub.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (tenant_id, key_id);


--
-- Name: counting_vantages counting_vantages_pkey; Type: CONSTRAINT; Schema: hub; Owner: hubscope_test_owner
--

ALTER TABLE ONLY hub.counting_vantages
    ADD CONSTRAINT counting_vantages_pkey PRIMARY KEY (tenant_id, server, since);


--
-- Name: enhanced_chain_execution_steps enhanced_chain_execution_step_tenant_id_chain_id_step_index_key; Type: CONSTRAINT; Schema: hub; Owner: hubscope_test_owner
--

ALTER TABLE ONLY hub.enhanced_chain_execution_steps
    ADD CONSTRAINT enhanced_chain_execution_step_tenant_id_chain_id_step_index_key UNIQUE (tenant_id, chain_id, step_index);


--
-- Name: enhanced_chain_execution_steps enhanced_chain_execution_steps_pkey; Type: CONSTRAINT; Schema: hub; Owner: hubscope_test_owner
--

ALTER TABLE ONLY hub.enhanced_chain_execution_steps
    ADD CONSTRAINT enhanced_chain_execution_steps_pkey PRIMARY KEY (tenant_id, step_id);


--
-- Name: enhanced_tool_chain_executions enhanced_tool_chain_executions_pkey; Type: CONSTRAINT; Schema: hub; Owner: hubscope_test_owner
--

ALTER TABLE ONLY hub.enhanced_tool_chain_executions
    ADD CONSTRAINT enhanced_tool_chain_executions_pkey PRIMARY KEY (tenant_id, chain_id);


--
-- Name: known_names known_names_pkey; Type: CONSTRAINT; Schema: hub; Owner: hubscope_test_owner
--

ALTER TABLE ONLY hub.known_names
    ADD CONSTRAINT known_names_pkey PRIMARY KEY (tenant_id, kind, server, name);


--
-- Name: maintenance_windows maintenance_windows_pkey; Type: CONSTRAINT; Schema: hub; Owner: hubscope_test_owner
--

ALTER TABLE ONLY hub.maintenance_windows
    ADD CONSTRAINT maintenance_windows_pkey PRIMARY KEY (tenant_id, window_id);


--
-- Name: security_audit_log security_audit_log_pkey; Type: CONSTRAINT; Schema: hub; Owner: hubscope_test_owner
--

ALTER TABLE ONLY hub.security_audit_log
    ADD CONSTRAINT security_audit_log_pkey PRIMARY KEY (tenant_id, recorded_at, id);


--
-- Name: server_secrets server_secrets_pkey; Type: CONSTRAINT; Schema: hub; Owner: hubscope_test_owner
--

ALTER TABLE ONLY hub.server_secrets
    ADD CONSTRAINT server_secrets_pkey PRIMARY KEY (tenant_id, server_id);


--
-- Name: servers servers_pkey; Type: CONSTRAINT; Schema: hub; Owner: hubscope_test_owner
--

ALTER TABLE ONLY hub.servers
    ADD CONSTRAINT servers_pkey PRIMARY KEY (tenant_id, server_id);


--
-- Name: definitions definitions_pkey; Type: CONSTRAINT; Schema: ops; Owner: hubscope_test_owner
--

ALTER TABLE ONLY ops.definitions
    ADD CONSTRAINT definitions_pkey PRIMARY KEY (name);


--
-- Name: job_runs job_runs_pkey; Type: CONSTRAINT; Schema: ops; Owner: hubscope_test_owner
--

ALTER TABLE ONLY ops.job_runs
    ADD CONSTRAINT job_runs_pkey PRIMARY KEY (job, slot);


--
-- Name: migrations migrations_pkey; Type: CONSTRAINT; Schema: ops; Owner: hubscope_test_owner
--

ALTER TABLE ONLY ops.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (version);


--
-- Name: quality_results quality_results_pkey; Type: CONSTRAINT; Schema: ops; Owner: hubscope_test_owner
--

ALTER TABLE ONLY ops.quality_results
    ADD CONSTRAINT quality_results_pkey PRIMARY KEY (suite, checked_at, expectation, subject);


--
-- Name: retained retained_pkey; Type: CONSTRAINT; Schema: ops; Owner: hubscope_test_owner
--

ALTER TABLE ONLY ops.retained
    ADD CONSTRAINT retained_pkey PRIMARY KEY (relation);


--
-- Name: store store_pkey; Type: CONSTRAINT; Schema: ops; Owner: hubscope_test_owner
--

ALTER TABLE ONLY ops.store
    ADD CONSTRAINT store_pkey PRIMARY KEY (only_one);


--
-- Name: touched_hours touched_hours_pkey; Type: CONSTRAINT; Schema: ops; Owner: hubscope_test_owner
--

ALTER TABLE ONLY ops.touched_hours
    ADD CONSTRAINT touched_hours_pkey PRIMARY KEY (tenant_id, hour, xid);


--
-- Name: hub_events hub_events_pkey; Type: CONSTRAINT; Schema: raw; Owner: hubscope_test_owner
--

ALTER TABLE ONLY raw.hub_events
    ADD CONSTRAINT hub_events_pkey PRIMARY KEY (tenant_id, event_id, "time");


--
-- Name: server_events server_events_pkey; Type: CONSTRAINT; Schema: raw; Owner: hubscope_test_owner
--

ALTER TABLE ONLY raw.server_events
    ADD CONSTRAINT server_events_pkey PRIMARY KEY (tenant_id, event_id, "time");


--
-- Name: tool_calls tool_calls_pkey; Type: CONSTRAINT; Schema: raw; Owner: hubscope_test_owner
--

ALTER TABLE ONLY raw.tool_calls
    ADD CONSTRAINT tool_calls_pkey PRIMARY KEY (tenant_id, event_id, "time");


--
-- Name: archived_tool_calls archived_tool_calls_pkey; Type: CONSTRAINT; Schema: rollup; Owner: hubscope_test_owner
--

ALTER TABLE ONLY rollup.archived_tool_calls
    ADD CONSTRAINT archived_tool_calls_pkey PRIMARY KEY (tenant_id, server, tool);


--
-- Name: packed_tool_latency_daily packed_tool_latency_daily_pkey; Type: CONSTRAINT; Schema: rollup; Owner: hubscope_test_owner
--

ALTER TABLE ONLY rollup.packed_tool_latency_daily
    ADD CONSTRAINT packed_tool_latency_daily_pkey PRIMARY KEY (tenant_id, day, server, tool, hub);


--
-- Name: pending pending_pkey; Type: CONSTRAINT; Schema: rollup; Owner: hubscope_test_owner
--

ALTER TABLE ONLY rollup.pending
    ADD CONSTRAINT pending_pkey PRIMARY KEY (tenant_id, batch_id);


--
-- Name: stored_server_checks_hourly stored_server_checks_hourly_pkey; Type: CONSTRAINT; Schema: rollup; Owner: hubscope_test_owner
--

ALTER TABLE ONLY rollup.stored_server_checks_hourly
    ADD CONSTRAINT stored_server_checks_hourly_pkey PRIMARY KEY (tenant_id, hour, server, source, hub);


--
-- Name: stored_tool_calls_daily stored_tool_calls_daily_pkey; Type: CONSTRAINT; Schema: rollup; Owner: hubscope_test_owner
--

ALTER TABLE ONLY rollup.stored_tool_calls_daily
    ADD CONSTRAINT stored_tool_calls_daily_pkey PRIMARY KEY (tenant_id, day, server, tool, hub, transport, client);


--
-- Name: stored_tool_calls_hourly stored_tool_calls_hourly_pkey; Type: CONSTRAINT; Schema: rollup; Owner: hubscope_test_owner
--

ALTER TABLE ONLY rollup.stored_tool_calls_hourly
    ADD CONSTRAINT stored_tool_calls_hourly_pkey PRIMARY KEY (tenant_id, hour, server, tool, hub, transport, client);


--
-- Name: stored_tool_latency_daily stored_tool_latency_daily_pkey; Type: CONSTRAINT; Schema: rollup; Owner: hubscope_test_owner
--

ALTER TABLE ONLY rollup.stored_tool_latency_daily
    ADD CONSTRAINT stored_tool_latency_daily_pkey PRIMARY KEY (tenant_id, day, server, tool, hub, bucket);


--
-- Name: stored_tool_latency_hourly stored_tool_latency_hourly_pkey; Type: CONSTRAINT; Schema: rollup; Owner: hubscope_test_owner
--

ALTER TABLE ONLY rollup.stored_tool_latency_hourly
    ADD CONSTRAINT stored_tool_latency_hourly_pkey PRIMARY KEY (tenant_id, hour, server, tool, hub, bucket);


--
-- Name: api_keys_by_name; Type: INDEX; Schema: hub; Owner: hubscope_test_owner
--

CREATE INDEX api_keys_by_name ON hub.api_keys USING btree (tenant_id, name) WHERE (revoked_at IS NULL);


--
-- Name: enhanced_tool_chain_executions_by_signature; Type: INDEX; Schema: hub; Owner: hubscope_test_owner
--

CREATE INDEX enhanced_tool_chain_executions_by_signature ON hub.enhanced_tool_chain_executions USING btree (tenant_id, signature, created_at DESC);


--
-- Name: enhanced_tool_chain_executions_by_time; Type: INDEX; Schema: hub; Owner: hubscope_test_owner
--

CREATE INDEX enhanced_tool_chain_executions_by_time ON hub.enhanced_tool_chain_executions USING btree (tenant_id, created_at DESC);


--
-- Name: enhanced_tool_chain_executions_running; Type: INDEX; Schema: hub; Owner: hubscope_test_owner
--

CREATE INDEX enhanced_tool_chain_executions_running ON hub.enhanced_tool_chain_executions USING btree (tenant_id, lease_expires_at) WHERE (status = 'running'::text);


--
-- Name: maintenance_windows_by_end; Type: INDEX; Schema: hub; Owner: hubscope_test_owner
--

CREATE INDEX maintenance_windows_by_end ON hub.maintenance_windows USING btree (tenant_id, ends_at) WHERE (cancelled_at IS NULL);


--
-- Name: maintenance_windows_by_server; Type: INDEX; Schema: hub; Owner: hubscope_test_owner
--

CREATE INDEX maintenance_windows_by_server ON hub.maintenance_windows USING btree (tenant_id, server_id, ends_at);


--
-- Name: hub_events_by_name; Type: INDEX; Schema: raw; Owner: hubscope_test_owner
--

CREATE INDEX hub_events_by_name ON ONLY raw.hub_events USING btree (tenant_id, type, name, "time" DESC);


--
-- Name: server_events_by_server; Type: INDEX; Schema: raw; Owner: hubscope_test_owner
--

CREATE INDEX server_events_by_server ON ONLY raw.server_events USING btree (tenant_id, server, "time" DESC);


--
-- Name: tool_calls_by_time; Type: INDEX; Schema: raw; Owner: hubscope_test_owner
--

CREATE INDEX tool_calls_by_time ON ONLY raw.tool_calls USING btree (tenant_id, "time");


--
-- Name: security_audit_log append_only; Type: TRIGGER; Schema: hub; Owner: hubscope_test_owner
--

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON hub.security_audit_log FOR EACH ROW EXECUTE FUNCTION hub.refuse_audit_change();


--
-- Name: security_audit_log append_only_truncate; Type: TRIGGER; Schema: hub; Owner: hubscope_test_owner
--

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON hub.security_audit_log FOR EACH STATEMENT EXECUTE FUNCTION hub.refuse_audit_change();


--
-- Name: enhanced_chain_execution_steps enhanced_chain_execution_steps_tenant_id_chain_id_fkey; Type: FK CONSTRAINT; Schema: hub; Owner: hubscope_test_owner
--

ALTER TABLE ONLY hub.enhanced_chain_execution_steps
    ADD CONSTRAINT enhanced_chain_execution_steps_tenant_id_chain_id_fkey FOREIGN KEY (tenant_id, chain_id) REFERENCES hub.enhanced_tool_chain_executions(tenant_id, chain_id) ON DELETE CASCADE;


--
-- Name: server_secrets server_secrets_tenant_id_server_id_fkey; Type: FK CONSTRAINT; Schema: hub; Owner: hubscope_test_owner
--

ALTER TABLE ONLY hub.server_secrets
    ADD CONSTRAINT server_secrets_tenant_id_server_id_fkey FOREIGN KEY (tenant_id, server_id) REFERENCES hub.servers(tenant_id, server_id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;


--
-- Name: SCHEMA analytics; Type: ACL; Schema: -; Owner: hubscope_test_worker
--

GRANT USAGE ON SCHEMA analytics TO hubscope_test_reader;
GRANT USAGE ON SCHEMA analytics TO hubscope_test_grafana;


--
-- Name: SCHEMA audit; Type: ACL; Schema: -; Owner: hubscope_test_worker
--

GRANT USAGE ON SCHEMA audit TO hubscope_test_reader;
GRANT USAGE ON SCHEMA audit TO hubscope_test_grafana;


--
-- Name: SCHEMA health; Type: ACL; Schema: -; Owner: hubscope_test_worker
--

GRANT USAGE ON SCHEMA health TO hubscope_test_reader;
GRANT USAGE ON SCHEMA health TO hubscope_test_grafana;


--
-- Name: SCHEMA hub; Type: ACL; Schema: -; Owner: hubscope_test_owner
--

GRANT USAGE ON SCHEMA hub TO hubscope_test_writer;
GRANT USAGE ON SCHEMA hub TO hubscope_test_worker;
GRANT USAGE ON SCHEMA hub TO hubscope_test_reader;


--
-- Name: SCHEMA ops; Type: ACL; Schema: -; Owner: hubscope_test_owner
--

GRANT USAGE ON SCHEMA ops TO hubscope_test_writer;
GRANT USAGE ON SCHEMA ops TO hubscope_test_worker;
GRANT USAGE ON SCHEMA ops TO hubscope_test_reader;


--
-- Name: SCHEMA raw; Type: ACL; Schema: -; Owner: hubscope_test_owner
--

GRANT USAGE ON SCHEMA raw TO hubscope_test_writer;
GRANT USAGE ON SCHEMA raw TO hubscope_test_worker;


--
-- Name: SCHEMA rollup; Type: ACL; Schema: -; Owner: hubscope_test_owner
--

GRANT USAGE ON SCHEMA rollup TO hubscope_test_writer;
GRANT USAGE ON SCHEMA rollup TO hubscope_test_worker;
GRANT USAGE ON SCHEMA rollup TO hubscope_test_reader;
GRANT USAGE ON SCHEMA rollup TO hubscope_test_grafana;
GRANT USAGE ON SCHEMA rollup TO hubscope_test_tenant;


--
-- Name: SCHEMA tenant; Type: ACL; Schema: -; Owner: hubscope_test_worker
--

GRANT USAGE ON SCHEMA tenant TO hubscope_test_tenant;


--
-- Name: SCHEMA uptime; Type: ACL; Schema: -; Owner: hubscope_test_worker
--

GRANT USAGE ON SCHEMA uptime TO hubscope_test_reader;
GRANT USAGE ON SCHEMA uptime TO hubscope_test_grafana;


--
-- Name: FUNCTION ensure_audit_partitions(first_day date, last_day date); Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION ops.ensure_audit_partitions(first_day date, last_day date) FROM PUBLIC;
GRANT ALL ON FUNCTION ops.ensure_audit_partitions(first_day date, last_day date) TO hubscope_test_writer;
GRANT ALL ON FUNCTION ops.ensure_audit_partitions(first_day date, last_day date) TO hubscope_test_worker;


--
-- Name: FUNCTION ensure_partitions(first_day date, last_day date); Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION ops.ensure_partitions(first_day date, last_day date) FROM PUBLIC;
GRANT ALL ON FUNCTION ops.ensure_partitions(first_day date, last_day date) TO hubscope_test_writer;
GRANT ALL ON FUNCTION ops.ensure_partitions(first_day date, last_day date) TO hubscope_test_worker;


--
-- Name: FUNCTION read_database_job_errors(); Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION ops.read_database_job_errors() FROM PUBLIC;
GRANT ALL ON FUNCTION ops.read_database_job_errors() TO hubscope_test_worker;
GRANT ALL ON FUNCTION ops.read_database_job_errors() TO hubscope_test_reader;
GRANT ALL ON FUNCTION ops.read_database_job_errors() TO hubscope_test_grafana;


--
-- Name: FUNCTION check_server_checks_hourly(day timestamp with time zone, repair boolean); Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION rollup.check_server_checks_hourly(day timestamp with time zone, repair boolean) FROM PUBLIC;


--
-- Name: FUNCTION check_tool_calls_daily(day timestamp with time zone, repair boolean); Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION rollup.check_tool_calls_daily(day timestamp with time zone, repair boolean) FROM PUBLIC;


--
-- Name: FUNCTION check_tool_calls_hourly(day timestamp with time zone, repair boolean); Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION rollup.check_tool_calls_hourly(day timestamp with time zone, repair boolean) FROM PUBLIC;


--
-- Name: FUNCTION check_tool_latency_daily(day timestamp with time zone, repair boolean); Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION rollup.check_tool_latency_daily(day timestamp with time zone, repair boolean) FROM PUBLIC;


--
-- Name: FUNCTION check_tool_latency_hourly(day timestamp with time zone, repair boolean); Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION rollup.check_tool_latency_hourly(day timestamp with time zone, repair boolean) FROM PUBLIC;


--
-- Name: FUNCTION fold(max_batches integer); Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION rollup.fold(max_batches integer) FROM PUBLIC;
GRANT ALL ON FUNCTION rollup.fold(max_batches integer) TO hubscope_test_worker;


--
-- Name: FUNCTION pack_day(packed_day timestamp with time zone); Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION rollup.pack_day(packed_day timestamp with time zone) FROM PUBLIC;


--
-- Name: TABLE server_events; Type: ACL; Schema: raw; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT ON TABLE raw.server_events TO hubscope_test_writer;
GRANT SELECT ON TABLE raw.server_events TO hubscope_test_worker;


--
-- Name: FUNCTION recount_server_checks(grain text, first timestamp with time zone, past timestamp with time zone); Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION rollup.recount_server_checks(grain text, first timestamp with time zone, past timestamp with time zone) FROM PUBLIC;


--
-- Name: TABLE tool_calls; Type: ACL; Schema: raw; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT ON TABLE raw.tool_calls TO hubscope_test_writer;
GRANT SELECT ON TABLE raw.tool_calls TO hubscope_test_worker;


--
-- Name: FUNCTION recount_tool_calls(grain text, first timestamp with time zone, past timestamp with time zone); Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION rollup.recount_tool_calls(grain text, first timestamp with time zone, past timestamp with time zone) FROM PUBLIC;


--
-- Name: FUNCTION recount_tool_latency(grain text, first timestamp with time zone, past timestamp with time zone); Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION rollup.recount_tool_latency(grain text, first timestamp with time zone, past timestamp with time zone) FROM PUBLIC;


--
-- Name: TABLE database_job_errors; Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE ops.database_job_errors TO hubscope_test_worker;


--
-- Name: TABLE database_job_errors; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.database_job_errors TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.database_job_errors TO hubscope_test_grafana;


--
-- Name: TABLE pending; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT,DELETE ON TABLE rollup.pending TO hubscope_test_worker;
GRANT INSERT ON TABLE rollup.pending TO hubscope_test_writer;


--
-- Name: TABLE pending_tool_calls; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.pending_tool_calls TO hubscope_test_worker;


--
-- Name: TABLE stored_tool_calls_daily; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE rollup.stored_tool_calls_daily TO hubscope_test_worker;


--
-- Name: TABLE tool_calls_daily; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.tool_calls_daily TO hubscope_test_worker;


--
-- Name: TABLE dim_servers; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.dim_servers TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.dim_servers TO hubscope_test_grafana;


--
-- Name: TABLE archived_tool_calls; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.archived_tool_calls TO hubscope_test_worker;


--
-- Name: TABLE fct_tool_call_totals; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.fct_tool_call_totals TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.fct_tool_call_totals TO hubscope_test_grafana;


--
-- Name: TABLE fct_tool_calls; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.fct_tool_calls TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.fct_tool_calls TO hubscope_test_grafana;


--
-- Name: TABLE packed_tool_latency_daily; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT,DELETE ON TABLE rollup.packed_tool_latency_daily TO hubscope_test_worker;


--
-- Name: TABLE pending_tool_latency; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.pending_tool_latency TO hubscope_test_worker;


--
-- Name: TABLE stored_tool_latency_daily; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE rollup.stored_tool_latency_daily TO hubscope_test_worker;


--
-- Name: TABLE tool_latency_daily; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.tool_latency_daily TO hubscope_test_worker;


--
-- Name: TABLE fct_tool_latency_daily; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.fct_tool_latency_daily TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.fct_tool_latency_daily TO hubscope_test_grafana;


--
-- Name: TABLE stored_tool_latency_hourly; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE rollup.stored_tool_latency_hourly TO hubscope_test_worker;


--
-- Name: TABLE tool_latency_hourly; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.tool_latency_hourly TO hubscope_test_worker;


--
-- Name: TABLE fct_tool_latency_hourly; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.fct_tool_latency_hourly TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.fct_tool_latency_hourly TO hubscope_test_grafana;


--
-- Name: TABLE fct_tool_usage_daily_live; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.fct_tool_usage_daily_live TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.fct_tool_usage_daily_live TO hubscope_test_grafana;


--
-- Name: TABLE stored_tool_calls_hourly; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE rollup.stored_tool_calls_hourly TO hubscope_test_worker;


--
-- Name: TABLE tool_calls_hourly; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.tool_calls_hourly TO hubscope_test_worker;


--
-- Name: TABLE fct_tool_usage_hourly; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.fct_tool_usage_hourly TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.fct_tool_usage_hourly TO hubscope_test_grafana;


--
-- Name: TABLE job_runs; Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE ops.job_runs TO hubscope_test_worker;


--
-- Name: TABLE job_status; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.job_status TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.job_status TO hubscope_test_grafana;


--
-- Name: TABLE migrations; Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE ops.migrations TO hubscope_test_worker;
GRANT SELECT ON TABLE ops.migrations TO hubscope_test_reader;


--
-- Name: TABLE store; Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE ops.store TO hubscope_test_worker;
GRANT SELECT ON TABLE ops.store TO hubscope_test_reader;
GRANT SELECT ON TABLE ops.store TO hubscope_test_writer;


--
-- Name: TABLE backlog; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.backlog TO hubscope_test_worker;


--
-- Name: TABLE mart_status; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.mart_status TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.mart_status TO hubscope_test_grafana;


--
-- Name: TABLE api_keys; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE hub.api_keys TO hubscope_test_writer;


--
-- Name: COLUMN api_keys.last_used_at; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT UPDATE(last_used_at) ON TABLE hub.api_keys TO hubscope_test_writer;


--
-- Name: TABLE counting_vantages; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT ON TABLE hub.counting_vantages TO hubscope_test_writer;
GRANT SELECT ON TABLE hub.counting_vantages TO hubscope_test_worker;


--
-- Name: TABLE enhanced_chain_execution_steps; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE hub.enhanced_chain_execution_steps TO hubscope_test_writer;
GRANT SELECT ON TABLE hub.enhanced_chain_execution_steps TO hubscope_test_worker;


--
-- Name: TABLE enhanced_tool_chain_executions; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE hub.enhanced_tool_chain_executions TO hubscope_test_writer;
GRANT SELECT ON TABLE hub.enhanced_tool_chain_executions TO hubscope_test_worker;


--
-- Name: TABLE known_names; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT ON TABLE hub.known_names TO hubscope_test_writer;
GRANT SELECT ON TABLE hub.known_names TO hubscope_test_worker;


--
-- Name: TABLE maintenance_windows; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE hub.maintenance_windows TO hubscope_test_worker;
GRANT SELECT,INSERT,UPDATE ON TABLE hub.maintenance_windows TO hubscope_test_writer;


--
-- Name: TABLE security_audit_log; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE hub.security_audit_log TO hubscope_test_worker;


--
-- Name: COLUMN security_audit_log.tenant_id; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(tenant_id) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.id; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(id) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log."time"; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT("time") ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.event_type; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(event_type) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.severity; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(severity) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.resource_type; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(resource_type) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.resource_id; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(resource_id) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.action; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(action) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.status; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(status) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.actor; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(actor) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.owner; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(owner) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.user_agent; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(user_agent) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.session_id; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(session_id) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.request_id; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(request_id) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.address; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(address) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.permissions; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(permissions) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.description; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(description) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: COLUMN security_audit_log.details; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT INSERT(details) ON TABLE hub.security_audit_log TO hubscope_test_writer;


--
-- Name: TABLE server_secrets; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE hub.server_secrets TO hubscope_test_writer;


--
-- Name: TABLE servers; Type: ACL; Schema: hub; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE hub.servers TO hubscope_test_worker;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE hub.servers TO hubscope_test_writer;


--
-- Name: TABLE definitions; Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE ops.definitions TO hubscope_test_worker;


--
-- Name: TABLE quality_results; Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE ops.quality_results TO hubscope_test_worker;


--
-- Name: TABLE retained; Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE ops.retained TO hubscope_test_worker;


--
-- Name: TABLE touched_hours; Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE ops.touched_hours TO hubscope_test_worker;


--
-- Name: TABLE hub_events; Type: ACL; Schema: raw; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT ON TABLE raw.hub_events TO hubscope_test_writer;
GRANT SELECT ON TABLE raw.hub_events TO hubscope_test_worker;


--
-- Name: TABLE pending_server_checks; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.pending_server_checks TO hubscope_test_worker;


--
-- Name: TABLE stored_server_checks_hourly; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE rollup.stored_server_checks_hourly TO hubscope_test_worker;


--
-- Name: TABLE server_checks_hourly; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.server_checks_hourly TO hubscope_test_worker;


--
-- Name: TABLE unnoted_hours; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.unnoted_hours TO hubscope_test_worker;


--
-- Name: TABLE dim_servers; Type: ACL; Schema: tenant; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE tenant.dim_servers TO hubscope_test_tenant;


--
-- Name: TABLE fct_tool_call_totals; Type: ACL; Schema: tenant; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE tenant.fct_tool_call_totals TO hubscope_test_tenant;


--
-- Name: TABLE fct_tool_calls; Type: ACL; Schema: tenant; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE tenant.fct_tool_calls TO hubscope_test_tenant;


--
-- Name: TABLE fct_tool_latency_daily; Type: ACL; Schema: tenant; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE tenant.fct_tool_latency_daily TO hubscope_test_tenant;


--
-- Name: TABLE fct_tool_latency_hourly; Type: ACL; Schema: tenant; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE tenant.fct_tool_latency_hourly TO hubscope_test_tenant;


--
-- Name: TABLE fct_tool_usage_daily_live; Type: ACL; Schema: tenant; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE tenant.fct_tool_usage_daily_live TO hubscope_test_tenant;


--
-- Name: TABLE fct_tool_usage_hourly; Type: ACL; Schema: tenant; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE tenant.fct_tool_usage_hourly TO hubscope_test_tenant;


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: analytics; Owner: hubscope_test_worker
--

ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA analytics GRANT SELECT ON TABLES TO hubscope_test_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA analytics GRANT SELECT ON TABLES TO hubscope_test_grafana;


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: audit; Owner: hubscope_test_worker
--

ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA audit GRANT SELECT ON TABLES TO hubscope_test_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA audit GRANT SELECT ON TABLES TO hubscope_test_grafana;


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: health; Owner: hubscope_test_worker
--

ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA health GRANT SELECT ON TABLES TO hubscope_test_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA health GRANT SELECT ON TABLES TO hubscope_test_grafana;


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: raw; Owner: hubscope_test_owner
--

ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_owner IN SCHEMA raw GRANT SELECT ON TABLES TO hubscope_test_worker;


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: tenant; Owner: hubscope_test_worker
--

ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA tenant GRANT SELECT ON TABLES TO hubscope_test_tenant;


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: uptime; Owner: hubscope_test_worker
--

ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA uptime GRANT SELECT ON TABLES TO hubscope_test_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA uptime GRANT SELECT ON TABLES TO hubscope_test_grafana;


--
-- PostgreSQL database dump complete
--


