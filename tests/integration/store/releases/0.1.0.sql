--
-- PostgreSQL database dump
--



SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: analytics; Type: SCHEMA; Schema: -; Owner: hubscope_test_worker
--

CREATE SCHEMA analytics;


ALTER SCHEMA analytics OWNER TO hubscope_test_worker;

--
-- Name: audit; Type: SCHEMA; Schema: -; Owner: hubscope_test_worker
--

CREATE SCHEMA audit;


ALTER SCHEMA audit OWNER TO hubscope_test_worker;

--
-- Name: health; Type: SCHEMA; Schema: -; Owner: hubscope_test_worker
--

CREATE SCHEMA health;


ALTER SCHEMA health OWNER TO hubscope_test_worker;

--
-- Name: hub; Type: SCHEMA; Schema: -; Owner: hubscope_test_owner
--

CREATE SCHEMA hub;


ALTER SCHEMA hub OWNER TO hubscope_test_owner;

--
-- Name: ops; Type: SCHEMA; Schema: -; Owner: hubscope_test_owner
--

CREATE SCHEMA ops;


ALTER SCHEMA ops OWNER TO hubscope_test_owner;

--
-- Name: raw; Type: SCHEMA; Schema: -; Owner: hubscope_test_owner
--

CREATE SCHEMA raw;


ALTER SCHEMA raw OWNER TO hubscope_test_owner;

--
-- Name: rollup; Type: SCHEMA; Schema: -; Owner: hubscope_test_owner
--

CREATE SCHEMA rollup;


ALTER SCHEMA rollup OWNER TO hubscope_test_owner;

--
-- Name: uptime; Type: SCHEMA; Schema: -; Owner: hubscope_test_worker
--

CREATE SCHEMA uptime;


ALTER SCHEMA uptime OWNER TO hubscope_test_worker;

--
-- Name: btree_gin; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS btree_gin WITH SCHEMA public;


--
-- Name: EXTENSION btree_gin; Type: COMMENT; Schema: -; Owner: 
--

COMMENT ON EXTENSION btree_gin IS 'support for indexing common datatypes in GIN';


--
-- Name: server_checks_delta; Type: TYPE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TYPE rollup.server_checks_delta AS (
	hour timestamp with time zone,
	hub text,
	server text,
	source text,
	checks bigint,
	up_checks bigint,
	degraded_checks bigint,
	down_checks bigint,
	maintenance_checks bigint,
	unknown_checks bigint,
	timed_checks bigint,
	latency_sum_us bigint,
	latency_max_us bigint,
	last_check_at timestamp with time zone
);


ALTER TYPE rollup.server_checks_delta OWNER TO hubscope_test_owner;

--
-- Name: tool_calls_delta; Type: TYPE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TYPE rollup.tool_calls_delta AS (
	hour timestamp with time zone,
	hub text,
	server text,
	tool text,
	transport text,
	client text,
	calls bigint,
	ok_calls bigint,
	error_calls bigint,
	timeout_calls bigint,
	cancelled_calls bigint,
	denied_calls bigint,
	timed_calls bigint,
	duration_sum_us bigint,
	duration_max_us bigint,
	request_bytes bigint,
	response_bytes bigint,
	last_call_at timestamp with time zone
);


ALTER TYPE rollup.tool_calls_delta OWNER TO hubscope_test_owner;

--
-- Name: tool_latency_delta; Type: TYPE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TYPE rollup.tool_latency_delta AS (
	hour timestamp with time zone,
	hub text,
	server text,
	tool text,
	bucket smallint,
	calls bigint,
	max_us bigint
);


ALTER TYPE rollup.tool_latency_delta OWNER TO hubscope_test_owner;

--
-- Name: ensure_partitions(date, date); Type: FUNCTION; Schema: ops; Owner: hubscope_test_owner
--

CREATE FUNCTION ops.ensure_partitions(first_day date, last_day date) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    SET "TimeZone" TO 'UTC'
    AS $$
DECLARE
    parent text;
    day date;
    child text;
    made integer := 0;
BEGIN
    IF last_day - first_day > 3700 THEN
        RAISE EXCEPTION 'ensure_partitions: % to % is more than ten years', first_day, last_day;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('hubscope.ensure_partitions', 0));
    FOREACH parent IN ARRAY ARRAY['tool_calls', 'server_events', 'hub_events'] LOOP
        FOR day IN SELECT generate_series(first_day, last_day, interval '1 day')::date LOOP
            child := format('%s_p%s', parent, to_char(day, 'YYYYMMDD'));
            CONTINUE WHEN to_regclass(format('raw.%I', child)) IS NOT NULL;
            EXECUTE format('CREATE TABLE raw.%I (LIKE raw.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', child, parent);
            EXECUTE format(
                'ALTER TABLE raw.%I ATTACH PARTITION raw.%I FOR VALUES FROM (%L) TO (%L)',
                parent, child, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
            );
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;


ALTER FUNCTION ops.ensure_partitions(first_day date, last_day date) OWNER TO hubscope_test_owner;

--
-- Name: fold(integer); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.fold(max_batches integer DEFAULT 2000) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    moved bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('hubscope.rollup.fold', 0)) THEN
        RETURN 0;
    END IF;
    WITH taken AS (
        DELETE FROM rollup.pending
        WHERE (tenant_id, batch_id) IN (
            SELECT tenant_id, batch_id FROM rollup.pending ORDER BY tenant_id, batch_id LIMIT max_batches
        )
        RETURNING tenant_id, tool_calls, tool_latency, server_checks
    ),
    hours AS (
        INSERT INTO rollup.stored_tool_calls_hourly AS stored (
            tenant_id, hour, hub, server, tool, transport, client, calls, ok_calls, error_calls, timeout_calls,
            cancelled_calls, denied_calls, timed_calls, duration_sum_us, duration_max_us, request_bytes,
            response_bytes, last_call_at
        )
        SELECT
            taken.tenant_id, d.hour, d.hub, d.server, d.tool, d.transport, d.client, sum(d.calls), sum(d.ok_calls),
            sum(d.error_calls), sum(d.timeout_calls), sum(d.cancelled_calls), sum(d.denied_calls),
            sum(d.timed_calls), sum(d.duration_sum_us), max(d.duration_max_us), sum(d.request_bytes),
            sum(d.response_bytes), max(d.last_call_at)
        FROM taken, unnest(taken.tool_calls) AS d
        GROUP BY taken.tenant_id, d.hour, d.hub, d.server, d.tool, d.transport, d.client
        ORDER BY taken.tenant_id, d.hour, d.server, d.tool, d.hub, d.transport, d.client
        ON CONFLICT (tenant_id, hour, server, tool, hub, transport, client) DO UPDATE SET
            calls = stored.calls + excluded.calls,
            ok_calls = stored.ok_calls + excluded.ok_calls,
            error_calls = stored.error_calls + excluded.error_calls,
            timeout_calls = stored.timeout_calls + excluded.timeout_calls,
            cancelled_calls = stored.cancelled_calls + excluded.cancelled_calls,
            denied_calls = stored.denied_calls + excluded.denied_calls,
            timed_calls = stored.timed_calls + excluded.timed_calls,
            duration_sum_us = stored.duration_sum_us + excluded.duration_sum_us,
            duration_max_us = greatest(stored.duration_max_us, excluded.duration_max_us),
            request_bytes = stored.request_bytes + excluded.request_bytes,
            response_bytes = stored.response_bytes + excluded.response_bytes,
            last_call_at = greatest(stored.last_call_at, excluded.last_call_at)
        RETURNING tenant_id, hour
    ),
    hours_latency AS (
        INSERT INTO rollup.stored_tool_latency_hourly AS stored (
            tenant_id, hour, hub, server, tool, bucket, calls, max_us
        )
        SELECT
            taken.tenant_id, d.hour, d.hub, d.server, d.tool, d.bucket, sum(d.calls), max(d.max_us)
        FROM taken, unnest(taken.tool_latency) AS d
        GROUP BY taken.tenant_id, d.hour, d.hub, d.server, d.tool, d.bucket
        ORDER BY taken.tenant_id, d.hour, d.server, d.tool, d.hub, d.bucket
        ON CONFLICT (tenant_id, hour, server, tool, hub, bucket) DO UPDATE SET
            calls = stored.calls + excluded.calls,
            max_us = greatest(stored.max_us, excluded.max_us)
    ),
    hours_checks AS (
        INSERT INTO rollup.stored_server_checks_hourly AS stored (
            tenant_id, hour, hub, server, source, checks, up_checks, degraded_checks, down_checks,
            maintenance_checks, unknown_checks, timed_checks, latency_sum_us, latency_max_us, last_check_at
        )
        SELECT
            taken.tenant_id, d.hour, d.hub, d.server, d.source, sum(d.checks), sum(d.up_checks),
            sum(d.degraded_checks), sum(d.down_checks), sum(d.maintenance_checks), sum(d.unknown_checks),
            sum(d.timed_checks), sum(d.latency_sum_us), max(d.latency_max_us), max(d.last_check_at)
        FROM taken, unnest(taken.server_checks) AS d
        GROUP BY taken.tenant_id, d.hour, d.hub, d.server, d.source
        ORDER BY taken.tenant_id, d.hour, d.server, d.source, d.hub
        ON CONFLICT (tenant_id, hour, server, source, hub) DO UPDATE SET
            checks = stored.checks + excluded.checks,
            up_checks = stored.up_checks + excluded.up_checks,
            degraded_checks = stored.degraded_checks + excluded.degraded_checks,
            down_checks = stored.down_checks + excluded.down_checks,
            maintenance_checks = stored.maintenance_checks + excluded.maintenance_checks,
            unknown_checks = stored.unknown_checks + excluded.unknown_checks,
            timed_checks = stored.timed_checks + excluded.timed_checks,
            latency_sum_us = stored.latency_sum_us + excluded.latency_sum_us,
            latency_max_us = greatest(stored.latency_max_us, excluded.latency_max_us),
            last_check_at = greatest(stored.last_check_at, excluded.last_check_at)
    ),
    days AS (
        INSERT INTO rollup.stored_tool_calls_daily AS stored (
            tenant_id, day, hub, server, tool, transport, client, calls, ok_calls, error_calls, timeout_calls,
            cancelled_calls, denied_calls, timed_calls, duration_sum_us, duration_max_us, request_bytes,
            response_bytes, last_call_at
        )
        SELECT
            taken.tenant_id, date_trunc('day', d.hour, 'UTC'), d.hub, d.server, d.tool, d.transport, d.client,
            sum(d.calls), sum(d.ok_calls), sum(d.error_calls), sum(d.timeout_calls), sum(d.cancelled_calls),
            sum(d.denied_calls), sum(d.timed_calls), sum(d.duration_sum_us), max(d.duration_max_us),
            sum(d.request_bytes), sum(d.response_bytes), max(d.last_call_at)
        FROM taken, unnest(taken.tool_calls) AS d
        GROUP BY taken.tenant_id, date_trunc('day', d.hour, 'UTC'), d.hub, d.server, d.tool, d.transport, d.client
        ORDER BY taken.tenant_id, date_trunc('day', d.hour, 'UTC'), d.server, d.tool, d.hub, d.transport, d.client
        ON CONFLICT (tenant_id, day, server, tool, hub, transport, client) DO UPDATE SET
            calls = stored.calls + excluded.calls,
            ok_calls = stored.ok_calls + excluded.ok_calls,
            error_calls = stored.error_calls + excluded.error_calls,
            timeout_calls = stored.timeout_calls + excluded.timeout_calls,
            cancelled_calls = stored.cancelled_calls + excluded.cancelled_calls,
            denied_calls = stored.denied_calls + excluded.denied_calls,
            timed_calls = stored.timed_calls + excluded.timed_calls,
            duration_sum_us = stored.duration_sum_us + excluded.duration_sum_us,
            duration_max_us = greatest(stored.duration_max_us, excluded.duration_max_us),
            request_bytes = stored.request_bytes + excluded.request_bytes,
            response_bytes = stored.response_bytes + excluded.response_bytes,
            last_call_at = greatest(stored.last_call_at, excluded.last_call_at)
    ),
    days_latency AS (
        INSERT INTO rollup.stored_tool_latency_daily AS stored (
            tenant_id, day, hub, server, tool, bucket, calls, max_us
        )
        SELECT
            taken.tenant_id, date_trunc('day', d.hour, 'UTC'), d.hub, d.server, d.tool, d.bucket, sum(d.calls),
            max(d.max_us)
        FROM taken, unnest(taken.tool_latency) AS d
        GROUP BY taken.tenant_id, date_trunc('day', d.hour, 'UTC'), d.hub, d.server, d.tool, d.bucket
        ORDER BY taken.tenant_id, date_trunc('day', d.hour, 'UTC'), d.server, d.tool, d.hub, d.bucket
        ON CONFLICT (tenant_id, day, server, tool, hub, bucket) DO UPDATE SET
            calls = stored.calls + excluded.calls,
            max_us = greatest(stored.max_us, excluded.max_us)
    ),
    noted AS (
        INSERT INTO ops.touched_hours (tenant_id, hour)
        SELECT DISTINCT tenant_id, hour FROM hours
        ON CONFLICT DO NOTHING
    )
    SELECT count(*) INTO moved FROM taken;
    RETURN moved;
