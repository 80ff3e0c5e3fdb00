-- What migration 0009 replaced and the definitions above no longer read.

ALTER TABLE rollup.pending
    DROP COLUMN IF EXISTS tool_calls,
    DROP COLUMN IF EXISTS tool_latency,
    DROP COLUMN IF EXISTS server_checks;
DROP TYPE IF EXISTS rollup.tool_calls_delta;
DROP TYPE IF EXISTS rollup.tool_latency_delta;
DROP TYPE IF EXISTS rollup.server_checks_delta;
