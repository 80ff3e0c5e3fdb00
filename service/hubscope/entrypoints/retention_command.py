"""`hubscope retention`: what is past its days, by relation, with its bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from hubscope.settings import Settings
from hubscope.store import detect, roles_of
from hubscope.store.maintenance import maintaining
from hubscope.store.retention import Part, horizons, plan, retain

KEPT_BY = {
    "raw": "HUBSCOPE_RETENTION_RAW_DAYS",
    "hourly": "HUBSCOPE_RETENTION_HOURLY_DAYS",
    "hourly_latency": "HUBSCOPE_RETENTION_HOURLY_LATENCY_DAYS",
    "daily": "HUBSCOPE_RETENTION_DAILY_DAYS",
    "audit": "HUBSCOPE_RETENTION_AUDIT_DAYS",
}


async def run(settings: Settings, dsn: str, *, dry_run: bool) -> list[Part]:
    """What would go, or what went.

    Raises:
        JobFailed: something must be settled first and could not be.
    """
    async with maintaining(dsn, roles_of(settings, dsn), "retention") as connection:
        engine = (await detect(connection)).engine
        wanted = horizons(settings, datetime.now(UTC))
        return await (plan if dry_run else retain)(connection, engine, wanted)


def show(parts: Sequence[Part], out: Console, *, dry_run: bool, as_json: bool) -> None:
    """On stdout: one line per table, or every part as JSON."""
    total = sum(part.bytes for part in parts)
    if as_json:
        listed = [
            {
                "relation": part.relation,
                "table": part.table,
                "name": part.name,
                "before": part.before.isoformat(),
                "rows": part.rows,
                "bytes": part.bytes,
            }
            for part in parts
        ]
        print(json.dumps({"dry_run": dry_run, "bytes": total, "parts": listed}, indent=2))
        return
    if not parts:
        out.print("Nothing is past its days.")
        return
    table = Table(title="Would go" if dry_run else "Gone", title_justify="left")
    table.add_column("what")
    table.add_column("before (UTC)")
    for name in ("parts", "rows, about", "bytes"):
        table.add_column(name, justify="right")
    groups: dict[tuple[str, str], list[Part]] = {}
    for part in parts:
        groups.setdefault((part.relation, part.table), []).append(part)
    shown = None
    for (relation, name), some in groups.items():
        if relation != shown:
            table.add_section()
            table.add_row(f"[bold]{KEPT_BY[relation]}[/bold]")
            shown = relation
        rows, size = sum(part.rows for part in some), sum(part.bytes for part in some)
        table.add_row(f"  {name}", f"{some[0].before:%Y-%m-%d}", str(len(some)), f"{rows:,}", in_units(size))
    out.print(table)
    out.print(f"{in_units(total)} in all", highlight=False)


def in_units(size: int) -> str:
    """Bytes for people, in powers of 1024."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
