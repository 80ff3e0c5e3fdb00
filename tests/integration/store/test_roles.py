"""Roles: their names, who may make them, and what each of them may do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit

import asyncpg
import msgspec
import pytest

from hubscope.access import LOCAL
from hubscope.app import migrate_store, opened
from hubscope.embedded import EmbeddedDatabase
from hubscope.errors import MigrationFailed
from hubscope.settings import Settings
from hubscope.store import Connection, Roles, connect, roles_of
from tests.conftest import ROLES
from tests.events import tool_call

pytestmark = [pytest.mark.store, pytest.mark.integration]

KINDS = ("owner", "writer", "reader", "worker", "grafana", "tenant")


def new_name(word: str) -> str:
    """A name that no other test uses: roles belong to the whole cluster."""
    return f"{word}_{uuid.uuid4().hex[:10]}"


def settings_of(dsn: str, prefix: str, **more: str) -> Settings:
    return Settings.load(database_url=dsn, role_prefix=prefix, **more)


def as_user(dsn: str, user: str) -> str:
    """The same database for another user."""
    return dsn.replace("postgresql://postgres@", f"postgresql://{quote(user)}@", 1)


def database_of(dsn: str) -> str:
    return urlsplit(dsn).path.lstrip("/")


@pytest.fixture
async def cluster(server: EmbeddedDatabase) -> AsyncIterator[Connection]:
    """A superuser's connection that is to no store."""
    connection = await connect(server.dsn_of("postgres"), name="tests")
    yield connection
    await connection.close()


@asynccontextmanager
async def connected(dsn: str, role: str | None = None) -> AsyncIterator[Connection]:
    connection = await connect(dsn, role=role, name="tests")
    try:
        yield connection
    finally:
        await connection.close()


