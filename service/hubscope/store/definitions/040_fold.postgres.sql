-- Move what is pending into the stored hours and days: one statement, so that what it deletes is exactly what it adds,
-- and a reader sees each call either pending or stored. Returns how many pending rows were moved (at most max_batches);
-- 0 also when another fold is at work. Rows are added in key order.

CREATE OR REPLACE FUNCTION rollup.fold(max_batches integer DEFAULT 2000) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moved bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('hubscope.rollup.fold', 0)) THEN
        RETURN 0;
    END IF;
    WITH taken AS (
        DELETE FROM rollup.pending
        -- By their place, so that no plan can read the whole of a long backlog. Nobody moves them: folds wait for each other.
        WHERE ctid = ANY(
            ARRAY(SELECT ctid FROM rollup.pending ORDER BY tenant_id, xact, received_at LIMIT max_batches)
        )
        RETURNING tenant_id, xact, received_at, call_hours, check_hours
    ),
    -- Of the snapshot of this statement. Read from raw day by day; what a call adds to a day is added up from hours.
    touched_days AS MATERIALIZED (
        SELECT tenant_id, day, array_agg(xact) AS xacts, array_agg(received_at) AS received
        FROM (
            SELECT DISTINCT taken.tenant_id, date_trunc('day', d.hour, 'UTC') AS day, taken.xact, taken.received_at
            FROM taken, unnest(taken.call_hours) AS d (hour)
        ) AS each
        GROUP BY tenant_id, day
    ),
    new_calls AS MATERIALIZED (
        SELECT
            touched.tenant_id, part.hour, part.hub, part.server, part.tool, part.transport, part.client, part.calls,
            part.ok_calls, part.error_calls, part.timeout_calls, part.cancelled_calls, part.denied_calls,
            part.timed_calls, part.duration_sum_us, part.duration_max_us, part.request_bytes, part.response_bytes,
            part.last_call_at
        FROM touched_days AS touched
        CROSS JOIN LATERAL raw.pending_calls(
            touched.tenant_id, touched.day, touched.day + interval '1 day', touched.xacts, touched.received
        ) AS part
    ),
    new_latency AS MATERIALIZED (
        SELECT
            touched.tenant_id, part.hour, part.hub, part.server, part.tool, part.bucket, part.calls, part.max_us
        FROM touched_days AS touched
        CROSS JOIN LATERAL raw.pending_latency(
            touched.tenant_id, touched.day, touched.day + interval '1 day', touched.xacts, touched.received
        ) AS part
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
            touched.tenant_id, part.hour, part.hub, part.server, part.source, part.checks, part.up_checks,
            part.degraded_checks, part.down_checks, part.maintenance_checks, part.unknown_checks, part.timed_checks,
            part.latency_sum_us, part.latency_max_us, part.last_check_at
        FROM (
            SELECT tenant_id, day, array_agg(xact) AS xacts, array_agg(received_at) AS received
            FROM (
                SELECT DISTINCT
                    taken.tenant_id, date_trunc('day', d.hour, 'UTC') AS day, taken.xact, taken.received_at
                FROM taken, unnest(taken.check_hours) AS d (hour)
            ) AS each
            GROUP BY tenant_id, day
        ) AS touched
        CROSS JOIN LATERAL raw.pending_checks(
            touched.tenant_id, touched.day, touched.day + interval '1 day', touched.xacts, touched.received
        ) AS part
        ORDER BY touched.tenant_id, part.hour, part.server, part.source, part.hub
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
REVOKE ALL ON FUNCTION rollup.fold(integer) FROM PUBLIC;
