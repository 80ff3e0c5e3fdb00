{{ config(materialized='view', tags=['live']) }}
select
    job_id,
    job,
    errors,
    last_error_at,
    last_error
from {{ source('ops', 'database_job_errors') }}
