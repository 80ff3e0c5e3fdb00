"""`hubscope move`: from an old store into the one that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from hubscope.app import migrate_store
from hubscope.embedded import EmbeddedDatabase
from hubscope.errors import InvalidRequest
from hubscope.settings import Settings
from hubscope.store import connect, roles_of
from hubscope.store.move import move

EMBEDDED = "embedded"


async def run(settings: Settings, source: str, dsn: str, tell: Callable[[str], None]) -> int:
    """Migrate the new store and copy everything into it; how many events.

    Args:
        source: URL of the old store as a user who may read it, or `embedded`.

    Raises:
        InvalidRequest: both are the same store, the new one is not empty, or one is of another version.
    """
    with ExitStack() as held:
        if source == EMBEDDED:
            if settings.embedded:
                raise InvalidRequest("--from: the embedded store is the one that the settings name; name another one")
            database = EmbeddedDatabase(settings.data_dir, user=settings.embedded_user).attach()
            held.callback(database.detach)
            source = database.dsn
        if source == dsn:
            raise InvalidRequest("--from: both are the same store")
        await migrate_store(settings, dsn, tell)
        old = await connect(source, name="move")
        try:
            new = await connect(dsn, role=roles_of(settings, dsn).owner, name="move")
            try:
                return await move(old, new, tell=tell)
            finally:
                await new.close()
        finally:
            await old.close()
