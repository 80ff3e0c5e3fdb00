-- depends_on: {{ ref('stg_touched_days') }}
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key=['tenant_id', 'day'],
    on_schema_change='append_new_columns',
    indexes=[{'columns': ['tenant_id', 'day', 'server', 'tool', 'hub'], 'unique': true}]
) }}
{#- Whole days are built again when one of their hours changed. What a run has seen is a transaction id, not a time:
    built_through is the oldest transaction that this run's snapshot could not see, so the next run starts there and no
    late commit is ever missed (some days are built twice, which changes nothing). Where nobody notes recent hours
    (rollup.unnoted_hours), those since three hours before the last build are built again: events that came later than
    that for an older hour are noted. -#}
with days as (
    {% if is_incremental() %}
    select tenant_id, day
    from {{ ref('stg_touched_days') }}
    where xid >= coalesce((select max(built_through) from {{ this }}), '0')::text::xid8
    union
    select tenant_id, date_trunc('day', hour, 'UTC') as day
    from {{ source('rollup', 'unnoted_hours') }}
    where hour >= coalesce((select max(built_at) from {{ this }}) - interval '3 hours', '-infinity'::timestamptz)
    {% else %}
    select distinct tenant_id, day
    from {{ source('rollup', 'tool_calls_daily') }}
    {% endif %}
),

calls as (
    select
        daily.tenant_id,
        daily.day,
        daily.hub,
        daily.server,
        daily.tool,
        sum(daily.calls)::bigint as calls,
        sum(daily.ok_calls)::bigint as ok_calls,
        sum(daily.error_calls)::bigint as error_calls,
        sum(daily.timeout_calls)::bigint as timeout_calls,
        sum(daily.cancelled_calls)::bigint as cancelled_calls,
        sum(daily.denied_calls)::bigint as denied_calls,
        sum(daily.timed_calls)::bigint as timed_calls,
        sum(daily.duration_sum_us)::bigint as duration_sum_us,
        max(daily.duration_max_us) as duration_max_us
    from days
    inner join {{ source('rollup', 'tool_calls_daily') }} as daily
        on daily.tenant_id = days.tenant_id and daily.day = days.day
    group by 1, 2, 3, 4, 5
),

latency as (
    select
        daily.tenant_id,
        daily.day,
        daily.hub,
        daily.server,
        daily.tool,
        rollup.latency_percentile(
            array_agg(daily.bucket), array_agg(daily.calls), 0.50, max(daily.max_us) / 1000.0
        ) as p50_ms,
        rollup.latency_percentile(
            array_agg(daily.bucket), array_agg(daily.calls), 0.95, max(daily.max_us) / 1000.0
        ) as p95_ms,
        rollup.latency_percentile(
            array_agg(daily.bucket), array_agg(daily.calls), 0.99, max(daily.max_us) / 1000.0
        ) as p99_ms
    from days
    inner join {{ source('rollup', 'tool_latency_daily') }} as daily
        on daily.tenant_id = days.tenant_id and daily.day = days.day
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
