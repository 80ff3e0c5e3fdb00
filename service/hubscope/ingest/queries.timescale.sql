-- name: add_late_marks
-- Marks for hours that may be below an aggregate's watermark, by the database's clock (see 0004_create_rollups.timescale).
INSERT INTO rollup.late_marks (tenant_id, hour, mark_id)
SELECT touched.tenant_id, touched.hour, $3::uuid
FROM unnest($1::text[], $2::timestamptz[]) AS touched (tenant_id, hour)
WHERE touched.hour < date_trunc('hour', now() - interval '1 hour', 'UTC');
