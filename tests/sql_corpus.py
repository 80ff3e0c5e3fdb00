"""SQL that must be answered, and SQL that must not: the corpora of the SQL server's tests, and the database for both.

SAMPLE is the sample schema of the server's specification, filled, with a canary that shows whatever moves.
"""

from __future__ import annotations

from typing import Final

SECRET: Final = "s3cr3t-token-4711"

SAMPLE: Final = f"""
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN email AS text CHECK (value LIKE '%@%');
CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, email email UNIQUE, feeling mood,
    created_at timestamptz NOT NULL, profile jsonb, tags text[]);
CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL, price numeric(10, 2) NOT NULL, description text);
CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users, product_id int REFERENCES products,
    total_amount numeric(12, 2) NOT NULL, status text NOT NULL, created_at timestamptz NOT NULL, period tstzrange);
CREATE INDEX orders_by_user ON orders (user_id);
CREATE TABLE categories (id int PRIMARY KEY, parent int REFERENCES categories, name text);
CREATE TABLE readings (taken timestamptz NOT NULL, sensor int, value float8) PARTITION BY RANGE (taken);
CREATE TABLE readings_2025 PARTITION OF readings FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
INSERT INTO users SELECT g, 'user ' || g, 'u' || g || '@example.com', (ARRAY['sad', 'ok', 'happy'])[1 + g % 3]::mood,
    '2025-01-01'::timestamptz + g * interval '1 day', jsonb_build_object('age', 20 + g, 'langs', jsonb_build_array('en')),
    ARRAY['a', 'b' || g] FROM generate_series(1, 20) AS g;
INSERT INTO products SELECT g, 'product ' || g, g * 9.99, 'a fine product' FROM generate_series(1, 5) AS g;
INSERT INTO orders SELECT g, 1 + g % 20, 1 + g % 5, g * 1.5, CASE WHEN g % 7 = 0 THEN 'cancelled' ELSE 'paid' END,
    '2025-02-01'::timestamptz + g * interval '6 hours', tstzrange('2025-02-01', '2025-02-02') FROM generate_series(1, 200) AS g;
INSERT INTO categories VALUES (1, NULL, 'all'), (2, 1, 'books'), (3, 2, 'novels');
INSERT INTO readings SELECT '2025-03-01'::timestamptz + g * interval '10 minutes', g % 3, g FROM generate_series(1, 100) g;
CREATE VIEW customer_summary AS SELECT u.id, u.name, count(o.id) AS total_orders, sum(o.total_amount) AS total_spent
    FROM users u LEFT JOIN orders o ON u.id = o.user_id GROUP BY u.id, u.name;

CREATE TABLE secrets (token text);
INSERT INTO secrets VALUES ('{SECRET}');
CREATE VIEW innocent AS SELECT token AS nothing FROM secrets;
CREATE VIEW nested AS SELECT * FROM innocent;
CREATE MATERIALIZED VIEW kept AS SELECT token FROM secrets;
CREATE TABLE secrets_child () INHERITS (secrets);
CREATE VIEW system_view AS SELECT rolname, rolpassword FROM pg_catalog.pg_authid;
CREATE SCHEMA private;
CREATE TABLE private.salaries (who text, amount int);
INSERT INTO private.salaries VALUES ('{SECRET}', 1);
CREATE VIEW over_private AS SELECT who FROM private.salaries;

CREATE TABLE canary (n int);
CREATE SEQUENCE canary_seq;
CREATE FUNCTION sing() RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO canary VALUES (1); RETURN 1; END $$;
CREATE FUNCTION sing(anyelement) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO canary VALUES (1); RETURN 1; END $$;
CREATE FUNCTION sing_row(users) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO canary VALUES (1); RETURN 1; END $$;
CREATE FUNCTION sing_two(int, int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO canary VALUES (1); RETURN 1; END $$;
CREATE FUNCTION sing_rows() RETURNS SETOF int LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO canary VALUES (1); RETURN NEXT 1; END $$;
CREATE FUNCTION sing_check(int) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO canary VALUES (1); RETURN true; END $$;
CREATE FUNCTION upper(int) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO canary VALUES (1); RETURN 'x'; END $$;
CREATE FUNCTION peek() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$ SELECT token FROM secrets $$;
CREATE OPERATOR #+# (LEFTARG = int, RIGHTARG = int, FUNCTION = sing_two);
CREATE OPERATOR ^ (LEFTARG = int, RIGHTARG = int, FUNCTION = sing_two);
CREATE DOMAIN singing AS int CHECK (sing_check(value));
CREATE TYPE cage AS (bird singing);
CREATE TYPE perch AS (height int);
CREATE FUNCTION sing_cast(perch) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO canary VALUES (1); RETURN 1; END $$;
CREATE CAST (perch AS int) WITH FUNCTION sing_cast(perch) AS IMPLICIT;
CREATE AGGREGATE sing_all(int) (SFUNC = sing_two, STYPE = int);
CREATE TABLE birds (id int, note singing, notes singing[], home cage);
INSERT INTO birds (id) VALUES (1);
CREATE TABLE sparrows (id int, note singing);
CREATE VIEW singing_view AS SELECT id, sing() AS song FROM users;
CREATE VIEW counting_view AS SELECT nextval('canary_seq') AS n;
CREATE VIEW waiting_view AS SELECT pg_sleep(0)::text AS waited;
ANALYZE;
"""

