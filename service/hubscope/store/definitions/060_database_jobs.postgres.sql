-- Jobs that the database runs by itself and that failed: none on plain PostgreSQL.

CREATE OR REPLACE FUNCTION ops.read_database_job_errors() RETURNS TABLE (
    job_id integer, job text, errors bigint, last_error_at timestamptz, last_error text
)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT NULL::integer, NULL::text, NULL::bigint, NULL::timestamptz, NULL::text WHERE false;
END;

CREATE OR REPLACE VIEW ops.database_job_errors AS
SELECT job_id, job, errors, last_error_at, last_error FROM ops.read_database_job_errors();
