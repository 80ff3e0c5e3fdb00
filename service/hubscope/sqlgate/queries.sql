-- name: session
-- What the gate needs to know of a database before it serves it.
SELECT current_database() AS database,
       current_user AS role,
       pg_catalog.current_setting('server_version_num')::int AS version,
       pg_catalog.current_setting('server_encoding') AS encoding,
       pg_catalog.current_schemas(false)::text[] AS path

-- name: resolve
-- What the names of one query mean, in the transaction that will run it. Parameters are pairs of arrays (schema or '',
-- name) for relations, functions, operators and types, the last parts of dotted names, and whether a row may be used as
-- one value.
-- One row per fact; `i` is the 1-based place in its array, of relations also -i for the i-th type.
WITH RECURSIVE path AS MATERIALIZED (
    SELECT n.oid, s.place
    FROM pg_catalog.unnest(pg_catalog.current_schemas(true)) WITH ORDINALITY AS s (schema, place)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = s.schema
),
named_type AS MATERIALIZED (
    SELECT t.i, found.*
    FROM unnest($7::text[], $8::text[]) WITH ORDINALITY AS t (schema, name, i)
    CROSS JOIN LATERAL (
        SELECT y.oid, y.typrelid, y.typtype, y.typname, n.nspname
        FROM pg_catalog.pg_type AS y
        JOIN pg_catalog.pg_namespace AS n ON n.oid = y.typnamespace
        LEFT JOIN path ON path.oid = n.oid
        WHERE y.typname = t.name AND CASE WHEN t.schema = '' THEN path.oid IS NOT NULL ELSE n.nspname = t.schema END
        ORDER BY path.place
        LIMIT 1
    ) AS found
),
named AS MATERIALIZED (
    SELECT r.i, found.oid
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS r (schema, name, i)
    CROSS JOIN LATERAL (
        SELECT c.oid
        FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        LEFT JOIN path ON path.oid = n.oid
        WHERE c.relname = r.name AND CASE WHEN r.schema = '' THEN path.oid IS NOT NULL ELSE n.nspname = r.schema END
        ORDER BY path.place
        LIMIT 1
    ) AS found
    UNION ALL
    SELECT -i, typrelid FROM named_type WHERE typrelid <> 0
),
reached (i, oid, how) AS (
    SELECT i, oid, 'named' FROM named
    UNION
    SELECT r.i, x.oid, CASE WHEN r.how = 'view' THEN 'view' ELSE x.how END
    FROM reached AS r
    CROSS JOIN LATERAL (
        -- The tree names every relation of a view, those of the system included, which pg_depend does not.
        SELECT m[1]::oid AS oid, 'view' AS how
        FROM pg_catalog.pg_rewrite AS w
        CROSS JOIN LATERAL pg_catalog.regexp_matches(w.ev_action::text, ':relid ([1-9][0-9]*)', 'g') AS m
        WHERE w.ev_class = r.oid AND w.ev_type = '1' AND m[1]::oid <> w.ev_class
        UNION ALL
        SELECT d.refobjid, 'view'
        FROM pg_catalog.pg_rewrite AS w
        JOIN pg_catalog.pg_depend AS d
            ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = w.oid
            AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> w.ev_class
        WHERE w.ev_class = r.oid AND w.ev_type = '1'
        UNION ALL
        SELECT h.inhrelid, 'child' FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = r.oid
    ) AS x
),
above (i, oid) AS (
    SELECT r.i, h.inhparent FROM reached AS r JOIN pg_catalog.pg_inherits AS h ON h.inhrelid = r.oid
    UNION
    SELECT a.i, h.inhparent FROM above AS a JOIN pg_catalog.pg_inherits AS h ON h.inhrelid = a.oid
),
type_reached (i, oid) AS (
    SELECT -i, oid FROM named_type
    UNION
    -- A literal beside a column of rows, arrays or ranges becomes one, and what is in it is checked; beside a whole row,
    -- every column is.
    SELECT r.i, a.atttypid
    FROM reached AS r
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND a.atttypid >= 16384
    JOIN pg_catalog.pg_type AS y ON y.oid = a.atttypid
    WHERE y.typtype IN ('c', 'r', 'm') OR y.typelem <> 0 OR $10::boolean
    UNION
    SELECT r.i, x.oid
    FROM type_reached AS r
    JOIN pg_catalog.pg_type AS y ON y.oid = r.oid
    CROSS JOIN LATERAL (
        SELECT a.atttypid AS oid
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = y.typrelid AND y.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT y.typbasetype WHERE y.typbasetype <> 0
        UNION ALL
        SELECT y.typelem WHERE y.typelem <> 0
        UNION ALL
        SELECT g.rngsubtype FROM pg_catalog.pg_range AS g WHERE g.rngtypid = y.oid
    ) AS x
    WHERE x.oid >= 16384
),
tree (i, owner, body) AS (
    SELECT r.i, 'the view ' || n.nspname || '.' || c.relname, w.ev_action::text
    FROM reached AS r
    JOIN pg_catalog.pg_class AS c ON c.oid = r.oid AND c.relkind = 'v'
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = r.oid AND w.ev_type = '1'
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
    UNION ALL
    SELECT r.i, 'the domain ' || y.typname, k.conbin::text
    FROM type_reached AS r
    JOIN pg_catalog.pg_type AS y ON y.oid = r.oid AND y.typtype = 'd'
    JOIN pg_catalog.pg_constraint AS k ON k.contypid = y.oid AND k.conbin IS NOT NULL
),
called (i, owner, function) AS (
    SELECT t.i, t.owner, m[1]::oid
    FROM tree AS t
    CROSS JOIN LATERAL
        pg_catalog.regexp_matches(t.body, ':(?:funcid|opfuncid|aggfnoid|winfnoid) ([1-9][0-9]*)', 'g') AS m
    UNION
    SELECT t.i, t.owner, o.oprcode::oid
    FROM tree AS t
    CROSS JOIN LATERAL pg_catalog.regexp_matches(t.body, ':opno ([1-9][0-9]*)', 'g') AS m
    JOIN pg_catalog.pg_operator AS o ON o.oid = m[1]::oid
),
function AS (
    SELECT 'call' AS kind, f.i, p.oid, NULL AS owner
    FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS f (schema, name, i)
    JOIN pg_catalog.pg_proc AS p ON p.proname = f.name
    JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    LEFT JOIN path ON path.oid = n.oid
    -- Of a name that is built in and allowed, only what may shadow it; of another ('?'), what is built in as well.
    WHERE (n.nspname <> 'pg_catalog' OR p.oid >= 16384 OR f.schema = '?')
        AND CASE WHEN f.schema IN ('', '?') THEN path.oid IS NOT NULL ELSE n.nspname = f.schema END
    UNION ALL
    SELECT 'definition', i, function, owner FROM called
    UNION ALL
    SELECT 'operator', o.i, q.oprcode::oid, q.oprname
    FROM unnest($5::text[], $6::text[]) WITH ORDINALITY AS o (schema, name, i)
    JOIN pg_catalog.pg_operator AS q ON q.oprname = o.name
    JOIN pg_catalog.pg_namespace AS n ON n.oid = q.oprnamespace
    LEFT JOIN path ON path.oid = n.oid
    WHERE n.nspname <> 'pg_catalog' AND CASE WHEN o.schema = '' THEN path.oid IS NOT NULL ELSE n.nspname = o.schema END
    UNION ALL
    -- A dotted name may be a function of a row. A column of that name wins, where the function takes one table's rows.
    SELECT 'field', f.i, p.oid, NULL
    FROM pg_catalog.unnest($9::text[]) WITH ORDINALITY AS f (name, i)
    JOIN pg_catalog.pg_proc AS p ON p.proname = f.name
    JOIN path ON path.oid = p.pronamespace
    JOIN pg_catalog.pg_type AS y ON y.oid = p.proargtypes[0]
    WHERE p.pronargs >= 1
        AND (p.pronargs - p.pronargdefaults <= 1 OR p.provariadic <> 0)
        AND (y.typtype IN ('c', 'd', 'p') OR p.provariadic <> 0)
        AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = y.typrelid AND y.typrelid <> 0 AND a.attname = p.proname AND NOT a.attisdropped
        )
    UNION ALL
    SELECT 'cast', NULL, k.castfunc, pg_catalog.format_type(k.castsource, NULL) || ' to '
        || pg_catalog.format_type(k.casttarget, NULL)
    FROM pg_catalog.pg_cast AS k
    WHERE k.oid >= 16384 AND k.castfunc <> 0
        AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend AS d
            WHERE d.classid = 'pg_catalog.pg_cast'::regclass AND d.objid = k.oid AND d.deptype = 'e'
        )
        AND (
            (k.castsource < 16384 AND k.casttarget < 16384)
            -- Of a cast between a type of the database and a built-in one, the former tells whether it can be meant.
            OR EXISTS (SELECT FROM type_reached AS t WHERE t.oid >= 16384 AND t.oid IN (k.castsource, k.casttarget))
            OR EXISTS (
                SELECT FROM reached AS r
                JOIN pg_catalog.pg_class AS c ON c.oid = r.oid
                LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.oid
                LEFT JOIN pg_catalog.pg_type AS y ON y.oid = a.atttypid AND y.typelem <> 0
                WHERE (k.castsource >= 16384 AND k.castsource IN (c.reltype, a.atttypid, y.typelem))
                    OR (k.casttarget >= 16384 AND k.casttarget IN (c.reltype, a.atttypid, y.typelem))
            )
        )
)
SELECT r.how AS kind, r.i, n.nspname AS schema, c.relname AS name, c.relkind::text AS sort, NULL AS extension,
    NULL AS owner, c.oid