END
$$;


ALTER FUNCTION rollup.fold(max_batches integer) OWNER TO hubscope_test_owner;

--
-- Name: latency_bucket(double precision); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.latency_bucket(ms double precision) RETURNS smallint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ((181 - width_bucket((- ms), ARRAY[('-593164.1601515723'::numeric)::double precision, ('-543933.9331430949'::numeric)::double precision, ('-498789.6159284373'::numeric)::double precision, ('-457392.09451488213'::numeric)::double precision, ('-419430.4'::numeric)::double precision, ('-384619.37264295254'::numeric)::double precision, ('-352697.5198084316'::numeric)::double precision, ('-323425.0516925914'::numeric)::double precision, ('-296582.08007578616'::numeric)::double precision, ('-271966.96657154744'::numeric)::double precision, ('-249394.80796421866'::numeric)::double precision, ('-228696.04725744107'::numeric)::double precision, ('-209715.2'::numeric)::double precision, ('-192309.68632147627'::numeric)::double precision, ('-176348.7599042158'::numeric)::double precision, ('-161712.5258462957'::numeric)::double precision, ('-148291.04003789308'::numeric)::double precision, ('-135983.48328577372'::numeric)::double precision, ('-124697.40398210933'::numeric)::double precision, ('-114348.02362872053'::numeric)::double precision, ('-104857.6'::numeric)::double precision, ('-96154.84316073814'::numeric)::double precision, ('-88174.3799521079'::numeric)::double precision, ('-80856.26292314785'::numeric)::double precision, ('-74145.52001894654'::numeric)::double precision, ('-67991.74164288686'::numeric)::double precision, ('-62348.701991054666'::numeric)::double precision, ('-57174.01181436027'::numeric)::double precision, ('-52428.8'::numeric)::double precision, ('-48077.42158036907'::numeric)::double precision, ('-44087.18997605395'::numeric)::double precision, ('-40428.131461573925'::numeric)::double precision, ('-37072.76000947327'::numeric)::double precision, ('-33995.87082144343'::numeric)::double precision, ('-31174.350995527333'::numeric)::double precision, ('-28587.005907180133'::numeric)::double precision, ('-26214.4'::numeric)::double precision, ('-24038.710790184534'::numeric)::double precision, ('-22043.594988026976'::numeric)::double precision, ('-20214.065730786962'::numeric)::double precision, ('-18536.380004736635'::numeric)::double precision, ('-16997.935410721715'::numeric)::double precision, ('-15587.175497763666'::numeric)::double precision, ('-14293.502953590067'::numeric)::double precision, ('-13107.2'::numeric)::double precision, ('-12019.355395092267'::numeric)::double precision, ('-11021.797494013488'::numeric)::double precision, ('-10107.032865393481'::numeric)::double precision, ('-9268.190002368317'::numeric)::double precision, ('-8498.967705360858'::numeric)::double precision, ('-7793.587748881833'::numeric)::double precision, ('-7146.751476795033'::numeric)::double precision, ('-6553.6'::numeric)::double precision, ('-6009.6776975461335'::numeric)::double precision, ('-5510.898747006744'::numeric)::double precision, ('-5053.516432696741'::numeric)::double precision, ('-4634.095001184159'::numeric)::double precision, ('-4249.483852680429'::numeric)::double precision, ('-3896.7938744409166'::numeric)::double precision, ('-3573.3757383975167'::numeric)::double precision, ('-3276.8'::numeric)::double precision, ('-3004.8388487730667'::numeric)::double precision, ('-2755.449373503372'::numeric)::double precision, ('-2526.7582163483703'::numeric)::double precision, ('-2317.0475005920794'::numeric)::double precision, ('-2124.7419263402144'::numeric)::double precision, ('-1948.3969372204583'::numeric)::double precision, ('-1786.6878691987583'::numeric)::double precision, ('-1638.4'::numeric)::double precision, ('-1502.4194243865334'::numeric)::double precision, ('-1377.724686751686'::numeric)::double precision, ('-1263.3791081741851'::numeric)::double precision, ('-1158.5237502960397'::numeric)::double precision, ('-1062.3709631701072'::numeric)::double precision, ('-974.1984686102292'::numeric)::double precision, ('-893.3439345993792'::numeric)::double precision, ('-819.2'::numeric)::double precision, ('-751.2097121932667'::numeric)::double precision, ('-688.862343375843'::numeric)::double precision, ('-631.6895540870926'::numeric)::double precision, ('-579.2618751480198'::numeric)::double precision, ('-531.1854815850536'::numeric)::double precision, ('-487.0992343051146'::numeric)::double precision, ('-446.6719672996896'::numeric)::double precision, ('-409.6'::numeric)::double precision, ('-375.60485609663334'::numeric)::double precision, ('-344.4311716879215'::numeric)::double precision, ('-315.8447770435463'::numeric)::double precision, ('-289.6309375740099'::numeric)::double precision, ('-265.5927407925268'::numeric)::double precision, ('-243.5496171525573'::numeric)::double precision, ('-223.3359836498448'::numeric)::double precision, ('-204.8'::numeric)::double precision, ('-187.80242804831667'::numeric)::double precision, ('-172.21558584396075'::numeric)::double precision, ('-157.92238852177314'::numeric)::double precision, ('-144.81546878700496'::numeric)::double precision, ('-132.7963703962634'::numeric)::double precision, ('-121.77480857627864'::numeric)::double precision, ('-111.6679918249224'::numeric)::double precision, ('-102.4'::numeric)::double precision, ('-93.90121402415834'::numeric)::double precision, ('-86.10779292198038'::numeric)::double precision, ('-78.96119426088657'::numeric)::double precision, ('-72.40773439350248'::numeric)::double precision, ('-66.3981851981317'::numeric)::double precision, ('-60.88740428813932'::numeric)::double precision, ('-55.8339959124612'::numeric)::double precision, ('-51.2'::numeric)::double precision, ('-46.95060701207917'::numeric)::double precision, ('-43.05389646099019'::numeric)::double precision, ('-39.480597130443286'::numeric)::double precision, ('-36.20386719675124'::numeric)::double precision, ('-33.19909259906585'::numeric)::double precision, ('-30.44370214406966'::numeric)::double precision, ('-27.9169979562306'::numeric)::double precision, ('-25.6'::numeric)::double precision, ('-23.475303506039584'::numeric)::double precision, ('-21.526948230495094'::numeric)::double precision, ('-19.740298565221643'::numeric)::double precision, ('-18.10193359837562'::numeric)::double precision, ('-16.599546299532925'::numeric)::double precision, ('-15.22185107203483'::numeric)::double precision, ('-13.9584989781153'::numeric)::double precision, ('-12.8'::numeric)::double precision, ('-11.737651753019792'::numeric)::double precision, ('-10.763474115247547'::numeric)::double precision, ('-9.870149282610821'::numeric)::double precision, ('-9.05096679918781'::numeric)::double precision, ('-8.299773149766462'::numeric)::double precision, ('-7.610925536017415'::numeric)::double precision, ('-6.97924948905765'::numeric)::double precision, ('-6.4'::numeric)::double precision, ('-5.868825876509896'::numeric)::double precision, ('-5.3817370576237735'::numeric)::double precision, ('-4.935074641305411'::numeric)::double precision, ('-4.525483399593905'::numeric)::double precision, ('-4.149886574883231'::numeric)::double precision, ('-3.8054627680087076'::numeric)::double precision, ('-3.489624744528825'::numeric)::double precision, ('-3.2'::numeric)::double precision, ('-2.934412938254948'::numeric)::double precision, ('-2.6908685288118868'::numeric)::double precision, ('-2.4675373206527054'::numeric)::double precision, ('-2.2627416997969525'::numeric)::double precision, ('-2.0749432874416156'::numeric)::double precision, ('-1.9027313840043538'::numeric)::double precision, ('-1.7448123722644124'::numeric)::double precision, ('-1.6'::numeric)::double precision, ('-1.467206469127474'::numeric)::double precision, ('-1.3454342644059434'::numeric)::double precision, ('-1.2337686603263527'::numeric)::double precision, ('-1.1313708498984762'::numeric)::double precision, ('-1.0374716437208078'::numeric)::double precision, ('-0.9513656920021769'::numeric)::double precision, ('-0.8724061861322062'::numeric)::double precision, ('-0.8'::numeric)::double precision, ('-0.733603234563737'::numeric)::double precision, ('-0.6727171322029717'::numeric)::double precision, ('-0.6168843301631763'::numeric)::double precision, ('-0.5656854249492381'::numeric)::double precision, ('-0.5187358218604039'::numeric)::double precision, ('-0.47568284600108846'::numeric)::double precision, ('-0.4362030930661031'::numeric)::double precision, ('-0.4'::numeric)::double precision, ('-0.3668016172818685'::numeric)::double precision, ('-0.33635856610148585'::numeric)::double precision, ('-0.30844216508158817'::numeric)::double precision, ('-0.28284271247461906'::numeric)::double precision, ('-0.25936791093020195'::numeric)::double precision, ('-0.23784142300054423'::numeric)::double precision, ('-0.21810154653305155'::numeric)::double precision, ('-0.2'::numeric)::double precision, ('-0.18340080864093425'::numeric)::double precision, ('-0.16817928305074292'::numeric)::double precision, ('-0.15422108254079409'::numeric)::double precision, ('-0.14142135623730953'::numeric)::double precision, ('-0.12968395546510098'::numeric)::double precision, ('-0.11892071150027211'::numeric)::double precision, ('-0.10905077326652578'::numeric)::double precision, ('-0.1'::numeric)::double precision])))::smallint;


