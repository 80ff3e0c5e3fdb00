{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key=['tenant_id', 'day'],
    on_schema_change='append_new_columns',
    indexes=[{'columns': ['tenant_id', 'day', 'server', 'tool', 'hub'], 'unique': true}]
) }}
{#- Whole days are built again when a fold touched one of their hours. What a run has seen is a transaction id, not a
    time: built_through is the oldest transaction that this run's snapshot could not see, so the next run starts there
    and no late commit is ever missed (some days are built twice, which changes nothing). -#}
with days as (
    select distinct tenant_id, day
    from {{ ref('stg_touched_days') }}
    {% if is_incremental() %}
    where xid >= coalesce((select max(built_through) from {{ this }}), '0')::text::xid8
    {% endif %}
),

calls as (
    select
        hourly.tenant_id,
        days.day,
        hourly.hub,
        hourly.server,
        hourly.tool,
        sum(hourly.calls)::bigint as calls,
        sum(hourly.ok_calls)::bigint as ok_calls,
        sum(hourly.error_calls)::bigint as error_calls,
        sum(hourly.timeout_calls)::bigint as timeout_calls,
        sum(hourly.cancelled_calls)::bigint as cancelled_calls,
        sum(hourly.denied_calls)::bigint as denied_calls,
        sum(hourly.timed_calls)::bigint as timed_calls,
        sum(hourly.duration_sum_us)::bigint as duration_sum_us,
        max(hourly.duration_max_us) as duration_max_us
    from days
    inner join {{ source('rollup', 'tool_calls_hourly') }} as hourly
        on
            hourly.tenant_id = days.tenant_id
            and hourly.hour >= days.day
            and hourly.hour < days.day + interval '1 day'
    group by 1, 2, 3, 4, 5
),

buckets as (
    select
        hourly.tenant_id,
        days.day,
        hourly.hub,
        hourly.server,
        hourly.tool,
        hourly.bucket,
        sum(hourly.calls) as calls,
        max(hourly.max_us) as max_us
    from days
    inner join {{ source('rollup', 'tool_latency_hourly') }} as hourly
        on
            hourly.tenant_id = days.tenant_id
            and hourly.hour >= days.day
            and hourly.hour < days.day + interval '1 day'
    group by 1, 2, 3, 4, 5, 6
),

latency as (
    select
        tenant_id,
        day,
        hub,
        server,
        tool,
        rollup.latency_percentile(array_agg(bucket), array_agg(calls), 0.50, max(max_us) / 1000.0) as p50_ms,
        rollup.latency_percentile(array_agg(bucket), array_agg(calls), 0.95, max(max_us) / 1000.0) as p95_ms,
        rollup.latency_percentile(array_agg(bucket), array_agg(calls), 0.99, max(max_us) / 1000.0) as p99_ms
    from buckets
    group by 1, 2, 3, 4, 5
)

select
    calls.*,
    latency.p50_ms,
    latency.p95_ms,
    latency.p99_ms,
    now() as built_at,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint as built_through
from calls
left join latency using (tenant_id, day, hub, server, tool)
