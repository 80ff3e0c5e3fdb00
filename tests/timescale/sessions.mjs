// Many sessions on one backend: what belongs to a session is kept here and put in force when its client's turn comes.
//
// A session's settings, temporary tables and advisory locks are *read from the database* when the next client takes
// over, not guessed from the statements that were run; so SET, set_config(), ROLLBACK of a SET and functions that do
// such things are all seen. What PostgreSQL cannot tell is only what a RESET should go back to: the reset value is the
// backend's, not the one of the client's startup packet. After a RESET, `refill` sets those again.

/** Settings under which every session starts. This build runs with others, which no installation has. */
const BASELINE = {
  enable_seqscan: 'on',
  search_path: '"$user", public',
  session_authorization: 'postgres',
  role: 'none',
  timezone: 'UTC',
};
const IDENTITY = ['session_authorization', 'role']; // in this order: the first clears the second
export const FOREIGN_LOCKS = 'pgserver.foreign_locks'; // read by the advisory lock functions, see prepare.mjs
const REPORTED = [
  'application_name', 'client_encoding', 'DateStyle', 'default_transaction_read_only', 'IntervalStyle', 'is_superuser',
  'session_authorization', 'standard_conforming_strings', 'TimeZone',
];

const literal = (text) => `E'${text.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;
const identifier = (text) => `"${text.replaceAll('"', '""')}"`;
const setting = (name, value) => `set_config(${literal(name)}, ${literal(value)}, false)`;

/** What one client would have to itself on a server with a backend for each. */
export class Session {
  locks = []; // advisory locks as class.object.kind
  temporaries = []; // relations of pg_temp: oid, kind, name
  dirty = false; // whether something ran that may have changed any of it

  /** @param startup settings of the startup packet, by name in lower case; the last one counts. */
  constructor(startup) {
    this.initial = new Map([...Object.entries(BASELINE), ...startup]);
    this.settings = new Map(this.initial);
  }

  /** A new one with the same start. */
  restarted() {
    return new Session(this.initial);
  }
}

/** Puts one session at a time in force. Everything here runs between transactions, in the turn of a client. */
export class Stage {
  #backend;
  #sessions = new Set();
  #current = null; // the session in force
  #force = new Map([['session_authorization', 'postgres'], ['role', 'none']]); // settings in force
  #shown = null; // the session whose temporary relations go by their own names
  #customs = new Set(); // names of settings with a dot, found in statements: PostgreSQL does not list those

  constructor(backend) {
    this.#backend = backend;
  }

