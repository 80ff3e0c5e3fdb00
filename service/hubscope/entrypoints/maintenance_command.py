"""`hubscope maintenance`: plan, list and cancel windows in which a server may be away. Audited like those over REST."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, TypeVar
from uuid import UUID

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hubscope import logs
from hubscope.access import Principal, Scope
from hubscope.access.admin import span
from hubscope.access.principal import DEFAULT_TENANT
from hubscope.entrypoints import serve as serving
from hubscope.entrypoints.federation import check_window
from hubscope.errors import InvalidParameter, Unavailable
from hubscope.ingest import Ingest
from hubscope.instruments import Instruments
from hubscope.model import Event
from hubscope.peers import registry
from hubscope.peers.registration import HealthCheck
from hubscope.peers.registry import Window
from hubscope.settings import Settings
from hubscope.store import Connection, connect, db_errors, roles_of

T = TypeVar("T")
Done = tuple[T, Event | None]

maintenance = typer.Typer(
    help="Plan, list and cancel maintenance windows of MCP servers.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Tenant = Annotated[str, typer.Option("--tenant", help="Whose server it is.")]


@maintenance.command(epilog="Example: hubscope maintenance plan postgres-main-v1.0.0 --until 2h --reason upgrade")
def plan(
    server: Annotated[str, typer.Argument(help="The server's id.", show_default=False)],
    until: Annotated[str, typer.Option("--until", help="Its end: 2h after its start, or a time with a zone.")],
    start: Annotated[str, typer.Option("--from", help="Its start: now, in 30m, or a time with a zone.")] = "now",
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who look.")] = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """Plan a window in which a server may be away: nobody probes it, and it is no outage."""
    now = datetime.now(UTC)
    starts_at = now if start == "now" else _time(start, now, "--from")
    starts_at, ends_at, reason = check_window(starts_at, _time(until, starts_at, "--until"), reason)

    async def work(connection: Connection) -> Done[UUID]:
        window_id = await registry.insert_window(
            connection,
            tenant,
            server,
            starts_at=starts_at,
            ends_at=ends_at,
            reason=reason,
            source="cli",
            defaults=HealthCheck(),
        )
        return window_id, registry.window_planned(server, window_id, starts_at, ends_at, reason, "cli")

    window_id = _run(tenant, work)
    if as_json:
        _print({"id": window_id, "server_id": server, "from": starts_at, "until": ends_at, "reason": reason})
    else:
        err.print(f"{server}: maintenance from {_minute(starts_at)} until {_minute(ends_at)}", highlight=False)
        print(window_id)


@maintenance.command("list", epilog="Example: hubscope maintenance list --server postgres-main-v1.0.0 --all")
def list_(
    server: Annotated[str | None, typer.Option("--server", help="Only this server's.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Those that are over or cancelled, too.")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    as_json: AsJson = False,
) -> None:
    """List windows that are open or to come."""

    async def work(connection: Connection) -> Done[list[Window]]:
        return await registry.select_windows(connection, tenant, server, every=everything), None

    windows = _run(tenant, work)
    if as_json:
        _print([window.shown() for window in windows])
        return
    table = Table(box=None, pad_edge=False)
    for column in ("server", "from (UTC)", "until (UTC)", "reason", "by", "id"):
        table.add_column(column, no_wrap=column != "reason")
    for window in windows:
        ends = "cancelled" if window.cancelled_at else _minute(window.ends_at)
        cells = (window.server_id, _minute(window.starts_at), ends, window.reason, window.source, str(window.id))
        table.add_row(*(escape(cell) for cell in cells))
    out.print(table, highlight=False) if windows else err.print("no windows", highlight=False)


@maintenance.command(epilog="Example: hubscope maintenance cancel postgres-main-v1.0.0 0192f3a0-...")
def cancel(
    server: Annotated[str, typer.Argument(help="The server's id.", show_default=False)],
    window: Annotated[UUID, typer.Argument(help="The window's id.", show_default=False)],
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """End a window that is open, or call off one to come."""

    async def work(connection: Connection) -> Done[None]:
        await registry.cancel_window(connection, tenant, server, window)
        return None, registry.window_cancelled(server, window, "cli")

    _run(tenant, work)
    err.print(f"{server}: maintenance cancelled", highlight=False)


def _run(tenant: str, work: Callable[[Connection], Awaitable[Done[T]]]) -> T:
    """Work on a store that is there, and the event that tells of it into the same store."""
    settings = Settings.load()
    logs.configure(settings)

    async def run(dsn: str) -> T:
        role = roles_of(settings, dsn).writer

        async def open_writer() -> Connection:
            return await connect(
                dsn, role=role, name="maintenance", timeout_s=settings.pool_connection_timeout_ms / 1000
            )

        connection = await open_writer()
        try:
            result, event = await work(connection)
        except db_errors.UndefinedTableError:
            raise Unavailable("the store has no table of servers yet: run `hubscope migrate`") from None
        finally:
            await connection.close()
        if event is not None:
            ingest = Ingest(open_writer, settings.model_copy(update={"writers": 1}), Instruments())
            await ingest.start()
            try:
                await ingest.record(Principal(tenant, frozenset({Scope.INGEST})), [event])
            finally:
                await ingest.close()
        return result

    with serving.store(settings, lambda _: None, create=False) as dsn:
        return asyncio.run(run(dsn))


def _time(text: str, base: datetime, option: str) -> datetime:
    """A time with a zone, or a length of time after another one."""
    with contextlib.suppress(InvalidParameter):
        return base + span(text)
    with contextlib.suppress(ValueError):
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at
    raise InvalidParameter(f"{option}: a length of time such as 2h, or a time with a zone such as 2026-11-22T02:00:00Z")


def _print(value: object) -> None:
    print(json.dumps(msgspec.to_builtins(value), indent=2))


def _minute(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}"
