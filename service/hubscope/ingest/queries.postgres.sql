-- name: add_pending
-- That a tenant's calls and checks which this transaction stores are not in the rollups yet. Which ones, the transaction
-- itself says. Tenants, and for each the hours of its calls and of its checks, as texts of arrays.
INSERT INTO rollup.pending (tenant_id, call_hours, check_hours)
SELECT touched.tenant_id, touched.call_hours::timestamptz[], touched.check_hours::timestamptz[]
FROM unnest($1::text[], $2::text[], $3::text[]) AS touched (tenant_id, call_hours, check_hours);
