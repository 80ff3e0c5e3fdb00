-- Every row of raw says which transaction stored it, so that what is pending need not be listed a second time: a pending
-- row names its transaction and the hours that it touches, and the calls and checks are read from raw.

DO $$
BEGIN
    IF to_regprocedure('rollup.fold(integer)') IS NOT NULL THEN
        -- Fold's own lock first: a fold that held it and waited for a table would keep ours from moving anything. Then
        -- the tables in the order in which a commit takes them.
        PERFORM pg_advisory_xact_lock(hashtextextended('hubscope.rollup.fold', 0));
        LOCK TABLE raw.tool_calls, raw.server_events, rollup.pending IN ACCESS EXCLUSIVE MODE;
        WHILE EXISTS (SELECT FROM rollup.pending) LOOP
            PERFORM rollup.fold(2000);
        END LOOP;
    END IF;
END
$$;

-- Not in one step: rows that are there already belong to no pending row and stay without a transaction.
ALTER TABLE raw.tool_calls ADD COLUMN xact xid8;
ALTER TABLE raw.server_events ADD COLUMN xact xid8;
ALTER TABLE raw.tool_calls ALTER COLUMN xact SET DEFAULT pg_current_xact_id();
ALTER TABLE raw.server_events ALTER COLUMN xact SET DEFAULT pg_current_xact_id();
CREATE INDEX tool_calls_by_xact ON raw.tool_calls (tenant_id, xact);
CREATE INDEX server_events_by_xact ON raw.server_events (tenant_id, xact);

-- A table of its own rather than other columns: whoever still appends in the old form is refused at once, as a whole.
-- The views that read the old one are replaced with the definitions, which then drop it (055). It leaves its names.
ALTER TABLE rollup.pending RENAME TO pending_before;
ALTER TABLE rollup.pending_before DROP CONSTRAINT pending_pkey;
ALTER TABLE rollup.pending_before
    ALTER COLUMN tenant_id DROP NOT NULL,
    ALTER COLUMN call_hours DROP NOT NULL,
    ALTER COLUMN check_hours DROP NOT NULL;

-- One row per tenant and transaction that is committed and not folded yet. A row of raw belongs to it when tenant, xact
-- and received_at are equal: both tables take the latter two from the transaction. received_at tells transactions of
-- different clusters apart, whose numbers may be the same (dump and restore).
-- _hours are those (UTC) that times of calls that count and of checks lie in, each once.
CREATE TABLE rollup.pending (
    tenant_id text NOT NULL DEFAULT 'default',
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    received_at timestamptz NOT NULL DEFAULT now(),
    call_hours timestamptz[] NOT NULL,
    check_hours timestamptz[] NOT NULL,
    PRIMARY KEY (tenant_id, xact, received_at)
);
-- Rows live for a second: the table is vacuumed by their number, not by a share of it.
ALTER TABLE rollup.pending SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
