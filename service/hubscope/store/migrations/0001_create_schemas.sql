-- Schemas by owner, and the bookkeeping of jobs. Roles exist already (store/roles.py makes them first).
-- Every key of every table that holds a tenant's data starts with tenant_id.

CREATE SCHEMA raw;
CREATE SCHEMA rollup;
CREATE SCHEMA hub;

-- The mart schemas belong to the worker: dbt makes and replaces what is in them.
CREATE SCHEMA analytics AUTHORIZATION :worker;
CREATE SCHEMA health AUTHORIZATION :worker;
CREATE SCHEMA uptime AUTHORIZATION :worker;
CREATE SCHEMA audit AUTHORIZATION :worker;

-- One row per run of a job. slot is the interval that the run stands for, so that a job runs once across replicas.
CREATE TABLE ops.job_runs (
    job text NOT NULL,
    slot timestamptz NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    ok boolean,
    detail jsonb NOT NULL DEFAULT '{}'::jsonb,
    PRIMARY KEY (job, slot)
);

-- One row per expectation and run of Great Expectations.
CREATE TABLE ops.quality_results (
    suite text NOT NULL,
    checked_at timestamptz NOT NULL,
    expectation text NOT NULL,
    subject text NOT NULL,
    ok boolean NOT NULL,
    observed jsonb NOT NULL DEFAULT '{}'::jsonb,
    PRIMARY KEY (suite, checked_at, expectation, subject)
);

-- One row per tenant, hour and fold that changed that hour: what an incremental mart has to build again.
-- xid is the folding transaction, so that a reader can tell what its snapshot did not see (a clock cannot).
CREATE TABLE ops.touched_hours (
    tenant_id text NOT NULL DEFAULT 'default',
    hour timestamptz NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (tenant_id, hour, xid)
);
