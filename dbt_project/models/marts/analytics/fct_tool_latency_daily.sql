{{ config(materialized='view', tags=['live']) }}
select
    tenant_id,
    day,
    hub,
    server,
    tool,
    bucket,
    calls,
    max_us
from {{ source('rollup', 'tool_latency_daily') }}