ALTER FUNCTION rollup.latency_bucket(ms double precision) OWNER TO hubscope_test_owner;

--
-- Name: latency_edges(); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.latency_edges() RETURNS double precision[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY[(0.1)::double precision, (0.10905077326652578)::double precision, (0.11892071150027211)::double precision, (0.12968395546510098)::double precision, (0.14142135623730953)::double precision, (0.15422108254079409)::double precision, (0.16817928305074292)::double precision, (0.18340080864093425)::double precision, (0.2)::double precision, (0.21810154653305155)::double precision, (0.23784142300054423)::double precision, (0.25936791093020195)::double precision, (0.28284271247461906)::double precision, (0.30844216508158817)::double precision, (0.33635856610148585)::double precision, (0.3668016172818685)::double precision, (0.4)::double precision, (0.4362030930661031)::double precision, (0.47568284600108846)::double precision, (0.5187358218604039)::double precision, (0.5656854249492381)::double precision, (0.6168843301631763)::double precision, (0.6727171322029717)::double precision, (0.733603234563737)::double precision, (0.8)::double precision, (0.8724061861322062)::double precision, (0.9513656920021769)::double precision, (1.0374716437208078)::double precision, (1.1313708498984762)::double precision, (1.2337686603263527)::double precision, (1.3454342644059434)::double precision, (1.467206469127474)::double precision, (1.6)::double precision, (1.7448123722644124)::double precision, (1.9027313840043538)::double precision, (2.0749432874416156)::double precision, (2.2627416997969525)::double precision, (2.4675373206527054)::double precision, (2.6908685288118868)::double precision, (2.934412938254948)::double precision, (3.2)::double precision, (3.489624744528825)::double precision, (3.8054627680087076)::double precision, (4.149886574883231)::double precision, (4.525483399593905)::double precision, (4.935074641305411)::double precision, (5.3817370576237735)::double precision, (5.868825876509896)::double precision, (6.4)::double precision, (6.97924948905765)::double precision, (7.610925536017415)::double precision, (8.299773149766462)::double precision, (9.05096679918781)::double precision, (9.870149282610821)::double precision, (10.763474115247547)::double precision, (11.737651753019792)::double precision, (12.8)::double precision, (13.9584989781153)::double precision, (15.22185107203483)::double precision, (16.599546299532925)::double precision, (18.10193359837562)::double precision, (19.740298565221643)::double precision, (21.526948230495094)::double precision, (23.475303506039584)::double precision, (25.6)::double precision, (27.9169979562306)::double precision, (30.44370214406966)::double precision, (33.19909259906585)::double precision, (36.20386719675124)::double precision, (39.480597130443286)::double precision, (43.05389646099019)::double precision, (46.95060701207917)::double precision, (51.2)::double precision, (55.8339959124612)::double precision, (60.88740428813932)::double precision, (66.3981851981317)::double precision, (72.40773439350248)::double precision, (78.96119426088657)::double precision, (86.10779292198038)::double precision, (93.90121402415834)::double precision, (102.4)::double precision, (111.6679918249224)::double precision, (121.77480857627864)::double precision, (132.7963703962634)::double precision, (144.81546878700496)::double precision, (157.92238852177314)::double precision, (172.21558584396075)::double precision, (187.80242804831667)::double precision, (204.8)::double precision, (223.3359836498448)::double precision, (243.5496171525573)::double precision, (265.5927407925268)::double precision, (289.6309375740099)::double precision, (315.8447770435463)::double precision, (344.4311716879215)::double precision, (375.60485609663334)::double precision, (409.6)::double precision, (446.6719672996896)::double precision, (487.0992343051146)::double precision, (531.1854815850536)::double precision, (579.2618751480198)::double precision, (631.6895540870926)::double precision, (688.862343375843)::double precision, (751.2097121932667)::double precision, (819.2)::double precision, (893.3439345993792)::double precision, (974.1984686102292)::double precision, (1062.3709631701072)::double precision, (1158.5237502960397)::double precision, (1263.3791081741851)::double precision, (1377.724686751686)::double precision, (1502.4194243865334)::double precision, (1638.4)::double precision, (1786.6878691987583)::double precision, (1948.3969372204583)::double precision, (2124.7419263402144)::double precision, (2317.0475005920794)::double precision, (2526.7582163483703)::double precision, (2755.449373503372)::double precision, (3004.8388487730667)::double precision, (3276.8)::double precision, (3573.3757383975167)::double precision, (3896.7938744409166)::double precision, (4249.483852680429)::double precision, (4634.095001184159)::double precision, (5053.516432696741)::double precision, (5510.898747006744)::double precision, (6009.6776975461335)::double precision, (6553.6)::double precision, (7146.751476795033)::double precision, (7793.587748881833)::double precision, (8498.967705360858)::double precision, (9268.190002368317)::double precision, (10107.032865393481)::double precision, (11021.797494013488)::double precision, (12019.355395092267)::double precision, (13107.2)::double precision, (14293.502953590067)::double precision, (15587.175497763666)::double precision, (16997.935410721715)::double precision, (18536.380004736635)::double precision, (20214.065730786962)::double precision, (22043.594988026976)::double precision, (24038.710790184534)::double precision, (26214.4)::double precision, (28587.005907180133)::double precision, (31174.350995527333)::double precision, (33995.87082144343)::double precision, (37072.76000947327)::double precision, (40428.131461573925)::double precision, (44087.18997605395)::double precision, (48077.42158036907)::double precision, (52428.8)::double precision, (57174.01181436027)::double precision, (62348.701991054666)::double precision, (67991.74164288686)::double precision, (74145.52001894654)::double precision, (80856.26292314785)::double precision, (88174.3799521079)::double precision, (96154.84316073814)::double precision, (104857.6)::double precision, (114348.02362872053)::double precision, (124697.40398210933)::double precision, (135983.48328577372)::double precision, (148291.04003789308)::double precision, (161712.5258462957)::double precision, (176348.7599042158)::double precision, (192309.68632147627)::double precision, (209715.2)::double precision, (228696.04725744107)::double precision, (249394.80796421866)::double precision, (271966.96657154744)::double precision, (296582.08007578616)::double precision, (323425.0516925914)::double precision, (352697.5198084316)::double precision, (384619.37264295254)::double precision, (419430.4)::double precision, (457392.09451488213)::double precision, (498789.6159284373)::double precision, (543933.9331430949)::double precision, (593164.1601515723)::double precision];


ALTER FUNCTION rollup.latency_edges() OWNER TO hubscope_test_owner;

--
-- Name: latency_value(smallint); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.latency_value(bucket smallint) RETURNS double precision
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE WHEN (bucket <= 0) THEN (0.1)::double precision WHEN (bucket >= 181) THEN NULL::double precision ELSE ((((0.1)::double precision * power((2)::double precision, (((bucket)::numeric / 8.0))::double precision)) * (2)::double precision) / ((1)::double precision + power((2)::double precision, (0.125)::double precision))) END;


ALTER FUNCTION rollup.latency_value(bucket smallint) OWNER TO hubscope_test_owner;

--
-- Name: latency_percentile(smallint[], numeric[], double precision, double precision); Type: FUNCTION; Schema: rollup; Owner: hubscope_test_owner
--

CREATE FUNCTION rollup.latency_percentile(buckets smallint[], calls numeric[], q double precision, max_ms double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT LEAST(rollup.latency_value(ranked.bucket), latency_percentile.max_ms) AS "least"
    FROM ( SELECT pair.bucket,
             sum(pair.n) OVER (ORDER BY pair.bucket) AS reached,
             sum(pair.n) OVER () AS total
            FROM UNNEST(latency_percentile.buckets, latency_percentile.calls) pair(bucket, n)) ranked
   WHERE ((ranked.total > (0)::numeric) AND ((ranked.reached)::double precision >= ceil((latency_percentile.q * (ranked.total)::double precision))))
   ORDER BY ranked.bucket
  LIMIT 1;
END;


ALTER FUNCTION rollup.latency_percentile(buckets smallint[], calls numeric[], q double precision, max_ms double precision) OWNER TO hubscope_test_owner;

SET default_tablespace = '';

--
-- Name: server_events; Type: TABLE; Schema: raw; Owner: hubscope_test_owner
--

CREATE TABLE raw.server_events (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    event_id uuid NOT NULL,
    "time" timestamp with time zone NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    hub text DEFAULT ''::text NOT NULL,
    server text NOT NULL,
    source text NOT NULL,
    outcome text NOT NULL,
    state text NOT NULL,
    valid_until timestamp with time zone,
    latency_ms double precision,
    transport text DEFAULT ''::text NOT NULL,
    tools integer,
    resources integer,
    prompts integer,
    error_type text,
    error_message text,
    attrs jsonb,
    CONSTRAINT server_events_latency_ms_check CHECK (((latency_ms >= (0)::double precision) AND (latency_ms < 'Infinity'::double precision))),
    CONSTRAINT server_events_source_check CHECK ((source = ANY (ARRAY['connection'::text, 'probe'::text]))),
    CONSTRAINT server_events_state_check CHECK ((state = ANY (ARRAY['up'::text, 'degraded'::text, 'down'::text, 'maintenance'::text, 'unknown'::text])))
)
PARTITION BY RANGE ("time");


ALTER TABLE raw.server_events OWNER TO hubscope_test_owner;

SET default_table_access_method = heap;

--
-- Name: pending; Type: TABLE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TABLE rollup.pending (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    batch_id uuid NOT NULL,
    tool_calls rollup.tool_calls_delta[] DEFAULT '{}'::rollup.tool_calls_delta[] NOT NULL,
    tool_latency rollup.tool_latency_delta[] DEFAULT '{}'::rollup.tool_latency_delta[] NOT NULL,
    server_checks rollup.server_checks_delta[] DEFAULT '{}'::rollup.server_checks_delta[] NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');


ALTER TABLE rollup.pending OWNER TO hubscope_test_owner;

--
-- Name: stored_tool_calls_hourly; Type: TABLE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TABLE rollup.stored_tool_calls_hourly (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    hour timestamp with time zone NOT NULL,
    hub text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    transport text NOT NULL,
    client text NOT NULL,
    calls bigint NOT NULL,
    ok_calls bigint NOT NULL,
    error_calls bigint NOT NULL,
    timeout_calls bigint NOT NULL,
    cancelled_calls bigint NOT NULL,
    denied_calls bigint NOT NULL,
    timed_calls bigint NOT NULL,
    duration_sum_us bigint NOT NULL,
    duration_max_us bigint NOT NULL,
    request_bytes bigint NOT NULL,
    response_bytes bigint NOT NULL,
    last_call_at timestamp with time zone NOT NULL
);


ALTER TABLE rollup.stored_tool_calls_hourly OWNER TO hubscope_test_owner;

--
-- Name: tool_calls_hourly; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.tool_calls_hourly AS
 SELECT tenant_id,
    hour,
    hub,
    server,
    tool,
    transport,
    client,
    (sum(calls))::bigint AS calls,
    (sum(ok_calls))::bigint AS ok_calls,
    (sum(error_calls))::bigint AS error_calls,
    (sum(timeout_calls))::bigint AS timeout_calls,
    (sum(cancelled_calls))::bigint AS cancelled_calls,
    (sum(denied_calls))::bigint AS denied_calls,
    (sum(timed_calls))::bigint AS timed_calls,
    (sum(duration_sum_us))::bigint AS duration_sum_us,
    max(duration_max_us) AS duration_max_us,
    (sum(request_bytes))::bigint AS request_bytes,
    (sum(response_bytes))::bigint AS response_bytes,
    max(last_call_at) AS last_call_at
   FROM ( SELECT stored_tool_calls_hourly.tenant_id,
            stored_tool_calls_hourly.hour,
            stored_tool_calls_hourly.hub,
            stored_tool_calls_hourly.server,
            stored_tool_calls_hourly.tool,
            stored_tool_calls_hourly.transport,
            stored_tool_calls_hourly.client,
            stored_tool_calls_hourly.calls,
            stored_tool_calls_hourly.ok_calls,
            stored_tool_calls_hourly.error_calls,
            stored_tool_calls_hourly.timeout_calls,
            stored_tool_calls_hourly.cancelled_calls,
            stored_tool_calls_hourly.denied_calls,
            stored_tool_calls_hourly.timed_calls,
            stored_tool_calls_hourly.duration_sum_us,
            stored_tool_calls_hourly.duration_max_us,
            stored_tool_calls_hourly.request_bytes,
            stored_tool_calls_hourly.response_bytes,
            stored_tool_calls_hourly.last_call_at
           FROM rollup.stored_tool_calls_hourly
        UNION ALL
         SELECT pending.tenant_id,
            d.hour,
            d.hub,
            d.server,
            d.tool,
            d.transport,
            d.client,
            d.calls,
            d.ok_calls,
            d.error_calls,
            d.timeout_calls,
            d.cancelled_calls,
            d.denied_calls,
            d.timed_calls,
            d.duration_sum_us,
            d.duration_max_us,
            d.request_bytes,
            d.response_bytes,
            d.last_call_at
           FROM rollup.pending,
            LATERAL unnest(pending.tool_calls) d(hour, hub, server, tool, transport, client, calls, ok_calls, error_calls, timeout_calls, cancelled_calls, denied_calls, timed_calls, duration_sum_us, duration_max_us, request_bytes, response_bytes, last_call_at)) parts
  GROUP BY tenant_id, hour, hub, server, tool, transport, client;


ALTER VIEW rollup.tool_calls_hourly OWNER TO hubscope_test_owner;

--
-- Name: dim_servers; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.dim_servers AS
 WITH used AS (
         SELECT tool_calls_hourly.tenant_id,
            tool_calls_hourly.server,
            min(tool_calls_hourly.hour) AS first_seen_at,
            max(tool_calls_hourly.last_call_at) AS last_seen_at,
            count(DISTINCT tool_calls_hourly.tool) AS tools,
            (sum(tool_calls_hourly.calls))::bigint AS calls,
            max(tool_calls_hourly.transport) AS transport
           FROM rollup.tool_calls_hourly
          GROUP BY tool_calls_hourly.tenant_id, tool_calls_hourly.server
        ), latest AS (
         SELECT DISTINCT ON (server_events.tenant_id, server_events.server) server_events.tenant_id,
            server_events.server,
            server_events."time",
            server_events.state,
            server_events.valid_until,
            server_events.transport
           FROM raw.server_events
          ORDER BY server_events.tenant_id, server_events.server, server_events."time" DESC, server_events.event_id DESC
        ), seen AS (
         SELECT server_events.tenant_id,
            server_events.server,
            min(server_events."time") AS first_seen_at
           FROM raw.server_events
          GROUP BY server_events.tenant_id, server_events.server
        )
 SELECT tenant_id,
    server,
    COALESCE(NULLIF(latest.transport, ''::text), used.transport, ''::text) AS transport,
        CASE
            WHEN ((latest.state IS NULL) OR (latest.valid_until < now())) THEN 'unknown'::text
            ELSE latest.state
        END AS state,
    ( SELECT min(event."time") AS min
           FROM raw.server_events event
          WHERE ((event.tenant_id = latest.tenant_id) AND (event.server = latest.server) AND (event.state = latest.state) AND (event."time" > COALESCE(( SELECT max(other."time") AS max
                   FROM raw.server_events other
                  WHERE ((other.tenant_id = latest.tenant_id) AND (other.server = latest.server) AND (other.state <> latest.state))), '-infinity'::timestamp with time zone)))) AS state_since,
    LEAST(used.first_seen_at, seen.first_seen_at) AS first_seen_at,
    GREATEST(used.last_seen_at, latest."time") AS last_seen_at,
    COALESCE(used.tools, (0)::bigint) AS tools,
    COALESCE(used.calls, (0)::bigint) AS calls
   FROM ((used
     FULL JOIN latest USING (tenant_id, server))
     FULL JOIN seen USING (tenant_id, server));


ALTER VIEW analytics.dim_servers OWNER TO hubscope_test_worker;

--
-- Name: tool_calls; Type: TABLE; Schema: raw; Owner: hubscope_test_owner
--

CREATE TABLE raw.tool_calls (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    event_id uuid NOT NULL,
    "time" timestamp with time zone NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    hub text DEFAULT ''::text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    status text NOT NULL,
    duration_ms double precision,
    error_type text,
    error_message text,
    error_fingerprint text,
    session_id text,
    client text DEFAULT ''::text NOT NULL,
    transport text DEFAULT ''::text NOT NULL,
    trace_id text,
    span_id text,
    chain_id text,
    step_index integer,
    request_bytes bigint,
    response_bytes bigint,
    vantage text DEFAULT 'hub'::text NOT NULL,
    counted boolean DEFAULT true NOT NULL,
    attrs jsonb,
    CONSTRAINT tool_calls_duration_ms_check CHECK (((duration_ms >= (0)::double precision) AND (duration_ms < 'Infinity'::double precision))),
    CONSTRAINT tool_calls_status_check CHECK ((status = ANY (ARRAY['ok'::text, 'error'::text, 'timeout'::text, 'cancelled'::text, 'denied'::text])))
)
PARTITION BY RANGE ("time");


ALTER TABLE raw.tool_calls OWNER TO hubscope_test_owner;

--
-- Name: fct_tool_calls; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.fct_tool_calls AS
 SELECT tenant_id,
    event_id,
    "time",
    hub,
    server,
    tool,
    status,
    duration_ms,
    error_type,
    session_id,
    client,
    transport,
    request_bytes,
    response_bytes
   FROM raw.tool_calls
  WHERE counted;


ALTER VIEW analytics.fct_tool_calls OWNER TO hubscope_test_worker;

--
-- Name: stored_tool_latency_hourly; Type: TABLE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TABLE rollup.stored_tool_latency_hourly (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    hour timestamp with time zone NOT NULL,
    hub text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    bucket smallint NOT NULL,
    calls bigint NOT NULL,
    max_us bigint NOT NULL
);


ALTER TABLE rollup.stored_tool_latency_hourly OWNER TO hubscope_test_owner;

--
-- Name: tool_latency_hourly; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.tool_latency_hourly AS
 SELECT tenant_id,
    hour,
    hub,
    server,
    tool,
    bucket,
    (sum(calls))::bigint AS calls,
    max(max_us) AS max_us
   FROM ( SELECT stored_tool_latency_hourly.tenant_id,
            stored_tool_latency_hourly.hour,
            stored_tool_latency_hourly.hub,
            stored_tool_latency_hourly.server,
            stored_tool_latency_hourly.tool,
            stored_tool_latency_hourly.bucket,
            stored_tool_latency_hourly.calls,
            stored_tool_latency_hourly.max_us
           FROM rollup.stored_tool_latency_hourly
        UNION ALL
         SELECT pending.tenant_id,
            d.hour,
            d.hub,
            d.server,
            d.tool,
            d.bucket,
            d.calls,
            d.max_us
           FROM rollup.pending,
            LATERAL unnest(pending.tool_latency) d(hour, hub, server, tool, bucket, calls, max_us)) parts
  GROUP BY tenant_id, hour, hub, server, tool, bucket;


ALTER VIEW rollup.tool_latency_hourly OWNER TO hubscope_test_owner;

--
-- Name: fct_tool_latency_hourly; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.fct_tool_latency_hourly AS
 SELECT tenant_id,
    hour,
    hub,
    server,
    tool,
    bucket,
    calls,
    max_us
   FROM rollup.tool_latency_hourly;


ALTER VIEW analytics.fct_tool_latency_hourly OWNER TO hubscope_test_worker;

--
-- Name: fct_tool_usage_hourly; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.fct_tool_usage_hourly AS
 SELECT tenant_id,
    hour,
    hub,
    server,
    tool,
    transport,
    client,
    calls,
    ok_calls,
    error_calls,
    timeout_calls,
    cancelled_calls,
    denied_calls,
    timed_calls,
    duration_sum_us,
    duration_max_us,
    request_bytes,
    response_bytes,
    last_call_at
   FROM rollup.tool_calls_hourly;


ALTER VIEW analytics.fct_tool_usage_hourly OWNER TO hubscope_test_worker;

--
-- Name: job_runs; Type: TABLE; Schema: ops; Owner: hubscope_test_owner
--

CREATE TABLE ops.job_runs (
    job text NOT NULL,
    slot timestamp with time zone NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone,
    ok boolean,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL
);


ALTER TABLE ops.job_runs OWNER TO hubscope_test_owner;

--
-- Name: store; Type: TABLE; Schema: ops; Owner: hubscope_test_owner
--

CREATE TABLE ops.store (
    engine text NOT NULL,
    reason text NOT NULL,
    made_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    only_one boolean DEFAULT true NOT NULL,
    CONSTRAINT store_engine_check CHECK ((engine = ANY (ARRAY['postgres'::text, 'timescale'::text]))),
    CONSTRAINT store_only_one_check CHECK (only_one)
);


ALTER TABLE ops.store OWNER TO hubscope_test_owner;

--
-- Name: backlog; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.backlog AS
 SELECT count(*) AS batches
   FROM rollup.pending;


ALTER VIEW rollup.backlog OWNER TO hubscope_test_owner;

--
-- Name: mart_status; Type: VIEW; Schema: analytics; Owner: hubscope_test_worker
--

CREATE VIEW analytics.mart_status AS
 SELECT ( SELECT store.engine
           FROM ops.store store) AS engine,
    ( SELECT max(run.finished_at) AS max
           FROM ops.job_runs run
          WHERE ((run.job = 'build_marts'::text) AND run.ok)) AS last_build_at,
    ( SELECT run.ok
           FROM ops.job_runs run
          WHERE ((run.job = 'build_marts'::text) AND (run.finished_at IS NOT NULL))
          ORDER BY run.finished_at DESC
         LIMIT 1) AS last_build_ok,
    ( SELECT max(run.started_at) AS max
           FROM ops.job_runs run
          WHERE ((run.job = 'build_marts'::text) AND run.ok)) AS last_build_started_at,
    ( SELECT backlog.batches
           FROM rollup.backlog backlog) AS pending_batches;


ALTER VIEW analytics.mart_status OWNER TO hubscope_test_worker;

--
-- Name: definitions; Type: TABLE; Schema: ops; Owner: hubscope_test_owner
--

CREATE TABLE ops.definitions (
    name text NOT NULL,
    checksum text NOT NULL,
    replayed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);


ALTER TABLE ops.definitions OWNER TO hubscope_test_owner;

--
-- Name: migrations; Type: TABLE; Schema: ops; Owner: hubscope_test_owner
--

CREATE TABLE ops.migrations (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    duration_ms double precision NOT NULL,
    hubscope_version text NOT NULL
);


ALTER TABLE ops.migrations OWNER TO hubscope_test_owner;

--
-- Name: quality_results; Type: TABLE; Schema: ops; Owner: hubscope_test_owner
--

CREATE TABLE ops.quality_results (
    suite text NOT NULL,
    checked_at timestamp with time zone NOT NULL,
    expectation text NOT NULL,
    subject text NOT NULL,
    ok boolean NOT NULL,
    observed jsonb DEFAULT '{}'::jsonb NOT NULL
);


ALTER TABLE ops.quality_results OWNER TO hubscope_test_owner;

--
-- Name: touched_hours; Type: TABLE; Schema: ops; Owner: hubscope_test_owner
--

CREATE TABLE ops.touched_hours (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    hour timestamp with time zone NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL
);


ALTER TABLE ops.touched_hours OWNER TO hubscope_test_owner;

--
-- Name: hub_events; Type: TABLE; Schema: raw; Owner: hubscope_test_owner
--

CREATE TABLE raw.hub_events (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    event_id uuid NOT NULL,
    "time" timestamp with time zone NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    hub text DEFAULT ''::text NOT NULL,
    type text NOT NULL,
    name text NOT NULL,
    payload jsonb,
    CONSTRAINT hub_events_type_check CHECK ((type = ANY (ARRAY['hub_event'::text, 'audit'::text, 'chain'::text, 'chain_step'::text])))
)
PARTITION BY RANGE ("time");


ALTER TABLE raw.hub_events OWNER TO hubscope_test_owner;

--
-- Name: stored_server_checks_hourly; Type: TABLE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TABLE rollup.stored_server_checks_hourly (
    tenant_id text DEFAULT 'default'::text NOT NULL,
    hour timestamp with time zone NOT NULL,
    hub text NOT NULL,
    server text NOT NULL,
    source text NOT NULL,
    checks bigint NOT NULL,
    up_checks bigint NOT NULL,
    degraded_checks bigint NOT NULL,
    down_checks bigint NOT NULL,
    maintenance_checks bigint NOT NULL,
    unknown_checks bigint NOT NULL,
    timed_checks bigint NOT NULL,
    latency_sum_us bigint NOT NULL,
    latency_max_us bigint NOT NULL,
    last_check_at timestamp with time zone NOT NULL
);


ALTER TABLE rollup.stored_server_checks_hourly OWNER TO hubscope_test_owner;

--
-- Name: server_checks_hourly; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.server_checks_hourly AS
 SELECT tenant_id,
    hour,
    hub,
    server,
    source,
    (sum(checks))::bigint AS checks,
    (sum(up_checks))::bigint AS up_checks,
    (sum(degraded_checks))::bigint AS degraded_checks,
    (sum(down_checks))::bigint AS down_checks,
    (sum(maintenance_checks))::bigint AS maintenance_checks,
    (sum(unknown_checks))::bigint AS unknown_checks,
    (sum(timed_checks))::bigint AS timed_checks,
    (sum(latency_sum_us))::bigint AS latency_sum_us,
    max(latency_max_us) AS latency_max_us,
    max(last_check_at) AS last_check_at
   FROM ( SELECT stored_server_checks_hourly.tenant_id,
            stored_server_checks_hourly.hour,
            stored_server_checks_hourly.hub,
            stored_server_checks_hourly.server,
            stored_server_checks_hourly.source,
            stored_server_checks_hourly.checks,
            stored_server_checks_hourly.up_checks,
            stored_server_checks_hourly.degraded_checks,
            stored_server_checks_hourly.down_checks,
            stored_server_checks_hourly.maintenance_checks,
            stored_server_checks_hourly.unknown_checks,
            stored_server_checks_hourly.timed_checks,
            stored_server_checks_hourly.latency_sum_us,
            stored_server_checks_hourly.latency_max_us,
            stored_server_checks_hourly.last_check_at
           FROM rollup.stored_server_checks_hourly
        UNION ALL
         SELECT pending.tenant_id,
            d.hour,
            d.hub,
            d.server,
            d.source,
            d.checks,
            d.up_checks,
            d.degraded_checks,
            d.down_checks,
            d.maintenance_checks,
            d.unknown_checks,
            d.timed_checks,
            d.latency_sum_us,
            d.latency_max_us,
            d.last_check_at
           FROM rollup.pending,
            LATERAL unnest(pending.server_checks) d(hour, hub, server, source, checks, up_checks, degraded_checks, down_checks, maintenance_checks, unknown_checks, timed_checks, latency_sum_us, latency_max_us, last_check_at)) parts
  GROUP BY tenant_id, hour, hub, server, source;


ALTER VIEW rollup.server_checks_hourly OWNER TO hubscope_test_owner;

--
-- Name: stored_tool_calls_daily; Type: TABLE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TABLE rollup.stored_tool_calls_daily (
    tenant_id text CONSTRAINT stored_tool_calls_hourly_tenant_id_not_null NOT NULL,
    day timestamp with time zone CONSTRAINT stored_tool_calls_hourly_hour_not_null NOT NULL,
    hub text CONSTRAINT stored_tool_calls_hourly_hub_not_null NOT NULL,
    server text CONSTRAINT stored_tool_calls_hourly_server_not_null NOT NULL,
    tool text CONSTRAINT stored_tool_calls_hourly_tool_not_null NOT NULL,
    transport text CONSTRAINT stored_tool_calls_hourly_transport_not_null NOT NULL,
    client text CONSTRAINT stored_tool_calls_hourly_client_not_null NOT NULL,
    calls bigint CONSTRAINT stored_tool_calls_hourly_calls_not_null NOT NULL,
    ok_calls bigint CONSTRAINT stored_tool_calls_hourly_ok_calls_not_null NOT NULL,
    error_calls bigint CONSTRAINT stored_tool_calls_hourly_error_calls_not_null NOT NULL,
    timeout_calls bigint CONSTRAINT stored_tool_calls_hourly_timeout_calls_not_null NOT NULL,
    cancelled_calls bigint CONSTRAINT stored_tool_calls_hourly_cancelled_calls_not_null NOT NULL,
    denied_calls bigint CONSTRAINT stored_tool_calls_hourly_denied_calls_not_null NOT NULL,
    timed_calls bigint CONSTRAINT stored_tool_calls_hourly_timed_calls_not_null NOT NULL,
    duration_sum_us bigint CONSTRAINT stored_tool_calls_hourly_duration_sum_us_not_null NOT NULL,
    duration_max_us bigint CONSTRAINT stored_tool_calls_hourly_duration_max_us_not_null NOT NULL,
    request_bytes bigint CONSTRAINT stored_tool_calls_hourly_request_bytes_not_null NOT NULL,
    response_bytes bigint CONSTRAINT stored_tool_calls_hourly_response_bytes_not_null NOT NULL,
    last_call_at timestamp with time zone CONSTRAINT stored_tool_calls_hourly_last_call_at_not_null NOT NULL
);


ALTER TABLE rollup.stored_tool_calls_daily OWNER TO hubscope_test_owner;

--
-- Name: stored_tool_latency_daily; Type: TABLE; Schema: rollup; Owner: hubscope_test_owner
--

CREATE TABLE rollup.stored_tool_latency_daily (
    tenant_id text CONSTRAINT stored_tool_latency_hourly_tenant_id_not_null NOT NULL,
    day timestamp with time zone CONSTRAINT stored_tool_latency_hourly_hour_not_null NOT NULL,
    hub text CONSTRAINT stored_tool_latency_hourly_hub_not_null NOT NULL,
    server text CONSTRAINT stored_tool_latency_hourly_server_not_null NOT NULL,
    tool text CONSTRAINT stored_tool_latency_hourly_tool_not_null NOT NULL,
    bucket smallint CONSTRAINT stored_tool_latency_hourly_bucket_not_null NOT NULL,
    calls bigint CONSTRAINT stored_tool_latency_hourly_calls_not_null NOT NULL,
    max_us bigint CONSTRAINT stored_tool_latency_hourly_max_us_not_null NOT NULL
);


ALTER TABLE rollup.stored_tool_latency_daily OWNER TO hubscope_test_owner;

--
-- Name: tool_calls_daily; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.tool_calls_daily AS
 SELECT tenant_id,
    day,
    hub,
    server,
    tool,
    transport,
    client,
    (sum(calls))::bigint AS calls,
    (sum(ok_calls))::bigint AS ok_calls,
    (sum(error_calls))::bigint AS error_calls,
    (sum(timeout_calls))::bigint AS timeout_calls,
    (sum(cancelled_calls))::bigint AS cancelled_calls,
    (sum(denied_calls))::bigint AS denied_calls,
    (sum(timed_calls))::bigint AS timed_calls,
    (sum(duration_sum_us))::bigint AS duration_sum_us,
    max(duration_max_us) AS duration_max_us,
    (sum(request_bytes))::bigint AS request_bytes,
    (sum(response_bytes))::bigint AS response_bytes,
    max(last_call_at) AS last_call_at
   FROM ( SELECT stored_tool_calls_daily.tenant_id,
            stored_tool_calls_daily.day,
            stored_tool_calls_daily.hub,
            stored_tool_calls_daily.server,
            stored_tool_calls_daily.tool,
            stored_tool_calls_daily.transport,
            stored_tool_calls_daily.client,
            stored_tool_calls_daily.calls,
            stored_tool_calls_daily.ok_calls,
            stored_tool_calls_daily.error_calls,
            stored_tool_calls_daily.timeout_calls,
            stored_tool_calls_daily.cancelled_calls,
            stored_tool_calls_daily.denied_calls,
            stored_tool_calls_daily.timed_calls,
            stored_tool_calls_daily.duration_sum_us,
            stored_tool_calls_daily.duration_max_us,
            stored_tool_calls_daily.request_bytes,
            stored_tool_calls_daily.response_bytes,
            stored_tool_calls_daily.last_call_at
           FROM rollup.stored_tool_calls_daily
        UNION ALL
         SELECT pending.tenant_id,
            date_trunc('day'::text, d.hour, 'UTC'::text) AS day,
            d.hub,
            d.server,
            d.tool,
            d.transport,
            d.client,
            d.calls,
            d.ok_calls,
            d.error_calls,
            d.timeout_calls,
            d.cancelled_calls,
            d.denied_calls,
            d.timed_calls,
            d.duration_sum_us,
            d.duration_max_us,
            d.request_bytes,
            d.response_bytes,
            d.last_call_at
           FROM rollup.pending,
            LATERAL unnest(pending.tool_calls) d(hour, hub, server, tool, transport, client, calls, ok_calls, error_calls, timeout_calls, cancelled_calls, denied_calls, timed_calls, duration_sum_us, duration_max_us, request_bytes, response_bytes, last_call_at)) parts
  GROUP BY tenant_id, day, hub, server, tool, transport, client;


ALTER VIEW rollup.tool_calls_daily OWNER TO hubscope_test_owner;

--
-- Name: tool_latency_daily; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.tool_latency_daily AS
 SELECT tenant_id,
    day,
    hub,
    server,
    tool,
    bucket,
    (sum(calls))::bigint AS calls,
    max(max_us) AS max_us
   FROM ( SELECT stored_tool_latency_daily.tenant_id,
            stored_tool_latency_daily.day,
            stored_tool_latency_daily.hub,
            stored_tool_latency_daily.server,
            stored_tool_latency_daily.tool,
            stored_tool_latency_daily.bucket,
            stored_tool_latency_daily.calls,
            stored_tool_latency_daily.max_us
           FROM rollup.stored_tool_latency_daily
        UNION ALL
         SELECT pending.tenant_id,
            date_trunc('day'::text, d.hour, 'UTC'::text) AS day,
            d.hub,
            d.server,
            d.tool,
            d.bucket,
            d.calls,
            d.max_us
           FROM rollup.pending,
            LATERAL unnest(pending.tool_latency) d(hour, hub, server, tool, bucket, calls, max_us)) parts
  GROUP BY tenant_id, day, hub, server, tool, bucket;


ALTER VIEW rollup.tool_latency_daily OWNER TO hubscope_test_owner;

--
-- Name: unnoted_hours; Type: VIEW; Schema: rollup; Owner: hubscope_test_owner
--

CREATE VIEW rollup.unnoted_hours AS
 SELECT NULL::text AS tenant_id,
    NULL::timestamp with time zone AS hour
  WHERE false;


ALTER VIEW rollup.unnoted_hours OWNER TO hubscope_test_owner;

--
-- Data for Name: definitions; Type: TABLE DATA; Schema: ops; Owner: hubscope_test_owner
--

INSERT INTO ops.definitions VALUES ('latency_percentiles', 'df474a461560a2c2e5ad0abe35c89fbba1fcf2b1953e8d681ccf5bdb144f5239', '2026-11-22 02:21:41.988209+00');
INSERT INTO ops.definitions VALUES ('partitions', 'e6646bb447312f969b5ee04ca6b5f221c3c4c391ed29dfe70610d4b9e9aeb7aa', '2026-11-22 02:21:41.989059+00');
INSERT INTO ops.definitions VALUES ('rollup_views', '22a45140cc056f452f6cee135e17d6e90f72c74feb63b786a04c637d0e0de492', '2026-11-22 02:21:41.992936+00');
INSERT INTO ops.definitions VALUES ('fold', 'b45e91ae7bd3688e84175bd0a98e3a95a4dffcd0fd1159a5da4495f09cfafa66', '2026-11-22 02:21:41.99355+00');
INSERT INTO ops.definitions VALUES ('grants', 'd41f2f0bf796165e285a164c6c6587d306417cda049214dac0fc0161f2720bf1', '2026-11-22 02:21:41.996227+00');
INSERT INTO ops.definitions VALUES ('engine_grants', '273477adde4acdb8a736185afc58910ecb17bc3bf938f74c97e0aca9a0502927', '2026-11-22 02:21:41.996539+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.dim_servers', 'c3bb5e8d740c1b92371ad7ef284e7329a972b4fbf0b1d2792fcf1a16fec298cb', '2026-11-22 02:21:42.242117+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.fct_tool_calls', '617ecaac7d00c3ede467cd4ab9737edb519104571d84e86d9ea5555258a30333', '2026-11-22 02:21:42.243425+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.fct_tool_latency_hourly', '8e4e3a0d05cc821ff53a7a0ba7c9e110a2e022bbdcd9023fe477ec8228df4260', '2026-11-22 02:21:42.244736+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.fct_tool_usage_hourly', '64e48a7c2eea9f2fe213e11080a6525c71181ca25f867a3df0ffac98ead8a123', '2026-11-22 02:21:42.245771+00');
INSERT INTO ops.definitions VALUES ('mart:analytics.mart_status', '5b88d1a5f78e4caa1d836444df4721eb22f59fedcf906fd5ff81588de745289e', '2026-11-22 02:21:42.246793+00');


--
-- Data for Name: job_runs; Type: TABLE DATA; Schema: ops; Owner: hubscope_test_owner
--



--
-- Data for Name: migrations; Type: TABLE DATA; Schema: ops; Owner: hubscope_test_owner
--

INSERT INTO ops.migrations VALUES (1, 'create_schemas', '51f74528c820fc44636c2cf44258ded5d86437b2f4fb7da3ecba83fb0c443bfe', '2026-11-22 02:21:41.953196+00', 11.865344999023364, '0.1.0');
INSERT INTO ops.migrations VALUES (2, 'create_raw', '2c1dfb348c87196d908d500dca3c1c472cf5a8dcd14074556e8e5b254854ddf0', '2026-11-22 02:21:41.956493+00', 2.6657449998310767, '0.1.0');
INSERT INTO ops.migrations VALUES (3, 'create_latency_buckets', '1468cc103285b6a10142f9737a8a940a63ba28d10e40f97b0cf7b9cabb8c9cbe', '2026-11-22 02:21:41.959021+00', 1.935718000822817, '0.1.0');
INSERT INTO ops.migrations VALUES (4, 'create_rollups', '183eb2a34d73a92d18b966c95ac99136a53a3005bd4d2096786b239909a40b9f', '2026-11-22 02:21:41.984891+00', 25.3665580003144, '0.1.0');


--
-- Data for Name: quality_results; Type: TABLE DATA; Schema: ops; Owner: hubscope_test_owner
--



--
-- Data for Name: store; Type: TABLE DATA; Schema: ops; Owner: hubscope_test_owner
--

INSERT INTO ops.store VALUES ('postgres', 'TimescaleDB is not installed', '2026-11-22 02:21:41.939634+00', true);


--
-- Data for Name: touched_hours; Type: TABLE DATA; Schema: ops; Owner: hubscope_test_owner
--



--
-- Data for Name: pending; Type: TABLE DATA; Schema: rollup; Owner: hubscope_test_owner
--



--
-- Data for Name: stored_server_checks_hourly; Type: TABLE DATA; Schema: rollup; Owner: hubscope_test_owner
--



--
-- Data for Name: stored_tool_calls_daily; Type: TABLE DATA; Schema: rollup; Owner: hubscope_test_owner
--



--
-- Data for Name: stored_tool_calls_hourly; Type: TABLE DATA; Schema: rollup; Owner: hubscope_test_owner
--



--
-- Data for Name: stored_tool_latency_daily; Type: TABLE DATA; Schema: rollup; Owner: hubscope_test_owner
--



--
-- Data for Name: stored_tool_latency_hourly; Type: TABLE DATA; Schema: rollup; Owner: hubscope_test_owner
--



--
-- Name: definitions definitions_pkey; Type: CONSTRAINT; Schema: ops; Owner: hubscope_test_owner
--

ALTER TABLE ONLY ops.definitions
    ADD CONSTRAINT definitions_pkey PRIMARY KEY (name);


--
-- Name: job_runs job_runs_pkey; Type: CONSTRAINT; Schema: ops; Owner: hubscope_test_owner
--

ALTER TABLE ONLY ops.job_runs
    ADD CONSTRAINT job_runs_pkey PRIMARY KEY (job, slot);


--
-- Name: migrations migrations_pkey; Type: CONSTRAINT; Schema: ops; Owner: hubscope_test_owner
--

ALTER TABLE ONLY ops.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (version);


--
-- Name: quality_results quality_results_pkey; Type: CONSTRAINT; Schema: ops; Owner: hubscope_test_owner
--

ALTER TABLE ONLY ops.quality_results
    ADD CONSTRAINT quality_results_pkey PRIMARY KEY (suite, checked_at, expectation, subject);


--
-- Name: store store_pkey; Type: CONSTRAINT; Schema: ops; Owner: hubscope_test_owner
--

ALTER TABLE ONLY ops.store
    ADD CONSTRAINT store_pkey PRIMARY KEY (only_one);


--
-- Name: touched_hours touched_hours_pkey; Type: CONSTRAINT; Schema: ops; Owner: hubscope_test_owner
--

ALTER TABLE ONLY ops.touched_hours
    ADD CONSTRAINT touched_hours_pkey PRIMARY KEY (tenant_id, hour, xid);


--
-- Name: hub_events hub_events_pkey; Type: CONSTRAINT; Schema: raw; Owner: hubscope_test_owner
--

ALTER TABLE ONLY raw.hub_events
    ADD CONSTRAINT hub_events_pkey PRIMARY KEY (tenant_id, event_id, "time");


--
-- Name: server_events server_events_pkey; Type: CONSTRAINT; Schema: raw; Owner: hubscope_test_owner
--

ALTER TABLE ONLY raw.server_events
    ADD CONSTRAINT server_events_pkey PRIMARY KEY (tenant_id, event_id, "time");


--
-- Name: tool_calls tool_calls_pkey; Type: CONSTRAINT; Schema: raw; Owner: hubscope_test_owner
--

ALTER TABLE ONLY raw.tool_calls
    ADD CONSTRAINT tool_calls_pkey PRIMARY KEY (tenant_id, event_id, "time");


--
-- Name: pending pending_pkey; Type: CONSTRAINT; Schema: rollup; Owner: hubscope_test_owner
--

ALTER TABLE ONLY rollup.pending
    ADD CONSTRAINT pending_pkey PRIMARY KEY (tenant_id, batch_id);


--
-- Name: stored_server_checks_hourly stored_server_checks_hourly_pkey; Type: CONSTRAINT; Schema: rollup; Owner: hubscope_test_owner
--

ALTER TABLE ONLY rollup.stored_server_checks_hourly
    ADD CONSTRAINT stored_server_checks_hourly_pkey PRIMARY KEY (tenant_id, hour, server, source, hub);


--
-- Name: stored_tool_calls_daily stored_tool_calls_daily_pkey; Type: CONSTRAINT; Schema: rollup; Owner: hubscope_test_owner
--

ALTER TABLE ONLY rollup.stored_tool_calls_daily
    ADD CONSTRAINT stored_tool_calls_daily_pkey PRIMARY KEY (tenant_id, day, server, tool, hub, transport, client);


--
-- Name: stored_tool_calls_hourly stored_tool_calls_hourly_pkey; Type: CONSTRAINT; Schema: rollup; Owner: hubscope_test_owner
--

ALTER TABLE ONLY rollup.stored_tool_calls_hourly
    ADD CONSTRAINT stored_tool_calls_hourly_pkey PRIMARY KEY (tenant_id, hour, server, tool, hub, transport, client);


--
-- Name: stored_tool_latency_daily stored_tool_latency_daily_pkey; Type: CONSTRAINT; Schema: rollup; Owner: hubscope_test_owner
--

ALTER TABLE ONLY rollup.stored_tool_latency_daily
    ADD CONSTRAINT stored_tool_latency_daily_pkey PRIMARY KEY (tenant_id, day, server, tool, hub, bucket);


--
-- Name: stored_tool_latency_hourly stored_tool_latency_hourly_pkey; Type: CONSTRAINT; Schema: rollup; Owner: hubscope_test_owner
--

ALTER TABLE ONLY rollup.stored_tool_latency_hourly
    ADD CONSTRAINT stored_tool_latency_hourly_pkey PRIMARY KEY (tenant_id, hour, server, tool, hub, bucket);


--
-- Name: hub_events_by_name; Type: INDEX; Schema: raw; Owner: hubscope_test_owner
--

CREATE INDEX hub_events_by_name ON ONLY raw.hub_events USING btree (tenant_id, type, name, "time" DESC);


--
-- Name: server_events_by_server; Type: INDEX; Schema: raw; Owner: hubscope_test_owner
--

CREATE INDEX server_events_by_server ON ONLY raw.server_events USING btree (tenant_id, server, "time" DESC);


--
-- Name: tool_calls_by_time; Type: INDEX; Schema: raw; Owner: hubscope_test_owner
--

CREATE INDEX tool_calls_by_time ON ONLY raw.tool_calls USING btree (tenant_id, "time");


--
-- Name: SCHEMA analytics; Type: ACL; Schema: -; Owner: hubscope_test_worker
--

GRANT USAGE ON SCHEMA analytics TO hubscope_test_reader;
GRANT USAGE ON SCHEMA analytics TO hubscope_test_grafana;


--
-- Name: SCHEMA audit; Type: ACL; Schema: -; Owner: hubscope_test_worker
--

GRANT USAGE ON SCHEMA audit TO hubscope_test_reader;
GRANT USAGE ON SCHEMA audit TO hubscope_test_grafana;


--
-- Name: SCHEMA health; Type: ACL; Schema: -; Owner: hubscope_test_worker
--

GRANT USAGE ON SCHEMA health TO hubscope_test_reader;
GRANT USAGE ON SCHEMA health TO hubscope_test_grafana;


--
-- Name: SCHEMA hub; Type: ACL; Schema: -; Owner: hubscope_test_owner
--

GRANT USAGE ON SCHEMA hub TO hubscope_test_writer;
GRANT USAGE ON SCHEMA hub TO hubscope_test_worker;
GRANT USAGE ON SCHEMA hub TO hubscope_test_reader;


--
-- Name: SCHEMA ops; Type: ACL; Schema: -; Owner: hubscope_test_owner
--

GRANT USAGE ON SCHEMA ops TO hubscope_test_writer;
GRANT USAGE ON SCHEMA ops TO hubscope_test_worker;
GRANT USAGE ON SCHEMA ops TO hubscope_test_reader;


--
-- Name: SCHEMA raw; Type: ACL; Schema: -; Owner: hubscope_test_owner
--

GRANT USAGE ON SCHEMA raw TO hubscope_test_writer;
GRANT USAGE ON SCHEMA raw TO hubscope_test_worker;


--
-- Name: SCHEMA rollup; Type: ACL; Schema: -; Owner: hubscope_test_owner
--

GRANT USAGE ON SCHEMA rollup TO hubscope_test_writer;
GRANT USAGE ON SCHEMA rollup TO hubscope_test_worker;
GRANT USAGE ON SCHEMA rollup TO hubscope_test_reader;
GRANT USAGE ON SCHEMA rollup TO hubscope_test_grafana;


--
-- Name: SCHEMA uptime; Type: ACL; Schema: -; Owner: hubscope_test_worker
--

GRANT USAGE ON SCHEMA uptime TO hubscope_test_reader;
GRANT USAGE ON SCHEMA uptime TO hubscope_test_grafana;


--
-- Name: FUNCTION ensure_partitions(first_day date, last_day date); Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION ops.ensure_partitions(first_day date, last_day date) FROM PUBLIC;
GRANT ALL ON FUNCTION ops.ensure_partitions(first_day date, last_day date) TO hubscope_test_writer;
GRANT ALL ON FUNCTION ops.ensure_partitions(first_day date, last_day date) TO hubscope_test_worker;


--
-- Name: FUNCTION fold(max_batches integer); Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

REVOKE ALL ON FUNCTION rollup.fold(max_batches integer) FROM PUBLIC;
GRANT ALL ON FUNCTION rollup.fold(max_batches integer) TO hubscope_test_worker;


--
-- Name: TABLE server_events; Type: ACL; Schema: raw; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT ON TABLE raw.server_events TO hubscope_test_writer;
GRANT SELECT ON TABLE raw.server_events TO hubscope_test_worker;


--
-- Name: TABLE pending; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT,DELETE ON TABLE rollup.pending TO hubscope_test_worker;
GRANT INSERT ON TABLE rollup.pending TO hubscope_test_writer;


--
-- Name: TABLE stored_tool_calls_hourly; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE rollup.stored_tool_calls_hourly TO hubscope_test_worker;


--
-- Name: TABLE tool_calls_hourly; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.tool_calls_hourly TO hubscope_test_worker;


--
-- Name: TABLE dim_servers; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.dim_servers TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.dim_servers TO hubscope_test_grafana;


--
-- Name: TABLE tool_calls; Type: ACL; Schema: raw; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT ON TABLE raw.tool_calls TO hubscope_test_writer;
GRANT SELECT ON TABLE raw.tool_calls TO hubscope_test_worker;


--
-- Name: TABLE fct_tool_calls; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.fct_tool_calls TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.fct_tool_calls TO hubscope_test_grafana;


--
-- Name: TABLE stored_tool_latency_hourly; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE rollup.stored_tool_latency_hourly TO hubscope_test_worker;


--
-- Name: TABLE tool_latency_hourly; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.tool_latency_hourly TO hubscope_test_worker;


--
-- Name: TABLE fct_tool_latency_hourly; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.fct_tool_latency_hourly TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.fct_tool_latency_hourly TO hubscope_test_grafana;


--
-- Name: TABLE fct_tool_usage_hourly; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.fct_tool_usage_hourly TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.fct_tool_usage_hourly TO hubscope_test_grafana;


--
-- Name: TABLE job_runs; Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE ops.job_runs TO hubscope_test_worker;


--
-- Name: TABLE store; Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE ops.store TO hubscope_test_worker;
GRANT SELECT ON TABLE ops.store TO hubscope_test_reader;
GRANT SELECT ON TABLE ops.store TO hubscope_test_writer;


--
-- Name: TABLE backlog; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.backlog TO hubscope_test_worker;


--
-- Name: TABLE mart_status; Type: ACL; Schema: analytics; Owner: hubscope_test_worker
--

GRANT SELECT ON TABLE analytics.mart_status TO hubscope_test_reader;
GRANT SELECT ON TABLE analytics.mart_status TO hubscope_test_grafana;


--
-- Name: TABLE definitions; Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE ops.definitions TO hubscope_test_worker;


--
-- Name: TABLE migrations; Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE ops.migrations TO hubscope_test_worker;
GRANT SELECT ON TABLE ops.migrations TO hubscope_test_reader;


--
-- Name: TABLE quality_results; Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE ops.quality_results TO hubscope_test_worker;


--
-- Name: TABLE touched_hours; Type: ACL; Schema: ops; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE ops.touched_hours TO hubscope_test_worker;


--
-- Name: TABLE hub_events; Type: ACL; Schema: raw; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT ON TABLE raw.hub_events TO hubscope_test_writer;
GRANT SELECT ON TABLE raw.hub_events TO hubscope_test_worker;


--
-- Name: TABLE stored_server_checks_hourly; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE rollup.stored_server_checks_hourly TO hubscope_test_worker;


--
-- Name: TABLE server_checks_hourly; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.server_checks_hourly TO hubscope_test_worker;


--
-- Name: TABLE stored_tool_calls_daily; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE rollup.stored_tool_calls_daily TO hubscope_test_worker;


--
-- Name: TABLE stored_tool_latency_daily; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE rollup.stored_tool_latency_daily TO hubscope_test_worker;


--
-- Name: TABLE tool_calls_daily; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.tool_calls_daily TO hubscope_test_worker;


--
-- Name: TABLE tool_latency_daily; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.tool_latency_daily TO hubscope_test_worker;


--
-- Name: TABLE unnoted_hours; Type: ACL; Schema: rollup; Owner: hubscope_test_owner
--

GRANT SELECT ON TABLE rollup.unnoted_hours TO hubscope_test_worker;


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: analytics; Owner: hubscope_test_worker
--

ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA analytics GRANT SELECT ON TABLES TO hubscope_test_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA analytics GRANT SELECT ON TABLES TO hubscope_test_grafana;


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: audit; Owner: hubscope_test_worker
--

ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA audit GRANT SELECT ON TABLES TO hubscope_test_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA audit GRANT SELECT ON TABLES TO hubscope_test_grafana;


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: health; Owner: hubscope_test_worker
--

ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA health GRANT SELECT ON TABLES TO hubscope_test_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA health GRANT SELECT ON TABLES TO hubscope_test_grafana;


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: raw; Owner: hubscope_test_owner
--

ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_owner IN SCHEMA raw GRANT SELECT ON TABLES TO hubscope_test_worker;


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: uptime; Owner: hubscope_test_worker
--

ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA uptime GRANT SELECT ON TABLES TO hubscope_test_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE hubscope_test_worker IN SCHEMA uptime GRANT SELECT ON TABLES TO hubscope_test_grafana;


--
-- PostgreSQL database dump complete
--