FROM (SELECT DISTINCT * FROM reached) AS r
JOIN pg_catalog.pg_class AS c ON c.oid = r.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
UNION ALL
SELECT 'above', a.i, n.nspname, c.relname, c.relkind::text, NULL, NULL, c.oid
FROM above AS a
JOIN pg_catalog.pg_class AS c ON c.oid = a.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
UNION ALL
SELECT 'type', t.i, t.nspname, t.typname, t.typtype::text, e.extname,
    CASE WHEN g.rngcanonical::oid <> 0 THEN 'canonical' END, t.oid
FROM named_type AS t
LEFT JOIN pg_catalog.pg_range AS g ON t.oid IN (g.rngtypid, g.rngmultitypid)
LEFT JOIN pg_catalog.pg_depend AS d
    ON d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
LEFT JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
UNION ALL
SELECT f.kind, f.i, n.nspname, p.proname, p.provolatile::text, e.extname, f.owner, p.oid
FROM function AS f
JOIN pg_catalog.pg_proc AS p ON p.oid = f.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
LEFT JOIN pg_catalog.pg_depend AS d
    ON d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
LEFT JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid

-- name: plain
-- What `resolve` would tell of a query that names relations and built-in functions and operators only, and whether there
-- is more to tell, so that `resolve` has to be asked: one row for the database (i = 0), one for the words of the query
-- (i = -1), and one for each relation that it names (`i` is its 1-based place; without a name where there is none). It
-- reads single index entries, a fifth of the work.
-- Parameters: schemas ('' or quoted) and names (quoted with '' as schema, else plain) of relations; whether a row may be
-- used as one value; names of operators; of functions and fields that are built in and allowed; of functions, which may
-- be types; of the other fields; for each relation the schemas in which it would be served (an array as text, null where
-- the server need not compare), and whether it has to be there; and what `more` is where it is so: 'true', or a word
-- that is no boolean. With that, the statement fails instead, and what follows it on the line is skipped by the server.
-- `more` may be true in vain, never false in vain: what makes a branch of `resolve` answer is here without its details.
-- `lasting` is the relation (0 where there is none), or null where the server would not notice that a plan has become
-- another: it makes plans anew when a relation, a schema or an operator changes, not for a cast, a label of an enum, what
-- a literal names (regclass), a role's membership (row security; the right to use a schema, looked at by Parse alone).
SELECT 0 AS i, NULL::text AS schema, NULL::text AS name,
    CAST(CASE WHEN (
        SELECT true
        FROM pg_catalog.pg_cast AS k
        WHERE k.oid >= 16384 AND k.castfunc <> 0
            AND (
                SELECT true
                FROM pg_catalog.pg_depend AS d
                WHERE d.classid = 'pg_catalog.pg_cast'::regclass AND d.objid = k.oid AND d.deptype = 'e'
                LIMIT 1
            ) IS NULL
        LIMIT 1
    ) IS NOT NULL THEN $10::text ELSE 'false' END AS boolean) AS more,
    CASE WHEN (
        SELECT true FROM pg_catalog.pg_cast AS k WHERE k.oid >= 16384 LIMIT 1
    ) IS NULL THEN '0'::oid END AS lasting