async def allowed(connection: Connection, statement: str) -> bool:
    """Whether a statement runs under the connection's role. Nothing of it is kept."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return False
    finally:
        await transaction.rollback()
    return True


# Names


@pytest.mark.parametrize(
    ("prefix", "dsn", "expected"),
    [
        ("mine", "postgresql://me@db/store", "mine"),
        (None, "postgresql://me@db/store", "store"),
        (None, "postgresql://me@/my%20store?host=%2Frun", "my store"),
        (None, "postgresql://me@db", "postgres"),
        (None, "postgresql://me@db/", "postgres"),
    ],
)
def test_roles_take_the_prefix_or_else_the_name_of_the_database(prefix: str | None, dsn: str, expected: str) -> None:
    roles = roles_of(Settings.load(role_prefix=prefix), dsn)
    assert [getattr(roles, kind) for kind in KINDS] == [f"{expected}_{kind}" for kind in KINDS]


@pytest.mark.parametrize("form", ["plain_{}", 'O\'Neill "Ünï" \\ {}'])
async def test_roles_are_named_after_the_prefix(form: str, empty_database: str, cluster: Connection) -> None:
    prefix = form.format(uuid.uuid4().hex[:10])
    await migrate_store(settings_of(empty_database, prefix), empty_database)
    rows = await cluster.fetch(
        "SELECT rolname, rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls AS mighty"
        " FROM pg_roles WHERE left(rolname, $2) = $1 ORDER BY rolname",
        prefix,
        len(prefix),
    )
    assert [tuple(row) for row in rows] == [(f"{prefix}_{kind}", False) for kind in sorted(KINDS)]
    async with connected(empty_database, f"{prefix}_reader") as reader:
        assert await reader.fetchval("SELECT current_user") == f"{prefix}_reader"
        assert await reader.fetchval("SELECT count(*) FROM analytics.fct_tool_usage_hourly") == 0


@pytest.mark.parametrize(("prefix", "fits"), [("x" * 55, True), ("x" * 56, False), ("ü" * 27, True), ("ü" * 28, False)])
def test_a_prefix_that_postgresql_would_cut_off_is_refused(prefix: str, fits: bool) -> None:
    if fits:
        assert len(Roles.of(prefix).grafana.encode()) <= 63
    else:
        with pytest.raises(MigrationFailed, match=r"too long: set HUBSCOPE_ROLE_PREFIX \(at most 55 bytes\)"):
            Roles.of(prefix)


@pytest.mark.parametrize(
    ("sql", "filled"),
    [
        ("GRANT SELECT ON t TO :reader, :writer;", 'GRANT SELECT ON t TO "p_reader", "p_writer";'),
        ("SELECT 1::owner, ':readership', a[1:worker_count]", "SELECT 1::owner, ':readership', a[1:worker_count]"),
    ],
)
def test_only_placeholders_are_filled_in(sql: str, filled: str) -> None:
    assert Roles.of("p").fill_in(sql) == filled


async def test_a_second_store_in_the_cluster_has_roles_of_its_own_that_see_nothing_of_the_first(
    database: str, empty_database: str
) -> None:
    prefix = new_name("second")
    await migrate_store(settings_of(empty_database, prefix), empty_database)
    async with connected(database, f"{prefix}_worker") as stranger:
        for statement in ("SELECT FROM raw.tool_calls", "SELECT FROM analytics.dim_servers", "SELECT rollup.fold(1)"):
            assert not await allowed(stranger, statement)


# Grafana's password


def is_verifier_of(password: str, verifier: str) -> bool:
    """Whether a SCRAM-SHA-256 verifier (RFC 5802) is one of this password."""
    method, parameters, keys = verifier.split("$")
    rounds, salt = parameters.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return method == "SCRAM-SHA-256" and base64.b64decode(keys.split(":")[0]) == stored


@pytest.mark.parametrize("password", ["simple", "it's \"quoted\" \\ and 'more'", "$1 :writer %s"])
async def test_the_grafana_role_logs_in_only_when_given_a_password(
    password: str, empty_database: str, cluster: Connection
) -> None:
    """The embedded server believes the operating system, not passwords: what a login would be checked against is."""
    prefix = new_name("grafana")
    query = "SELECT rolcanlogin, rolpassword FROM pg_authid WHERE rolname = $1"

    await migrate_store(settings_of(empty_database, prefix), empty_database)
    assert tuple(await cluster.fetchrow(query, f"{prefix}_grafana")) == (False, None)

    await migrate_store(settings_of(empty_database, prefix, grafana_password=password), empty_database)
    can_login, verifier = await cluster.fetchrow(query, f"{prefix}_grafana")
    assert can_login
    assert is_verifier_of(password, verifier)
    assert not is_verifier_of(f"{password}!", verifier)

    await migrate_store(settings_of(empty_database, prefix), empty_database)
    assert tuple(await cluster.fetchrow(query, f"{prefix}_grafana")) == (True, verifier)
    async with connected(as_user(empty_database, f"{prefix}_grafana")) as grafana:
        assert await allowed(grafana, "SELECT FROM analytics.fct_tool_usage_hourly")
        assert not await allowed(grafana, "SELECT FROM raw.tool_calls")


# What each may do

CALL = (
    "INSERT INTO raw.tool_calls (event_id, time, server, tool, status)"
    " VALUES (gen_random_uuid(), now(), 's', 't', 'ok')"
)
PENDING = "INSERT INTO rollup.pending (tenant_id, call_hours, check_hours) VALUES ('default', '{}', '{}')"
KEY = (
    "INSERT INTO hub.api_keys (key_id, name, scopes, hash, pepper_id)"
    " VALUES ('abcdefghijkl', 'n', '{read}', sha256('x'), 'p')"
)
AUDIT = (
    "INSERT INTO hub.security_audit_log (id, time, event_type, severity, resource_type, resource_id, action, status)"
    " VALUES (gen_random_uuid(), now(), 'x', 'info', 'x', 'x', 'x', 'x')"
)
RUN = "INSERT INTO ops.job_runs (job, slot) VALUES ('j', now())"
PARTITIONS = "SELECT ops.ensure_partitions(current_date + 30, current_date + 30)"
PARTITION = "(SELECT format('raw.tool_calls_p%s', to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')))"
READ_PARTITION = f"DO $$ BEGIN EXECUTE 'SELECT FROM ' || {PARTITION}; END $$"

EVERYTHING = {
    # raw: what was reported
    CALL: {"writer"},
    "SELECT FROM raw.tool_calls": {"writer", "worker"},
    "SELECT FROM raw.server_events": {"writer", "worker"},
    "SELECT FROM raw.hub_events": {"writer", "worker"},
    READ_PARTITION: {"worker"},
    "UPDATE raw.tool_calls SET tool = ''": set(),
    "DELETE FROM raw.tool_calls": set(),
    "DELETE FROM raw.server_events": set(),
    "DELETE FROM raw.hub_events": set(),
    "TRUNCATE raw.tool_calls": set(),
    "DROP TABLE raw.tool_calls": set(),
    "ALTER TABLE raw.tool_calls ADD x integer": set(),
    "CREATE TABLE raw.mine (i integer)": set(),
    PARTITIONS: {"writer", "worker"},
    # They read raw as their owner: by name only who reads raw himself may call them; views of marts call them for all.
    "SELECT raw.pending_calls('', now(), now(), '{}', '{}')": {"writer", "worker"},
    "SELECT raw.pending_latency('', now(), now(), '{}', '{}')": {"writer", "worker"},
    "SELECT raw.pending_checks('', now(), now(), '{}', '{}')": {"writer", "worker"},
    # rollup: what it adds up to
    PENDING: {"writer"},
    "SELECT FROM rollup.pending": {"worker"},
    "UPDATE rollup.pending SET call_hours = '{}'": set(),
    "SELECT FROM rollup.pending_calls": {"worker"},
    "SELECT FROM rollup.pending_latency": {"worker"},
    "SELECT FROM rollup.pending_calls_of_days": {"worker"},
    "SELECT FROM rollup.pending_latency_of_days": {"worker"},
    "SELECT FROM rollup.pending_checks": {"worker"},
    "DELETE FROM rollup.pending": {"worker"},
    "SELECT FROM rollup.tool_calls_hourly": {"worker"},
    "SELECT FROM rollup.tool_latency_hourly": {"worker"},
    "SELECT FROM rollup.stored_tool_calls_hourly": {"worker"},
    "UPDATE rollup.stored_tool_calls_hourly SET calls = 0": {"worker"},
    "DELETE FROM rollup.stored_tool_calls_hourly": set(),
    "DELETE FROM rollup.stored_tool_latency_hourly": set(),
    "SELECT FROM rollup.tool_calls_daily": {"worker"},
    "SELECT FROM rollup.tool_latency_daily": {"worker"},
    "SELECT FROM rollup.server_checks_hourly": {"worker"},
    "UPDATE rollup.stored_tool_calls_daily SET calls = 0": {"worker"},
    "UPDATE rollup.stored_tool_latency_daily SET calls = 0": {"worker"},
    "UPDATE rollup.stored_server_checks_hourly SET checks = 0": {"worker"},
    "SELECT rollup.fold(1)": {"worker"},
    "SELECT FROM rollup.archived_tool_calls": {"worker"},
    "DELETE FROM rollup.archived_tool_calls": set(),
    "SELECT FROM rollup.packed_tool_latency_daily": {"worker"},
    "DELETE FROM rollup.packed_tool_latency_daily": {"worker"},
    "UPDATE rollup.packed_tool_latency_daily SET calls = '{}'": set(),
    "SELECT rollup.pack_day(now())": set(),
    "SELECT rollup.check_tool_calls_hourly(now(), true)": set(),
    "SELECT rollup.latency_bucket(1.5), rollup.latency_value(7::smallint)": {
        "writer", "reader", "worker", "grafana", "tenant",
    },
    # hub: state
    "SELECT FROM hub.known_names": {"writer", "worker"},
    "INSERT INTO hub.known_names (kind, name) VALUES ('server', 's')": {"writer"},
    "UPDATE hub.known_names SET name = ''": set(),
    "DELETE FROM hub.known_names": set(),
    "SELECT FROM hub.counting_vantages": {"writer", "worker"},
    "INSERT INTO hub.counting_vantages (server, since, vantage) VALUES ('s', now(), 'hub')": {"writer"},
    "UPDATE hub.counting_vantages SET vantage = 'hub'": set(),
    "DELETE FROM hub.counting_vantages": set(),
    "SELECT FROM hub.enhanced_tool_chain_executions": {"writer", "worker"},
    "UPDATE hub.enhanced_tool_chain_executions SET status = 'failed'": {"writer"},
    "DELETE FROM hub.enhanced_tool_chain_executions": set(),
    "SELECT FROM hub.enhanced_chain_execution_steps": {"writer", "worker"},
    "UPDATE hub.enhanced_chain_execution_steps SET status = 'failed'": {"writer"},
    "DELETE FROM hub.enhanced_chain_execution_steps": set(),
    "SELECT hash FROM hub.api_keys": {"writer"},
    "SELECT FROM hub.api_keys": {"writer"},
    "UPDATE hub.api_keys SET last_used_at = now()": {"writer"},
    "UPDATE hub.api_keys SET revoked_at = NULL": set(),
    "UPDATE hub.api_keys SET scopes = '{admin}'": set(),
    "UPDATE hub.api_keys SET tenant_id = 'other'": set(),
    "DELETE FROM hub.api_keys": set(),
    KEY: set(),
    AUDIT: {"writer"},
    AUDIT.replace("(id,", "(recorded_at, id,").replace("VALUES (", "VALUES (now(), "): set(),
    "SELECT FROM hub.security_audit_log": {"worker"},
    "UPDATE hub.security_audit_log SET status = ''": set(),
    "DELETE FROM hub.security_audit_log": set(),
    "TRUNCATE hub.security_audit_log": set(),
    "SELECT ops.ensure_audit_partitions(current_date, current_date)": {"writer", "worker"},
    "SELECT FROM hub.servers": {"writer", "worker"},
    "INSERT INTO hub.servers (server_id, name, endpoint, protocol, health_check)"
    " VALUES ('s', 's', 'http://s', 'http', '{}')": {"writer"},
    "UPDATE hub.servers SET state = 'up'": {"writer"},
    "DELETE FROM hub.servers": {"writer"},
    "SELECT FROM hub.server_secrets": {"writer"},
    "DELETE FROM hub.server_secrets": {"writer"},
    "SELECT FROM hub.maintenance_windows": {"writer", "worker"},
    "UPDATE hub.maintenance_windows SET cancelled_at = now()": {"writer"},
    "DELETE FROM hub.maintenance_windows": set(),
    "SELECT FROM hub.stream_outbox": {"worker"},
    "INSERT INTO hub.stream_outbox (topic, name, time) VALUES ('audit', 'n', now())": set(),
    "DELETE FROM hub.stream_outbox": set(),
    "SELECT FROM hub.stream_events": {"writer", "reader", "worker"},
    "UPDATE hub.stream_events SET seq = 0": set(),
    "DELETE FROM hub.stream_events": set(),
    "SELECT FROM hub.stream_heads": {"writer", "reader", "worker"},
    "UPDATE hub.stream_heads SET last_seq = 0": set(),
    "SELECT FROM hub.server_states": {"worker"},
    "UPDATE hub.server_states SET state = ''": set(),
    "SELECT hub.tell('t', 'audit', 'n', 's', NULL, now(), '{}')": {"writer", "worker"},
    "SELECT hub.tell_reported('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')": {"writer"},
    "SELECT hub.sequence_stream(gen_random_uuid(), 1, 1, 1)": {"writer"},
    "SELECT hub.release_stream(gen_random_uuid())": {"writer"},
    "SELECT hub.prune_stream(1, now())": {"writer"},
    "SELECT FROM ops.stream_sequencer": {"worker"},
    "UPDATE ops.stream_sequencer SET until = now()": set(),
    # ops: bookkeeping
    "SELECT FROM ops.migrations": {"reader", "worker"},
    "SELECT FROM ops.store": {"writer", "reader", "worker"},
    "UPDATE ops.store SET engine = 'timescale'": set(),
    "SELECT FROM ops.retained": {"worker"},
    "DELETE FROM ops.retained": set(),
    "SELECT FROM rollup.backlog": {"worker"},
    "SELECT FROM rollup.unnoted_hours": {"worker"},
    "UPDATE ops.migrations SET checksum = ''": set(),
    "DELETE FROM ops.definitions": set(),
    "SELECT FROM ops.job_runs": {"worker"},
    RUN: {"worker"},
    "DELETE FROM ops.job_runs": {"worker"},
    "DELETE FROM ops.quality_results": {"worker"},
    "DELETE FROM ops.touched_hours": {"worker"},
    # marts
    "SELECT FROM analytics.fct_tool_calls": {"reader", "worker", "grafana"},
    "SELECT FROM analytics.fct_tool_usage_hourly": {"reader", "worker", "grafana"},
    "SELECT FROM analytics.fct_tool_latency_hourly": {"reader", "worker", "grafana"},
    "SELECT FROM analytics.fct_tool_usage_daily_live": {"reader", "worker", "grafana"},
    "SELECT FROM analytics.fct_tool_latency_daily": {"reader", "worker", "grafana"},
    "SELECT FROM analytics.fct_tool_call_totals": {"reader", "worker", "grafana"},
    "SELECT FROM analytics.dim_servers": {"reader", "worker", "grafana"},
    "SELECT FROM analytics.mart_status": {"reader", "worker", "grafana"},
    "SELECT FROM analytics.job_status": {"reader", "worker", "grafana"},
    "SELECT FROM analytics.database_job_errors": {"reader", "worker", "grafana"},
    "SELECT FROM ops.database_job_errors": {"worker"},
    "DROP VIEW analytics.mart_status": {"worker"},
    "CREATE TABLE analytics.mine (i integer)": {"worker"},
    "CREATE TABLE health.mine (i integer)": {"worker"},
    "CREATE VIEW uptime.mine AS SELECT time FROM raw.tool_calls": {"worker"},
    "CREATE TABLE audit.mine (i integer)": {"worker"},
    # one tenant's rows of the marts
    "SELECT FROM tenant.fct_tool_calls": {"worker", "tenant"},
    "SELECT FROM tenant.fct_tool_usage_hourly": {"worker", "tenant"},
    "SELECT FROM tenant.fct_tool_latency_hourly": {"worker", "tenant"},
    "SELECT FROM tenant.fct_tool_usage_daily_live": {"worker", "tenant"},
    "SELECT FROM tenant.fct_tool_latency_daily": {"worker", "tenant"},
    "SELECT FROM tenant.fct_tool_call_totals": {"worker", "tenant"},
    "SELECT FROM tenant.dim_servers": {"worker", "tenant"},
    "CREATE TABLE tenant.mine (i integer)": {"worker"},
    # the rest of the database
    "CREATE TABLE hub.mine (i integer)": set(),
    "CREATE TABLE public.mine (i integer)": set(),
    "CREATE SCHEMA mine": set(),
    "CREATE ROLE mine": set(),
    "SELECT FROM pg_authid": set(),
    "COPY (SELECT 1) TO '/tmp/mine'": set(),
    "SELECT pg_read_file('/etc/hostname')": set(),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["writer", "reader", "worker", "grafana", "tenant"])
async def test_each_role_may_do_what_its_work_needs_and_nothing_else(kind: str, database: str) -> None:
    async with connected(database, getattr(ROLES, kind)) as connection:
        may = {statement: await allowed(connection, statement) for statement in EVERYTHING}
    assert may == {statement: kind in kinds for statement, kinds in EVERYTHING.items()}


async def test_every_table_and_view_of_the_store_stands_in_the_table_of_rights(admin: Connection) -> None:
    rows = await admin.fetch(
        "SELECT oid::regclass::text AS name FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm') AND NOT relispartition"
        " AND relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
    )
    stated = " ".join(EVERYTHING)
    known_by_another = {"rollup.stored_tool_latency_hourly", "ops.definitions", "ops.quality_results"}
    assert {row["name"] for row in rows if f"{row['name']}" not in stated} <= known_by_another


@pytest.mark.parametrize(
    "rebuild",
    [
        "CREATE OR REPLACE VIEW analytics.dim_servers AS TABLE analytics.dim_servers_before",
        "DROP VIEW analytics.dim_servers CASCADE; CREATE VIEW analytics.dim_servers AS SELECT 1 AS one",
        "CREATE TABLE analytics.dim_servers__dbt_tmp AS SELECT 1 AS one; DROP VIEW analytics.dim_servers CASCADE;"
        " ALTER TABLE analytics.dim_servers__dbt_tmp RENAME TO dim_servers",
    ],
    ids=["replaced", "dropped and made again", "swapped for a table"],
)
async def test_readers_still_read_what_the_worker_has_built_anew(
    rebuild: str, database: str, admin: Connection
) -> None:
    rebuild = rebuild.replace(
        "TABLE analytics.dim_servers_before",
        await admin.fetchval("SELECT pg_get_viewdef('analytics.dim_servers'::regclass)"),
    )
    async with connected(database, ROLES.worker) as worker:
        await worker.execute(rebuild)
    for kind, may in {"reader": True, "grafana": True, "writer": False}.items():
        async with connected(database, getattr(ROLES, kind)) as connection:
            assert await allowed(connection, "SELECT FROM analytics.dim_servers") == may


# Who may make them


@asynccontextmanager
async def user_of(cluster: Connection, dsn: str, attributes: str, *, owns_database: bool = True) -> AsyncIterator[str]:
    """A new user, and the store's URL for it."""
    name = new_name("user")
    await cluster.execute(f"CREATE ROLE {name} LOGIN {attributes}")
    if owns_database:
        await cluster.execute(f"ALTER DATABASE {database_of(dsn)} OWNER TO {name}")
    yield name


