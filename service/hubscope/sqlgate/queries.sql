-- name: session
-- What the gate needs to know of a database before it serves it.
SELECT current_database() AS database,
       current_user AS role,
       current_setting('server_version_num')::int AS version,
       (SELECT array_agg(schema ORDER BY place) FROM unnest(current_schemas(false)) WITH ORDINALITY AS s (schema, place))
           AS path

-- name: resolve
-- What the names of one query mean, in the transaction that will run it. Parameters are pairs of arrays (schema or '',
-- name) for relations, functions, operators and types, and the last parts of dotted names.
-- One row per fact; `i` is the 1-based place in its array, of relations also -i for the i-th type.
WITH RECURSIVE path AS MATERIALIZED (
    SELECT n.oid, s.place
    FROM unnest(current_schemas(true)) WITH ORDINALITY AS s (schema, place)
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
    SELECT i, oid FROM named_type
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
    SELECT -abs(r.i), 'the domain ' || y.typname, k.conbin::text
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
    WHERE (n.nspname <> 'pg_catalog' OR p.oid >= 16384)
        AND CASE WHEN f.schema = '' THEN path.oid IS NOT NULL ELSE n.nspname = f.schema END
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
    FROM unnest($9::text[]) WITH ORDINALITY AS f (name, i)
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
