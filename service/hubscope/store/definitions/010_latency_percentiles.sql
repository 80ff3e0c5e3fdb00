-- Reading latency buckets (migration 0003).

-- The answer to null is null all the same; but of a function that is strict PostgreSQL does not know that an array is, too,
-- calls it for each row instead of putting its body in its place, and plans that body anew for each row where custom plans
-- are forced, as for readers (86 us a row; now 0.05).
ALTER FUNCTION rollup.latency_bucket(double precision) CALLED ON NULL INPUT;

-- What a bucket stands for, in ms: the value with the same relative distance to both ends. Bucket 0 stands for its end
-- (shown as "<= 0.1 ms"), the top bucket for null (shown as the maximum).
CREATE OR REPLACE FUNCTION rollup.latency_value(bucket smallint) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE
    WHEN bucket <= 0 THEN 0.1
    WHEN bucket >= 181 THEN NULL
    ELSE 0.1 * power(2::double precision, bucket / 8.0) * 2 / (1 + power(2::double precision, 0.125))
END;

-- The q-quantile in ms of any sum of buckets; rank is ceil(q * n), as in percentile_disc. Null without calls.
-- Never more than max_ms, the largest duration among them.
CREATE OR REPLACE FUNCTION rollup.latency_percentile(
    buckets smallint[], calls numeric[], q double precision, max_ms double precision
) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT least(rollup.latency_value(ranked.bucket), max_ms)
    FROM (
        SELECT
            pair.bucket,
            sum(pair.n) OVER (ORDER BY pair.bucket) AS reached,
            sum(pair.n) OVER () AS total
        FROM unnest(buckets, calls) AS pair (bucket, n)
    ) AS ranked
    WHERE ranked.total > 0 AND ranked.reached >= ceil(q * ranked.total::double precision)
    ORDER BY ranked.bucket
    LIMIT 1;
END;
