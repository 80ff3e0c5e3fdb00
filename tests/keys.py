"""API keys for tests: a pepper, and keys made by the functions that `hubscope keys` calls."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from hubscope.access import Scope
from hubscope.access.admin import create_key
from hubscope.store import connect
from tests.conftest import ROLES

PEPPER: Final = "a pepper that only tests use"


async def make_key(
    dsn: str, *scopes: Scope, tenant: str = "default", name: str = "test", lives: timedelta | None = None
) -> tuple[str, str]:
    """A new key of a store: (id, the key itself)."""
    connection = await connect(dsn, role=ROLES.owner, name="tests")
    try:
        key, token = await create_key(
            connection,
            PEPPER.encode(),
            tenant=tenant,
            name=name,
            scopes=scopes or tuple(Scope),
            expires_at=None if lives is None else datetime.now(UTC) + lives,
        )
        return key.id, token.text
    finally:
        await connection.close()


def bearer(key: str) -> dict[str, str]:
    """The header that shows a key."""
    return {"authorization": f"Bearer {key}"}
