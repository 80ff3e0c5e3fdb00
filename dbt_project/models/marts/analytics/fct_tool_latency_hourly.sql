{{ config(materialized='view', tags=['live']) }}
select
    tenant_id,
    hour,
    hub,
    server,
    tool,
    bucket,
    calls,
    max_us
from {{ source('rollup', 'tool_latency_hourly') }}
