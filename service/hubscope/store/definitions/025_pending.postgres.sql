-- What is committed and not folded yet: the rows of raw whose transaction stands in rollup.pending, added up in the columns
-- of the rollups.
--
-- Each function reads one day's partition of raw by name. Asked for by time, raw would be planned and locked with all its
-- partitions for every reference in every query (milliseconds at a hundred). And no condition on time stands where an
-- index could serve it: the index by transaction is the only one that fits better than by tenant, so statistics
-- that lag behind a growing partition cannot lead to another plan.
-- They run as their owner, for readers of marts may not read raw; and in schema raw, which these may not use, so that
-- nobody but a view of ours can call them, for the tenants that the view's reader sees.

-- Counted calls of one tenant and one span of time within a day (UTC), stored by these transactions: one row per hour,
-- hub, server, tool, transport and client.
CREATE OR REPLACE FUNCTION raw.pending_calls(
    of_tenant text, since timestamptz, past timestamptz, xacts xid8[], received timestamptz[]
) RETURNS TABLE (
    hour timestamptz, hub text, server text, tool text, transport text, client text, calls bigint,
    ok_calls bigint, error_calls bigint, timeout_calls bigint, cancelled_calls bigint, denied_calls bigint,
    timed_calls bigint, duration_sum_us bigint, duration_max_us bigint, request_bytes bigint, response_bytes bigint,
    last_call_at timestamptz
)
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER ROWS 100
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_sort = off
AS $$
DECLARE
    part CONSTANT regclass := to_regclass('raw.tool_calls_p' || to_char(since AT TIME ZONE 'UTC', 'YYYYMMDD'));
BEGIN
    IF part IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        $query$
        SELECT
            date_trunc('hour', one.time, 'UTC'),
            one.hub,
            one.server,
            one.tool,
            one.transport,
            one.client,
            count(*),
            count(*) FILTER (WHERE one.status = 'ok'),
            count(*) FILTER (WHERE one.status = 'error'),
            count(*) FILTER (WHERE one.status = 'timeout'),
            count(*) FILTER (WHERE one.status = 'cancelled'),
            count(*) FILTER (WHERE one.status = 'denied'),
            count(one.duration_ms),
            coalesce(sum(round(one.duration_ms * 1000)::bigint), 0)::bigint,
            coalesce(max(round(one.duration_ms * 1000)::bigint), 0),
            coalesce(sum(one.request_bytes), 0)::bigint,
            coalesce(sum(one.response_bytes), 0)::bigint,
            max(one.time)
        FROM unnest($4, $5) AS pending (xact, received_at)
        CROSS JOIN LATERAL (
            SELECT
                r.time, r.hub, r.server, r.tool, r.transport, r.client, r.status, r.duration_ms, r.request_bytes,
                r.response_bytes
            FROM %s AS r
            WHERE r.tenant_id = $1 AND r.xact = pending.xact AND r.received_at = pending.received_at AND r.counted
            OFFSET 0
        ) AS one
        WHERE one.time >= $2 AND one.time < $3
        GROUP BY 1, 2, 3, 4, 5, 6
        $query$,
        part
    ) USING of_tenant, since, past, xacts, received;
END
$$;

-- Latency of these calls, likewise: one row per hour, hub, server, tool and bucket.
CREATE OR REPLACE FUNCTION raw.pending_latency(
    of_tenant text, since timestamptz, past timestamptz, xacts xid8[], received timestamptz[]
) RETURNS TABLE (hour timestamptz, hub text, server text, tool text, bucket smallint, calls bigint, max_us bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER ROWS 100
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_sort = off
AS $$
DECLARE
    part CONSTANT regclass := to_regclass('raw.tool_calls_p' || to_char(since AT TIME ZONE 'UTC', 'YYYYMMDD'));
BEGIN
    IF part IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        $query$
        SELECT
            date_trunc('hour', one.time, 'UTC'),
            one.hub,
            one.server,
            one.tool,
            rollup.latency_bucket(one.duration_ms),
            count(*),
            max(round(one.duration_ms * 1000)::bigint)
        FROM unnest($4, $5) AS pending (xact, received_at)
        CROSS JOIN LATERAL (
            SELECT r.time, r.hub, r.server, r.tool, r.duration_ms
            FROM %s AS r
            WHERE
                r.tenant_id = $1 AND r.xact = pending.xact AND r.received_at = pending.received_at AND r.counted
                AND r.duration_ms IS NOT NULL
            OFFSET 0
        ) AS one
        WHERE one.time >= $2 AND one.time < $3
        GROUP BY 1, 2, 3, 4, 5
        $query$,
        part
    ) USING of_tenant, since, past, xacts, received;
END
$$;

-- Checks, likewise: one row per hour, hub, server and source.
CREATE OR REPLACE FUNCTION raw.pending_checks(
    of_tenant text, since timestamptz, past timestamptz, xacts xid8[], received timestamptz[]
) RETURNS TABLE (
    hour timestamptz, hub text, server text, source text, checks bigint, up_checks bigint, degraded_checks bigint,
    down_checks bigint, maintenance_checks bigint, unknown_checks bigint, timed_checks bigint, latency_sum_us bigint,
    latency_max_us bigint, last_check_at timestamptz
)
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER ROWS 100
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_sort = off
AS $$
DECLARE
    part CONSTANT regclass := to_regclass('raw.server_events_p' || to_char(since AT TIME ZONE 'UTC', 'YYYYMMDD'));
