-- name: latency_edges
-- The ends of the latency buckets in ms: the same numbers that rollup.latency_bucket compares with.
SELECT rollup.latency_edges();

-- name: engine
SELECT engine FROM ops.store;

-- name: ensure_partitions
SELECT ops.ensure_partitions($1::date, $2::date);