BLOCKED: Final = frozenset({"secrets"})
"""What the tests' policy blocks in SAMPLE; its allowed schemas are public alone."""

LEGITIMATE: Final[tuple[str, ...]] = tuple(
    part.strip()
    for part in """
SELECT 1
VALUES (1, 'a'), (2, 'b')
TABLE products
SELECT COUNT(*) FROM users
SELECT u.*, COUNT(o.id) FROM users u LEFT JOIN orders o ON u.id = o.user_id GROUP BY u.id
SELECT id, name, email FROM users WHERE created_at > '2025-01-10' ORDER BY id LIMIT 10 OFFSET 2
SELECT DISTINCT status FROM orders
SELECT DISTINCT ON (user_id) user_id, id, total_amount FROM orders ORDER BY user_id, created_at DESC
SELECT * FROM public.users WHERE name ILIKE 'user 1%' AND email IS NOT NULL
SELECT status, sum(total_amount), avg(total_amount)::numeric(10,2) FROM orders GROUP BY 1 HAVING count(*) > 3 ORDER BY 2 DESC
SELECT date_trunc('month', created_at) AS month, count(*) FROM orders GROUP BY 1 ORDER BY 1
SELECT date_trunc('day', created_at AT TIME ZONE 'Europe/Berlin'), count(*) FROM orders GROUP BY 1
SELECT date_bin('15 minutes', taken, '2025-01-01'), avg(value) FROM readings GROUP BY 1
SELECT extract(dow FROM created_at), count(*) FROM orders GROUP BY 1
SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY total_amount) FROM orders
SELECT percentile_disc(ARRAY[0.5, 0.9]) WITHIN GROUP (ORDER BY total_amount) FROM orders
SELECT mode() WITHIN GROUP (ORDER BY status) FROM orders
SELECT count(*) FILTER (WHERE status = 'paid') AS paid, count(*) FILTER (WHERE status <> 'paid') AS other FROM orders
SELECT id, total_amount, rank() OVER (PARTITION BY user_id ORDER BY total_amount DESC) FROM orders
SELECT id, sum(total_amount) OVER w, lag(total_amount) OVER w FROM orders WINDOW w AS (PARTITION BY user_id ORDER BY created_at)
SELECT id, avg(total_amount) OVER (ORDER BY id ROWS BETWEEN 6 PRECEDING AND CURRENT ROW) FROM orders
SELECT id, count(*) OVER (ORDER BY created_at RANGE BETWEEN interval '1 day' PRECEDING AND CURRENT ROW) FROM orders
SELECT first_value(id) OVER (ORDER BY id), nth_value(id, 2) OVER (ORDER BY id), ntile(4) OVER (ORDER BY id) FROM products
SELECT cume_dist() OVER (ORDER BY price), percent_rank() OVER (ORDER BY price), row_number() OVER () FROM products
SELECT status, user_id, sum(total_amount) FROM orders GROUP BY GROUPING SETS ((status), (user_id), ())
SELECT status, user_id, sum(total_amount), grouping(status, user_id) FROM orders GROUP BY ROLLUP (status, user_id)
SELECT status, product_id, count(*) FROM orders GROUP BY CUBE (status, product_id)
WITH spent AS (SELECT user_id, sum(total_amount) AS s FROM orders GROUP BY 1) SELECT * FROM spent WHERE s > 100
WITH a AS MATERIALIZED (SELECT 1 AS x), b AS NOT MATERIALIZED (SELECT x + 1 AS y FROM a) SELECT * FROM a, b
WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 100) SELECT sum(n) FROM t
WITH RECURSIVE tree AS (SELECT id, name, 1 AS depth FROM categories WHERE parent IS NULL UNION ALL SELECT c.id, c.name, depth + 1 FROM categories c JOIN tree ON c.parent = tree.id) SEARCH DEPTH FIRST BY id SET o CYCLE id SET looped USING path SELECT * FROM tree
SELECT u.name, o.* FROM users u CROSS JOIN LATERAL (SELECT id, total_amount FROM orders WHERE user_id = u.id ORDER BY total_amount DESC LIMIT 2) o
SELECT * FROM users u LEFT JOIN LATERAL (SELECT max(total_amount) AS top FROM orders WHERE user_id = u.id) t ON true
SELECT name FROM users WHERE id IN (SELECT user_id FROM orders) AND EXISTS (SELECT FROM orders o WHERE o.user_id = users.id)
SELECT name FROM users WHERE id = ANY (ARRAY(SELECT user_id FROM orders WHERE status = 'cancelled'))
SELECT id FROM users UNION SELECT id FROM products INTERSECT SELECT id FROM categories EXCEPT SELECT 3 ORDER BY 1
SELECT a.id, c.name FROM users a JOIN products b USING (id), products p NATURAL JOIN categories c
SELECT CASE WHEN price > 20 THEN 'dear' WHEN price > 10 THEN 'fair' ELSE 'cheap' END, count(*) FROM products GROUP BY 1
SELECT CASE status WHEN 'paid' THEN 1 ELSE 0 END, coalesce(NULL, 1), nullif(1, 2), greatest(1, 2), least(1, 2) FROM orders LIMIT 1
SELECT profile->>'age', profile->'langs'->0, profile #>> '{langs,0}', profile ? 'age', profile @> '{"age": 21}' FROM users
SELECT jsonb_path_query(profile, '$.langs[*]'), profile @? '$.age ? (@ > 25)' FROM users
SELECT key, value FROM users, jsonb_each(profile)
SELECT jsonb_agg(jsonb_build_object('id', id, 'name', name) ORDER BY id) FROM products
SELECT row_to_json(p), to_jsonb(p) - 'description' FROM products p
SELECT * FROM jsonb_to_recordset('[{"a": 1, "b": "x"}]') AS t(a int, b text)
SELECT * FROM jsonb_populate_record(NULL::products, '{"id": 1, "name": "x"}')
SELECT jsonb_set(profile, '{age}', '1'), jsonb_pretty(profile), profile || '{"a": 1}' FROM users LIMIT 1
SELECT unnest(tags), array_length(tags, 1), cardinality(tags), tags[1], tags[1:2], tags && ARRAY['a'], 'a' = ANY (tags) FROM users
SELECT array_agg(name ORDER BY id), string_agg(name, ', ' ORDER BY id) FROM products
SELECT t.v, t.i FROM unnest(ARRAY['x', 'y']) WITH ORDINALITY AS t(v, i)
SELECT * FROM ROWS FROM (generate_series(1, 3), generate_series(1, 2)) AS t(a, b)
SELECT d::date FROM generate_series('2025-01-01'::date, '2025-01-31', interval '1 week') AS d
SELECT period && tstzrange('2025-02-01', NULL), lower(period), upper_inf(period), period @> '2025-02-01 12:00'::timestamptz FROM orders LIMIT 3
SELECT range_agg(int4range(id, id + 2)), '{[1,5)}'::int4multirange @> 3 FROM products
SELECT to_tsvector('english', description) @@ to_tsquery('english', 'fine & product') FROM products
SELECT ts_headline('english', description, websearch_to_tsquery('english', 'fine')), ts_rank(to_tsvector(description), plainto_tsquery('product')) FROM products
SELECT regexp_replace(name, '\\d+', '#', 'g'), regexp_match(name, '(\\w+) (\\d+)'), name ~* '^user', name SIMILAR TO 'u%' FROM users LIMIT 2
SELECT split_part(email, '@', 2), substring(email from 1 for 3), position('@' in email), trim(both 'u' from name), overlay(name placing 'x' from 1), initcap(name) FROM users LIMIT 1
SELECT format('%s has %s', name, id), concat_ws('-', id, name), lpad(id::text, 5, '0'), md5(name), encode(sha256(name::bytea), 'hex') FROM users LIMIT 1
SELECT to_char(created_at, 'YYYY-MM-DD'), to_char(total_amount, 'FM999,990.00'), age(created_at), created_at - interval '1 day' FROM orders LIMIT 1
SELECT now() - created_at, CURRENT_DATE, LOCALTIMESTAMP, make_date(2025, 1, 1), to_timestamp(0), isfinite(created_at) FROM orders LIMIT 1
SELECT (created_at, created_at + interval '1 hour') OVERLAPS (now(), now()) FROM orders LIMIT 1
SELECT round(price, 1), ceil(price), floor(price), power(price, 2), sqrt(price), ln(price), mod(id, 2), width_bucket(price, 0, 50, 5) FROM products
SELECT corr(id, price), regr_slope(price, id), stddev(price), var_pop(price), covar_samp(price, id) FROM products
SELECT id FROM orders WHERE total_amount BETWEEN 10 AND 20 AND status NOT IN ('cancelled') AND created_at IS DISTINCT FROM NULL
SELECT feeling, count(*) FROM users WHERE feeling >= 'ok'::mood GROUP BY feeling ORDER BY feeling
SELECT 'a@b'::email, CAST('5' AS int), '1 day'::interval, DATE '2025-01-01', TIMESTAMP WITH TIME ZONE '2025-01-01 00:00+02', X'ff'::int
SELECT ROW(1, 'x'), (SELECT p FROM products p WHERE id = 1), (ROW(1, 2)) < (ROW(1, 3))
SELECT (p).name, (p).price FROM (SELECT p FROM products p) AS s
SELECT name COLLATE "C" FROM users ORDER BY name COLLATE "C" DESC NULLS LAST FETCH FIRST 3 ROWS WITH TIES
SELECT * FROM users TABLESAMPLE BERNOULLI (50) REPEATABLE (1)
SELECT * FROM ONLY readings
SELECT taken, value FROM readings WHERE taken >= '2025-03-01' ORDER BY taken LIMIT 5
SELECT * FROM customer_summary WHERE total_spent > 100 ORDER BY total_spent DESC
SELECT bool_and(price > 0), bool_or(price > 40), every(price > 0), bit_or(p.id), max(p.name), min(created_at::date) FROM products p, users
SELECT '10.0.0.1'::inet << '10.0.0.0/8'::cidr, host('10.0.0.1'::inet), point(1, 2) <-> point(3, 4), B'101' & B'110'
SELECT x.a FROM (VALUES (1), (2)) AS x(a) WHERE x.a > (SELECT avg(a) FROM (VALUES (1), (2)) y(a))
SELECT id, total_amount::float8 / nullif(sum(total_amount) OVER (), 0) FROM orders -- a comment at the end
/* a comment */ SELECT /* another /* nested */ */ 1;
SELECT U&'d\\0061t\\+000061', E'tab\\t', $$dollar$$, $tag$quoted 'text'$tag$
SELECT "name" AS "select", id "from" FROM "users" WHERE "users"."id" = 1
SELECT random() < 2, gen_random_uuid() IS NOT NULL, clock_timestamp() > '2020-01-01', pg_typeof(1)
SELECT current_user, session_user, current_database(), current_schema, version() IS NOT NULL
SELECT array_position(ARRAY['a', 'b'], 'b'), array_remove(ARRAY[1, 2], 1), array_to_string(ARRAY[1, 2], ','), ARRAY[[1, 2], [3, 4]]
SELECT string_to_array('a,b', ','), regexp_split_to_table('a b', ' '), translate('abc', 'ab', 'xy'), reverse('abc'), starts_with('abc', 'a')
SELECT OPERATOR(pg_catalog.-) 1, 2 OPERATOR(pg_catalog.*) 3, pg_catalog.upper('x'), 1::pg_catalog.int8
SELECT grp, count(*) FROM (SELECT id - row_number() OVER (ORDER BY id) AS grp FROM orders) s GROUP BY grp
SELECT id, note + 1 FROM sparrows WHERE note > 0
SELECT o.status, u.feeling, sum(o.total_amount) AS revenue FROM orders o JOIN users u ON u.id = o.user_id JOIN products p ON p.id = o.product_id WHERE o.created_at >= '2025-01-01' GROUP BY 1, 2 ORDER BY revenue DESC NULLS LAST
""".strip().splitlines()
)