UNION ALL
SELECT -1, NULL, NULL,
    CAST(CASE WHEN (
        SELECT true FROM pg_catalog.pg_operator AS o WHERE o.oid >= 16384 AND o.oprname = ANY ($4::text[]) LIMIT 1
    ) IS NOT NULL
    OR (
        SELECT true
        FROM pg_catalog.unnest($5::text[]) AS f (name)
        JOIN pg_catalog.pg_proc AS p ON p.proname = f.name
        WHERE p.oid >= 16384 OR p.pronamespace <> 'pg_catalog'::regnamespace
        LIMIT 1
    ) IS NOT NULL
    OR (
        SELECT true
        FROM pg_catalog.unnest($6::text[]) AS f (name)
        JOIN pg_catalog.pg_type AS y ON y.typname = f.name
        WHERE y.oid >= 16384 OR y.typrelid <> 0 OR y.typtype = 'd'
        LIMIT 1
    ) IS NOT NULL
    OR (
        SELECT true
        FROM pg_catalog.unnest($7::text[]) AS f (name)
        JOIN pg_catalog.pg_proc AS p ON p.proname = f.name
        JOIN pg_catalog.pg_type AS y ON y.oid = p.proargtypes[0]
        WHERE y.typtype IN ('c', 'd', 'p') OR p.provariadic <> 0
        LIMIT 1
    ) IS NOT NULL THEN $10::text ELSE 'false' END AS boolean), '0'::oid
