"""The six database roles, named after the database (or HUBSCOPE_ROLE_PREFIX): roles belong to the whole cluster.

They cannot log in (grafana may, once given a password): a process connects as the store's user and takes the role on,
so that there is no password per role to keep.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import asyncpg

from hubscope.errors import MigrationFailed
from hubscope.settings import Settings

_PLACEHOLDER = re.compile(r"(?<![:\w]):(owner|writer|reader|worker|grafana|tenant)\b")


@dataclass(frozen=True, slots=True)
class Roles:
    """The names of the roles of one store.

    Attributes:
        owner: owns schemas and tables, changes them.
        writer: appends events.
        reader: reads marts and state.
        worker: folds, builds the marts, runs jobs.
        grafana: reads marts.
        tenant: reads the rows of one tenant, whichever the session says.
    """

    owner: str
    writer: str
    reader: str
    worker: str
    grafana: str
    tenant: str

    @classmethod
    def of(cls, prefix: str) -> Roles:
        """The roles with this prefix.

        Raises:
            MigrationFailed: a name would be cut off by PostgreSQL at 63 bytes.
        """
        names = [f"{prefix}_{role}" for role in ("owner", "writer", "reader", "worker", "grafana", "tenant")]
        if max(len(name.encode()) for name in names) > 63:
            raise MigrationFailed(f"role prefix {prefix!r} is too long: set HUBSCOPE_ROLE_PREFIX (at most 55 bytes)")
        return cls(*names)

    def fill_in(self, sql: str) -> str:
        """Put the quoted role names in the place of :owner, :writer, :reader, :worker, :grafana, :tenant."""
        return _PLACEHOLDER.sub(lambda match: quote(getattr(self, match.group(1))), sql)


def roles_of(settings: Settings, dsn: str) -> Roles:
    """The roles of a store: HUBSCOPE_ROLE_PREFIX, or the name of the database in its URL."""
    return Roles.of(settings.role_prefix or unquote(urlsplit(dsn).path.lstrip("/")) or "postgres")


def quote(identifier: str) -> str:
    """An identifier as SQL text."""
    return '"' + identifier.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """A string as SQL text, for the few statements that take no parameters."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


async def ensure(connection: asyncpg.Connection, roles: Roles, grafana_password: str | None) -> None:
    """Create the roles that are missing, and let the connected user act as them.

    Raises:
        MigrationFailed: the user may not create roles and they do not exist.
    """
    names = (roles.owner, roles.writer, roles.reader, roles.worker, roles.grafana, roles.tenant)
    # Since PostgreSQL 16 whoever made a role is a member of it, but may not act as it without another grant.
    act = "SET" if connection.get_server_version().major >= 16 else "MEMBER"
    existing = {
        row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles WHERE rolname = ANY($1)", names)
    }
    try:
        for name in names:
            if name not in existing:
                await connection.execute(f"CREATE ROLE {quote(name)} NOLOGIN")
        for name in names:
            if not await connection.fetchval("SELECT pg_has_role(current_user, $1, $2)", name, act):
                await connection.execute(f"GRANT {quote(name)} TO CURRENT_USER")
        # The owner makes the mart schemas for the worker and grants on what the worker builds in them.
        if not await connection.fetchval("SELECT pg_has_role($1, $2, $3)", roles.owner, roles.worker, act):
            await connection.execute(f"GRANT {quote(roles.worker)} TO {quote(roles.owner)}")
        if grafana_password is not None:
            await connection.execute(
                f"ALTER ROLE {quote(roles.grafana)} LOGIN PASSWORD {quote_literal(grafana_password)}"
            )
    except asyncpg.InsufficientPrivilegeError as error:
        user = await connection.fetchval("SELECT current_user")
        raise MigrationFailed(
            f"the database user {user!r} may not create the roles {', '.join(names)} ({str(error).splitlines()[0]});"
            f" let an administrator run `ALTER ROLE {quote(user)} CREATEROLE`, or create them, grant them to it, and"
            f" `GRANT {quote(roles.worker)} TO {quote(roles.owner)}`"
        ) from None
