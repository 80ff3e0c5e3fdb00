-- name: add_pending
-- What one transaction adds to the rollups, one row per tenant: calls and checks, column by column.
INSERT INTO rollup.pending (
    tenant_id, batch_id, call_hours, call_times, call_hubs, call_servers, call_tools, call_statuses, call_durations_ms,
    call_clients, call_transports, call_request_bytes, call_response_bytes, check_hours, check_times, check_hubs,
    check_servers, check_sources, check_states, check_latencies_ms
)
VALUES (
    $1, $2, $3::timestamptz[], $4::timestamptz[], $5::text::text[], $6::text::text[], $7::text::text[],
    $8::text::text[], $9::text::double precision[], $10::text::text[], $11::text::text[], $12::text::bigint[],
    $13::text::bigint[], $14::timestamptz[], $15::timestamptz[], $16::text::text[], $17::text::text[],
    $18::text::text[], $19::text::text[], $20::text::double precision[]
);
