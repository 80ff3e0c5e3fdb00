-- Jobs that TimescaleDB's own scheduler ran and that failed in the last day. TimescaleDB shows errors only to members of the
-- job's owner, so the owner role looks for everybody.

CREATE OR REPLACE FUNCTION ops.read_database_job_errors() RETURNS TABLE (
    job_id integer, job text, errors bigint, last_error_at timestamptz, last_error text
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        failed.job_id::integer,
        failed.proc_schema || '.' || failed.proc_name,
        count(*),
        max(failed.finish_time),
        (array_agg(failed.err_message ORDER BY failed.finish_time DESC))[1]
    FROM timescaledb_information.job_errors AS failed
    WHERE failed.finish_time > now() - interval '1 day'
    GROUP BY 1, 2
$$;

CREATE OR REPLACE VIEW ops.database_job_errors AS
SELECT job_id, job, errors, last_error_at, last_error FROM ops.read_database_job_errors();
