{{ config(materialized='view', tags=['live']) }}
select
    'postgres'::text as engine,
    (
        select max(run.finished_at)
        from {{ source('ops', 'job_runs') }} as run
        where run.job = 'build_marts' and run.ok
    ) as last_build_at,
    (
        select run.ok
        from {{ source('ops', 'job_runs') }} as run
        where run.job = 'build_marts' and run.finished_at is not null
        order by run.finished_at desc
        limit 1
    ) as last_build_ok,
    (
        select max(run.started_at)
        from {{ source('ops', 'job_runs') }} as run
        where run.job = 'build_marts' and run.ok
    ) as last_build_started_at,
    (select count(*) from {{ source('rollup', 'pending') }}) as pending_batches
