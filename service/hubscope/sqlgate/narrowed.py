"""The same gate for one caller: connections, turns and limits are shared, the transaction says whose rows it sees."""

from __future__ import annotations

import asyncpg

from hubscope.sqlgate.run import Gate


class Narrowed(Gate):
    """A gate whose every transaction has one setting more, which views of the database ask for.

    It is set where the transaction begins and gone with its end, so a connection that somebody else
    takes next knows nothing of it; and a query can change no setting.

    Args:
        whole: the gate, which stays open when this one is let go.
        setting: a name with a dot, such as hubscope.tenant.
        value: of this caller.
    """

    def __init__(self, whole: Gate, setting: str, value: str) -> None:
        vars(self).update(vars(whole))
        self._whole = whole
        literal = value.replace("'", "''")
        self._begin_with(*whole._first, f"SET LOCAL {setting} = '{literal}'")

    async def _opened(self) -> asyncpg.Pool:
        pool = await self._whole._opened()
        self.database = self._whole.database
        return pool

    async def close(self) -> None:
        """The whole gate is closed by whoever opened it."""

    def connections(self) -> tuple[int, int]:
        """Open and idle connections now, of all callers."""
        return self._whole.connections()
