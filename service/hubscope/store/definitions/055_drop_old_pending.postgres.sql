-- What migrations 0009 and 0014 replaced and the definitions above no longer read.

DROP VIEW IF EXISTS rollup.pending_tool_calls, rollup.pending_tool_latency, rollup.pending_server_checks;
DROP TABLE IF EXISTS rollup.pending_before;
DROP TYPE IF EXISTS rollup.tool_calls_delta;
DROP TYPE IF EXISTS rollup.tool_latency_delta;
DROP TYPE IF EXISTS rollup.server_checks_delta;
