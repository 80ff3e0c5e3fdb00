"""Who holds a key: every live key of the store in memory, never older than HUBSCOPE_KEY_CACHE_TIME.

The whole list is read again when it is too old, or when somebody shows a key that is not in it, at most once in
PAUSE_S. A key is checked by one HMAC, once for each reading of the list (what was checked is remembered by the SHA-256
of its text), and without a wait; a revoked one works no longer than the cache time; a new one works at once; and a
flood of unknown keys costs the database five small queries a second and this process no memory at all: what is not in
the list is unknown, and nothing that a stranger sends is ever kept.

When the database is away and the list too old, nobody is let in (503, not 401): the key may have been revoked.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final

import structlog

from hubscope.access.pepper import pepper_of
from hubscope.access.principal import Principal, Scope
from hubscope.access.token import digest, fingerprint, mint, parse
from hubscope.errors import DatabaseAway, ExpiredKey, HubscopeError, InvalidSetting, NoPepper, UnknownKey
from hubscope.settings import Settings
from hubscope.store import Pool, borrowed, db_errors, load

QUERIES: Final = load(Path(__file__).with_name("queries.sql"))
PAUSE_S: Final = 0.2
"""Shortest time between two readings of the list."""
SEEN_MOST: Final = 1_000
"""Keys whose check is remembered for as long as the list is that they were checked against."""
LAST_FLUSH_S: Final = 2.0
_NOTHING: Final = bytes(32)
_SCOPES: Final = {str(scope): scope for scope in Scope}  # one that a newer version made is none here

log = structlog.get_logger("hubscope.access")


@dataclass(frozen=True, slots=True)
class Known:
    """One key of the list.

    Attributes:
        principal: whose it is and what it may do.
        digest: what is stored of it.
        pepper_id: the pepper that the digest was made under.
        expires_at: seconds since 1970, or None.
    """

    principal: Principal
    digest: bytes
    pepper_id: str
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The list as it was at one time.

    Attributes:
        asked_at: on the monotonic clock, before the question was asked: what was revoked earlier is not in it.
        ever: whether the store has ever had a key.
        pepper, pepper_id: of this process; None where there is none.
        trouble: why no key can be verified, or None.
    """

    asked_at: float
    keys: Mapping[str, Known]
    ever: bool
    pepper: bytes | None
    pepper_id: str | None
    trouble: str | None


