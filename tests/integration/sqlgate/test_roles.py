"""The role: what is found wrong with it, and that the script makes one that can read and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from hubscope.sqlgate import Policy
from hubscope.sqlgate.roles import audit_role, grants
from tests.integration.sqlgate.conftest import POLICY, Canary, gate_to


@pytest.fixture
async def role(sample: str, canary: Canary) -> AsyncIterator[str]:
    """A role made by the script for `sample`."""
    database = str(await canary.connection.fetchval("SELECT current_database()"))
    name = f"reader_{database}"
    await canary.connection.execute(grants(name, database, ["public"], ["secrets", "nothing.there"]))
    yield name
    await canary.connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_a_superuser_is_found_with_everything_that_is_wrong(sample: str) -> None:
    policy = Policy(blocked_tables=frozenset({"secrets"}), allowed_functions=frozenset({"public.peek", "public.sing"}))
    async with gate_to(sample, policy) as gate, gate.borrowed() as connection:
        found = [finding.what for finding in (await audit_role(connection, policy)).findings]
    for part in ("is a superuser", "BYPASSRLS", "owns", "may read public.secrets, which BLOCKED_TABLES names"):
        assert any(part in what for what in found), part
    assert any("peek() is SECURITY DEFINER" in what for what in found)
    assert any("sing() is volatile" in what for what in found)


async def test_the_role_of_the_script_has_no_findings(sample: str, role: str) -> None:
    async with gate_to(f"{sample}&options=-c%20role%3D{role}") as gate, gate.borrowed() as connection:
        assert (await audit_role(connection, POLICY)).findings == ()


async def test_what_a_finding_names_as_its_mending_mends_it(sample: str, role: str, canary: Canary) -> None:
    await canary.connection.execute(
        f"ALTER ROLE {role} CREATEDB; GRANT pg_read_all_data TO {role}; GRANT CREATE ON SCHEMA public TO {role};"
        f" GRANT INSERT ON users TO {role}; GRANT SELECT ON secrets TO {role}; ALTER ROLE {role} BYPASSRLS"
    )
    dsn = f"{sample}&options=-c%20role%3D{role}"
    async with gate_to(dsn) as gate:
        async with gate.borrowed() as connection:
            findings = (await audit_role(connection, POLICY)).findings
        assert len(findings) >= 6
        for finding in findings:
            assert finding.mend is not None
            await canary.connection.execute(finding.mend)
        async with gate.borrowed() as connection:
            assert (await audit_role(connection, POLICY)).findings == ()


async def test_the_role_of_the_script_reads_and_does_nothing_else(role: str, canary: Canary) -> None:
    connection = canary.connection
    await connection.execute("CREATE TABLE later (id int)")
    database = await connection.fetchval("SELECT current_database()")
    assert await connection.fetchval("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1", role)
    for right, expected in (("CONNECT", True), ("CREATE", False), ("TEMPORARY", False)):
        assert await connection.fetchval("SELECT has_database_privilege($1, $2, $3)", role, database, right) is expected
    await connection.execute(f"SET SESSION AUTHORIZATION {role}; SET default_transaction_read_only = off")
    assert await connection.fetchval("SELECT count(*) FROM users") == 20
    assert await connection.fetchval("SELECT count(*) FROM later") == 0
    for sql in (
        "SELECT * FROM secrets",
        "SELECT * FROM private.salaries",
        "INSERT INTO canary VALUES (1)",
        "DELETE FROM users",
        "CREATE TABLE evil (x int)",
        "CREATE TEMP TABLE evil (x int)",
        "SELECT nextval('canary_seq')",
        "COPY users TO PROGRAM 'true'",
        "SELECT pg_read_file('/etc/passwd')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(sql)
    await connection.execute("RESET SESSION AUTHORIZATION")


async def test_the_script_can_be_run_again(role: str, canary: Canary) -> None:
    database = str(await canary.connection.fetchval("SELECT current_database()"))
    await canary.connection.execute(grants(role, database, ["public"], ["secrets"]))


def test_names_of_the_script_are_quoted() -> None:
    script = grants('we"ird', "my db", ["a'b"], ["x.y"])
    assert 'CREATE ROLE "we""ird"' in script
    assert 'ON SCHEMA "a\'b"' in script
    assert """to_regclass('"x"."y"')""" in script
