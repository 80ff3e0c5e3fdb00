-- Pack one day (UTC) of latency. How many rows were packed away. Waits for a fold at work, and folds wait meanwhile.

CREATE OR REPLACE FUNCTION rollup.pack_day(packed_day timestamptz) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
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
REVOKE ALL ON FUNCTION rollup.pack_day(timestamptz) FROM PUBLIC;