UNION ALL
SELECT r.i::int, n.nspname, c.relname,
    CAST(CASE
        WHEN c.oid IS NULL THEN CASE WHEN r.required THEN $10::text ELSE 'false' END
        WHEN c.relkind IN ('v', 'm') OR c.relhasrules OR c.relhassubclass OR c.relispartition
            OR (r.served IS NOT NULL AND n.nspname <> ALL (r.served::text[]))
            OR (SELECT true FROM pg_catalog.pg_inherits AS h WHERE h.inhrelid = c.oid LIMIT 1) IS NOT NULL
            OR (
                SELECT true
                FROM pg_catalog.pg_attribute AS a
                JOIN pg_catalog.pg_type AS y ON y.oid = a.atttypid
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.atttypid >= 16384
                    AND (y.typtype IN ('c', 'r', 'm') OR y.typelem <> 0 OR $3::boolean)
                LIMIT 1
            ) IS NOT NULL
            THEN $10::text
        ELSE 'false'
    END AS boolean),
    CASE
        WHEN c.oid IS NULL THEN '0'::oid
        WHEN c.relkind = 'r' AND NOT c.relrowsecurity AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
            AND (
                SELECT true
                FROM pg_catalog.pg_attribute AS a
                WHERE a.attrelid = c.oid AND a.attnum > 0
                    -- Types whose literals mean the same whatever there is.
                    AND a.atttypid <> ALL ('{
                        bool, int2, int4, int8, numeric, float4, float8, money, oid, text, varchar, bpchar, name, bytea,
                        date, time, timetz, timestamp, timestamptz, interval, uuid, json, jsonb, inet, cidr, xml,
                        _bool, _int2, _int4, _int8, _numeric, _float4, _float8, _text, _varchar, _date, _timestamp,
                        _timestamptz, _uuid, _jsonb, bit, varbit, macaddr, point, int4range, int8range, numrange,
                        daterange, tsrange, tstzrange, tsvector
                    }'::regtype[]::oid[])
                    AND a.atttypid <> 0
                LIMIT 1
            ) IS NULL
            THEN c.oid
    END
