"""The keyring: who is let in, for how long a list is gone by, and what strangers cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest

from hubscope.access import LOCAL, Keyring, Principal, Scope
from hubscope.access.admin import revoke_key
from hubscope.access.keyring import PAUSE_S
from hubscope.access.token import mint
from hubscope.errors import DatabaseAway, ExpiredKey, MalformedKey, MistypedKey, NoPepper, UnknownKey
from hubscope.settings import Settings
from hubscope.store import Connection, Pool, connect, open_pool
from tests.conftest import ROLES
from tests.keys import PEPPER, make_key

pytestmark = [pytest.mark.store, pytest.mark.integration]


class Times:
    """Clocks that the test moves on: seconds since 1970, and monotonic ones."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def wall(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


class Counting:
    """A pool that counts how often it is asked for a connection."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.taken = 0

    def acquire(self, **options: object) -> object:
        self.taken += 1
        return self._pool.acquire(**options)


@pytest.fixture
def times() -> Times:
    return Times()


Start = Callable[..., Keyring]


@pytest.fixture
async def pool(settings: Settings, database: str) -> AsyncIterator[Counting]:
    opened = await open_pool(database, role=ROLES.writer, size=1, name="keys", settings=settings)
    yield Counting(opened)
    opened.terminate()


@pytest.fixture
async def start(settings: Settings, pool: Counting, times: Times) -> AsyncIterator[Start]:
    """Keyrings with settings as the test needs, under the writer role."""
    made: list[Keyring] = []

    def start_one(**changes: object) -> Keyring:
        changed = settings.model_copy(update={"key_pepper": PEPPER} | changes)
        made.append(Keyring(pool, changed, clock=times.wall, monotonic=times.monotonic))
        return made[-1]

    yield start_one
    for keyring in made:
        await keyring.close()


async def revoke(dsn: str, key_id: str) -> None:
    connection = await connect(dsn, role=ROLES.owner, name="tests")
    await revoke_key(connection, key_id)
    await connection.close()


async def test_the_holder_of_a_key_is_its_tenant_with_its_scopes(start: Start, database: str) -> None:
    _, key = await make_key(database, Scope.INGEST, tenant="acme")
    assert await start().verify(key) == Principal("acme", frozenset({Scope.INGEST}))


async def test_a_key_works_as_soon_as_it_is_made(start: Start, database: str) -> None:
    """Also where the list was read a moment before."""
    keyring = start()
    for number in range(3):
        assert await keyring.live() == number
        _, key = await make_key(database, name=f"key {number}")
        await keyring.verify(key)


async def test_a_known_key_costs_the_database_nothing(start: Start, database: str, pool: Counting) -> None:
    keyring = start()
    _, key = await make_key(database)
    await keyring.verify(key)
    before = pool.taken
    for _ in range(1_000):
        await keyring.verify(key)
    assert pool.taken == before


async def test_a_key_that_was_checked_is_told_without_a_wait_until_it_has_to_be_checked_again(
    start: Start, database: str, times: Times
) -> None:
    keyring = start(key_cache_ms=10_000)
    _, key = await make_key(database, lives=timedelta(seconds=7))
    assert keyring.seen(key) is None
    principal = await keyring.verify(key)
    assert keyring.seen(key) == principal
    assert keyring.seen(key[:-1]) is None
    times.ahead = 5.1  # the list is to be read again soon
    assert keyring.seen(key) is None
    await keyring.verify(key)
    await keyring._newer_than(times.monotonic() - 1)
    assert await keyring.verify(key) == principal
    assert keyring.seen(key) == principal
    times.ahead = 7.1
    assert keyring.seen(key) is None


async def test_a_revoked_key_works_no_longer_than_the_cache_time(start: Start, database: str, times: Times) -> None:
    keyring = start(key_cache_ms=10_000)
    key_id, key = await make_key(database)
    await keyring.verify(key)
    await revoke(database, key_id)
    await keyring.verify(key)  # the list of a moment ago still has it
    times.ahead += 10.1
    with pytest.raises(UnknownKey):
        await keyring.verify(key)


async def test_a_flood_of_unknown_keys_costs_a_few_questions_and_no_memory(
    start: Start, database: str, pool: Counting
) -> None:
    keyring = start()
    _, key = await make_key(database)
    await keyring.verify(key)
    before, began = pool.taken, time.monotonic()
    held = len(vars(keyring))
    outcomes = await asyncio.gather(*(keyring.verify(mint().text) for _ in range(3_000)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {UnknownKey}
    assert pool.taken - before <= (time.monotonic() - began) / PAUSE_S + 2
    assert (len(vars(keyring)), len(keyring._used), len(keyring._private)) == (held, 1, 0)
    await keyring.verify(key)


async def test_what_is_wrong_is_told_as_far_as_it_helps_no_stranger(start: Start, database: str, times: Times) -> None:
    keyring = start()
    expiring_id, expiring = await make_key(database, name="a", lives=timedelta(hours=1))
    revoked_id, revoked = await make_key(database, name="b")
    await revoke(database, revoked_id)
    stranger = mint()
    of_another_secret = mint()
    forged_body = f"hsk_{expiring_id}_{of_another_secret.text[17:49]}"
    from hubscope.access.token import checksum

    messages = set()
    for text in (stranger.text, revoked, forged_body + checksum(forged_body)):
        with pytest.raises(UnknownKey) as refused:
            await keyring.verify(text)
        messages.add(refused.value.detail)
    assert len(messages) == 1
    with pytest.raises(MistypedKey):
        await keyring.verify(stranger.text[:-1] + ("A" if stranger.text[-1] != "A" else "B"))
    with pytest.raises(MalformedKey):
        await keyring.verify("Basic dXNlcjpwYXNz")
    times.ahead += 3601
    with pytest.raises(ExpiredKey, match=expiring_id):
        await keyring.verify(expiring)
    # Whoever does not have the secret is not even told that much.
    with pytest.raises(UnknownKey):
        await keyring.verify(forged_body + checksum(forged_body))


async def test_a_key_that_expires_within_the_cache_time_ends_in_time(start: Start, database: str, times: Times) -> None:
    keyring = start(key_cache_ms=300_000)
    _, key = await make_key(database, lives=timedelta(seconds=60))
    await keyring.verify(key)
    times.ahead += 61
    with pytest.raises(ExpiredKey):
        await keyring.verify(key)


async def test_keys_are_required_from_the_first_one_on_even_when_all_are_revoked(
    start: Start, database: str, times: Times
) -> None:
    keyring = start()
    assert await keyring.required() is False
    key_id, _ = await make_key(database)
    times.ahead += 6
    assert (await keyring.required(), await keyring.live()) == (True, 1)
    await revoke(database, key_id)
    times.ahead += 6
    assert (await keyring.required(), await keyring.live()) == (True, 0)


async def test_a_database_that_is_away_lets_nobody_in_once_the_list_is_old(
    start: Start, database: str, times: Times, admin: Connection
) -> None:
    keyring = start(pool_connection_timeout_ms=300)
    _, key = await make_key(database)
    await keyring.verify(key)
    async with admin.transaction():
        await admin.execute("LOCK TABLE hub.api_keys IN ACCESS EXCLUSIVE MODE")  # it does not answer
        await keyring.verify(key)
        times.ahead += 6
        with pytest.raises(DatabaseAway):
            await keyring.verify(key)
        assert await keyring.verify(key, stale_ok=True)
        with pytest.raises(DatabaseAway):
            await keyring.required()
        with pytest.raises(UnknownKey):
            await keyring.verify(mint().text, stale_ok=True)
    await keyring.verify(key)


async def test_an_old_list_is_read_again_once_for_all_who_wait(
    start: Start, database: str, times: Times, pool: Counting
) -> None:
    keyring = start()
    _, key = await make_key(database)
    await keyring.verify(key)
    times.ahead += 6
    before = pool.taken
    await asyncio.gather(*(keyring.verify(key) for _ in range(200)))
    assert pool.taken == before + 1


async def test_a_process_without_the_right_pepper_says_so(start: Start, database: str) -> None:
    _, key = await make_key(database)
    without = start(key_pepper=None)
    with pytest.raises(NoPepper, match="HUBSCOPE_KEY_PEPPER"):
        await without.verify(key)
    with pytest.raises(NoPepper):
        await without.live()
    other = start(key_pepper="another pepper altogether")
    with pytest.raises(UnknownKey):
        await other.verify(key)
    with pytest.raises(NoPepper, match="another pepper"):
        await other.live()


async def last_used(admin: Connection, key_id: str) -> datetime | None:
    found: datetime | None = await admin.fetchval("SELECT last_used_at FROM hub.api_keys WHERE key_id = $1", key_id)
    return found


async def test_the_last_use_is_written_down_once_per_interval(
    start: Start, database: str, admin: Connection, pool: Counting
) -> None:
    keyring = start(key_use_interval_ms=200)
    key_id, key = await make_key(database)
    await keyring.verify(key)
    before = pool.taken
    for _ in range(100):
        await keyring.verify(key)
    assert await last_used(admin, key_id) is None
    async with asyncio.timeout(10):
        while (used := await last_used(admin, key_id)) is None:  # noqa: ASYNC110 (it is in the database)
            await asyncio.sleep(0.02)
    assert abs(used - datetime.now(UTC)) < timedelta(seconds=10)
    assert pool.taken == before + 1


async def test_the_last_use_is_written_down_when_the_service_stops(
    start: Start, database: str, admin: Connection
) -> None:
    keyring = start()
    key_id, key = await make_key(database)
    await keyring.verify(key)
    await keyring.close()
    assert await last_used(admin, key_id) is not None


async def test_the_last_use_never_goes_backwards(start: Start, database: str, admin: Connection, times: Times) -> None:
    key_id, key = await make_key(database)
    ahead, behind = start(), start()
    times.ahead = 100
    await ahead.verify(key)
    times.ahead = 0
    await behind.verify(key)
    await ahead.close()
    noted = await last_used(admin, key_id)
    await behind.close()
    assert await last_used(admin, key_id) == noted


async def test_a_lent_key_is_known_to_this_process_only(start: Start, database: str, pool: Counting) -> None:
    ours, theirs = start(), start()
    key = ours.lend(LOCAL)
    assert await ours.verify(key) is LOCAL
    assert pool.taken == 0
    with pytest.raises(UnknownKey):
        await theirs.verify(key)


async def test_a_scope_of_a_newer_version_is_none_here(start: Start, database: str, admin: Connection) -> None:
    _, key = await make_key(database, Scope.READ)
    await admin.execute("ALTER TABLE hub.api_keys DROP CONSTRAINT api_keys_scopes_check")
    await admin.execute("UPDATE hub.api_keys SET scopes = '{read,teleport}'")
    assert (await start().verify(key)).scopes == {Scope.READ}


async def test_a_list_that_cannot_be_read_lets_nobody_in(start: Start, database: str, admin: Connection) -> None:
    _, key = await make_key(database)
    await admin.execute("ALTER TABLE hub.api_keys RENAME COLUMN hash TO other")
    with pytest.raises(DatabaseAway, match="UndefinedColumnError"):
        await start().verify(key)