async def works(dsn: str, prefix: str) -> None:
    """The whole service over a store: an event goes in, the answer comes out, the worker folds."""
    settings = settings_of(dsn, prefix)
    async with opened(settings, dsn) as app:
        await app.check_ready()
        receipt = await app.ingest.post(LOCAL, msgspec.json.encode([tool_call()]), "application/json")
        assert receipt.accepted == 1
        report = await app.report(
            LOCAL, time_range="1 hour", group_by="hour", include_real_time=True, include_metadata=False, top=1
        )
        assert report.overview is not None
        assert report.overview.usage.calls == 1
    async with connected(dsn, f"{prefix}_worker") as worker:
        assert await worker.fetchval("SELECT rollup.fold(10)") == 1


async def test_a_user_that_may_only_create_roles_can_migrate_and_run_the_service(
    empty_database: str, cluster: Connection
) -> None:
    prefix = new_name("store")
    async with user_of(cluster, empty_database, "CREATEROLE") as user:
        dsn = as_user(empty_database, user)
        for _ in range(2):  # the second run finds everything there
            await migrate_store(settings_of(dsn, prefix), dsn)
        await migrate_store(settings_of(dsn, prefix, grafana_password="secret"), dsn)
        await works(dsn, prefix)


async def test_a_user_without_the_right_to_create_roles_is_one_clear_error(
    empty_database: str, cluster: Connection
) -> None:
    prefix = new_name("store")
    async with user_of(cluster, empty_database, "") as user:
        dsn = as_user(empty_database, user)
        with pytest.raises(MigrationFailed) as refused:
            await migrate_store(settings_of(dsn, prefix), dsn)
    for part in (f"the database user {user!r} may not create the roles {prefix}_owner", "CREATEROLE", f'"{user}"'):
        assert part in refused.value.detail
    assert "\n" not in refused.value.detail
    assert await cluster.fetchval("SELECT count(*) FROM pg_roles WHERE starts_with(rolname, $1)", prefix) == 0


async def test_roles_that_an_administrator_made_and_granted_are_enough(
    empty_database: str, cluster: Connection
) -> None:
    prefix = new_name("store")
    async with user_of(cluster, empty_database, "") as user:
        for kind in KINDS:
            await cluster.execute(f"CREATE ROLE {prefix}_{kind}")
            await cluster.execute(f"GRANT {prefix}_{kind} TO {user}")
        await cluster.execute(f"GRANT {prefix}_worker TO {prefix}_owner")
        dsn = as_user(empty_database, user)
        await migrate_store(settings_of(dsn, prefix), dsn)
        await works(dsn, prefix)


async def test_a_user_that_may_not_create_schemas_is_one_clear_error(empty_database: str, cluster: Connection) -> None:
    prefix = new_name("store")
    async with user_of(cluster, empty_database, "CREATEROLE", owns_database=False) as user:
        dsn = as_user(empty_database, user)
        with pytest.raises(MigrationFailed) as refused:
            await migrate_store(settings_of(dsn, prefix), dsn)
    for part in (repr(user), f'GRANT CREATE ON DATABASE "{database_of(empty_database)}"', f'"{prefix}_owner"'):
        assert part in refused.value.detail
    assert "\n" not in refused.value.detail
