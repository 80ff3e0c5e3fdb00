{{ config(materialized='view', tags=['live']) }}
select
    tenant_id,
    day,
    hub,
    server,
    tool,
    transport,
    client,
    calls,
    ok_calls,
    error_calls,
    timeout_calls,
    cancelled_calls,
    denied_calls,
    timed_calls,
    duration_sum_us,
    duration_max_us,
    request_bytes,
    response_bytes,
    last_call_at
from {{ source('rollup', 'tool_calls_daily') }}
