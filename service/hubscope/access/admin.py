"""Making, listing and ending keys: functions over a connection under the owner role. No service has these rights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from hubscope.access.principal import Scope
from hubscope.access.token import Token, digest, fingerprint, mint
from hubscope.errors import InvalidParameter
from hubscope.store import Connection, load

QUERIES: Final = load(Path(__file__).with_name("queries.sql"))
ONE_AT_A_TIME: Final = "LOCK TABLE hub.api_keys IN SHARE ROW EXCLUSIVE MODE"
"""Makers of keys wait for each other, so that two cannot both find room for one more; the service goes on reading."""
LIVE_PER_NAME: Final = 2
"""Live keys of one name: the old and the new one, while holders change over."""

TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_SPAN: Final = re.compile(r"(\d{1,5})\s*([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

State = Literal["live", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class Key:
    """One row of hub.api_keys, without what proves it."""

    id: str
    tenant: str
    name: str
    owner: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    pepper_id: str

    @property
    def state(self) -> State:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= datetime.now(UTC) else "live"


def span(text: str) -> timedelta:
    """A length of time such as 90d, 12h, 30m, 2w.

    Raises:
        InvalidParameter.
    """
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise InvalidParameter(f"{text!r} is no length of time (allowed: a number and s, m, h, d or w, such as 90d)")
    return timedelta(**{_UNITS[match.group(2)]: int(match.group(1))})


async def create_key(
    connection: Connection,
    pepper: bytes,
    *,
    tenant: str,
    name: str,
    scopes: Sequence[Scope],
    owner: str = "",
    expires_at: datetime | None,
) -> tuple[Key, Token]:
    """Make the first live key of a name. The token is known to the caller only, and only now.

    Raises:
        InvalidParameter: a field will not do, or the name has a live key already.
    """
    if not TENANT.fullmatch(tenant):
        raise InvalidParameter(
            f"tenant {tenant[:80]!r} will not do (allowed: 1 to 63 letters, digits, '.', '_' and '-', a letter or digit"
            " first)"
        )
    if not _NAME.fullmatch(name):
        raise InvalidParameter("name will not do (allowed: 1 to 100 characters in one line)")
    if len(owner) > 200 or (owner and not owner.isprintable()):
        raise InvalidParameter("owner will not do (allowed: at most 200 characters in one line)")
    if not scopes:
        raise InvalidParameter(f"a key needs a scope (allowed: {', '.join(Scope)})")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InvalidParameter("a key that has expired already is of no use: choose a longer time")
    async with connection.transaction():
        await connection.execute(ONE_AT_A_TIME)
        live = await connection.fetch(QUERIES["live_keys_of"], tenant, name)
        if live:
            raise InvalidParameter(
                f"tenant {tenant} has a live key {name!r} already ({live[-1]['key_id']}): `hubscope keys rotate"
                f" {live[-1]['key_id']}` makes its successor"
            )
        return await _insert(connection, pepper, tenant, name, owner, [str(scope) for scope in scopes], expires_at)


async def rotate_key(
    connection: Connection, pepper: bytes, key_id: str, *, overlap: timedelta
) -> tuple[Key, Token, Key]:
    """Make the successor of a live key: same tenant, name, owner, scopes and lifetime. The old one ends after overlap.

    Returns:
        The new key, its token, and the old key as it is now.

    Raises:
        InvalidParameter: there is no such live key, or it is being rotated already.
    """
    async with connection.transaction():
        await connection.execute(ONE_AT_A_TIME)
        old = await _find(connection, key_id)
        if old.state != "live":
            raise InvalidParameter(f"key {key_id} is {old.state}: `hubscope keys create` makes a new one")
        live = await connection.fetch(QUERIES["live_keys_of"], old.tenant, old.name)
        if len(live) >= LIVE_PER_NAME:
            others = ", ".join(row["key_id"] for row in live)
            raise InvalidParameter(
                f"at most {LIVE_PER_NAME} keys {old.name!r} of tenant {old.tenant} are live at once ({others}):"
                " revoke one first"
            )
        now = datetime.now(UTC)
        lifetime = old.expires_at - old.created_at if old.expires_at is not None else None
        new, token = await _insert(
            connection,
            pepper,
            old.tenant,
            old.name,
            old.owner,
            list(old.scopes),
            now + lifetime if lifetime is not None else None,
        )
        if overlap <= timedelta(0):
            row = await connection.fetchrow(QUERIES["revoke_key"], key_id)
        else:
            row = await connection.fetchrow(QUERIES["shorten_key"], key_id, now + overlap)
        assert row is not None
        return new, token, _key(row)


async def revoke_key(connection: Connection, key_id: str) -> Key:
    """End a key. It works nowhere any more once every process has read the list again.

    Raises:
        InvalidParameter: there is no such key.
    """
    row = await connection.fetchrow(QUERIES["revoke_key"], key_id)
    if row is None:
        raise InvalidParameter(f"there is no key {key_id!r}: `hubscope keys list --all` shows all")
    return _key(row)


async def list_keys(connection: Connection, *, tenant: str | None = None, everything: bool = False) -> list[Key]:
    """The live keys, or all there ever were, by tenant and name."""
    return [_key(row) for row in await connection.fetch(QUERIES["list_keys"], tenant, everything)]


async def _find(connection: Connection, key_id: str) -> Key:
    row = await connection.fetchrow(QUERIES["key_by_id"], key_id)
    if row is None:
        raise InvalidParameter(f"there is no key {key_id!r}: `hubscope keys list --all` shows all")
    return _key(row)


async def _insert(
    connection: Connection,
    pepper: bytes,
    tenant: str,
    name: str,
    owner: str,
    scopes: list[str],
    expires_at: datetime | None,
) -> tuple[Key, Token]:
    token = mint()
    row = await connection.fetchrow(
        QUERIES["insert_key"],
        tenant,
        token.id,
        name,
        owner,
        sorted(set(scopes)),
        digest(pepper, token),
        fingerprint(pepper),
        expires_at,
    )
    assert row is not None
    return _key(row), token


def _key(row: Any) -> Key:
    return Key(
        id=row["key_id"],
        tenant=row["tenant_id"],
        name=row["name"],
        owner=row["owner"],
        scopes=tuple(row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        pepper_id=row["pepper_id"],
    )
