-- What the postgres engine needs on top: the writer appends what is pending, the worker folds them.

GRANT INSERT ON rollup.pending TO :writer;
GRANT DELETE ON rollup.pending, rollup.packed_tool_latency_daily TO :worker;
GRANT INSERT, UPDATE ON
    rollup.stored_tool_calls_hourly, rollup.stored_tool_latency_hourly, rollup.stored_server_checks_hourly,
    rollup.stored_tool_calls_daily, rollup.stored_tool_latency_daily
    TO :worker;
GRANT EXECUTE ON FUNCTION rollup.fold(integer) TO :worker;
-- Whoever may read a mart has its view call these; by name only who may use schema raw can.
GRANT EXECUTE ON FUNCTION
    raw.pending_calls(text, timestamptz, timestamptz, xid8[], timestamptz[]),
    raw.pending_latency(text, timestamptz, timestamptz, xid8[], timestamptz[]),
    raw.pending_checks(text, timestamptz, timestamptz, xid8[], timestamptz[])
    TO PUBLIC;