class Keyring:
    """Tells the holders of keys from everybody else. One per process.

    Args:
        pool: connections under the writer role; one is enough.
        settings: cache time, use interval, pepper.
        clock, monotonic: seconds; tests bring their own.
    """

    def __init__(
        self,
        pool: Pool,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._ttl = settings.key_cache_ms / 1000
        self._snapshot: Snapshot | None = None
        self._loading: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")
        self._seen: dict[bytes, tuple[Snapshot, str, Known]] = {}
        self._private: dict[str, tuple[Principal, bytes]] = {}
        self._private_pepper = mint().text.encode()
        self._used: dict[str, float] = {}
        self._noting: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Note the last uses, if the database is quick about it, and let go."""
        for task in (self._loading, self._noting):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_FLUSH_S):
                await self._note_uses()

    async def verify(self, text: str, *, stale_ok: bool = False) -> Principal:
        """The principal whose key this is.

        Args:
            text: the key as sent.
            stale_ok: while the database is away, go by the last list that was read, however old.

        Raises:
            MalformedKey, MistypedKey: told from the text alone.
            UnknownKey: there is no such key, or its secret is another, or it is revoked: which of them is not told.
            ExpiredKey: the key is right and its time is over.
            NoPepper, DatabaseAway: it cannot be known now.
        """
        proof = _proof(text)
        known_now = self._seen_lately(proof)
        if known_now is not None:
            return known_now
        token = parse(text)
        if token.id in self._private:
            principal, expected = self._private[token.id]
            if hmac.compare_digest(digest(self._private_pepper, token), expected):
                return principal
            raise UnknownKey
        came_at = self._monotonic()
        snapshot = await self._fresh(stale_ok)
        known = snapshot.keys.get(token.id)
        if known is None:
            # It may have been made a moment ago: what is known now decides. All who wait here wait for one reading.
            with contextlib.suppress(*((DatabaseAway,) if stale_ok else ())):
                snapshot = await self._newer_than(came_at)
                known = snapshot.keys.get(token.id)
        if snapshot.pepper is None:
            if snapshot.ever:
                raise NoPepper(snapshot.trouble)
            raise UnknownKey
        # The same work whether there is such an id or not.
        right = hmac.compare_digest(digest(snapshot.pepper, token), known.digest if known else _NOTHING)
        if known is None or not right:
            raise UnknownKey
        now = self._clock()
        if known.expires_at is not None and known.expires_at <= now:
            raise ExpiredKey(f"the API key {token.id} expired at {_when(known.expires_at)}")
        if len(self._seen) >= SEEN_MOST:
            self._seen.clear()
        self._seen[proof] = snapshot, token.id, known
        return self._use(token.id, known, now)

    def seen(self, text: str) -> Principal | None:
        """`verify` without a wait; None where it needs one, or raises."""
        return self._seen_lately(_proof(text))

    def _seen_lately(self, proof: bytes) -> Principal | None:
        seen = self._seen.get(proof)
        if seen is None:
            return None
        checked_by, key_id, holder = seen
        now = self._clock()
        if (
            checked_by is not self._snapshot
            or self._monotonic() - checked_by.asked_at >= self._ttl / 2
            or (holder.expires_at is not None and holder.expires_at <= now)
        ):
            return None
        return self._use(key_id, holder, now)

    def _use(self, key_id: str, known: Known, now: float) -> Principal:
        self._used[key_id] = now
        if self._noting is None:
            self._noting = asyncio.create_task(self._note_later(), name="key uses")
        return known.principal

    async def required(self, *, stale_ok: bool = False) -> bool:
        """Whether keys are needed: from the first key that was ever made on.

        Raises:
            DatabaseAway: it cannot be known now.
        """
        return (await self._fresh(stale_ok)).ever

    async def live(self) -> int:
        """How many keys this process would let in now.

        Raises:
            NoPepper: there are keys, and none of them can be verified here.
            DatabaseAway: it cannot be known now.
        """
        snapshot = await self._fresh(False)
        now = self._clock()
        live = [one for one in snapshot.keys.values() if one.expires_at is None or one.expires_at > now]
        ours = [one for one in live if one.pepper_id == snapshot.pepper_id]
        if live and not ours:
            raise NoPepper(snapshot.trouble)
        return len(ours)

    def lend(self, principal: Principal) -> str:
        """A key that only this process knows, for what runs inside it; it is stored nowhere and ends with it."""
        token = mint()
        self._private[token.id] = (principal, digest(self._private_pepper, token))
        return token.text

    async def _fresh(self, stale_ok: bool) -> Snapshot:
        """A list that is not too old."""
        snapshot, now = self._snapshot, self._monotonic()
        if snapshot is not None:
            age = now - snapshot.asked_at
            if age < self._ttl:
                if age > self._ttl / 2:
                    self._load_soon()
                return snapshot
        try:
            return await self._newer_than(now - self._ttl)
        except DatabaseAway:
            if stale_ok and snapshot is not None:
                return snapshot
            raise

    async def _newer_than(self, moment: float) -> Snapshot:
        """A list that was asked for after a moment."""
        while self._snapshot is None or self._snapshot.asked_at < moment:
            await asyncio.shield(self._load_soon())
        return self._snapshot

    def _load_soon(self) -> asyncio.Task[None]:
        """The reading under way, or a new one. There is never more than one."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load(), name="keys")
            self._loading.add_done_callback(self._loaded)
        return self._loading

    def _loaded(self, task: asyncio.Task[None]) -> None:
        self._loading = None
        if not task.cancelled():
            task.exception()  # seen by whoever waits; nobody may

    async def _load(self) -> None:
        await asyncio.sleep(max(0.0, self._asked_at + PAUSE_S - self._monotonic()))
        asked_at = self._asked_at = self._monotonic()
        try:
            async with (
                asyncio.timeout(self._settings.pool_connection_timeout_ms / 1000),
                borrowed(self._pool, self._settings) as connection,
            ):
                rows = await connection.fetch(QUERIES["known_keys"])
                ever = bool(rows) or await connection.fetchval(QUERIES["any_key"])
        except TimeoutError:
            raise DatabaseAway("the database does not answer") from None
        except (db_errors.UndefinedTableError, db_errors.InvalidSchemaNameError, db_errors.InsufficientPrivilegeError):
            raise DatabaseAway("the store has no table of API keys yet: run `hubscope migrate`") from None
        except db_errors.PostgresError as error:
            log.exception("the list of API keys cannot be read")
            raise DatabaseAway(f"the list of API keys cannot be read ({type(error).__name__})") from None
        keys = {
            row["key_id"]: Known(
                Principal(
                    row["tenant_id"],
                    frozenset(_SCOPES[scope] for scope in row["scopes"] if scope in _SCOPES),
                    actor=f"{row['name']} ({row['key_id']})",
                    owner=row["owner"],
                ),
                row["hash"],
                row["pepper_id"],
                row["expires_at"].timestamp() if row["expires_at"] else None,
            )
            for row in rows
        }
        pepper, trouble = self._pepper() if ever else (None, None)
        ours = fingerprint(pepper) if pepper is not None else None
        if keys and pepper is not None and all(known.pepper_id != ours for known in keys.values()):
            trouble = (
                "the API keys in the store were made under another pepper than this process has (HUBSCOPE_KEY_PEPPER)"
            )
        if trouble is not None and (self._snapshot is None or self._snapshot.trouble != trouble):
            log.error("no API key can be verified", reason=trouble)
        self._seen.clear()
        self._snapshot = Snapshot(asked_at, MappingProxyType(keys), ever, pepper, ours, trouble)

    def _pepper(self) -> tuple[bytes | None, str | None]:
        try:
            return pepper_of(self._settings), None
        except (NoPepper, InvalidSetting) as error:
            return None, error.detail

    async def _note_later(self) -> None:
        await asyncio.sleep(self._settings.key_use_interval_ms / 1000)
        self._noting = None
        await self._note_uses()

    async def _note_uses(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        times = [datetime.fromtimestamp(at, UTC) for at in used.values()]
        try:
            async with borrowed(self._pool, self._settings) as connection:
                await connection.execute(QUERIES["note_use"], list(used), times)
        except HubscopeError as error:
            log.warning("the last use of keys could not be noted", error=error.detail)
        except Exception:  # when a key was used last is a convenience: no request may fail of it
            log.warning("the last use of keys could not be noted", exc_info=True)


def _proof(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
