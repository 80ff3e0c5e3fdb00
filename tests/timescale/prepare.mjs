// The data directory that every database starts from: TimescaleDB installed, and advisory locks that know clients.

import { Backend } from './backend.mjs';
import { FOREIGN_LOCKS } from './sessions.mjs';

/**
 * Advisory locks belong to a session, and all clients share one: each would be given what another one holds, and
 * asyncpg's reset of a pooled connection would release everybody's. So the functions of PostgreSQL are put behind ones
 * that first look at the list of locks that other clients hold. They have to be renamed: PostgreSQL calls a built-in
 * function without reading its row in pg_proc, so that replacing it has no effect.
 *
 * A client cannot be made to wait in the one backend: where it would have to, it gets lock_not_available. Shared locks
 * of two clients exclude each other.
 */
const ADVISORY_LOCKS = `
CREATE FUNCTION pg_catalog.pgserver_foreign(key text) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce(key = ANY (string_to_array(current_setting('${FOREIGN_LOCKS}', true), ',')), false)
$$;

DO $do$
DECLARE
  native record;
  call text;
  key text;
  body text;
BEGIN
  FOR native IN
    SELECT oid::regprocedure::text AS signature, proname AS name, pronargs AS arguments, prorettype::regtype AS result
      FROM pg_catalog.pg_proc
     WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^pg_(try_)?advisory_' AND pronargs > 0
  LOOP
    EXECUTE format('ALTER FUNCTION pg_catalog.%s RENAME TO pgserver_%s', native.signature, native.name);
    call := CASE native.arguments WHEN 1 THEN 'bigint' ELSE 'integer, integer' END;
    key := CASE native.arguments
      WHEN 1 THEN $$concat_ws('.', ($1 >> 32) & 4294967295, $1 & 4294967295, 1)$$
      ELSE $$concat_ws('.', $1::bigint & 4294967295, $2::bigint & 4294967295, 2)$$
    END;
    body := CASE
      WHEN native.name LIKE '%unlock%'
        THEN $$RAISE WARNING 'you don''t own a lock of type ExclusiveLock'; RETURN false$$
      WHEN native.name LIKE 'pg_try%' THEN 'RETURN false'
      ELSE $$RAISE lock_not_available USING
        MESSAGE = 'another client holds this advisory lock',
        HINT = 'The test server has one backend, which cannot wait: use pg_try_advisory_lock.'$$
    END;
    EXECUTE format(
      'CREATE FUNCTION pg_catalog.%I(%s) RETURNS %s LANGUAGE plpgsql AS '
      '$body$ BEGIN IF pg_catalog.pgserver_foreign(%s) THEN %s; END IF; %s pg_catalog.pgserver_%s(%s); END $body$',
      native.name, call, native.result, key, body,
      CASE native.result WHEN 'void'::regtype THEN 'PERFORM' ELSE 'RETURN' END,
      native.name, CASE native.arguments WHEN 1 THEN '$1' ELSE '$1, $2' END
    );
  END LOOP;
END $do$;

-- However often the session took it.
CREATE FUNCTION pg_catalog.pgserver_unlock(key text) RETURNS void LANGUAGE plpgsql SET client_min_messages = error AS $$
DECLARE
  part bigint[] := string_to_array(key, '.');
  high integer := (part[1]::bit(32))::integer;
  low integer := (part[2]::bit(32))::integer;
  whole bigint := (part[1]::bit(32) || part[2]::bit(32))::bit(64)::bigint;
BEGIN
  IF part[3] = 1 THEN
    WHILE pg_catalog.pgserver_pg_advisory_unlock(whole) LOOP END LOOP;
    WHILE pg_catalog.pgserver_pg_advisory_unlock_shared(whole) LOOP END LOOP;
  ELSE
    WHILE pg_catalog.pgserver_pg_advisory_unlock(high, low) LOOP END LOOP;
    WHILE pg_catalog.pgserver_pg_advisory_unlock_shared(high, low) LOOP END LOOP;
  END IF;
END $$;

ALTER FUNCTION pg_catalog.pg_advisory_unlock_all() RENAME TO pgserver_pg_advisory_unlock_all;
CREATE FUNCTION pg_catalog.pg_advisory_unlock_all() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF coalesce(current_setting('${FOREIGN_LOCKS}', true), '') = '' THEN
    PERFORM pg_catalog.pgserver_pg_advisory_unlock_all();
  ELSE
    PERFORM pg_catalog.pgserver_unlock(lock.key)
       FROM (SELECT DISTINCT concat_ws('.', classid, objid, objsubid) AS key
               FROM pg_catalog.pg_locks WHERE locktype = 'advisory') AS lock
      WHERE NOT pg_catalog.pgserver_foreign(lock.key);
  END IF;
END $$`;

/** The image of a database `postgres` with TimescaleDB. */
export async function prepare(parts) {
  const fresh = await Backend.boot(parts); // is connected to template1, whatever it is asked for
  const empty = await fresh.dump();
  await fresh.stop();
  const backend = await Backend.boot(parts, empty);
  await backend.query('CREATE EXTENSION timescaledb');
  await backend.query(ADVISORY_LOCKS);
  const image = await backend.dump();
  await backend.stop();
  return image;
}
