-- The days (UTC) that a fold changed and that a mart has not taken in yet, with the transaction that did it.
select
    tenant_id,
    date_trunc('day', hour, 'UTC') as day,
    xid
from {{ source('ops', 'touched_hours') }}