FROM ROWS FROM (
    pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($8::text[]),
    pg_catalog.unnest($9::boolean[])
) WITH ORDINALITY AS r (schema, name, served, required, i)
LEFT JOIN pg_catalog.pg_class AS c
    ON c.oid = CASE
        WHEN r.schema = '' THEN pg_catalog.to_regclass(r.name)::oid
        -- Not to_regclass, which tells by its error of a schema that may not be used.
        ELSE (
            SELECT x.oid
            FROM pg_catalog.pg_class AS x
            WHERE x.relname = r.name AND x.relnamespace = pg_catalog.to_regnamespace(r.schema)::oid
        )
    END
LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace

-- name: operators_of
-- Which of these functions implement an operator of pg_catalog.
SELECT DISTINCT oprcode::oid AS oid
FROM pg_catalog.pg_operator
WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprcode::oid = ANY ($1::oid[])

-- name: relation_names
-- Every relation that could be named in a query, for the nearest one that may.
SELECT n.nspname AS schema, c.relname AS name
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
    AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
    AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
ORDER BY 1, 2
LIMIT 2000

-- name: tables
-- Relations that the role may read something of, one per row; of one schema, or of all with $1 null.
SELECT n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, pg_catalog.pg_get_userbyid(c.relowner) AS owner,
    CASE WHEN c.relkind IN ('v', 'f') OR c.reltuples < 0 THEN NULL ELSE c.reltuples::bigint END AS row_estimate,
    CASE WHEN c.relkind IN ('r', 'm', 'p') THEN pg_catalog.pg_total_relation_size(c.oid) END AS size_bytes,
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = c.oid)::int AS partitions,
    ARRAY(
        SELECT p
        FROM pg_catalog.unnest(
            ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']
        ) AS p
        WHERE pg_catalog.has_table_privilege(c.oid, p)
    ) AS privileges,
    pg_catalog.obj_description(c.oid, 'pg_class') AS comment
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname NOT LIKE 'pg\_temp\_%'
    AND ($1::text IS NULL OR n.nspname = $1)
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT')
ORDER BY n.nspname, c.relname
LIMIT 5000

-- name: relation
-- One relation by name, along the search path where no schema is given.
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
    pg_catalog.pg_get_userbyid(c.relowner) AS owner, pg_catalog.obj_description(c.oid, 'pg_class') AS comment,
    CASE WHEN c.relkind IN ('v', 'f') OR c.reltuples < 0 THEN NULL ELSE c.reltuples::bigint END AS row_estimate,
    CASE WHEN c.relkind IN ('r', 'm', 'p') THEN pg_catalog.pg_total_relation_size(c.oid) END AS size_bytes,
    CASE WHEN c.relkind IN ('r', 'm', 'p') THEN pg_catalog.pg_table_size(c.oid) END AS table_bytes,
    CASE WHEN c.relkind IN ('r', 'm', 'p') THEN pg_catalog.pg_indexes_size(c.oid) END AS index_bytes,
    ARRAY(
        SELECT p
        FROM pg_catalog.unnest(
            ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']
        ) AS p
        WHERE c.relkind <> 'S' AND pg_catalog.has_table_privilege(c.oid, p)
    ) AS privileges,
    c.relrowsecurity AS row_security,
    (SELECT i.inhparent::regclass::text FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = c.oid AND c.relispartition)
        AS partition_of,
    CASE WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END AS partition_key,
    CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid, true) END AS definition
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS path (schema, place)
    ON path.schema = n.nspname
