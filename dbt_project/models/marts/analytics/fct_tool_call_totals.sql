{{ config(materialized='view', tags=['live']) }}
-- Days are kept for long or for ever; those that retention took are in the archive. So these numbers never go down.
select
    tenant_id,
    server,
    tool,
    sum(ok_calls)::bigint as ok_calls,
    sum(error_calls)::bigint as error_calls,
    sum(timeout_calls)::bigint as timeout_calls,
    sum(cancelled_calls)::bigint as cancelled_calls,
    sum(denied_calls)::bigint as denied_calls
from (
    select tenant_id, server, tool, ok_calls, error_calls, timeout_calls, cancelled_calls, denied_calls
    from {{ source('rollup', 'tool_calls_daily') }}
    union all
    select tenant_id, server, tool, ok_calls, error_calls, timeout_calls, cancelled_calls, denied_calls
    from {{ source('rollup', 'archived_tool_calls') }}
) as days
group by tenant_id, server, tool
