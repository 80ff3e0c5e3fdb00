"""Run the service, the worker, or both over the store that the settings name."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import psutil
import structlog
import uvicorn

from hubscope.app import App, migrate_store, opened
from hubscope.embedded import EmbeddedDatabase, ownership
from hubscope.entrypoints.collector import collect_seldom
from hubscope.entrypoints.http import asgi
from hubscope.entrypoints.protocol import hardened, sweep
from hubscope.entrypoints.worker_process import WorkerProcess, worker_process
from hubscope.errors import DatabaseAway, HubscopeError, NoKeys, PortBusy, Unavailable
from hubscope.peers import Peers
from hubscope.settings import Settings

log = structlog.get_logger("hubscope.serve")

SPARE_FILES = 200
"""Open files beside the connections of clients: the database, libraries, the log."""
HTTP_SHARE_OF_DRAIN = 0.8
DATABASE_CHECK_INTERVAL_S = 1

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Service:
    """A running service.

    Attributes:
        url: where it listens, without a trailing slash.
        dsn: URL of its store.
        worker: the worker that was started with it, if one was.
    """

    url: str
    dsn: str
    app: App
    worker: WorkerProcess | None


@contextmanager
def store(settings: Settings, tell: Tell, *, create: bool = True) -> Iterator[str]:
    """URL of the store for as long as the block runs; the embedded database is started and let go of here.

    Args:
        settings: which store.
        tell: called with one line per step.
        create: make the embedded database if there is none; a command that only reads must not.

    Raises:
        Unavailable: there is none, and it may not be made.
    """
    if not settings.embedded:
        yield settings.external_dsn()
        return
    database = EmbeddedDatabase(settings.data_dir, user=settings.embedded_user)
    if not create and not database.exists:
        raise Unavailable(
            f"there is no database in {settings.data_dir} yet: start `hubscope up` or `hubscope demo` first"
        )
    database.attach(tell)
    if database.adopted:
        tell(f"PostgreSQL runs already in {settings.data_dir}")
    try:
        yield database.dsn
    finally:
        database.detach()


@asynccontextmanager
async def kept(settings: Settings) -> AsyncIterator[None]:
    """While the block runs, start the embedded database again whenever it dies. Needs `store` around it."""

    async def keep(database: EmbeddedDatabase) -> None:
        while True:
            await asyncio.sleep(DATABASE_CHECK_INTERVAL_S)
            try:
                if await asyncio.to_thread(database.revive):
                    log.warning("PostgreSQL had died and was started again", data_dir=str(database.data_dir))
            except (HubscopeError, OSError) as error:
                log.error("PostgreSQL has died and does not start", error=str(error))

    if not settings.embedded:
        yield
        return
    task = asyncio.create_task(keep(EmbeddedDatabase(settings.data_dir, user=settings.embedded_user)), name="database")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextmanager
def owned(settings: Settings, command: str) -> Iterator[Tell]:
    """Be the only `up` or `demo` of the embedded data directory; nothing to own with a database of your own."""
    if settings.embedded:
        with ownership(settings.data_dir, command) as tell_address:
            yield tell_address
    else:
        yield lambda _: None


def listen(settings: Settings) -> socket.socket:
    """A listening socket.

    Raises:
        PortBusy: naming who holds the port, where that can be found out.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        code = error.errno or 0
        holder = _holder(settings.port) if code == errno.EADDRINUSE else ""
        raise PortBusy(
            f"{settings.host}:{settings.port} cannot be listened on ({os.strerror(code)}){holder};"
            f" {'stop that process, or set' if holder else 'set'} HEALTH_PORT to another port"
        ) from None
    # Connections inherit it. asyncio sets it only on sockets that name their protocol, which these do not: without it
    # the body of each answer waits for the client to acknowledge its head, up to 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    _allow_open_files(settings.max_connections + SPARE_FILES)
    return listener


