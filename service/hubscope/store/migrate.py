"""Bring the schema up to date: migrations once each, definitions whenever their text changed.

migrations/NNNN_verb_noun[.engine].sql runs once, in order, in a transaction of its own; its checksum is kept, and a
shipped file that changed is refused. definitions/NNN_noun[.engine].sql holds functions, views and grants, which are
replaced as a whole when their text (or the role names in it) changed. `.postgres` or `.timescale` before `.sql` limits
a file to that engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import asyncpg

import hubscope
from hubscope.errors import MigrationFailed
from hubscope.store.capabilities import Capabilities, Engine, detect
from hubscope.store.pool import AWAY, Connection, away, retrying
from hubscope.store.roles import Roles, ensure, quote

HERE: Final = Path(__file__).parent
LOCK_KEY: Final = 0x68756273  # "hubs": one migration run per database at a time
LOCK_WAIT_S: Final = 60.0
STATEMENT_LOCK_TIMEOUT: Final = "2s"
LOCK_TRIES: Final = 8

# What the documents of the product ask for, made only where the server has it and lets us.
WISHED_EXTENSIONS: Final = ("timescaledb", "btree_gin", "uuid-ossp")

_FILE = re.compile(r"^(\d{3,4})_([a-z0-9_]+?)(?:\.(postgres|timescale))?\.sql$")

_BOOKKEEPING = """
CREATE SCHEMA IF NOT EXISTS ops;
CREATE TABLE IF NOT EXISTS ops.migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    duration_ms double precision NOT NULL,
    hubscope_version text NOT NULL
);
-- One row: which engine keeps the rollups of this store, for as long as it lives.
CREATE TABLE IF NOT EXISTS ops.store (
    engine text NOT NULL CHECK (engine IN ('postgres', 'timescale')),
    reason text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one)
);
CREATE TABLE IF NOT EXISTS ops.definitions (
    name text PRIMARY KEY,
    checksum text NOT NULL,
    replayed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


@dataclass(frozen=True, slots=True)
class Script:
    """One SQL file: its number, its name without number and engine, and its text."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, so that a changed shipped file is noticed."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did: the names of applied migrations and of replayed definitions."""

    applied: tuple[str, ...]
    replayed: tuple[str, ...]


def scripts(folder: Path, engine: Engine) -> list[Script]:
    """The files of a folder that this engine runs, in order.

    Raises:
        MigrationFailed: a file name that does not fit, or a number twice.
    """
    found: dict[int, Script] = {}
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.match(path.name)
        if match is None:
            raise MigrationFailed(f"{path.name}: expected NNNN_verb_noun[.postgres|.timescale].sql")
        if match.group(3) not in (None, engine):
            continue
        version = int(match.group(1))
        if version in found:
            raise MigrationFailed(f"{path.name}: number {version} is taken by {found[version].name}")
        found[version] = Script(version, match.group(2), path.read_text(encoding="utf-8"))
    return [found[version] for version in sorted(found)]


async def migrate(
    connection: Connection,
    roles: Roles,
    *,
    enable_timeseries: bool = True,
    grafana_password: str | None = None,
    folder: Path = HERE,
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Bring the database to this version's schema. Does nothing when it is there already.

    Args:
        connection: a direct connection of the store's user (not through a transaction pooler). Until it is closed no
            other process migrates: what the caller adds to the schema (partitions, live marts) has no rival either.
        roles: the roles of this store, made if they are missing.
        enable_timeseries: whether a new store may use TimescaleDB where it is there.
        grafana_password: lets the grafana role log in.
        folder: where `migrations/` and `definitions/` are.
        tell: called with one line per step.

    Raises:
        MigrationFailed: naming the file and the reason; what was applied before it stays.
    """
    await _lock(connection, tell)
    try:
        await ensure(connection, roles, grafana_password)
        capabilities = await _prepare(connection, roles, enable_timeseries)
        migrations = scripts(folder / "migrations", capabilities.engine)
        definitions = scripts(folder / "definitions", capabilities.engine)
        fill_in = partial(_fill_in, roles, capabilities)
        done = {
            row["version"]: row for row in await connection.fetch("SELECT version, name, checksum FROM ops.migrations")
        }
        _refuse_surprises(migrations, done)
        applied = []
        for script in migrations:
            if script.version not in done:
                tell(f"migration {script.version:04} {script.name.replace('_', ' ')}")
                await _apply(connection, roles, script, fill_in(script))
                applied.append(script.name)
        return Outcome(
            tuple(applied),
            await _replay(
                connection,
                roles,
                [Script(script.version, script.name, fill_in(script)) for script in definitions],
                bool(applied),
                tell,
            ),
        )
    except BaseException:
        if not connection.is_closed():
            await connection.execute("RESET ROLE")
            await connection.fetchval("SELECT pg_advisory_unlock($1)", LOCK_KEY)
        raise


async def _lock(connection: Connection, tell: Callable[[str], None]) -> None:
    """Wait for our turn; two processes that start at once migrate one after the other."""
    deadline = time.monotonic() + LOCK_WAIT_S
    told = False
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY):
        if time.monotonic() > deadline:
            raise MigrationFailed(f"another process has been migrating this database for more than {LOCK_WAIT_S:.0f} s")
        if not told:
            tell("waiting for another process that is migrating this database")
            told = True
        await asyncio.sleep(0.1)


async def _prepare(connection: Connection, roles: Roles, enable_timeseries: bool) -> Capabilities:
    """Extensions where they exist, the right to make schemas, bookkeeping tables, and the choice of the engine."""
    database = quote(await connection.fetchval("SELECT current_database()"))
    available = await connection.fetch(
        "SELECT name FROM pg_available_extensions WHERE installed_version IS NULL AND name = ANY($1)",
        WISHED_EXTENSIONS if enable_timeseries else WISHED_EXTENSIONS[1:],
    )
    for row in available:
        try:
            await connection.execute(f"CREATE EXTENSION IF NOT EXISTS {quote(row['name'])} SCHEMA public")
        except asyncpg.PostgresError:
            continue  # nothing of ours needs them: a user who may not create extensions can still run hubscope
    may_create = "SELECT has_database_privilege($1, current_database(), 'CREATE')"
    if not await connection.fetchval(may_create, roles.owner):
        grant = f"GRANT CREATE ON DATABASE {database} TO {quote(roles.owner)}"
        with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
            await connection.execute(grant)
        # PostgreSQL only warns when there was nothing to give away.
        if not await connection.fetchval(may_create, roles.owner):
            user = await connection.fetchval("SELECT current_user")
            raise MigrationFailed(
                f"the database user {user!r} may not let the owner role make schemas: let the database's owner run"
                f" `{grant}`"
            )
    await connection.execute(f"SET ROLE {quote(roles.owner)}")
    if await connection.fetchval("SELECT to_regclass('ops.definitions') IS NULL"):
        async with connection.transaction():
            await connection.execute(_BOOKKEEPING)
    capabilities = await detect(connection, enable_timeseries=enable_timeseries)
    await connection.execute(
        "INSERT INTO ops.store (engine, reason) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        capabilities.engine,
        capabilities.reason,
    )
    await connection.execute("RESET ROLE")
    return capabilities


def _refuse_surprises(migrations: list[Script], done: dict[int, asyncpg.Record]) -> None:
    shipped = {script.version: script for script in migrations}
    for version, row in sorted(done.items()):
        if version not in shipped:
            raise MigrationFailed(
                f"the database has migration {version:04} {row['name']}, which hubscope {hubscope.__version__} does not"
                " know: it was made by a newer version; install that one"
            )
        if shipped[version].checksum != row["checksum"]:
            raise MigrationFailed(
                f"migration {version:04} {row['name']} was changed after it had been applied; a shipped migration never"
                " changes: restore the file and put the change into a new one"
            )
    newest = max(done, default=0)
    late = [script for script in migrations if script.version < newest and script.version not in done]
    if late:
        raise MigrationFailed(
            f"migration {late[0].version:04} {late[0].name} comes before {newest:04}, which is applied"
        )


def _fill_in(roles: Roles, capabilities: Capabilities, script: Script) -> str:
    """The SQL of a script for this store: role names, how days are kept apart, where TimescaleDB's functions stand."""
    sql = roles.fill_in(script.text)
    # A hypertable is made of a plain table, afterwards.
    sql = sql.replace(":partitioned_by_day", "PARTITION BY RANGE (time)" if capabilities.engine == "postgres" else "")
    return sql.replace(
        ":ts.", f"{quote(capabilities.timescaledb_schema)}." if capabilities.timescaledb_schema else ":ts."
    )


async def _apply(connection: Connection, roles: Roles, script: Script, sql: str) -> None:
    started = time.monotonic()

    async def attempt() -> None:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{STATEMENT_LOCK_TIMEOUT}'")
            await connection.execute(f"SET LOCAL ROLE {quote(roles.owner)}")
            await connection.execute(sql)
            await connection.execute(
                "INSERT INTO ops.migrations (version, name, checksum, duration_ms, hubscope_version)"
                " VALUES ($1, $2, $3, $4, $5)",
                script.version,
                script.name,
                script.checksum,
                (time.monotonic() - started) * 1000,
                hubscope.__version__,
            )

    await _run(attempt, f"migration {script.version:04} {script.name}")


async def _replay(
    connection: Connection, roles: Roles, definitions: list[Script], migrated: bool, tell: Callable[[str], None]
) -> tuple[str, ...]:
    """Replace what changed. All or nothing: views, functions and grants fit together."""
    known = {
        row["name"]: row["checksum"] for row in await connection.fetch("SELECT name, checksum FROM ops.definitions")
    }
    changed = [script for script in definitions if known.get(script.name) != script.checksum]
    # Grants name everything else: after any change, of the tables too, they are stated again.
    stale = bool(changed) or migrated
    replayed = [script for script in definitions if script in changed or (script.name.endswith("grants") and stale)]
    if not replayed:
        return ()
    tell(f"definitions: {', '.join(script.name.replace('_', ' ') for script in replayed)}")

    async def attempt() -> None:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{STATEMENT_LOCK_TIMEOUT}'")
            await connection.execute(f"SET LOCAL ROLE {quote(roles.owner)}")
            for script in replayed:
                await connection.execute(script.text)
                await connection.execute(
                    "INSERT INTO ops.definitions (name, checksum) VALUES ($1, $2)"
                    " ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, replayed_at = clock_timestamp()",
                    script.name,
                    script.checksum,
                )

    await _run(attempt, f"definitions ({', '.join(script.name for script in replayed)})")
    return tuple(script.name for script in replayed)


async def _run(attempt: Callable[[], object], what: str) -> None:
    try:
        await retrying(
            attempt, tries=LOCK_TRIES, pause_s=0.25, when=(asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
        )
    except asyncpg.PostgresError as error:
        raise MigrationFailed(f"{what}: {' '.join(str(error).split())}") from error
    except AWAY as error:
        raise MigrationFailed(f"{what}: {away(error).detail}") from error


def newest_version(folder: Path = HERE, engine: Engine = "postgres") -> int:
    """Number of the newest migration that this version ships."""
    return max(script.version for script in scripts(folder / "migrations", engine))
