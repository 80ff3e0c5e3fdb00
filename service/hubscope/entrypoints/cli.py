"""The command line. Answers go to stdout, everything else to stderr; an error is one clear line and a non-zero exit."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
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
from hubscope.entrypoints.keys_command import keys
from hubscope.entrypoints.loop import run_on_loop
from hubscope.entrypoints.maintenance_command import maintenance
from hubscope.errors import HubscopeError, InvalidRequest, InvalidSetting
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
    run_on_loop(serving.up(settings, tell, where_to_look))


@cli.command(epilog="Example: HUBSCOPE_DATABASE_URL=postgresql://hubscope@db/hubscope hubscope serve")
def serve() -> None:
    """Run the service alone (beside `hubscope worker`)."""
    run_on_loop(serving.serve(_settings(), tell))


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
            await meta_tools.build(app, lambda _: LOCAL).run_stdio_async()

    with serving.store(settings, lambda _: None) as dsn:
        asyncio.run(talk(dsn))


@cli.command(epilog="Example: hubscope run dbt")
def run(
    job: Annotated[
        Literal[
            "fold",
            "refresh",
            "settle",
            "columnstore",
            "recount",
            "pack",
            "dbt",
            "quality",
            "retention",
            "prune",
            "prune-chains",
        ],
        typer.Argument(
            help="Which; fold, recount and pack are of PostgreSQL, refresh, settle and columnstore of TimescaleDB."
        ),
    ],
) -> None:
    """Run one job of the worker's timetable now."""
    from tempfile import TemporaryDirectory

    from hubscope.schedule import run_once
    from hubscope.worker import Worker

    settings = _settings()
    name = {
        "dbt": "build_marts",
        "prune": "prune_ops",
        "prune-chains": "prune_chains",
        "quality": "check_quality",
        "refresh": "refresh_rollups",
        "settle": "settle_late",
    }.get(job, job)

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


@cli.command(epilog="Example: hubscope retention --dry-run")
def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    as_json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Take what is past its days (HUBSCOPE_RETENTION_*), or show what that would be, with its bytes."""
    from hubscope.entrypoints import retention_command

    settings = _settings()
    with serving.store(settings, lambda _: None, create=False) as dsn:
        parts = asyncio.run(retention_command.run(settings, dsn, dry_run=dry_run))
    retention_command.show(parts, out, dry_run=dry_run, as_json=as_json_)


@cli.command(epilog="Example: HUBSCOPE_DATABASE_URL=postgresql://hubscope@new/hubscope hubscope move --from $OLD_URL")
def move(
    source: Annotated[
        str, typer.Option("--from", help="URL of the old store, or `embedded`.", metavar="URL", show_default=False)
    ],
) -> None:
    """Copy a whole store into the new, empty one that the settings name; the old one is only read."""
    from hubscope.entrypoints import move_command

    settings = _settings()
    with serving.store(settings, tell) as dsn:
        events = asyncio.run(move_command.run(settings, source, dsn, tell))
    tell(f"{events:,} events are in the new store; start the service on it")


@cli.command("import", epilog="Example: hubscope import calls-2026.ndjson.gz")
def import_(
    file: Annotated[
        Path, typer.Argument(help="Events, one JSON object a line, gzip or not.", exists=True, dir_okay=False)
    ],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose events they are.")] = LOCAL.tenant,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            "--state-dir", help="Where the checkpoint and the .rejected file go.", show_default="beside the file"
        ),
    ] = None,
    as_json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Import history, older than HUBSCOPE_MAX_EVENT_AGE_DAYS, too. Interrupted, the same command goes on.

    What is there already is counted, not stored again. Lines that cannot be taken are listed with their numbers in
    FILE.rejected, and the exit code is 1.
    """
    from hubscope.entrypoints import import_command

    settings = _settings()
    with serving.store(settings, tell) as dsn:
        done = asyncio.run(import_command.run(settings, dsn, file, tenant=tenant, state_dir=state_dir, err=err))
    if as_json_:
        counts = {
            "lines": done.line,
            "accepted": done.accepted,
            "duplicates": done.duplicates,
            "rejected": done.rejected,
        }
        print(json.dumps(counts))
    else:
        out.print(import_command.summary(done), highlight=False, soft_wrap=True)
    if done.rejected:
        tell(f"rejected lines: {(state_dir or file.parent) / (file.name + '.rejected')}")
        raise typer.Exit(1)


