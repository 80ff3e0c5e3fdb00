{{ config(materialized='view', tags=['live']) }}
-- Used tools come from days, which are kept for ever: a server does not lose its history with the hours.
with tools_used as (
    select
        tenant_id,
        server,
        tool,
        min(day) as first_day,
        max(last_call_at) as last_call_at,
        sum(calls) as calls,
        max(transport) as transport
    from {{ source('rollup', 'tool_calls_daily') }}
    group by tenant_id, server, tool
),

used as (
    select
        tenant_id,
        server,
        min(first_day) as first_seen_at,
        max(last_call_at) as last_seen_at,
        count(*) as tools,
        sum(calls)::bigint as calls,
        max(transport) as transport
    from tools_used
    group by tenant_id, server
),

-- The newest event of each server says how it is; the newest event that says otherwise, since when.
latest as (
    select distinct on (tenant_id, server)
        tenant_id,
        server,
        time,
        state,
        valid_until,
        transport
    from {{ source('raw', 'server_events') }}
    order by tenant_id, server, time desc, event_id desc
),

seen as (
    select
        tenant_id,
        server,
        min(time) as first_seen_at
    from {{ source('raw', 'server_events') }}
    group by tenant_id, server
)

select
    tenant_id,
    server,
    coalesce(nullif(latest.transport, ''), used.transport, '') as transport,
    case
        when latest.state is null or latest.valid_until < now() then 'unknown'
        else latest.state
    end as state,
    (
        select min(event.time)
        from {{ source('raw', 'server_events') }} as event
        where
            event.tenant_id = latest.tenant_id
            and event.server = latest.server
            and event.state = latest.state
            and event.time > coalesce(
                (
                    select max(other.time)
                    from {{ source('raw', 'server_events') }} as other
                    where
                        other.tenant_id = latest.tenant_id
                        and other.server = latest.server
                        and other.state <> latest.state
                ),
                '-infinity'::timestamptz
            )
    ) as state_since,
    least(used.first_seen_at, seen.first_seen_at) as first_seen_at,
    greatest(used.last_seen_at, latest.time) as last_seen_at,
    coalesce(used.tools, 0) as tools,
    coalesce(used.calls, 0) as calls
from used
full join latest using (tenant_id, server)
full join seen using (tenant_id, server)