WHERE c.relname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    AND CASE WHEN $2::text IS NULL THEN path.place IS NOT NULL ELSE n.nspname = $2 END
ORDER BY path.place
LIMIT 1

-- name: columns
SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, NOT a.attnotnull AS nullable,
    CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END AS default,
    CASE
        WHEN a.attgenerated <> '' THEN 'as ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid)
        WHEN a.attidentity = 'a' THEN 'always as identity'
        WHEN a.attidentity = 'd' THEN 'by default as identity'
    END AS generated,
    pg_catalog.col_description(a.attrelid, a.attnum) AS comment,
    s.null_frac::float8 AS null_share, s.n_distinct::float8 AS distinct_estimate
FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_catalog.pg_stats AS s
    ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
    AND s.inherited = (c.relkind = 'p')
WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum

-- name: constraints
SELECT k.conname AS name,
    CASE k.contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique' WHEN 'c' THEN 'check' ELSE 'exclusion' END AS kind,
    ARRAY(
        SELECT a.attname FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u (attnum, place)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.place
    ) AS columns,
    pg_catalog.pg_get_constraintdef(k.oid) AS definition
FROM pg_catalog.pg_constraint AS k
WHERE k.conrelid = $1::oid AND k.contype IN ('p', 'u', 'c', 'x')
ORDER BY k.contype <> 'p', k.conname

-- name: foreign_keys
-- From this relation and to it.
SELECT k.conrelid, k.conname AS name, fn.nspname AS schema_name, f.relname AS table_name,
    ARRAY(
        SELECT a.attname FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u (attnum, place)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.place
    ) AS columns,
    tn.nspname AS to_schema, t.relname AS to_table,
    ARRAY(
        SELECT a.attname FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY AS u (attnum, place)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.attnum ORDER BY u.place
    ) AS to_columns,
    CASE k.confdeltype
        WHEN 'c' THEN 'cascade' WHEN 'n' THEN 'set null' WHEN 'd' THEN 'set default' WHEN 'r' THEN 'restrict'
        ELSE 'no action'
    END AS on_delete
FROM pg_catalog.pg_constraint AS k
JOIN pg_catalog.pg_class AS f ON f.oid = k.conrelid
JOIN pg_catalog.pg_namespace AS fn ON fn.oid = f.relnamespace
JOIN pg_catalog.pg_class AS t ON t.oid = k.confrelid
JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.relnamespace
WHERE k.contype = 'f' AND $1::oid IN (k.conrelid, k.confrelid)
ORDER BY k.conname

-- name: indexes
SELECT c.relname AS name, pg_catalog.pg_get_indexdef(i.indexrelid) AS definition, i.indisunique AS unique,
    i.indisprimary AS primary, i.indisvalid AS valid, pg_catalog.pg_relation_size(i.indexrelid) AS size_bytes,
    coalesce(s.idx_scan, 0) AS scans, coalesce(s.idx_tup_read, 0) AS rows_read
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
LEFT JOIN pg_catalog.pg_stat_all_indexes AS s ON s.indexrelid = i.indexrelid
WHERE i.indrelid = $1::oid
ORDER BY NOT i.indisprimary, c.relname

-- name: partitions
SELECT n.nspname AS schema, c.relname AS name, coalesce(pg_catalog.pg_get_expr(c.relpartbound, c.oid), '') AS bounds
FROM pg_catalog.pg_inherits AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE i.inhparent = $1::oid
ORDER BY n.nspname, c.relname
LIMIT 500

-- name: statistics
SELECT seq_scan AS sequential_scans, idx_scan AS index_scans, n_live_tup AS live_rows, n_dead_tup AS dead_rows,
    greatest(last_analyze, last_autoanalyze)::text AS last_analyze,
    greatest(last_vacuum, last_autovacuum)::text AS last_vacuum
FROM pg_catalog.pg_stat_all_tables
WHERE relid = $1::oid