@cli.command(
    epilog="Example: hubscope wrap --name filesystem -- npx -y @modelcontextprotocol/server-filesystem ."
    " \u00b7 hubscope wrap --config servers.json"
)
def wrap(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- CMD ARGS...", help="The server, after two dashes.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="What to call the server. Default: from its package or script.")
    ] = None,
    url: Annotated[str | None, typer.Option("--url", help="Where hubscope is. Default: HUBSCOPE_URL.")] = None,
    spool_dir: Annotated[
        str | None, typer.Option("--spool-dir", help="Where events wait. Default: HUBSCOPE_SPOOL_DIR.")
    ] = None,
    api_key_file: Annotated[
        str | None, typer.Option("--api-key-file", help="A file with the key. Default: HUBSCOPE_API_KEY_FILE.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", help="Wrap every stdio server of this mcpServers file instead.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="With --config: as it was before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --config: say what would be done.")] = False,
    no_args_key: Annotated[bool, typer.Option("--no-args-key", hidden=True)] = False,
) -> None:
    """Stand between an MCP client and a stdio server, and record its calls."""
    import os

    from hubscope.wrap import config_command
    from hubscope.wrap.options import read
    from hubscope.wrap.run import run

    given = {"name": name, "url": url, "spool_dir": spool_dir, "api_key_file": api_key_file}
    if config is not None:
        if command or name is not None:
            raise InvalidRequest(
                "--config wraps the servers that its file names: it takes neither a name nor a command"
            )
        config_command.run(config, given, os.environ, undo=undo, dry_run=dry_run, tell=print)
        return
    if not command:
        raise InvalidRequest("name the server to wrap: hubscope wrap --name NAME -- CMD ARGS...")
    if undo or dry_run:
        raise InvalidRequest("--undo and --dry-run go with --config FILE")
    code = run(read(given, command, os.environ))
    sys.stderr.flush()
    os._exit(code)


@cli.command(epilog="Example: hubscope bridge http://127.0.0.1:37373")
def bridge(
    hub_url: Annotated[str, typer.Argument(metavar="URL", help="Where the mcp-hub is.", show_default=False)],
    name: Annotated[
        str, typer.Option("--name", "-n", help="What to call the hub in every event, where there are several.")
    ] = "",
    url: Annotated[str | None, typer.Option("--url", help="Where hubscope is. Default: HUBSCOPE_URL.")] = None,
    api_key_file: Annotated[
        str | None, typer.Option("--api-key-file", help="A file with the key. Default: HUBSCOPE_API_KEY_FILE.")
    ] = None,
) -> None:
    """Attach to a running mcp-hub and report its servers, their lists and its own state."""
    import os

    from hubscope.entrypoints import bridge_command

    given = {"url": url, "api_key_file": api_key_file}
    chosen = bridge_command.options(_settings(), hub_url, name, given, os.environ)
    asyncio.run(bridge_command.run(chosen, tell))


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
        list[str] | None,
        typer.Option(
            "--database-url",
            help="The database; else DATABASE_URL or DATABASE_URL_FILE. Several: NAME=URL, the first is the default.",
            metavar="URL",
        ),
    ] = None,
    transport: Annotated[
        Literal["stdio", "http"], typer.Option("--transport", help="stdio, or http on HEALTH_PORT (3401).")
    ] = "stdio",
) -> None:
    """Serve PostgreSQL databases read-only, as an MCP server."""
    from hubscope.entrypoints import sql_mcp as server
    from hubscope.entrypoints.sql_lines import LinesBehind
    from hubscope.entrypoints.sql_server import SqlServer
    from hubscope.settings import SqlSettings
    from hubscope.sqlgate import Gate, databases

    if context.invoked_subcommand is not None:
        return
    settings, sql_settings = _settings(), SqlSettings.load()
    if transport == "http" and not settings.on_loopback:
        raise InvalidSetting(
            f"HUBSCOPE_HOST is {settings.host!r}, but the SQL server by itself asks nobody for a key: it listens on"
            " loopback only (127.0.0.1, ::1, localhost)"
        )
    served = databases(sql_settings, database_url or ())
    if not served:
        raise InvalidSetting(
            "no database is named: set DATABASE_URL or DATABASE_URL_FILE, or pass --database-url"
            " postgresql://user@host/database"
        )
    lines = LinesBehind(sys.stderr, settings.audit_queue_max_records, refuse=settings.audit_on_failure == "refuse")
    gates = {name: Gate(each) for name, each in served.items()}
    sql_server = SqlServer(gates, lines, audit_chars=sql_settings.audit_chars)
    if transport == "stdio":
        run_on_loop(server.run_stdio(sql_server))
        lines.close()
        return

    async def listen() -> None:
        stop = asyncio.Event()
        serving.stop_on_signals(stop)
        with serving.listen(settings) as listener:
            port = listener.getsockname()[1]
            await server.run_http(
                sql_server,
                listener,
                stop,
                lambda: tell(f"listening on http://{settings.host}:{port}/mcp"),
                health=sql_settings.health_check_enabled,
            )

    run_on_loop(listen())
    lines.close()


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


cli.add_typer(keys, name="keys")
cli.add_typer(maintenance, name="maintenance")


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
        ("traces", f"POST {service.url}/v1/traces (OTLP)"),
        ("MCP", f"{service.url}/mcp"),
        ("SQL", f"{service.url}/sql/mcp (MCP, read-only)"),
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
