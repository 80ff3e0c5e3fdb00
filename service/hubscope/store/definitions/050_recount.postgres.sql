-- Recount one day (UTC) from raw and compare; with repair, set what is stored to the recount less what is pending.
-- For a repair the caller holds fold's advisory lock and then begins a REPEATABLE READ transaction, so that stored, pending
-- and raw are of one instant. Never for a day that retention has taken raw from.

CREATE OR REPLACE FUNCTION rollup.recount_tool_calls(grain text, first timestamptz, past timestamptz) RETURNS TABLE (
    tenant_id text, unit timestamptz, hub text, server text, tool text, transport text, client text, calls bigint,
    ok_calls bigint, error_calls bigint, timeout_calls bigint, cancelled_calls bigint, denied_calls bigint,
    timed_calls bigint, duration_sum_us bigint, duration_max_us bigint, request_bytes bigint, response_bytes bigint,
    last_call_at timestamptz
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT
        tenant_id,
        date_trunc(grain, time, 'UTC'),
        hub,
        server,
        tool,
        transport,
        client,
        count(*),
        count(*) FILTER (WHERE status = 'ok'),
        count(*) FILTER (WHERE status = 'error'),
        count(*) FILTER (WHERE status = 'timeout'),
        count(*) FILTER (WHERE status = 'cancelled'),
        count(*) FILTER (WHERE status = 'denied'),
        count(duration_ms),
        coalesce(sum(round(duration_ms * 1000)::bigint), 0)::bigint,
        coalesce(max(round(duration_ms * 1000)::bigint), 0),
        coalesce(sum(request_bytes), 0)::bigint,
        coalesce(sum(response_bytes), 0)::bigint,
        max(time)
    FROM raw.tool_calls
    WHERE time >= first AND time < past AND counted
    GROUP BY 1, 2, 3, 4, 5, 6, 7;
END;
REVOKE ALL ON FUNCTION rollup.recount_tool_calls(text, timestamptz, timestamptz) FROM PUBLIC;

CREATE OR REPLACE FUNCTION rollup.recount_tool_latency(grain text, first timestamptz, past timestamptz) RETURNS TABLE (
    tenant_id text, unit timestamptz, hub text, server text, tool text, bucket smallint, calls bigint, max_us bigint
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT
        tenant_id,
        date_trunc(grain, time, 'UTC'),
        hub,
        server,
        tool,
        rollup.latency_bucket(duration_ms),
        count(*),
        max(round(duration_ms * 1000)::bigint)
    FROM raw.tool_calls
    WHERE time >= first AND time < past AND counted AND duration_ms IS NOT NULL
    GROUP BY 1, 2, 3, 4, 5, 6;
END;
REVOKE ALL ON FUNCTION rollup.recount_tool_latency(text, timestamptz, timestamptz) FROM PUBLIC;

CREATE OR REPLACE FUNCTION rollup.recount_server_checks(grain text, first timestamptz, past timestamptz) RETURNS TABLE (
    tenant_id text, unit timestamptz, hub text, server text, source text, checks bigint, up_checks bigint,
    degraded_checks bigint, down_checks bigint, maintenance_checks bigint, unknown_checks bigint, timed_checks bigint,
    latency_sum_us bigint, latency_max_us bigint, last_check_at timestamptz
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT
        tenant_id,
        date_trunc(grain, time, 'UTC'),
        hub,
        server,
        source,
        count(*),
        count(*) FILTER (WHERE state = 'up'),
        count(*) FILTER (WHERE state = 'degraded'),
        count(*) FILTER (WHERE state = 'down'),
        count(*) FILTER (WHERE state = 'maintenance'),
        count(*) FILTER (WHERE state = 'unknown'),
        count(latency_ms),
        coalesce(sum(round(latency_ms * 1000)::bigint), 0)::bigint,
        coalesce(max(round(latency_ms * 1000)::bigint), 0),
        max(time)
    FROM raw.server_events
    WHERE time >= first AND time < past
    GROUP BY 1, 2, 3, 4, 5;
END;
REVOKE ALL ON FUNCTION rollup.recount_server_checks(text, timestamptz, timestamptz) FROM PUBLIC;

CREATE OR REPLACE FUNCTION rollup.check_tool_calls_hourly(day timestamptz, repair boolean) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
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
        FROM rollup.pending_calls AS d
        WHERE d.hour >= $1 AND d.hour < past
        GROUP BY 1, 2, 3, 4, 5, 6, 7
    ) AS p USING (tenant_id, unit, hub, server, tool, transport, client)
    WHERE r.calls > coalesce(p.calls, 0);
    RETURN found;
END
$$;
REVOKE ALL ON FUNCTION rollup.check_tool_calls_hourly(timestamptz, boolean) FROM PUBLIC;

CREATE OR REPLACE FUNCTION rollup.check_tool_latency_hourly(day timestamptz, repair boolean) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
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
        FROM rollup.pending_latency AS d
        WHERE d.hour >= $1 AND d.hour < past
        GROUP BY 1, 2, 3, 4, 5, 6
    ) AS p USING (tenant_id, unit, hub, server, tool, bucket)
    WHERE r.calls > coalesce(p.calls, 0);
    RETURN found;
END
$$;
REVOKE ALL ON FUNCTION rollup.check_tool_latency_hourly(timestamptz, boolean) FROM PUBLIC;

CREATE OR REPLACE FUNCTION rollup.check_server_checks_hourly(day timestamptz, repair boolean) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
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
        FROM rollup.pending_checks AS d
        WHERE d.hour >= $1 AND d.hour < past
        GROUP BY 1, 2, 3, 4, 5
    ) AS p USING (tenant_id, unit, hub, server, source)
    WHERE r.checks > coalesce(p.checks, 0);
    RETURN found;
END
$$;
REVOKE ALL ON FUNCTION rollup.check_server_checks_hourly(timestamptz, boolean) FROM PUBLIC;

CREATE OR REPLACE FUNCTION rollup.check_tool_calls_daily(day timestamptz, repair boolean) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
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
        FROM rollup.pending_calls AS d
        WHERE d.hour >= $1 AND d.hour < past
        GROUP BY 1, 2, 3, 4, 5, 6, 7
    ) AS p USING (tenant_id, unit, hub, server, tool, transport, client)
    WHERE r.calls > coalesce(p.calls, 0);
    RETURN found;
END
$$;
REVOKE ALL ON FUNCTION rollup.check_tool_calls_daily(timestamptz, boolean) FROM PUBLIC;

CREATE OR REPLACE FUNCTION rollup.check_tool_latency_daily(day timestamptz, repair boolean) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
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
        FROM rollup.pending_latency AS d
        WHERE d.hour >= $1 AND d.hour < past
        GROUP BY 1, 2, 3, 4, 5, 6
    ) AS p USING (tenant_id, unit, hub, server, tool, bucket)
    WHERE r.calls > coalesce(p.calls, 0);
    RETURN found;
END
$$;
REVOKE ALL ON FUNCTION rollup.check_tool_latency_daily(timestamptz, boolean) FROM PUBLIC;
