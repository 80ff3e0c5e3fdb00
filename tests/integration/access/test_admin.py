"""Making, rotating and ending keys, and the pepper that they are hashed under."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hubscope.access import Scope, pepper_of
from hubscope.access.admin import Key, create_key, list_keys, revoke_key, rotate_key, span
from hubscope.access.pepper import FILE
from hubscope.access.token import Token, digest, fingerprint
from hubscope.errors import InvalidParameter, InvalidSetting, NoPepper
from hubscope.settings import Settings
from hubscope.store import Connection, connect
from tests.conftest import ROLES

pytestmark = [pytest.mark.store, pytest.mark.integration]

PEPPER = b"a pepper that only tests use"


@pytest.fixture
async def owner(database: str) -> AsyncIterator[Connection]:
    connection = await connect(database, role=ROLES.owner, name="tests")
    yield connection
    await connection.close()


async def make(
    connection: Connection, /, name: str = "laptop", tenant: str = "acme", **more: object
) -> tuple[Key, Token]:
    options = {"scopes": [Scope.READ, Scope.INGEST], "expires_at": None} | more
    return await create_key(connection, PEPPER, tenant=tenant, name=name, **options)  # type: ignore[arg-type]


async def test_a_key_is_kept_as_a_keyed_hash_and_nothing_else_of_it(owner: Connection, admin: Connection) -> None:
    key, token = await make(owner, owner="ops@example.org")
    row = await admin.fetchrow("SELECT * FROM hub.api_keys")
    assert (row["key_id"], row["hash"], row["pepper_id"]) == (token.id, digest(PEPPER, token), fingerprint(PEPPER))
    assert (key.tenant, key.name, key.owner, key.scopes) == ("acme", "laptop", "ops@example.org", ("ingest", "read"))
    assert (key.state, key.expires_at, key.revoked_at, key.last_used_at) == ("live", None, None, None)
    assert token.text.split("_")[2][:32] not in str(dict(row))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tenant": ""}, "tenant"),
        ({"tenant": "two words"}, "tenant"),
        ({"tenant": "x" * 64}, "tenant"),
        ({"tenant": "-x"}, "tenant"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"owner": "x" * 201}, "owner"),
        ({"scopes": []}, "ingest, read, chains, sql, admin"),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "expired"),
    ],
    ids=str,
)
async def test_a_field_that_will_not_do_is_named_and_nothing_is_made(
    changes: dict[str, object], named: str, owner: Connection
) -> None:
    with pytest.raises(InvalidParameter, match=named):
        await make(owner, **changes)  # type: ignore[arg-type]
    assert await list_keys(owner, everything=True) == []


async def test_a_name_has_one_live_key_and_two_while_it_is_rotated(owner: Connection) -> None:
    first, _ = await make(owner, expires_at=datetime.now(UTC) + timedelta(days=90))
    with pytest.raises(InvalidParameter, match=f"hubscope keys rotate {first.id}"):
        await make(owner)
    await make(owner, tenant="other")  # the same name elsewhere is another one
    second, token, old = await rotate_key(owner, PEPPER, first.id, overlap=timedelta(hours=24))
    assert token.id == second.id != first.id
    assert (second.tenant, second.name, second.scopes) == (first.tenant, first.name, first.scopes)
    assert second.expires_at is not None
    assert abs(second.expires_at - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=1)
    assert old.expires_at is not None
    assert abs(old.expires_at - datetime.now(UTC) - timedelta(hours=24)) < timedelta(minutes=1)
    for one in (first, second):
        with pytest.raises(InvalidParameter, match="revoke one first"):
            await rotate_key(owner, PEPPER, one.id, overlap=timedelta(hours=1))
    await revoke_key(owner, first.id)
    third, _, gone = await rotate_key(owner, PEPPER, second.id, overlap=timedelta(0))
    assert gone.state == "revoked"
    assert [key.id for key in await list_keys(owner, tenant="acme")] == [third.id]
    assert len(await list_keys(owner, tenant="acme", everything=True)) == 3


async def test_of_many_who_rotate_at_once_one_succeeds(owner: Connection, database: str) -> None:
    first, _ = await make(owner)
    connections = [await connect(database, role=ROLES.owner, name="tests") for _ in range(6)]
    outcomes = await asyncio.gather(
        *(rotate_key(one, PEPPER, first.id, overlap=timedelta(hours=1)) for one in connections), return_exceptions=True
    )
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    assert len(await list_keys(owner)) == 2
    for connection in connections:
        await connection.close()


async def test_overlap_never_lengthens_a_life(owner: Connection) -> None:
    ends = datetime.now(UTC) + timedelta(hours=1)
    first, _ = await make(owner, expires_at=ends)
    _, _, old = await rotate_key(owner, PEPPER, first.id, overlap=timedelta(days=30))
    assert old.expires_at == ends


async def test_a_revoked_key_stays_revoked(owner: Connection) -> None:
    first, _ = await make(owner)
    revoked = await revoke_key(owner, first.id)
    assert (await revoke_key(owner, first.id)).revoked_at == revoked.revoked_at
    with pytest.raises(InvalidParameter, match="is revoked"):
        await rotate_key(owner, PEPPER, first.id, overlap=timedelta(0))
    with pytest.raises(InvalidParameter, match="no key 'nobody'"):
        await revoke_key(owner, "nobody")


@pytest.mark.parametrize(
    ("text", "length"),
    [("90d", timedelta(days=90)), ("12h", timedelta(hours=12)), (" 2w ", timedelta(weeks=2)), ("0s", timedelta(0))],
)
def test_a_length_of_time_is_read(text: str, length: timedelta) -> None:
    assert span(text) == length


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1y", "1.5h", "1d2h", "999999d"])
def test_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="such as 90d"):
        span(text)


# Pepper


def test_the_embedded_database_has_a_pepper_of_its_own_beside_it(tmp_path: Path) -> None:
    settings = Settings.load(data_dir=tmp_path)
    with pytest.raises(NoPepper, match="is gone"):
        pepper_of(settings)
    pepper = pepper_of(settings, make=True)
    assert len(pepper) == 64
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert pepper_of(settings, make=True) == pepper_of(settings) == pepper
    assert sorted(os.listdir(tmp_path)) == [FILE]
    (tmp_path / FILE).chmod(0o640)
    with pytest.raises(InvalidSetting, match="read by others"):
        pepper_of(settings)


def test_a_store_of_ones_own_needs_a_pepper_for_keys(tmp_path: Path) -> None:
    """One that each replica made for itself would have half of them refuse the other half's keys."""
    url = "postgresql://me@db/store"
    for make in (True, False):
        with pytest.raises(NoPepper, match="HUBSCOPE_KEY_PEPPER"):
            pepper_of(Settings.load(database_url=url, data_dir=tmp_path), make=make)
    assert pepper_of(Settings.load(database_url=url, key_pepper="x" * 16)) == b"x" * 16
    (tmp_path / "pepper").write_text("y" * 32 + "\n")
    assert pepper_of(Settings.load(database_url=url, key_pepper_file=tmp_path / "pepper")) == b"y" * 32
    with pytest.raises(InvalidSetting, match="too short: at least 16"):
        pepper_of(Settings.load(key_pepper="x" * 15))
