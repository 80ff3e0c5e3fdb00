-- name: add_pending
-- That a tenant's calls and checks which this transaction stores are not in the rollups yet. Which ones, the transaction
-- itself says.
INSERT INTO rollup.pending (tenant_id, call_hours, check_hours) VALUES ($1, $2::timestamptz[], $3::timestamptz[]);