  /** Make the session's settings, temporary tables and locks the ones in force. Raises DatabaseError, then nothing
   *  has changed. */
  async enter(session) {
    if (this.#current === session) return;
    this.#sessions.add(session);
    await this.#remember();
    this.#current = null;
    for (const name of session.initial.keys()) if (name.includes('.')) this.#customs.add(name);
    const wanted = this.#wanted(session);
    const renames = [...this.#renames(this.#shown, true), ...this.#renames(session, false)];
    const statements = this.#changes(wanted, this.#shown === session ? [] : renames);
    if (statements.length) await this.#backend.query(statements.join('; '));
    this.#force = wanted;
    this.#shown = session;
    this.#current = session;
  }

  /** Forget a session: its temporary tables are dropped and its locks released. */
  async leave(session) {
    this.#sessions.delete(session);
    if (this.#current === session) {
      await this.#remember();
      this.#current = null;
    }
    const hidden = this.#shown !== session;
    const drops = session.temporaries
      .filter(({ kind }) => 'rpvS'.includes(kind))
      .map((relation) => {
        const type = { v: 'VIEW', S: 'SEQUENCE' }[relation.kind] ?? 'TABLE';
        return `DROP ${type} IF EXISTS pg_temp.${identifier(hidden ? hiddenName(relation) : relation.name)} CASCADE`;
      });
    const unlocks = session.locks.map((lock) => `SELECT pg_catalog.pgserver_unlock(${literal(lock)})`);
    if (drops.length + unlocks.length === 0) return;
    const wanted = new Map([...this.#force, ['session_authorization', 'postgres'], ['role', 'none']]);
    await this.#backend.query(this.#changes(wanted, [...drops, ...unlocks]).join('; '));
    this.#force = wanted;
    this.#current = null;
    if (!hidden) this.#shown = null;
  }

  /** After statements that reset something: what they reset goes back to what the client's startup packet said. */
  async refill(session, sql) {
    const wanted = new Map([...session.initial, [FOREIGN_LOCKS, this.#foreignLocks(session).join(',')]]);
    const rows = [...wanted].filter(([name]) => !IDENTITY.includes(name));
    const statements = [
      `SELECT set_config(w.name, w.value, false)
         FROM (VALUES ${rows.map(([name, value]) => `(${literal(name)}, ${literal(value)})`)}) AS w (name, value)
         LEFT JOIN pg_catalog.pg_settings AS s ON lower(s.name) = w.name
        WHERE s.source <> 'session' OR s.name IS NULL AND coalesce(current_setting(w.name, true), '') = ''`,
    ];
    if (/\bsession\s+authorization\b/i.test(sql)) {
      statements.push(`SELECT ${setting('session_authorization', wanted.get('session_authorization'))}`);
    }
    if (/\breset\s+role\b|\brole\s*(?:=|to)?\s*default\b/i.test(sql)) {
      statements.push(`SELECT ${setting('role', wanted.get('role'))} WHERE current_setting('role') = 'none'`);
    }
    await this.#backend.query(statements.join('; '));
  }

  /** Note names of settings such as `hubscope.tenant` that a statement may be setting. */
  noteCustomSettings(sql) {
    const names = /(?:\bset\s+(?:session\s+|local\s+)?|\bset_config\s*\(\s*E?')([a-z_]\w*\.[\w.]+)/gi;
    for (const [, name] of sql.matchAll(names)) this.#customs.add(name.toLowerCase());
  }

  /** The parameters that PostgreSQL reports to a client whenever they change; this build does it at the start only.
   *  SHOW takes no snapshot: a SET TRANSACTION may still follow. */
  async reported() {
    const rows = await this.#backend.query(REPORTED.map((name) => `SHOW ${name}`).join('; '));
    return new Map(rows.map(([value], index) => [REPORTED[index], value]));
  }

  /** Read what the session in force has become. Leaves the backend as the superuser. */
  async #remember() {
    const session = this.#current;
    if (!session?.dirty) return;
    const unlisted = [...IDENTITY, FOREIGN_LOCKS, ...this.#customs].map(literal).join(', ');
    const rows = await this.#backend.query(`
      SELECT 'setting', n, current_setting(n, true), NULL FROM unnest(ARRAY[${unlisted}]) AS n;
      SET SESSION AUTHORIZATION postgres;
      SET ROLE none;
      SELECT 'setting', lower(name), setting, NULL FROM pg_catalog.pg_settings
       WHERE source = 'session' AND name NOT LIKE 'transaction\\_%'
         AND name NOT IN ('session_authorization', 'role', 'is_superuser')
      UNION ALL
      SELECT 'temporary', oid::text, relname, relkind::text FROM pg_catalog.pg_class
       WHERE relnamespace = pg_my_temp_schema() AND relkind IN ('r', 'p', 'v', 'S', 'i', 'I') AND relname NOT LIKE '~%'
      UNION ALL
      SELECT 'lock', concat_ws('.', classid, objid, objsubid), NULL, NULL FROM pg_catalog.pg_locks
       WHERE locktype = 'advisory'`);
    const of = (kind) => rows.filter(([first]) => first === kind);
    const foreign = new Set(this.#foreignLocks(session));
    session.settings = new Map(of('setting').filter(([, , value]) => value !== null).map(([, ...pair]) => pair));
    session.temporaries = of('temporary').map(([, oid, name, kind]) => ({ oid, name, kind }));
    session.locks = of('lock').map(([, lock]) => lock).filter((lock) => !foreign.has(lock));
    session.dirty = false;
    this.#force = new Map([...session.settings, ['session_authorization', 'postgres'], ['role', 'none']]);
    session.settings.delete(FOREIGN_LOCKS);
  }

  #foreignLocks(session) {
    return [...this.#sessions].filter((other) => other !== session).flatMap((other) => other.locks);
  }

  #wanted(session) {
    const foreign = this.#foreignLocks(session).join(',');
    const wanted = new Map(session.settings);
    if (foreign || this.#force.get(FOREIGN_LOCKS)) wanted.set(FOREIGN_LOCKS, foreign);
    return wanted;
  }

  /** Statements from the settings in force to the wanted ones, with `work` done as the superuser in between. */
  #changes(wanted, work) {
    const names = new Set([...this.#force.keys(), ...wanted.keys()]);
    const changed = [...names].filter((name) => this.#force.get(name) !== wanted.get(name));
    const plain = changed.filter((name) => !IDENTITY.includes(name));
    if (changed.length + work.length === 0) return [];
    const wasSuperuser = this.#force.get('session_authorization') === 'postgres' && this.#force.get('role') === 'none';
    const sets = plain.filter((name) => wanted.has(name)).map((name) => setting(name, wanted.get(name)));
    const becomes = IDENTITY.filter((name) => wanted.get(name) !== BASELINE[name]);
    return [
      // The session that goes may be a read-only one; this must come first in the transaction.
      ...(work.length ? ['SET transaction_read_only = off'] : []),
      // Not RESET: in this build it leaves the session authorization as it is.
      ...(wasSuperuser ? [] : ['SET SESSION AUTHORIZATION postgres', 'SET ROLE none']),
      ...plain.filter((name) => !wanted.has(name)).map((name) => `RESET ${name.split('.').map(identifier).join('.')}`),
      ...(sets.length ? [`SELECT ${sets.join(', ')}`] : []),
      ...work,
      ...becomes.map((name) => `SELECT ${setting(name, wanted.get(name))}`),
    ];
  }

  /** Two sessions may each have a temporary table of one name, and there is one pg_temp: names of the other are put
   *  out of the way. Relations of all kinds can be renamed by ALTER TABLE. */
  #renames(session, hide) {
    return (session?.temporaries ?? []).map((relation) => {
      const [from, to] = hide ? [relation.name, hiddenName(relation)] : [hiddenName(relation), relation.name];
      return `ALTER TABLE pg_temp.${identifier(from)} RENAME TO ${identifier(to)}`;
    });
  }
}

const hiddenName = ({ oid }) => `~${oid}`;
