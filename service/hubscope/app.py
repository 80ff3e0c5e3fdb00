"""The place where the rooms of the service meet: open the store, wire, close."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

import hubscope
from hubscope.access import Principal
from hubscope.errors import DatabaseAway, Unavailable
from hubscope.gauges import exposition
from hubscope.ingest import Ingest
from hubscope.insight import AnalyticsReport, IntegrationStatus, analytics, integration_status
from hubscope.instruments import Instruments
from hubscope.marts import install_live_marts
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
from hubscope.store.migrate import newest_version
from hubscope.store.policies import sync_policies

log = structlog.get_logger("hubscope.app")

PARTITION_INTERVAL_S = 3600
PARTITION_DAYS_AHEAD = 7


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
        if outcome.applied:
            found = await detect(connection)
            tell(f"engine {found.engine}: {found.reason}")
        if (await detect(connection)).engine == "timescale":
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
    """Day partitions for the whole accepted window and a week ahead."""
    today = datetime.now(UTC).date()
    await connection.execute(
        "SELECT ops.ensure_partitions($1::date, $2::date)",
        today - timedelta(days=settings.max_event_age_days + 1),
        today + timedelta(days=PARTITION_DAYS_AHEAD),
    )


@dataclass(slots=True)
class App:
    """The service's rooms, wired. Entrypoints call its methods and know nothing else.

    Attributes:
        dsn: URL of the store.
        roles: the store's roles.
        readers: pool of the reader role.
        ingest: the way in.
        engine: who keeps the rollups; None until the database was reached.
        engine_reason: one sentence on why.
    """

    settings: Settings
    dsn: str
    roles: Roles
    readers: Pool
    ingest: Ingest
    instruments: Instruments
    started: float = field(default_factory=time.monotonic)
    engine: Engine | None = None
    engine_reason: str | None = None

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

    async def check_ready(self) -> None:
        """Ready means: the database answers, and its schema is this version's.

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
        except TimeoutError:
            raise DatabaseAway("the database does not answer") from None
        newest = newest_version(engine=engine)
        if version != newest:
            raise Unavailable(
                f"the schema is at migration {version}, this version needs {newest}: run `hubscope migrate`"
            )

    @property
    def uptime_s(self) -> float:
        return time.monotonic() - self.started


@asynccontextmanager
async def opened(settings: Settings, dsn: str) -> AsyncIterator[App]:
    """The service for as long as the block runs. The database may be away at start and come later."""
    roles = roles_of(settings, dsn)
    instruments = Instruments()
    readers = await open_pool(
        dsn,
        role=roles.reader,
        size=settings.pool_max - settings.writers - 1,  # one for the hourly partition check
        name="reader",
        settings=settings,
        statement_timeout_ms=settings.query_timeout_ms,
        read_only=True,
    )

    async def open_writer() -> Connection:
        return await connect(
            dsn, role=roles.writer, name="writer", timeout_s=settings.pool_connection_timeout_ms / 1000
        )

    ingest = Ingest(open_writer, settings, instruments)
    await ingest.start()
    partitions = asyncio.create_task(_keep_partitions(settings, open_writer), name="partitions")
    try:
        yield App(settings, dsn, roles, readers, ingest, instruments)
    finally:
        partitions.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await partitions
        await ingest.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await readers.close()


async def _keep_partitions(settings: Settings, open_writer: Callable[[], object]) -> None:
    """Make tomorrow's partitions before tomorrow, in the service too: it must not depend on a worker being alive."""
    while True:
        try:
            connection: Connection = await open_writer()  # type: ignore[misc]
            try:
                await ensure_partitions(connection, settings)
            finally:
                await connection.close()
            pause = float(PARTITION_INTERVAL_S)
        except AWAY_OR_TOLD as error:
            log.warning("partitions could not be checked", error=away(error).detail)
            pause = 10.0
        except Exception:  # such as a schema that is not migrated yet: readiness says so; try again later
            log.warning("partitions could not be checked", exc_info=True)
            pause = 10.0
        await asyncio.sleep(pause)
