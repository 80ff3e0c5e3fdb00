"""/sql/mcp over hubscope's own marts on the timescale engine: the views stand on continuous aggregates there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hubscope.entrypoints.sql_service import OWN_POLICY
from hubscope.marts import TENANT_SETTING
from hubscope.sqlgate import Gate, Limits, Narrowed, Served
from hubscope.sqlgate.catalogue import list_tables
from hubscope.store import Connection
from hubscope.store.aggregates import refresh_forward
from tests.conftest import ROLES
from tests.events import server_event, tool_call
from tests.integration.entrypoints.test_sql_service import TENANT_VIEWS
from tests.integration.store.test_rollups import Store
from tests.timescale.test_engine import owner, store, timescale_settings

__all__ = ["owner", "store", "timescale_settings"]
pytestmark = [pytest.mark.timescale]


async def test_each_tenant_sees_its_own_rows(store: Store, owner: Connection, timescale_database: str) -> None:
    for tenant in ("acme", "other"):
        await store.post(tenant, tool_call(server=f"of {tenant}"), server_event(server=f"of {tenant}"))
    await refresh_forward(owner)
    limits = replace(Limits(), connections=1, connection_timeout_ms=10_000)
    gate = Gate(Served(timescale_database, OWN_POLICY, limits, session=(("role", ROLES.tenant),)))
    try:
        for tenant in ("acme", "other"):
            mine = Narrowed(gate, TENANT_SETTING, tenant)
            for view in sorted(TENANT_VIEWS):
                found = await mine.query(f"SELECT DISTINCT tenant_id, server FROM {view}")
                assert found.rows == ((tenant, f"of {tenant}"),), view
        assert {table.name for table in (await list_tables(mine, None)).tables} == TENANT_VIEWS
        for view in sorted(TENANT_VIEWS):
            assert (await gate.query(f"SELECT * FROM {view}")).rows == (), view
    finally:
        await gate.close()
