-- What is pending is a list of the calls and checks themselves, column by column, instead of what they add up to: a
-- writer has nothing to add up, and scalar arrays cost it and the database a fraction of arrays of composites.
-- The columns that this replaces are dropped once nothing reads them any more (definitions, 055).

DO $$
BEGIN
    IF to_regprocedure('rollup.fold(integer)') IS NOT NULL THEN
        -- Fold's own lock first: a fold that held it and waited for the table would keep ours from moving anything.
        PERFORM pg_advisory_xact_lock(hashtextextended('hubscope.rollup.fold', 0));
        LOCK TABLE rollup.pending IN ACCESS EXCLUSIVE MODE;
        WHILE EXISTS (SELECT FROM rollup.pending) LOOP
            PERFORM rollup.fold(2000);
        END LOOP;
    END IF;
END
$$;

-- The elements of a row at the same place belong together; _hours are those (UTC) that the times lie in, each once.
ALTER TABLE rollup.pending
    ADD COLUMN call_hours timestamptz[] NOT NULL DEFAULT '{}',
    ADD COLUMN call_times timestamptz[] NOT NULL DEFAULT '{}',
    ADD COLUMN call_hubs text[] NOT NULL DEFAULT '{}',
    ADD COLUMN call_servers text[] NOT NULL DEFAULT '{}',
    ADD COLUMN call_tools text[] NOT NULL DEFAULT '{}',
    ADD COLUMN call_statuses text[] NOT NULL DEFAULT '{}',
    ADD COLUMN call_durations_ms double precision[] NOT NULL DEFAULT '{}',
    ADD COLUMN call_clients text[] NOT NULL DEFAULT '{}',
    ADD COLUMN call_transports text[] NOT NULL DEFAULT '{}',
    ADD COLUMN call_request_bytes bigint[] NOT NULL DEFAULT '{}',
    ADD COLUMN call_response_bytes bigint[] NOT NULL DEFAULT '{}',
    ADD COLUMN check_hours timestamptz[] NOT NULL DEFAULT '{}',
    ADD COLUMN check_times timestamptz[] NOT NULL DEFAULT '{}',
    ADD COLUMN check_hubs text[] NOT NULL DEFAULT '{}',
    ADD COLUMN check_servers text[] NOT NULL DEFAULT '{}',
    ADD COLUMN check_sources text[] NOT NULL DEFAULT '{}',
    ADD COLUMN check_states text[] NOT NULL DEFAULT '{}',
    ADD COLUMN check_latencies_ms double precision[] NOT NULL DEFAULT '{}';

-- Compressing what lives for a second would cost twice what storing it does.
ALTER TABLE rollup.pending
    ALTER COLUMN call_times SET STORAGE EXTERNAL,
    ALTER COLUMN call_hubs SET STORAGE EXTERNAL,
    ALTER COLUMN call_servers SET STORAGE EXTERNAL,
    ALTER COLUMN call_tools SET STORAGE EXTERNAL,
    ALTER COLUMN call_statuses SET STORAGE EXTERNAL,
    ALTER COLUMN call_durations_ms SET STORAGE EXTERNAL,
    ALTER COLUMN call_clients SET STORAGE EXTERNAL,
    ALTER COLUMN call_transports SET STORAGE EXTERNAL,
    ALTER COLUMN call_request_bytes SET STORAGE EXTERNAL,
    ALTER COLUMN call_response_bytes SET STORAGE EXTERNAL,
    ALTER COLUMN check_times SET STORAGE EXTERNAL,
    ALTER COLUMN check_hubs SET STORAGE EXTERNAL,
    ALTER COLUMN check_servers SET STORAGE EXTERNAL,
    ALTER COLUMN check_sources SET STORAGE EXTERNAL,
    ALTER COLUMN check_states SET STORAGE EXTERNAL,
    ALTER COLUMN check_latencies_ms SET STORAGE EXTERNAL;
