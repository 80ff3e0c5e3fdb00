{{ config(materialized='view', tags=['live']) }}
-- The newest finished run of each of hubscope's own jobs.
select distinct on (run.job)
    run.job,
    run.started_at,
    run.finished_at,
    run.ok,
    run.detail ->> 'error' as error,
    (
        select max(good.finished_at)
        from {{ source('ops', 'job_runs') }} as good
        where good.job = run.job and good.ok
    ) as last_success_at
from {{ source('ops', 'job_runs') }} as run
where run.finished_at is not null
order by run.job, run.finished_at desc
