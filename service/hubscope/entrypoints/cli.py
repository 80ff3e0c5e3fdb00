"""The command line. Answers go to stdout, everything else to stderr; an error is one clear line and a non-zero exit."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.panel import Panel
from rich.table import Table

import hubscope
from hubscope import logs
from hubscope.access import LOCAL
from hubscope.app import migrate_store
from hubscope.app import opened as opened_app
from hubscope.entrypoints import serve as serving
from hubscope.errors import HubscopeError, InvalidRequest
from hubscope.insight import AnalyticsReport, as_json, as_markdown
from hubscope.settings import Settings

cli = typer.Typer(
    name="hubscope",
    help="Observability-centric analytics for MCP hubs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()
err = Console(stderr=True)


def tell(line: str) -> None:
    """One step, for people."""
    err.print(f"[dim]·[/dim] {line}", highlight=False, soft_wrap=True)


def _settings() -> Settings:
    settings = Settings.load()
    logs.configure(settings)
    return settings


@cli.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        out.print(hubscope.__version__, highlight=False)
        raise typer.Exit


@cli.command(epilog="Example: HEALTH_PORT=3500 hubscope up")
def up() -> None:
    """Run the service and its worker, on the embedded database unless a store is named."""
    settings = _settings()
    asyncio.run(serving.up(settings, tell, where_to_look))


@cli.command(epilog="Example: HUBSCOPE_DATABASE_URL=postgresql://hubscope@db/hubscope hubscope serve")
def serve() -> None:
    """Run the service alone (beside `hubscope worker`)."""
    asyncio.run(serving.serve(_settings(), tell))


@cli.command(epilog="Example: HUBSCOPE_DATABASE_URL=postgresql://hubscope@db/hubscope hubscope worker")
def worker(
    stop_with_parent: Annotated[
        bool, typer.Option("--stop-with-parent", help="End when standard input closes.", hidden=True)
    ] = False,
) -> None:
    """Run the worker: fold rollups, build marts, check data quality."""
    # Not at the top: nothing of the worker may be imported into the server.
    from hubscope import worker as working

    settings = _settings()

    async def work() -> None:
        stop = asyncio.Event()
        serving.stop_on_signals(stop)
        watch = asyncio.create_task(working.stop_with_parent(stop)) if stop_with_parent else None
        with serving.store(settings, tell) as dsn:
            await working.run(settings, dsn, stop)
        if watch is not None:
            watch.cancel()

    asyncio.run(work())


@cli.command(epilog="Example: hubscope demo --once --json | jq .answer.overview")
def demo(
    once: Annotated[bool, typer.Option("--once", help="Make the calls, print the answer and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Real MCP servers, real calls, the answer: the main job in front of your eyes."""
    from hubscope.entrypoints import demo_command

    code = asyncio.run(demo_command.run(_settings(), once=once, as_json=as_json, out=out, err=err, ready=where_to_look))
    raise typer.Exit(code)


@cli.command(epilog="Example: hubscope migrate")
def migrate() -> None:
    """Bring the store's schema up to date."""
    settings = _settings()
    with serving.store(settings, tell) as dsn:
        asyncio.run(migrate_store(settings, dsn, tell))
    tell("the schema is up to date")