def _allow_open_files(count: int) -> None:
    """Each connection is an open file: raise our own limit as far as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid
            ):
                command = " ".join(psutil.Process(connection.pid).cmdline())
                return f": held by pid {connection.pid} ({command[:120]})"
    except psutil.Error:
        pass
    return ""


class _Server(uvicorn.Server):
    """Signals are handled by whoever owns the process, in one place."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(
    settings: Settings, dsn: str, listener: socket.socket, *, called: Peers | None = None
) -> AsyncIterator[tuple[str, App]]:
    """The HTTP service on a listening socket: its URL and its app. What was taken is committed before it ends.

    Args:
        called: see `app.opened`.

    Raises:
        NoKeys: others could reach it, and there is no API key to tell them apart by.
    """
    async with contextlib.AsyncExitStack() as stack:
        app = await stack.enter_async_context(opened(settings, dsn, called=called))
        await _refuse_strangers(app)
        application = await stack.enter_async_context(asgi(app))
        server = _Server(
            uvicorn.Config(
                application,
                http=hardened(settings, app.instruments, application.at_once),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # whom a proxy asks for is never a reason to trust (admission.py)
            )
        )
        task = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        sweeping = asyncio.create_task(sweep(lambda: server.server_state.connections, settings), name="deadlines")
        try:
            while not server.started:
                if task.done():
                    await task
                    raise Unavailable("the HTTP server ended before it started")
                await asyncio.sleep(0.005)
            yield f"http://{_reachable_host(settings)}:{listener.getsockname()[1]}", app
        finally:
            # The two share the time: HTTP answers what it has begun, then ingest commits what waits.
            drain_s = settings.drain_timeout_ms / 1000
            app.stop_by = asyncio.get_running_loop().time() + drain_s
            server.config.timeout_graceful_shutdown = drain_s * HTTP_SHARE_OF_DRAIN  # type: ignore[assignment]
            app.streams.drain()  # they would go on for ever
            server.should_exit = True
            await task
            sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweeping


async def _refuse_strangers(app: App) -> None:
    """Beyond loopback there must be a key. A database that is away says so later: until then nobody is let in."""
    if app.settings.on_loopback:
        return
    try:
        live = await app.keyring.live()
    except DatabaseAway as error:
        log.warning("listening although API keys cannot be read yet: nobody is let in until then", error=error.detail)
        return
    if live == 0:
        raise NoKeys(
            f"HUBSCOPE_HOST is {app.settings.host}, where others could reach hubscope, and there is no live API key:"
            " make one with `hubscope keys create --name NAME --scope ingest --scope read`, or listen on 127.0.0.1"
        )


def _reachable_host(settings: Settings) -> str:
    """A host name for URLs that this machine can use."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"[{host}]" if ":" in host else host


@asynccontextmanager
async def running(settings: Settings, command: str, tell: Tell, *, worker: bool = True) -> AsyncIterator[Service]:
    """Database, schema, service and worker: what `up` and `demo` are made of.

    Args:
        settings: of this process.
        command: as others are told who holds the data directory.
        tell: called with one line per step.
        worker: start the worker, too.

    Raises:
        DataDirectoryBusy, PortBusy, EmbeddedDatabaseFailed, MigrationFailed, DatabaseAway.
    """
    async with contextlib.AsyncExitStack() as stack:
        listener = listen(settings)
        stack.callback(listener.close)
        tell_address = stack.enter_context(owned(settings, command))
        dsn = stack.enter_context(store(settings, tell))
        await stack.enter_async_context(kept(settings))
        await migrate_store(settings, dsn, tell)
        # Before the service, so that it is stopped after it: the first thing to end is taking posts.
        beside = await stack.enter_async_context(worker_process(settings, dsn)) if worker else None
        url, app = await stack.enter_async_context(serving(settings, dsn, listener))
        tell_address(url)
        tell(f"open to {await app.access()}")
        yield Service(url, dsn, app, beside)


def stop_on_signals(stop: asyncio.Event) -> None:
    """Ctrl-C and SIGTERM set `stop`; a second one ends the process at once."""
    loop = asyncio.get_running_loop()

    def handle() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle)


async def serve(settings: Settings, tell: Tell) -> None:
    """The service alone, until Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    listener = listen(settings)
    with contextlib.closing(listener), store(settings, tell) as dsn:
        async with kept(settings), serving(settings, dsn, listener) as (url, app):
            tell(f"listening on {url}")
            tell(f"open to {await app.access()}")
            collect_seldom()
            await stop.wait()
            tell("stopping")


async def up(settings: Settings, tell: Tell, ready: Callable[[Service], None]) -> None:
    """Everything but demo traffic, until Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    async with running(settings, "up", tell) as service:
        ready(service)
        collect_seldom()
        await stop.wait()
        tell("stopping")
