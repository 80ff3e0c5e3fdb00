-- Day partitions of raw.*, named raw.<table>_pYYYYMMDD (what is pending, and retention, find them by name). Made ahead, so
-- that an accepted event always has a place.
-- LIKE and ATTACH rather than PARTITION OF: attaching does not stop writers.

CREATE OR REPLACE FUNCTION ops.ensure_partitions(first_day date, last_day date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
SET timezone = 'UTC'
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
REVOKE ALL ON FUNCTION ops.ensure_partitions(date, date) FROM PUBLIC;
