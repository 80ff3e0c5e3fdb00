-- On plain PostgreSQL every row of raw says which transaction stored it. Here nothing needs that; the column is there so that
-- raw is the same on both engines.

ALTER TABLE raw.tool_calls ADD COLUMN xact xid8;
ALTER TABLE raw.server_events ADD COLUMN xact xid8;