ON_18: Final[tuple[str, ...]] = (
    """SELECT * FROM JSON_TABLE('[{"a": 1}]', '$[*]' COLUMNS (a int PATH '$.a', n FOR ORDINALITY)) AS t""",
    """SELECT JSON_VALUE('{"a": 1}', '$.a' RETURNING int), JSON_QUERY('{"a": [1]}', '$.a'), JSON_EXISTS('{}', '$.a')""",
    "SELECT JSON_OBJECT('a': 1, 'b': 2), JSON_ARRAY(1, 2), JSON_ARRAYAGG(id), '{}' IS JSON OBJECT FROM products",
    "SELECT any_value(name), array_sort(ARRAY[2, 1]), uuidv7() IS NOT NULL, 1_000, 0x1F FROM products",
)
"""What PostgreSQL 16 to 18 brought."""

# Each of these must be refused by the guard alone, without a database.
ATTACKS: Final[dict[str, tuple[str, ...]]] = {
    "several statements": (
        "COMMIT; DROP TABLE users",
        "SELECT 1; DELETE FROM users",
        "SELECT 1; COMMIT; BEGIN READ WRITE; INSERT INTO canary VALUES (1)",
        "SELECT 1;; SELECT 2",
        "ROLLBACK; SET default_transaction_read_only = off; INSERT INTO canary VALUES (1)",
        "SELECT 1 /* ; */ ; TRUNCATE users",
        "SELECT ';' ; SELECT sing()",
        "END; CREATE TABLE evil()",
    ),
    "comments": (
        "SELECT 1 -- \n; DELETE FROM users",
        "/* SELECT 1 */ DELETE FROM users",
        "--SELECT 1\nDELETE FROM users",
        "DEL/**/ETE FROM users",
        "SELECT/**/pg_sleep/**/(10)",
        "SELECT pg_sleep -- x\n (1)",
    ),
    "writing": (
        "INSERT INTO user_events (user_id, event_type, event_data) VALUES ($1, $2, $3)",
        "INSERT INTO canary VALUES (1) RETURNING *",
        "UPDATE users SET name = 'x'",
        "DELETE FROM users",
        "MERGE INTO users u USING orders o ON u.id = o.id WHEN MATCHED THEN DELETE",
        "TRUNCATE users",
        "DROP TABLE users",
        "ALTER TABLE users ADD COLUMN x int",
        "CREATE TABLE evil (x int)",
        "CREATE TABLE evil AS SELECT 1",
        "CREATE TEMP TABLE users (x int)",
        "CREATE VIEW evil AS SELECT 1",
        "GRANT ALL ON users TO public",
        "CREATE ROLE evil SUPERUSER",
        "REFRESH MATERIALIZED VIEW kept",
        "COMMENT ON TABLE users IS 'x'",
        "REINDEX TABLE users",
        "VACUUM",
        "ANALYZE users",
        "CLUSTER",
        "CHECKPOINT",
    ),
    "writing inside a query": (
        "WITH x AS (DELETE FROM users RETURNING *) SELECT * FROM x",
        "WITH x AS (INSERT INTO canary VALUES (1) RETURNING n) SELECT * FROM x",
        "WITH x AS (UPDATE users SET name = 'x' RETURNING *) SELECT count(*) FROM x",
        "WITH a AS (SELECT 1), b AS (WITH c AS (INSERT INTO canary VALUES (1) RETURNING n) SELECT * FROM c) SELECT 1",
        "WITH x AS (MERGE INTO canary USING users ON false WHEN NOT MATCHED THEN INSERT VALUES (1) RETURNING 1) TABLE x",
        "SELECT * INTO evil FROM users",
        "SELECT 1 INTO TEMP evil",
        "(SELECT 1 INTO evil) UNION SELECT 2",
        "WITH x AS (SELECT 1) INSERT INTO canary SELECT * FROM x",
        "WITH x AS (SELECT 1) DELETE FROM users",
    ),
    "locking": (
        "SELECT * FROM users FOR UPDATE",
        "SELECT * FROM users FOR SHARE",
        "SELECT * FROM users FOR NO KEY UPDATE SKIP LOCKED",
        "SELECT * FROM (SELECT * FROM users FOR KEY SHARE) x",
        "WITH x AS (SELECT * FROM users FOR UPDATE) SELECT * FROM x",
        "LOCK TABLE users",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_xact_lock(1)",
        "SELECT pg_advisory_unlock_all()",
    ),
    "other statements": (
        "EXPLAIN ANALYZE DELETE FROM users",
        "EXPLAIN SELECT 1",
        "EXPLAIN (ANALYZE) SELECT sing()",
        "COPY users TO STDOUT",
        "COPY users TO PROGRAM 'touch /tmp/hubscope-canary'",
        "COPY (SELECT 1) TO '/tmp/hubscope-canary'",
        "COPY canary FROM PROGRAM 'echo 1'",
        "DO $$ BEGIN INSERT INTO canary VALUES (1); END $$",
        "CALL something()",
        "SHOW ALL",
        "SET default_transaction_read_only = off",
        "SET SESSION AUTHORIZATION postgres",
        "SET ROLE postgres",
        "SET TRANSACTION READ WRITE",
        "RESET ALL",
        "BEGIN",
        "START TRANSACTION READ WRITE",
        "COMMIT",
        "ABORT",
        "SAVEPOINT a",
        "PREPARE TRANSACTION 'x'",
        "COMMIT PREPARED 'x'",
        "LISTEN canary",
        "NOTIFY canary",
        "UNLISTEN *",
        "PREPARE x AS DELETE FROM users",
        "EXECUTE x",
        "DEALLOCATE ALL",
        "DECLARE c CURSOR FOR SELECT 1",
        "FETCH ALL FROM c",
        "DISCARD ALL",
        "LOAD 'evil'",
        "ALTER SYSTEM SET work_mem = '1GB'",
        "SECURITY LABEL ON TABLE users IS 'x'",
        "CREATE EXTENSION dblink",
    ),
    "SQL given as text": (
        "SELECT query_to_xml('DELETE FROM users', true, true, '')",
        "SELECT query_to_xml_and_xmlschema('SELECT * FROM secrets', true, true, '')",
        "SELECT query_to_xmlschema('SELECT * FROM secrets', true, true, '')",
        "SELECT table_to_xml('secrets', true, true, '')",
        "SELECT schema_to_xml('public', true, true, '')",
        "SELECT database_to_xml(true, true, '')",
        "SELECT cursor_to_xml('c', 1, true, true, '')",
        "SELECT * FROM ts_stat('SELECT to_tsvector(token) FROM secrets')",
        "SELECT ts_rewrite('a'::tsquery, 'SELECT sing()::text::tsquery, ''a''::tsquery')",
        "SELECT * FROM dblink('dbname=postgres', 'DELETE FROM users') AS t(a int)",
        "SELECT dblink_exec('dbname=postgres', 'DELETE FROM users')",
        "SELECT * FROM crosstab('SELECT sing(), 1, 1') AS t(a int, b int)",
        "SELECT * FROM connectby('secrets', 'token', 'token', 'x', 0) AS t(a text, b text, c int)",
        "SELECT * FROM xpath_table('a', 'b', 'secrets', '/', 'true') AS t(a int)",
        "SELECT lo_import('/etc/passwd')",
        "SELECT st_findextent('public', 'users', 'id')",
    ),
    "files and large objects": (
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_read_binary_file('/etc/passwd')",
        "SELECT pg_ls_dir('/')",
        "SELECT * FROM pg_ls_logdir()",
        "SELECT pg_stat_file('/etc/passwd')",
        "SELECT lo_export(1, '/tmp/hubscope-canary')",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, '\\xff')",
        "SELECT lo_get(1)",
        "SELECT lo_put(1, 0, '\\x00')",
        "SELECT lo_unlink(1)",
        "SELECT loread(lo_open(1, 131072), 10)",
        "SELECT pg_current_logfile()",
        "SELECT pg_file_write('/tmp/hubscope-canary', 'x', false)",
        "SELECT * FROM pg_hba_file_rules()",
        "SELECT pg_relation_filepath('users')",
    ),
    "settings and sessions": (
        "SELECT set_config('default_transaction_read_only', 'off', false)",
        "SELECT set_config('search_path', 'evil', false)",
        "SELECT current_setting('data_directory')",
        "SELECT * FROM pg_show_all_settings()",
        "SELECT pg_terminate_backend(1)",
        "SELECT pg_cancel_backend(1)",
        "SELECT pg_reload_conf()",
        "SELECT pg_rotate_logfile()",
        "SELECT * FROM pg_stat_get_activity(NULL)",
        "SELECT pg_stat_get_backend_activity(1)",
        "SELECT pg_stat_reset()",
        "SELECT pg_notify('canary', 'x')",
        "SELECT pg_switch_wal()",
        "SELECT pg_create_restore_point('x')",
        "SELECT pg_promote()",
        "SELECT pg_export_snapshot()",
        "SELECT pg_current_xact_id()",
        "SELECT txid_current()",
        "SELECT setseed(0.5)",
        "SELECT pg_logical_emit_message(true, 'x', 'y')",
        "SELECT pg_create_physical_replication_slot('x')",
        "SELECT pg_log_backend_memory_contexts(1)",
    ),
    "waiting": (
        "SELECT pg_sleep(100)",
        "SELECT pg_sleep_for('1 hour')",
        "SELECT pg_sleep_until('2100-01-01')",
        "SELECT * FROM users WHERE pg_sleep(1) IS NULL",
        "SELECT * FROM users ORDER BY (SELECT pg_sleep(1))::text",
        "SELECT 1 LIMIT (SELECT 1 FROM pg_sleep(1))",
        "SELECT CASE WHEN true THEN pg_sleep(1)::text END",
        "SELECT count(*) FILTER (WHERE pg_sleep(1) IS NULL) FROM users",
        "SELECT sum(1) OVER (PARTITION BY pg_sleep(1)::text) FROM users",
        "SELECT ARRAY[ARRAY[pg_sleep(1)::text]]",
        "SELECT ROW(1, ROW(2, pg_sleep(1)))",
        "SELECT (ARRAY[1])[(SELECT 1 FROM pg_sleep(1))]",
        "SELECT 1 GROUP BY GROUPING SETS ((pg_sleep(1)::text))",
        "SELECT * FROM users TABLESAMPLE BERNOULLI ((SELECT 1 FROM pg_sleep(1)))",
        "VALUES (1), ((SELECT 2 FROM pg_sleep(1)))",
        "SELECT 1 FROM users JOIN orders ON pg_sleep(1) IS NOT NULL",
        "SELECT first_value(1) OVER (ORDER BY 1 ROWS (SELECT 1 FROM pg_sleep(1)) PRECEDING)",
        "WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT 1 FROM t, pg_sleep(1)) SELECT * FROM t",
        "SELECT coalesce(1, greatest(2, nullif(3, (SELECT 4 FROM pg_sleep(1)))))",
        "SELECT xmlelement(name a, pg_sleep(1)::text)",
        "SELECT JSON_OBJECT('a': pg_sleep(1)::text)",
        "SELECT JSON_VALUE('{}', '$.a' DEFAULT pg_sleep(1)::text ON EMPTY)",
        "SELECT JSON_VALUE('{}', '$.a' PASSING pg_sleep(1)::text AS x)",
        "SELECT * FROM JSON_TABLE('{}', '$' COLUMNS (a text PATH '$.a' DEFAULT pg_sleep(1)::text ON EMPTY)) t",
        "SELECT * FROM XMLTABLE('/a' PASSING pg_sleep(1)::text::xml COLUMNS b text)",
        "SELECT JSON_ARRAYAGG(pg_sleep(1)::text ORDER BY pg_sleep(1)::text)",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY length(pg_sleep(1)::text))",
        "SELECT string_agg('a', ',' ORDER BY pg_sleep(1)::text)",
        "SELECT DISTINCT ON (pg_sleep(1)::text) 1",
        "SELECT f(a => pg_sleep(1))",
    ),
    "disguises": (
        'SELECT "pg_sleep"(1)',
        "SELECT pg_catalog.pg_sleep(1)",
        'SELECT "pg_catalog"."pg_sleep"(1)',
        'SELECT U&"pg_sl\\0065ep"(1)',
        "SELECT U&\"pg!005fsleep\" UESCAPE '!' (1)",
        "SELECT PG_SLEEP(1)",
        "SELECT pg_sleep\n\t(1)",
        "SELECT postgres.pg_catalog.pg_sleep(1)",
        "SELECT * FROM pg_sleep(1)",
        "SELECT * FROM LATERAL pg_sleep(1)",
        "SELECT * FROM ROWS FROM (generate_series(1, 2), pg_sleep(1))",
        "SELECT * FROM ROWS FROM (pg_sleep(1)) WITH ORDINALITY",
        "SELECT * FROM users, LATERAL (SELECT pg_sleep(users.id)) x",
        "SELECT * FROM pg_sleep(1) AS users",
        "SELECT (pg_sleep(1))::text",
        "SELECT pg_sleep(VARIADIC ARRAY[1])",
        "SELECT * FROM current_setting('data_directory')",
    ),
    "sequences": (
        "SELECT nextval('canary_seq')",
        "SELECT setval('canary_seq', 100)",
        "SELECT currval('canary_seq')",
        "SELECT lastval()",
        "SELECT pg_sequence_last_value('canary_seq')",
        "SELECT * FROM nextval('canary_seq')",
        "SELECT nextval(1234)",
    ),
    "the catalogue by name": (
        "SELECT pg_input_is_valid('5', 'singing')",
        "SELECT * FROM pg_input_error_info('5', 'singing')",
        "SELECT pg_basetype('singing')",
        "SELECT 'secrets'::regclass",
        "SELECT 'secrets'::regclass::oid",
        "SELECT CAST('sing' AS regproc)",
        "SELECT regclass('secrets')",
        "SELECT regclass 'secrets'",
        "SELECT '{secrets}'::regclass[]",
        "SELECT 'secrets'::pg_catalog.regclass",
        "SELECT '{secrets}'::pg_catalog._regclass",
        "SELECT to_regclass('secrets')",
        "SELECT pg_relation_size('secrets')",
        "SELECT pg_total_relation_size('secrets')",
        "SELECT has_table_privilege('secrets', 'SELECT')",
        "SELECT pg_get_viewdef('innocent')",
        "SELECT pg_get_functiondef(1)",
        "SELECT col_description(1, 1)",
        "SELECT pg_get_userbyid(10)",
        "SELECT 'postgres'::regrole",
        "SELECT pg_describe_object(1259, 1259, 0)",
        "SELECT * FROM jsonb_to_record('{}') AS t(a regclass)",
        "SELECT JSON_VALUE('\"secrets\"', '$' RETURNING regclass)",
        "SELECT * FROM XMLTABLE('/a' PASSING '<a/>' COLUMNS b regclass)",
        "SELECT NULL::pg_catalog.record",
    ),
    "functions of one's own": (
        "SELECT sing()",
        "SELECT public.sing()",
        'SELECT "public"."sing"()',
        "SELECT peek()",
        "SELECT * FROM sing_rows()",
        "SELECT * FROM sing()",
        "SELECT sing_all(id) FROM users",
        "SELECT sing_two(1, 2)",
        "SELECT sing_row(u) FROM users u",
        "SELECT get_customer_analytics(1)",
        "SELECT * FROM daily_sales_summary()",
        "SELECT public.lower('x')",
        "SELECT no_such_function(1)",
        "SELECT singing(1)",
    ),
    "too much or not SQL": (
        "",
        "   ",
        ";",
        "-- only a comment",
        "SELEC 1",
        "SELECT 'unterminated",
        'SELECT "unterminated',
        "SELECT $$unterminated",
        "SELECT /* unterminated",
        "SELECT 1\0",
        "SELECT '\ud800'",
        "SELECT " + "(" * 9_000 + "1" + ")" * 9_000 + " FROM pg_sleep(1)",
        "SELECT " + "1," * 6_000 + "1",
        "SELECT $0",
        "SELECT $100000",
        "SELECT " + "a." * 5 + "a FROM users",
        "\\! touch /tmp/hubscope-canary",
        "\\copy users to '/tmp/hubscope-canary'",
    ),
    "sampling and definitions": (
        "SELECT * FROM users TABLESAMPLE evil (1)",
        "SELECT * FROM users TABLESAMPLE public.bernoulli (1)",
        "SELECT * FROM postgres.public.users",
        "SELECT * FROM jsonb_to_record('{}') AS t(a SETOF int)",
        "SELECT a.b.c.d.e FROM users",
    ),
}

