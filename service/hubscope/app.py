"""The place where the rooms of the service meet: open the store, wire, close."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog

import hubscope
from hubscope.access import Keyring, Principal, vault_of
from hubscope.chains import Chains
from hubscope.errors import DatabaseAway, NoPepper, Unavailable, UnsafeDatabase
from hubscope.gauges import exposition
from hubscope.ingest import Ingest
from hubscope.insight import AnalyticsReport, IntegrationStatus, analytics, integration_status
from hubscope.instruments import Instruments
from hubscope.journal import Journal, Streams
from hubscope.marts import install_live_marts
from hubscope.peers import Federation, Peers
from hubscope.settings import Settings
from hubscope.store import (
    AWAY_OR_TOLD,
    Connection,
    Engine,
    Pool,
    Roles,
    away,
    borrowed,
    connect,
    detect,
    migrate,
    open_pool,
    roles_of,
)
from hubscope.store.maintenance import make_audit_partitions
from hubscope.store.migrate import newest_version
from hubscope.store.policies import sync_policies

log = structlog.get_logger("hubscope.app")

DURABILITY = """
SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit
"""

PARTITION_INTERVAL_S = 3600
PARTITION_DAYS_AHEAD = 7
LEAST_DRAIN_S = 0.2
POOL_CLOSE_S = 1.0
PEERS_CONNECTIONS = 2
PEERS_SHARE_OF_DRAIN = 0.6


async def migrate_store(settings: Settings, dsn: str, tell: Callable[[str], None] = lambda _: None) -> None:
    """Bring schema and live marts up to date, and make the partitions that the accepted window needs.

    Raises:
        MigrationFailed, DatabaseAway.
    """
    roles = roles_of(settings, dsn)
    connection = await connect(dsn, name="migrate")
    try:
        outcome = await migrate(
            connection,
            roles,
            enable_timeseries=settings.enable_timeseries,
            grafana_password=settings.grafana_password,
            tell=tell,
        )
        found = await detect(connection)
        if outcome.applied:
            tell(f"engine {found.engine}: {found.reason}")
        if found.engine == "timescale":
            policies = await sync_policies(connection, roles, settings)
            if policies:
                tell(f"columnstore and retention: {', '.join(policies)}")
        await ensure_partitions(connection, settings)
        made = await install_live_marts(connection, roles)
        if made:
            tell(f"live marts: {', '.join(made)}")
    finally:
        await connection.close()


async def ensure_partitions(connection: Connection, settings: Settings) -> None:
    """Day partitions for the whole accepted window and a week ahead; months of the audit log for a month ahead."""
    today = datetime.now(UTC).date()
    await connection.execute(
        "SELECT ops.ensure_partitions($1::date, $2::date)",
        today - timedelta(days=settings.max_event_age_days + 1),
        today + timedelta(days=PARTITION_DAYS_AHEAD),
    )
    await make_audit_partitions(connection)


@dataclass(slots=True)
class App:
    """The service's rooms, wired. Entrypoints call its methods and know nothing else.

    Attributes:
        dsn: URL of the store.
        roles: the store's roles.
        readers: pool of the reader role.
        ingest: the way in.
        keyring: who holds an API key.
        journal: the audit log.
        peers: the MCP servers of the hub.
        chains: runs chains of their tools.
        streams: live updates.
        stop_by: while the service is being stopped, when it must have ended, on the clock of the event loop.
        engine: who keeps the rollups; None until the database was reached.
        engine_reason: one sentence on why.
    """

    settings: Settings
    dsn: str
    roles: Roles
    readers: Pool
    ingest: Ingest
    keyring: Keyring
    journal: Journal
    peers: Federation
    instruments: Instruments
    chains: Chains
    streams: Streams
    started: float = field(default_factory=time.monotonic)
    engine: Engine | None = None
    engine_reason: str | None = None
    stop_by: float | None = None
    unsafe: str | None = None

    async def report(
        self,
        principal: Principal,
        *,
        time_range: str,
        group_by: str,
        include_real_time: bool,
        include_metadata: bool,
        top: int,
    ) -> AnalyticsReport:
        """The answer of hub__analytics_advanced; see `insight.analytics`."""
        async with borrowed(self.readers, self.settings) as connection:
            return await analytics(
                connection,
                principal,
                self.settings,
                time_range=time_range,
                group_by=group_by,
                include_real_time=include_real_time,
                include_metadata=include_metadata,
                top=top,
                now=datetime.now(UTC),
            )

    async def status(self, principal: Principal) -> IntegrationStatus:
        """The answer of hub__integration_status; see `insight.integration_status`."""
        async with borrowed(self.readers, self.settings) as connection:
            return await integration_status(
                connection,
                principal,
                self.settings,
                await detect(connection),
                uptime_s=self.uptime_s,
                now=datetime.now(UTC),
            )

    async def metrics(self) -> bytes:
        """The text of /metrics."""
        await self.reachable()
        return await exposition(self.readers, self.settings, self.instruments)

    async def reachable(self) -> bool:
        """Whether the database answers now; remembered in hubscope_database_connected."""
        try:
            async with asyncio.timeout(self.settings.pool_connection_timeout_ms / 1000):
                async with borrowed(self.readers, self.settings) as connection:
                    if self.engine is None:
                        await self._look(connection)
                    else:
                        await connection.fetchval("SELECT 1")
        except (DatabaseAway, TimeoutError):
            self.instruments.database_connected.set(0)
            return False
        self.instruments.database_connected.set(1)
        return True

    async def _look(self, connection: Connection) -> None:
        """Find out what the database can do, once it is there; before the first migration there is nothing to see."""
        if await connection.fetchval("SELECT to_regclass('ops.store') IS NOT NULL"):
            found = await detect(connection)
            self.engine, self.engine_reason = found.engine, found.reason
            self.instruments.build.labels(hubscope.__version__, found.engine).set(1)
            log.info("store reached", **asdict(found))

    async def access(self) -> str:
        """One sentence on who may come in."""
        trust, where = self.settings.loopback_trust, "on this machine"
        try:
            live = await self.keyring.live()
            required = await self.keyring.required()
        except NoPepper as error:
            return error.detail
        except DatabaseAway:
            return "nobody, until the database says whether there are API keys"
        if trust == "always":
            return f"everyone {where} without an API key (HUBSCOPE_LOOPBACK_TRUST=always), others with one of {live}"
        if trust == "auto" and not required:
            return f"everyone {where}, nobody else: there are no API keys yet (`hubscope keys create` makes the first)"
        if live == 0:
            return "nobody: there is no live API key (`hubscope keys create` makes one)"
        return f"holders of an API key ({live} live)"

    async def check_ready(self) -> None:
        """Ready means: the database answers and is safe, and its schema is this version's.

        Raises:
            Unavailable: with what is missing and how to mend it.
        """
        try:
            async with (
                asyncio.timeout(self.settings.pool_connection_timeout_ms / 1000),
                borrowed(self.readers, self.settings) as connection,
            ):
                exists = await connection.fetchval("SELECT to_regclass('ops.migrations') IS NOT NULL")
                version = await connection.fetchval("SELECT max(version) FROM ops.migrations") if exists else 0
                engine: Engine = await connection.fetchval("SELECT engine FROM ops.store") if exists else "postgres"
                self._refuse_unsafe(await connection.fetchrow(DURABILITY))
        except TimeoutError:
            raise DatabaseAway("the database does not answer") from None
        newest = newest_version(engine=engine)
        if version != newest:
            raise Unavailable(
                f"the schema is at migration {version}, this version needs {newest}: run `hubscope migrate`"
            )

    def _refuse_unsafe(self, row: Any) -> None:
        """2xx means committed, and committed must mean kept.

        Raises:
            UnsafeDatabase: naming the parameters that are off.
        """
        off = [f"{name} = {value}" for name, value in row.items() if value == "off"]
        self.instruments.database_unsafe.set(bool(off))
        reason = f"the database may lose what was acknowledged: {', '.join(off)}" if off else None
        if reason is not None and self.unsafe != reason:
            log.warning("unsafe database", reason=reason, allowed=self.settings.allow_unsafe_database)
        self.unsafe = reason
        if reason is not None and not self.settings.allow_unsafe_database:
            raise UnsafeDatabase(f"{reason}; mend that, or set HUBSCOPE_ALLOW_UNSAFE_DATABASE=true")

    @property
    def uptime_s(self) -> float:
        return time.monotonic() - self.started


@asynccontextmanager
async def opened(
    settings: Settings,
    dsn: str,
    *,
    called: Peers | None = None,
) -> AsyncIterator[App]:
    """The service for as long as the block runs. The database may be away at start and come later.

    Args:
        called: whose tools chains call, instead of those of the hub's servers.
    """
    roles = roles_of(settings, dsn)
    instruments = Instruments()
    readers = await open_pool(
        dsn,
        role=roles.reader,
        # One for the hourly partition check, one for the keys, one for the audit log, two for servers and chains, one
        # for live updates.
        size=settings.pool_max - settings.writers - 4 - PEERS_CONNECTIONS,
        name="reader",
        settings=settings,
        statement_timeout_ms=settings.query_timeout_ms,
        read_only=True,
    )

    async def open_writer(name: str = "writer") -> Connection:
        return await connect(
            dsn,
            role=roles.writer,
            name=name,
            timeout_s=settings.pool_connection_timeout_ms / 1000,
            give_up_ms=settings.commit_timeout_ms,
        )

    keys = await open_pool(
        dsn,
        role=roles.writer,
        size=1,
        name="keys",
        settings=settings,
        statement_timeout_ms=settings.pool_connection_timeout_ms,
    )
    keyring = Keyring(keys, settings)
    journal = Journal(partial(open_writer, "audit"), settings, instruments)
    journal.start()
    ingest = Ingest(open_writer, settings, instruments)
    peers_pool = await open_pool(
        dsn,
        role=roles.writer,
        size=PEERS_CONNECTIONS,
        name="peers",
        settings=settings,
        statement_timeout_ms=settings.pool_connection_timeout_ms,
    )
    peers = Federation(settings, peers_pool, ingest.record, instruments)
    await ingest.start()
    await peers.start()
    partitions = asyncio.create_task(_keep_partitions(settings, open_writer), name="partitions")
    chains = Chains(
        peers_pool,
        peers if called is None else called,
        settings,
        vault=lambda: vault_of(settings, make=True),
        ended=lambda status: instruments.chains.labels(status).inc(),
        stopping=lambda: app.stop_by is not None,
    )
    instruments.chains_running.set_function(lambda: chains.running)
    await chains.start()
    streams = Streams(partial(open_writer, "stream"), readers, settings, instruments)
    streams.start()
    app = App(settings, dsn, roles, readers, ingest, keyring, journal, peers, instruments, chains, streams)
    try:
        yield app
    finally:
        streams.drain()
        await chains.close()
        partitions.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await partitions
        now = asyncio.get_running_loop().time()
        stop_by = app.stop_by if app.stop_by is not None else now + settings.drain_timeout_ms / 1000
        # Before ingest: what it did last is recorded, too.
        await peers.close(max(stop_by - now, LEAST_DRAIN_S) * PEERS_SHARE_OF_DRAIN)
        now = asyncio.get_running_loop().time()
        await ingest.close(max(stop_by - now, LEAST_DRAIN_S))
        await journal.close(max(stop_by - asyncio.get_running_loop().time(), LEAST_DRAIN_S))
        # After what is still written: it is told here, as far as somebody listens, or by the next one who numbers.
        await streams.close()
        await keyring.close()
        for pool in (readers, keys, peers_pool):
            try:
                async with asyncio.timeout(POOL_CLOSE_S):
                    await pool.close()
            except TimeoutError:
                pool.terminate()


async def _keep_partitions(settings: Settings, open_writer: Callable[[], Awaitable[Connection]]) -> None:
    """Make tomorrow's partitions before tomorrow, in the service too: it must not depend on a worker being alive."""
    while True:
        try:
            connection = await open_writer()
            try:
                async with asyncio.timeout(settings.commit_timeout_ms / 1000):
                    await ensure_partitions(connection, settings)
            finally:
                await connection.close(timeout=POOL_CLOSE_S)
            pause = float(PARTITION_INTERVAL_S)
        except AWAY_OR_TOLD as error:
            log.warning("partitions could not be checked", error=away(error).detail)
            pause = 10.0
        except Exception:  # such as a schema that is not migrated yet: readiness says so; try again later
            log.warning("partitions could not be checked", exc_info=True)
            pause = 10.0
        await asyncio.sleep(pause)