@cli.command(epilog="Example: hubscope report --range '7 days' --group-by day")
def report(
    time_range: Annotated[str, typer.Option("--range", help="How far back, such as '24 hours'.")] = "24 hours",
    group_by: Annotated[str, typer.Option("--group-by", help="minute, hour or day (UTC).")] = "hour",
    as_json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what hub__analytics_advanced answers."""
    settings = _settings()

    async def ask(dsn: str) -> AnalyticsReport:
        async with opened_app(settings, dsn) as app:
            await app.check_ready()
            return await app.report(
                LOCAL,
                time_range=time_range,
                group_by=group_by,
                include_real_time=True,
                include_metadata=False,
                top=10,
            )

    with serving.store(settings, lambda _: None, create=False) as dsn:
        show_report(asyncio.run(ask(dsn)), as_json_)


@cli.command(epilog='Example: {"mcpServers": {"hubscope": {"command": "hubscope", "args": ["mcp"]}}}')
def mcp() -> None:
    """Serve the meta-tools over stdio, to an MCP client that starts us."""
    from hubscope.entrypoints import mcp as meta_tools

    settings = _settings()

    async def talk(dsn: str) -> None:
        await migrate_store(settings, dsn)
        async with opened_app(settings, dsn) as app:
            await meta_tools.build(app, LOCAL).run_stdio_async()

    with serving.store(settings, lambda _: None) as dsn:
        asyncio.run(talk(dsn))


@cli.command(epilog="Example: hubscope run dbt")
def run(
    job: Annotated[
        Literal["fold", "dbt", "quality", "prune"],
        typer.Argument(help="fold, dbt, quality or prune.", show_default=False),
    ],
) -> None:
    """Run one job of the worker's timetable now."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from hubscope.schedule import run_once
    from hubscope.worker import Worker

    settings = _settings()
    name = {"fold": "fold", "dbt": "build_marts", "quality": "check_quality", "prune": "prune_ops"}[job]

    async def work(dsn: str) -> bool:
        with TemporaryDirectory(prefix="hubscope-dbt-") as scratch:
            worker = Worker(settings, dsn, Path(scratch))
            try:
                jobs = {one.name: one for one in worker.timetable(await worker.engine())}
                chosen = jobs.get(name)
                if chosen is None:
                    raise InvalidRequest(f"{job} is no job of this store's engine; its jobs: {', '.join(jobs)}")
                return await run_once(chosen, worker.connect, forced=True)
            finally:
                await worker.close()

    with serving.store(settings, tell, create=False) as dsn:
        tell(f"running {name}")
        ok = asyncio.run(work(dsn))
    if not ok:
        raise typer.Exit(1)
    tell("done")


sql_mcp = typer.Typer(help="Serve a PostgreSQL database read-only, as an MCP server.", rich_markup_mode="rich")
cli.add_typer(
    sql_mcp,
    name="sql-mcp",
    invoke_without_command=True,
    epilog="Example: hubscope sql-mcp --database-url postgresql://mcp_readonly@db/shop --transport http",
)


@sql_mcp.callback()
def serve_sql(
    context: typer.Context,
    database_url: Annotated[
        str | None, typer.Option("--database-url", help="The database; else DATABASE_URL or DATABASE_URL_FILE.")
    ] = None,
    transport: Annotated[
        Literal["stdio", "http"], typer.Option("--transport", help="stdio, or http on HEALTH_PORT (3401).")
    ] = "stdio",
) -> None:
    """Serve a PostgreSQL database read-only, as an MCP server."""
    from hubscope.entrypoints import sql_mcp as server
    from hubscope.settings import SqlSettings
    from hubscope.sqlgate import Gate, served, url_of

    if context.invoked_subcommand is not None:
        return
    settings, sql_settings = _settings(), SqlSettings.load()
    gate = Gate(served(sql_settings, server.database_url(database_url, url_of(sql_settings))))
    if transport == "stdio":
        asyncio.run(server.run_stdio(gate))
        return

    async def listen() -> None:
        stop = asyncio.Event()
        serving.stop_on_signals(stop)
        with serving.listen(settings) as listener:
            port = listener.getsockname()[1]
            await server.run_http(
                gate,
                listener,
                stop,
                lambda: tell(f"listening on http://{settings.host}:{port}/mcp"),
                health=sql_settings.health_check_enabled,
            )

    asyncio.run(listen())


@sql_mcp.command(epilog="Example: hubscope sql-mcp grants --database shop --schema public --role mcp_readonly | psql")
def grants(
    role: Annotated[str, typer.Option(help="Name of the role.")] = "mcp_readonly",
    database: Annotated[str, typer.Option(help="Name of the database.")] = "myapp",
    schema: Annotated[list[str], typer.Option(help="A schema it may read; may be given again.")] = ["public"],  # noqa: B006
    blocked: Annotated[
        list[str], typer.Option(help="A table it may not read, with or without its schema; may be given again.")
    ] = [],  # noqa: B006
) -> None:
    """Print the SQL of a role that can read and nothing else."""
    from hubscope.sqlgate.roles import grants as script

    print(script(role, database, schema, blocked), end="")


@cli.command(epilog='Example: psql "$(hubscope dsn)"')
def dsn() -> None:
    """Print the URL of the store."""
    settings = _settings()
    if settings.embedded:
        from hubscope.embedded import EmbeddedDatabase

        print(EmbeddedDatabase(settings.data_dir, user=settings.embedded_user).dsn)
    else:
        print(settings.external_dsn())


def show_report(report: AnalyticsReport, as_json_: bool) -> None:
    """A report on stdout: JSON, markdown for a file, or a rendered page for a terminal."""
    if as_json_:
        print(json.dumps(as_json(report), indent=2, ensure_ascii=False))
    elif out.is_terminal:
        out.print(Markdown(as_markdown(report)))
    else:
        print(as_markdown(report), end="")


def where_to_look(service: serving.Service) -> None:
    """Addresses and a ready-made client configuration, on stderr."""
    addresses = Table.grid(padding=(0, 2))
    for what, where in (
        ("health", f"{service.url}/health"),
        ("metrics", f"{service.url}/metrics"),
        ("events", f"POST {service.url}/v1/events"),
        ("MCP", f"{service.url}/mcp"),
        ("API", f"{service.url}/docs"),
    ):
        addresses.add_row(f"[bold]{what}[/bold]", where)
    err.print(Panel(addresses, title="hubscope is up", title_align="left", expand=False))
    err.print("For an MCP client:", highlight=False)
    err.print_json(data=client_configuration(service.url))
    err.print("[dim]Ctrl-C stops it.[/dim]")


def client_configuration(url: str) -> dict[str, Any]:
    """The `mcpServers` entry that MCP clients take."""
    return {"mcpServers": {"hubscope": {"type": "http", "url": f"{url}/mcp"}}}


def main() -> None:
    """Run a command; a known error is one line."""
    try:
        cli()
    except HubscopeError as error:
        err.print(f"hubscope: {error.detail}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
