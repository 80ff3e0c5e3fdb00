"""The role that the server connects as: what is wrong with it, and the script that makes a right one.

The guard, the policy and the transaction hold by themselves; the role is the layer that holds when they do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from hubscope.errors import InvalidParameter
from hubscope.sqlgate.policy import QUERIES, Policy

WIDE_ROLES: Final = (
    "pg_read_all_data",
    "pg_write_all_data",
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_execute_server_program",
    "pg_read_all_settings",
    "pg_read_all_stats",
    "pg_stat_scan_tables",
    "pg_monitor",
    "pg_signal_backend",
    "pg_checkpoint",
    "pg_maintain",
    "pg_database_owner",
    "pg_create_subscription",
)


@dataclass(frozen=True)
class Finding:
    """One thing that the role can do and need not.

    Attributes:
        what: in words.
        mend: the statement that mends it, for a superuser or the owner; None where a new role is the way.
    """

    what: str
    mend: str | None


@dataclass(frozen=True)
class Audit:
    """What was found about a role."""

    role: str
    findings: tuple[Finding, ...]


async def audit_role(connection: asyncpg.Connection, policy: Policy) -> Audit:
    """Look at the rights of the role that this connection has."""
    row = await connection.fetchrow(QUERIES["role"], list(WIDE_ROLES))
    role = row["role"]
    name = quoted(role)
    found: list[Finding] = []
    if row["superuser"]:
        found.append(Finding(f"{role} is a superuser: nothing in the database limits it", None))
    for flag, word in (("bypassrls", "BYPASSRLS"), ("createrole", "CREATEROLE"), ("createdb", "CREATEDB")):
        if row[flag]:
            found.append(Finding(f"{role} has {word}", f"ALTER ROLE {name} NO{word};"))
    if row["replication"]:
        found.append(
            Finding(f"{role} has REPLICATION: it can copy the whole cluster", f"ALTER ROLE {name} NOREPLICATION;")
        )
    if not row["superuser"]:
        found.extend(
            Finding(f"{role} is a member of {each}", f"REVOKE {each} FROM {name};") for each in row["memberships"]
        )
        found.extend(
            Finding(
                f"{role} may create objects in the schema {each}",
                f"REVOKE CREATE ON SCHEMA {quoted(each)} FROM {name}, PUBLIC;",
            )
            for each in row["create_in"]
        )
        if row["create_schemas"]:
            found.append(
                Finding(
                    f"{role} may create schemas in {row['database']}",
                    f"REVOKE CREATE ON DATABASE {quoted(row['database'])} FROM {name}, PUBLIC;",
                )
            )
        found.extend(
            Finding(
                f"{role} may write {each}", f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {each} FROM {name}, PUBLIC;"
            )
            for each in row["writable"]
        )
    if row["owned"]:
        found.append(
            Finding(
                f"{role} owns {row['owned']} relations, and an owner may do anything with them",
                None,
            )
        )
    found.extend(await _blocked_but_readable(connection, policy, role, name))
    found.extend(await _functions(connection, policy))
    return Audit(role, tuple(found))


async def _blocked_but_readable(
    connection: asyncpg.Connection, policy: Policy, role: str, name: str
) -> Sequence[Finding]:
    rows = await connection.fetch(QUERIES["relation_names"])
    blocked = [(row["schema"], row["name"]) for row in rows if policy.blocks(row["schema"], row["name"])]
    return [
        Finding(
            f"{role} may read {schema}.{table}, which BLOCKED_TABLES names",
            f"REVOKE ALL ON {quoted(schema)}.{quoted(table)} FROM {name}, PUBLIC;",
        )
        for schema, table in blocked
    ]


async def _functions(connection: asyncpg.Connection, policy: Policy) -> Sequence[Finding]:
    """Listed functions that can do more than compute."""
    rows = await connection.fetch(QUERIES["listed_functions"], sorted(policy.allowed_functions))
    found = []
    for row in rows:
        if row["definer"]:
            found.append(Finding(f"{row['name']} is SECURITY DEFINER: it runs with the rights of {row['owner']}", None))
        if row["volatility"] == "v":
            found.append(Finding(f"{row['name']} is volatile: it may have effects", None))
    return found


def quoted(name: str) -> str:
    """An identifier as SQL."""
    return '"' + name.replace('"', '""') + '"'


def grants(role: str, database: str, schemas: Sequence[str], blocked: Sequence[str] = ()) -> str:
    """The specification's read-only role, mended, as a script for psql.

    Of the specification's script, the last REVOKE took back its own CONNECT, tables made later were not readable, and
    EXECUTE on all functions let the role run whatever there is.

    Args:
        role: its name; a password is set apart, so that none stands in a file.
        database: the database it may connect to.
        schemas: the schemas whose tables it may read.
        blocked: tables that it may not, as `schema.name` or, for each of the schemas, `name`.

    Raises:
        InvalidParameter: no schema is named.
    """
    if not schemas:
        raise InvalidParameter("name at least one schema (--schema public)")
    who = quoted(role)
    lines = [
        f"-- A role that can read {', '.join(schemas)} of {database} and nothing else. Run as superuser or owner:",
        f"--   psql -d {database} -f this-file",
        f"-- then set its password with \\password {role}",
        "DO $do$ BEGIN",
        f"  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {_literal(role)}) THEN",
        f"    CREATE ROLE {who};",
        "  END IF;",
        "END $do$;",
        f"ALTER ROLE {who} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT;",
        f"ALTER ROLE {who} SET default_transaction_read_only = on;",
        f"ALTER ROLE {who} SET statement_timeout = '30s';",
        f"ALTER ROLE {who} SET idle_in_transaction_session_timeout = '60s';",
        "-- Only a superuser may set this one: it keeps sorts of large results from filling the disk.",
        f"-- ALTER ROLE {who} SET temp_file_limit = '1GB';",
        f"REVOKE ALL ON DATABASE {quoted(database)} FROM {who};",
        f"REVOKE CREATE, TEMPORARY ON DATABASE {quoted(database)} FROM PUBLIC;",
        f"GRANT CONNECT ON DATABASE {quoted(database)} TO {who};",
    ]
    for schema in schemas:
        name = quoted(schema)
        lines += [
            f"REVOKE CREATE ON SCHEMA {name} FROM PUBLIC, {who};",
            f"GRANT USAGE ON SCHEMA {name} TO {who};",
            f"REVOKE ALL ON ALL TABLES IN SCHEMA {name} FROM {who};",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO {who};",
            f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA {name} TO {who};",
            "-- For tables that the role running this makes later; repeat with FOR ROLE for other makers.",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {name} GRANT SELECT ON TABLES TO {who};",
        ]
    for table in blocked:
        schema, dot, name = table.rpartition(".")
        for each in [schema] if dot else schemas:
            full = f"{quoted(each)}.{quoted(name)}"
            lines += [
                "DO $do$ BEGIN",
                f"  IF to_regclass({_literal(full)}) IS NOT NULL THEN",
                f"    REVOKE ALL ON {full} FROM {who}, PUBLIC;",
                "  END IF;",
                "END $do$;",
            ]
    return "\n".join(lines) + "\n"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
