-- Every built day says the same as the live one, unless a fold touched it after the build.
select daily.tenant_id, daily.day
from (
    select tenant_id, day, sum(calls) as calls, max(built_through) as built_through
    from {{ ref('fct_tool_usage_daily') }}
    group by tenant_id, day
) as daily
where
    daily.calls <> (
        select coalesce(sum(live.calls), 0)
        from {{ ref('fct_tool_usage_daily_live') }} as live
        where live.tenant_id = daily.tenant_id and live.day = daily.day
    )
    and not exists (select 1 from {{ source('rollup', 'backlog') }} as backlog where backlog.batches > 0)
    and not exists (
        select 1
        from {{ source('ops', 'touched_hours') }} as touched
        where
            touched.tenant_id = daily.tenant_id
            and touched.hour >= daily.day
            and touched.hour < daily.day + interval '1 day'
            and touched.xid >= daily.built_through::text::xid8
    )
