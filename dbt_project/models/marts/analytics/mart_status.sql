{{ config(materialized='view', tags=['live']) }}
select
    (select store.engine from {{ source('ops', 'store') }} as store) as engine,
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
    (select backlog.batches from {{ source('rollup', 'backlog') }} as backlog) as pending_batches,
    (select max(migration.version) from {{ source('ops', 'migrations') }} as migration) as schema_version
