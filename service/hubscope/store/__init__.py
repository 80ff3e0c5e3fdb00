"""The store: pools by role, migrations, named queries. Nothing above it imports asyncpg."""

from asyncpg import exceptions as db_errors

from hubscope.store.capabilities import Capabilities, Engine, detect
from hubscope.store.copying import copy_and, spelled
from hubscope.store.migrate import migrate
from hubscope.store.pool import AWAY, AWAY_OR_TOLD, Connection, Pool, away, borrowed, connect, open_pool
from hubscope.store.queries import load
from hubscope.store.roles import Roles, roles_of

__all__ = [
    "AWAY",
    "AWAY_OR_TOLD",
    "Capabilities",
    "Connection",
    "Engine",
    "Pool",
    "Roles",
    "away",
    "borrowed",
    "connect",
    "copy_and",
    "db_errors",
    "detect",
    "load",
    "migrate",
    "open_pool",
    "roles_of",
    "spelled",
]