# These need the database to be judged: names that mean something only there.
ATTACKS_BY_NAME: Final[dict[str, tuple[str, ...]]] = {
    "blocked tables": (
        "SELECT * FROM secrets",
        "SELECT * FROM public.secrets",
        'SELECT * FROM "secrets"',
        'SELECT * FROM U&"s\\0065crets"',
        "TABLE secrets",
        "SELECT * FROM ONLY secrets",
        "SELECT (SELECT token FROM secrets)",
        "WITH x AS (SELECT * FROM secrets) SELECT * FROM x",
        "SELECT 1 WHERE EXISTS (SELECT FROM secrets WHERE token LIKE 's%')",
        "SELECT * FROM users UNION ALL SELECT 1, token, NULL, NULL, now(), NULL, NULL FROM secrets",
        "SELECT * FROM users JOIN LATERAL (SELECT * FROM secrets) s ON true",
        "SELECT * FROM secrets TABLESAMPLE SYSTEM (100)",
        "SELECT NULL::secrets",
        "SELECT (NULL::secrets).token",
        "SELECT * FROM jsonb_populate_record(NULL::secrets, '{}')",
        "SELECT '(x)'::public.secrets",
        "SELECT * FROM secrets_child",
        "WITH users AS (SELECT 1) SELECT token FROM secrets, users",
    ),
    "through views": (
        "SELECT * FROM innocent",
        "SELECT nothing FROM nested",
        "SELECT * FROM kept",
        "SELECT * FROM over_private",
        "SELECT * FROM system_view",
        "SELECT count(*) FROM innocent",
        "SELECT NULL::innocent",
    ),
    "other schemas": (
        "SELECT * FROM private.salaries",
        "SELECT * FROM salaries",
        "SELECT NULL::private.salaries",
        "SELECT * FROM pg_temp.users",
        "SELECT * FROM pg_toast.pg_toast_1255",
        "SELECT * FROM nonexistent.thing",
    ),
    "the system's relations": (
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_catalog.pg_shadow",
        "SELECT * FROM pg_stat_activity",
        "SELECT * FROM pg_settings",
        "SELECT * FROM pg_class",
        "SELECT * FROM pg_proc",
        "SELECT * FROM pg_stats",
        "SELECT * FROM pg_largeobject",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM pg_user_mappings",
        "SELECT NULL::pg_authid",
        "SELECT * FROM pg_roles",
        "SELECT * FROM pg_hba_file_rules",
        "SELECT * FROM pg_locks",
    ),
    "attribute notation": (
        "SELECT u.sing_row FROM users u",
        "SELECT (u).sing_row FROM users u",
        "SELECT users.sing_row FROM users",
        "SELECT public.users.sing_row FROM public.users",
        "SELECT u.sing FROM users u",
        "SELECT (ROW(1, 2)).sing",
        "SELECT ((u)).sing FROM users u ORDER BY u.sing",
        "SELECT * FROM users u WHERE u.sing_row > 0",
        "SELECT (SELECT u FROM users u LIMIT 1).sing_row",
    ),
    "operators": (
        "SELECT 1 #+# 2",
        "SELECT 1 OPERATOR(public.#+#) 2",
        "SELECT 2 ^ 3",
        "SELECT * FROM users WHERE id #+# 1 = 1",
        "SELECT 1 = ANY (ARRAY[1 #+# 2])",
        "SELECT 1 #+# ANY (SELECT 2)",
        "SELECT 1 OPERATOR(private.=) 2",
        "SELECT id FROM users ORDER BY id USING OPERATOR(public.<)",
    ),
    "types and casts": (
        "SELECT 1::singing",
        "SELECT CAST(1 AS public.singing)",
        "SELECT singing '1'",
        "SELECT '(1)'::cage",
        "SELECT '{1}'::singing[]",
        "SELECT '(1)'::perch::int",
        "SELECT '(1)'::perch + 1",
        "SELECT * FROM jsonb_to_record('{\"a\": 1}') AS t(a singing)",
        "SELECT * FROM jsonb_populate_record(NULL::cage, '{\"bird\": 1}')",
        "SELECT 1::no_such_type",
        "SELECT id FROM birds WHERE notes = '{1}'",
        "SELECT id FROM birds WHERE home = '(1)'",
        "SELECT id FROM sparrows s WHERE s = '(1,1)'",
        "SELECT id FROM public.sparrows WHERE public.sparrows = '(1,1)'",
        "SELECT jsonb_populate_record(s, '{\"note\": 1}') FROM (SELECT * FROM sparrows) s",
        "SELECT (pg_catalog.jsonb_populate_record(sparrows, '{\"note\": 1}')).note FROM sparrows",
        "SELECT id FROM (SELECT * FROM sparrows) AS x WHERE x > '(0,0)'",
    ),
    "shadowed functions": (
        "SELECT upper(1)",
        "SELECT upper(id) FROM users",
        "SELECT public.upper(1)",
    ),
    "functions in views": (
        "SELECT * FROM singing_view",
        "SELECT song FROM singing_view",
        "SELECT n FROM counting_view",
        "SELECT * FROM waiting_view",
        "SELECT NULL::singing_view",
    ),
}

BOMBS: Final[tuple[str, ...]] = (
    "SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 100000) b",
    "SELECT repeat('x', 100000000)",
    "SELECT repeat('x', 10000000) FROM generate_series(1, 100)",
    "SELECT g, repeat('y', 100000) FROM generate_series(1, 100000) g",
    "WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t) SELECT sum(n) FROM t",
    "WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t) SELECT n FROM t",
    "SELECT lpad('x', 50000000), rpad('y', 50000000)",
    "SELECT array_fill(1, ARRAY[10000000])",
    "SELECT string_agg(repeat('z', 1000), '') FROM generate_series(1, 50000)",
    "SELECT jsonb_agg(repeat('j', 1000)) FROM generate_series(1, 50000)",
    "SELECT " + ", ".join("repeat('w', 1000000)" for _ in range(100)),
    "SELECT factorial(100000)",
)
