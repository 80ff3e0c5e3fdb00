{{ config(materialized='view', tags=['live']) }}
select
    tenant_id,
    event_id,
    time,
    hub,
    server,
    tool,
    status,
    duration_ms,
    error_type,
    session_id,
    client,
    transport,
    request_bytes,
    response_bytes
from {{ source('raw', 'tool_calls') }}
where counted