-- name: advice_tables
-- What advice needs to know of the tables of a plan: rows, changes since ANALYZE, columns, leading index columns.
SELECT n.nspname AS schema, c.relname AS name,
    CASE WHEN c.reltuples < 0 THEN NULL ELSE c.reltuples::bigint END AS row_estimate,
    s.n_mod_since_analyze AS changed, a.columns, a.column_names, a.distinct_estimates,
    ARRAY(
        SELECT DISTINCT x.attname
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_attribute AS x ON x.attrelid = c.oid AND x.attnum = i.indkey[0]
        WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL
    ) AS leading
FROM unnest($1::text[], $2::text[]) AS t (schema, name)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = t.schema
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.name
LEFT JOIN pg_catalog.pg_stat_all_tables AS s ON s.relid = c.oid
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*)::int AS columns, pg_catalog.array_agg(y.attname::text ORDER BY y.attnum) AS column_names,
        pg_catalog.array_agg(p.n_distinct::float8 ORDER BY y.attnum) AS distinct_estimates
    FROM pg_catalog.pg_attribute AS y
    LEFT JOIN pg_catalog.pg_stats AS p
        ON p.schemaname = n.nspname AND p.tablename = c.relname AND p.attname = y.attname AND NOT p.inherited
    WHERE y.attrelid = c.oid AND y.attnum > 0 AND NOT y.attisdropped
) AS a

-- name: role
-- What the role of this connection can do beyond reading.
SELECT r.rolname AS role, current_database() AS database, r.rolsuper AS superuser, r.rolbypassrls AS bypassrls,
    r.rolcreaterole AS createrole, r.rolcreatedb AS createdb, r.rolreplication AS replication,
    ARRAY(
        SELECT m.rolname FROM pg_catalog.pg_roles AS m
        WHERE m.rolname = ANY ($1::text[]) AND m.rolname <> 'pg_database_owner'
            AND pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER')
        ORDER BY 1
    ) AS memberships,
    ARRAY(
        SELECT n.nspname FROM pg_catalog.pg_namespace AS n
        WHERE n.nspname NOT LIKE 'pg\_%' AND pg_catalog.has_schema_privilege(n.oid, 'CREATE')
        ORDER BY 1
    ) AS create_in,
    pg_catalog.has_database_privilege(current_database(), 'CREATE') AS create_schemas,
    ARRAY(
        SELECT c.oid::regclass::text FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'f') AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
            AND c.relowner <> r.oid
            AND pg_catalog.has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
        ORDER BY 1
        LIMIT 50
    ) AS writable,
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class AS c WHERE c.relowner = r.oid AND c.oid >= 16384)::int AS owned
FROM pg_catalog.pg_roles AS r
WHERE r.rolname = current_user

-- name: listed_functions
-- Of HUBSCOPE_SQL_ALLOWED_FUNCTIONS, those that exist.
SELECT p.oid::regprocedure::text AS name, p.prosecdef AS definer, p.provolatile::text AS volatility,
    pg_catalog.pg_get_userbyid(p.proowner) AS owner
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname || '.' || p.proname = ANY ($1::text[])
ORDER BY 1

-- name: functions
-- Functions of a schema ($1, or null) by name ($2, or null), one overload per row. Their source is not told.
SELECT n.nspname AS schema_name, p.proname AS name, pg_catalog.pg_get_function_arguments(p.oid) AS arguments,
    CASE p.prokind WHEN 'p' THEN NULL ELSE pg_catalog.pg_get_function_result(p.oid) END AS result,
    CASE p.prokind WHEN 'a' THEN 'aggregate' WHEN 'w' THEN 'window' WHEN 'p' THEN 'procedure' ELSE 'function' END AS kind,
    l.lanname AS language,
    CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END AS volatility,
    p.prosecdef AS security_definer, pg_catalog.pg_get_userbyid(p.proowner) AS owner,
    pg_catalog.obj_description(p.oid, 'pg_proc') AS comment, e.extname AS extension
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
LEFT JOIN pg_catalog.pg_depend AS d
    ON d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
LEFT JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND ($1::text IS NULL OR n.nspname = $1)
    AND ($2::text IS NULL OR p.proname = $2) AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
ORDER BY 1, 2, 3
LIMIT 2000
