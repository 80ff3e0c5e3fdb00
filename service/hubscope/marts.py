"""The marts: dbt owns them; this module runs dbt (in the worker's child process only) and bridges the time before it.

Live marts are views over rollup and raw. Their SQL stands once, in the dbt project, and uses nothing of dbt but
`source()`, `ref()` and `config()`; so the migration can create them before the first dbt build, and an answer is there
from the first second. dbt later replaces each view by the same one.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from hubscope.errors import JobFailed
from hubscope.store import Connection, Roles, db_errors
from hubscope.store.roles import quote

_CONFIG = re.compile(r"\{\{\s*config\((.*?)\)\s*\}\}", re.DOTALL)
_SOURCE = re.compile(r"\{\{\s*source\('(\w+)',\s*'(\w+)'\)\s*\}\}")
_REF = re.compile(r"\{\{\s*ref\('(\w+)'\)\s*\}\}")
_LEFTOVER = re.compile(r"\{[{%#]")


def project_dir() -> Path:
    """The dbt project: inside an installed package, or beside it in a checkout."""
    packaged = Path(__file__).with_name("dbt_project")
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "dbt_project"


@dataclass(frozen=True, slots=True)
class LiveMart:
    """A mart that is a view: its schema (the folder it stands in), its name, and its SQL."""

    schema: str
    name: str
    sql: str


def live_marts(project: Path | None = None) -> list[LiveMart]:
    """The models tagged live, in an order in which each comes after those it refers to.

    Raises:
        JobFailed: a live model uses more of dbt than source(), ref() and config().
    """
    folder = (project or project_dir()) / "models" / "marts"
    texts = {path.stem: (path.parent.name, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/*.sql"))}
    live = {name: found for name, found in texts.items() if (c := _CONFIG.search(found[1])) and "'live'" in c.group(1)}
    ordered: list[LiveMart] = []
    waiting = dict(live)
    while waiting:
        ready = [name for name, (_, text) in waiting.items() if not set(_REF.findall(text)) & set(waiting)]
        if not ready:
            raise JobFailed(f"live marts refer to each other in a circle: {', '.join(waiting)}")
        for name in ready:
            schema, text = waiting.pop(name)
            ordered.append(LiveMart(schema, name, _render(name, text, live)))
    return ordered


def _render(name: str, text: str, live: dict[str, tuple[str, str]]) -> str:
    def relation(match: re.Match[str]) -> str:
        target = match.group(1)
        if target not in live:
            raise JobFailed(f"live mart {name} refers to {target}, which is no live mart")
        return f"{live[target][0]}.{target}"

    sql = _CONFIG.sub("", text)
    sql = _REF.sub(relation, _SOURCE.sub(lambda match: f"{match.group(1)}.{match.group(2)}", sql)).strip()
    if _LEFTOVER.search(sql):
        raise JobFailed(f"live mart {name} may use nothing of dbt but source(), ref() and config()")
    return sql


async def install_live_marts(connection: Connection, roles: Roles) -> list[str]:
    """Create the live marts that are missing or were made from another text. Names of those that were made."""
    made = []
    for mart in live_marts():
        relation = f"{quote(mart.schema)}.{quote(mart.name)}"
        key = f"mart:{mart.schema}.{mart.name}"
        checksum = hashlib.sha256(mart.sql.encode()).hexdigest()
        known = await connection.fetchval("SELECT checksum FROM ops.definitions WHERE name = $1", key)
        exists = await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", relation)
        if exists and known == checksum:
            continue
        async with connection.transaction():
            await connection.execute(f"SET LOCAL ROLE {quote(roles.worker)}")
            try:
                async with connection.transaction():
                    await connection.execute(f"CREATE OR REPLACE VIEW {relation} AS {mart.sql}")
            except db_errors.InvalidTableDefinitionError:
                # Columns changed: what hangs on the old view is dbt's, and its next build makes it again.
                await connection.execute(f"DROP VIEW {relation} CASCADE")
                await connection.execute(f"CREATE VIEW {relation} AS {mart.sql}")
            await connection.execute(f"SET LOCAL ROLE {quote(roles.owner)}")
            await _remember(connection, key, checksum)
        made.append(mart.name)
    return made + await _install_tenant_views(connection, roles)


TENANT_SCHEMA: Final = "tenant"
TENANT_SETTING: Final = "hubscope.tenant"
"""Where a session says whose rows it sees in the views of TENANT_SCHEMA: none, where it says nothing."""


def tenant_view(sql: str) -> str:
    """The text of a mart of which a session sees the rows of its own tenant only.

    It stands on what the mart stands on, not on the mart, which dbt drops and makes again. As a security barrier it
    lets no condition of a query see a row before its own.
    """
    return f"SELECT mart.* FROM (\n{sql}\n) AS mart WHERE mart.tenant_id = current_setting('{TENANT_SETTING}', true)"


async def _install_tenant_views(connection: Connection, roles: Roles) -> list[str]:
    """Make tenant.<mart> of every live mart that has tenants. Names of those that were made."""
    made = []
    for mart in live_marts():
        has_tenants = await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname = 'tenant_id')",
            f"{quote(mart.schema)}.{quote(mart.name)}",
        )
        if not has_tenants:
            continue
        relation, sql = f"{TENANT_SCHEMA}.{quote(mart.name)}", tenant_view(mart.sql)
        key, checksum = f"mart:{TENANT_SCHEMA}.{mart.name}", hashlib.sha256(sql.encode()).hexdigest()
        known = await connection.fetchval("SELECT checksum FROM ops.definitions WHERE name = $1", key)
        if known == checksum and await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", relation):
            continue
        async with connection.transaction():
            await connection.execute(f"SET LOCAL ROLE {quote(roles.worker)}")
            await connection.execute(f"DROP VIEW IF EXISTS {relation}")
            await connection.execute(f"CREATE VIEW {relation} WITH (security_barrier) AS {sql}")
            await connection.execute(f"SET LOCAL ROLE {quote(roles.owner)}")
            await _remember(connection, key, checksum)
        made.append(f"{TENANT_SCHEMA}.{mart.name}")
    return made


async def _remember(connection: Connection, key: str, checksum: str) -> None:
    await connection.execute(
        "INSERT INTO ops.definitions (name, checksum) VALUES ($1, $2)"
        " ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, replayed_at = clock_timestamp()",
        key,
        checksum,
    )


# What follows runs in the worker's child process.

SELECT_EVERYTHING: Final = ("build", "--exclude-resource-type", "unit_test")


def dbt_environment(dsn: str, role: str) -> dict[str, str]:
    """The store's address as profiles.yml reads it.

    Args:
        dsn: URL of the store.
        role: the role that dbt takes on.
    """
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    environment = {
        "HUBSCOPE_DBT_HOST": query["host"][0] if "host" in query else (parts.hostname or "localhost"),
        "HUBSCOPE_DBT_PORT": query["port"][0] if "port" in query else str(parts.port or 5432),
        "HUBSCOPE_DBT_USER": unquote(parts.username or "postgres"),
        "HUBSCOPE_DBT_PASSWORD": unquote(parts.password or ""),
        "HUBSCOPE_DBT_DATABASE": unquote(parts.path.lstrip("/")) or "postgres",
        "HUBSCOPE_DBT_ROLE": role,
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
    }
    if "sslmode" in query:
        environment["HUBSCOPE_DBT_SSLMODE"] = query["sslmode"][0]
    return environment


_MANIFEST: Any = None


def run_dbt(dsn: str, role: str, scratch: Path, arguments: tuple[str, ...] = SELECT_EVERYTHING) -> dict[str, Any]:
    """Run dbt in this process, which must do nothing else with dbt meanwhile. The parsed project is kept for next time.

    Args:
        dsn: URL of the store.
        role: the role that builds the marts.
        scratch: a folder for dbt's own files (target, logs).
        arguments: dbt's command line.

    Returns:
        {"nodes": how many models and tests ran}.

    Raises:
        JobFailed: a node failed or dbt itself did; names the first failure.
    """
    global _MANIFEST
    from dbt.cli.main import dbtRunner

    os.environ.update(dbt_environment(dsn, role))
    project = str(project_dir())
    runner = dbtRunner(manifest=_MANIFEST)
    result = runner.invoke(
        [
            *arguments,
            f"--project-dir={project}",
            f"--profiles-dir={project}",
            f"--target-path={scratch / 'target'}",
            f"--log-path={scratch / 'logs'}",
            "--quiet",
            "--no-use-colors",
            "--log-level=none",
        ]
    )
    _MANIFEST = runner.manifest or _MANIFEST
    if result.exception is not None:
        raise JobFailed(f"dbt: {' '.join(str(result.exception).split())[:500]}")
    nodes = list(getattr(result.result, "results", ()) or ())
    failed = [node for node in nodes if str(node.status) in ("error", "fail", "runtime error")]
    if failed:
        words = " ".join(str(failed[0].message).split())[:300]
        raise JobFailed(f"dbt: {len(failed)} of {len(nodes)} nodes failed, first {failed[0].node.name}: {words}")
    return {"nodes": len(nodes)}