BEGIN
    IF part IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        $query$
        SELECT
            date_trunc('hour', one.time, 'UTC'),
            one.hub,
            one.server,
            one.source,
            count(*),
            count(*) FILTER (WHERE one.state = 'up'),
            count(*) FILTER (WHERE one.state = 'degraded'),
            count(*) FILTER (WHERE one.state = 'down'),
            count(*) FILTER (WHERE one.state = 'maintenance'),
            count(*) FILTER (WHERE one.state = 'unknown'),
            count(one.latency_ms),
            coalesce(sum(round(one.latency_ms * 1000)::bigint), 0)::bigint,
            coalesce(max(round(one.latency_ms * 1000)::bigint), 0),
            max(one.time)
        FROM unnest($4, $5) AS pending (xact, received_at)
        CROSS JOIN LATERAL (
            SELECT r.time, r.hub, r.server, r.source, r.state, r.latency_ms
            FROM %s AS r
            WHERE r.tenant_id = $1 AND r.xact = pending.xact AND r.received_at = pending.received_at
            OFFSET 0
        ) AS one
        WHERE one.time >= $2 AND one.time < $3
        GROUP BY 1, 2, 3, 4
        $query$,
        part
    ) USING of_tenant, since, past, xacts, received;
END
$$;

-- Hour by hour, so that who asks for a tenant and a span has only those looked up.
CREATE OR REPLACE VIEW rollup.pending_calls AS
SELECT
    touched.tenant_id, touched.hour, part.hub, part.server, part.tool, part.transport, part.client, part.calls,
    part.ok_calls, part.error_calls, part.timeout_calls, part.cancelled_calls, part.denied_calls, part.timed_calls,
    part.duration_sum_us, part.duration_max_us, part.request_bytes, part.response_bytes, part.last_call_at
FROM (
    SELECT
        pending.tenant_id, d.hour, array_agg(pending.xact) AS xacts, array_agg(pending.received_at) AS received
    FROM rollup.pending, unnest(pending.call_hours) AS d (hour)
    GROUP BY pending.tenant_id, d.hour
) AS touched
CROSS JOIN LATERAL raw.pending_calls(
    touched.tenant_id, touched.hour, touched.hour + interval '1 hour', touched.xacts, touched.received
) AS part;

CREATE OR REPLACE VIEW rollup.pending_latency AS
SELECT
    touched.tenant_id, touched.hour, part.hub, part.server, part.tool, part.bucket, part.calls, part.max_us
FROM (
    SELECT
        pending.tenant_id, d.hour, array_agg(pending.xact) AS xacts, array_agg(pending.received_at) AS received
    FROM rollup.pending, unnest(pending.call_hours) AS d (hour)
    GROUP BY pending.tenant_id, d.hour
) AS touched
CROSS JOIN LATERAL raw.pending_latency(
    touched.tenant_id, touched.hour, touched.hour + interval '1 hour', touched.xacts, touched.received
) AS part;

-- The same day by day, for days: a commit of many hours is read once for each day.
CREATE OR REPLACE VIEW rollup.pending_calls_of_days AS
SELECT
    touched.tenant_id, touched.day, part.hub, part.server, part.tool, part.transport, part.client, part.calls,
    part.ok_calls, part.error_calls, part.timeout_calls, part.cancelled_calls, part.denied_calls, part.timed_calls,
    part.duration_sum_us, part.duration_max_us, part.request_bytes, part.response_bytes, part.last_call_at
FROM (
    SELECT
        pending.tenant_id, d.day, array_agg(pending.xact) AS xacts, array_agg(pending.received_at) AS received
    FROM rollup.pending, LATERAL (
        SELECT DISTINCT date_trunc('day', h.hour, 'UTC') AS day FROM unnest(pending.call_hours) AS h (hour)
    ) AS d
    GROUP BY pending.tenant_id, d.day
) AS touched
CROSS JOIN LATERAL raw.pending_calls(
    touched.tenant_id, touched.day, touched.day + interval '1 day', touched.xacts, touched.received
) AS part;

CREATE OR REPLACE VIEW rollup.pending_latency_of_days AS
SELECT
    touched.tenant_id, touched.day, part.hub, part.server, part.tool, part.bucket, part.calls, part.max_us
FROM (
    SELECT
        pending.tenant_id, d.day, array_agg(pending.xact) AS xacts, array_agg(pending.received_at) AS received
    FROM rollup.pending, LATERAL (
        SELECT DISTINCT date_trunc('day', h.hour, 'UTC') AS day FROM unnest(pending.call_hours) AS h (hour)
    ) AS d
    GROUP BY pending.tenant_id, d.day
) AS touched
CROSS JOIN LATERAL raw.pending_latency(
    touched.tenant_id, touched.day, touched.day + interval '1 day', touched.xacts, touched.received
) AS part;

CREATE OR REPLACE VIEW rollup.pending_checks AS
SELECT
    touched.tenant_id, touched.hour, part.hub, part.server, part.source, part.checks, part.up_checks,
    part.degraded_checks, part.down_checks, part.maintenance_checks, part.unknown_checks, part.timed_checks,
    part.latency_sum_us, part.latency_max_us, part.last_check_at
FROM (
    SELECT
        pending.tenant_id, d.hour, array_agg(pending.xact) AS xacts, array_agg(pending.received_at) AS received
    FROM rollup.pending, unnest(pending.check_hours) AS d (hour)
    GROUP BY pending.tenant_id, d.hour
) AS touched
CROSS JOIN LATERAL raw.pending_checks(
    touched.tenant_id, touched.hour, touched.hour + interval '1 hour', touched.xacts, touched.received
) AS part;
