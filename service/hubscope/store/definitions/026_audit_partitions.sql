-- Month partitions (UTC) of hub.security_audit_log, named ..._pYYYYMM, on both engines. Made ahead, so that a record always
-- has a place.

CREATE OR REPLACE FUNCTION ops.ensure_audit_partitions(first_day date, last_day date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
SET timezone = 'UTC'
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
REVOKE ALL ON FUNCTION ops.ensure_audit_partitions(date, date) FROM PUBLIC;
