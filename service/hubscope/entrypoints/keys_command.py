"""`hubscope keys`: make, list, rotate and end API keys. They go to the database directly, as its owner."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hubscope import logs
from hubscope.access import Scope, pepper_of
from hubscope.access.admin import Key, create_key, list_keys, revoke_key, rotate_key, span
from hubscope.access.principal import DEFAULT_TENANT
from hubscope.access.token import PREFIX, Token, parse
from hubscope.app import migrate_store
from hubscope.entrypoints import serve as serving
from hubscope.errors import Unavailable
from hubscope.settings import Settings
from hubscope.store import Connection, connect, db_errors, roles_of

T = TypeVar("T")
NEVER = "never"

keys = typer.Typer(
    help="Make, list, rotate and revoke API keys.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeyId = Annotated[str, typer.Argument(help="The key's id (12 characters), or the key itself.", show_default=False)]


@keys.command(epilog="Example: hubscope keys create --name laptop --scope ingest --scope read --expires 90d")
def create(
    name: Annotated[str, typer.Option("--name", help="What the key is for; a name has one live key, two in rotation.")],
    scope: Annotated[list[Scope], typer.Option("--scope", help="What it may do; give it once per scope.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose events it writes and reads.")] = DEFAULT_TENANT,
    owner: Annotated[str, typer.Option("--owner", help="Who answers for it, such as a mail address.")] = "",
    expires: Annotated[str, typer.Option("--expires", help="How long it lives: 90d, 12h, 2w, or never.")] = "365d",
    as_json: AsJson = False,
) -> None:
    """Make a key and print it: it is shown this once and kept nowhere.

    The key alone goes to stdout, so that it can be kept: KEY=$(hubscope keys create ...).
    """
    expires_at = None if expires == NEVER else datetime.now(UTC) + span(expires)
    settings = _settings()
    with serving.store(settings, _quiet) as dsn:

        async def make() -> tuple[Key, Token]:
            pepper = pepper_of(settings, make=True)
            await migrate_store(settings, dsn)
            return await _as_owner(
                settings,
                dsn,
                lambda connection: create_key(
                    connection,
                    pepper,
                    tenant=tenant,
                    name=name,
                    scopes=scope,
                    owner=owner,
                    expires_at=expires_at,
                ),
            )

        key, token = asyncio.run(make())
    _show_new(key, token, as_json)


@keys.command("list", epilog="Example: hubscope keys list --tenant acme --all --json")
def list_(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Expired and revoked ones, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the live keys (never what proves them)."""
    found = _run(lambda connection: list_keys(connection, tenant=tenant, everything=everything))
    if as_json:
        print(json.dumps([_plain(key) for key in found], indent=2))
        return
    table = Table(box=None, pad_edge=False)
    cells: dict[str, Callable[[Key], str]] = {
        "id": lambda key: key.id,
        "tenant": lambda key: key.tenant,
        "name": lambda key: key.name,
        "owner": lambda key: key.owner,
        "scopes": lambda key: " ".join(key.scopes),
        "state": lambda key: key.state,
        "expires": lambda key: _day(key.expires_at) or NEVER,
        "last used (UTC)": lambda key: _minute(key.last_used_at).removesuffix(" UTC") or NEVER,
    }
    if not everything:
        del cells["state"]
    if not any(key.owner for key in found):
        del cells["owner"]
    for column in cells:
        table.add_column(column, no_wrap=column in ("id", "expires", "last used (UTC)"))
    for key in found:
        table.add_row(*(escape(cell(key)) for cell in cells.values()))
    out.print(table, highlight=False) if found else err.print("no keys", highlight=False)


@keys.command(epilog="Example: hubscope keys revoke 7RkPz2mQxW4a")
def revoke(key_id: KeyId, as_json: AsJson = False) -> None:
    """End a key, for good. Running services stop taking it within HUBSCOPE_KEY_CACHE_TIME."""
    settings = _settings()
    key = _run(lambda connection: revoke_key(connection, _id(key_id)), settings)
    if as_json:
        print(json.dumps(_plain(key), indent=2))
    else:
        err.print(
            f"revoked {key.id} ({key.tenant}, {key.name}); a running service takes it for"
            f" {settings.key_cache_ms / 1000:g} s at most",
            highlight=False,
            markup=False,
        )


@keys.command(epilog="Example: hubscope keys rotate 7RkPz2mQxW4a --overlap 24h")
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str, typer.Option("--overlap", help="How long the old key goes on working, such as 24h; 0s ends it now.")
    ] = "24h",
    as_json: AsJson = False,
) -> None:
    """Make a key's successor (same tenant, name, scopes and lifetime), print it, and let the old one end."""
    settings, length = _settings(), span(overlap)
    new, token, old = _run(
        lambda connection: rotate_key(connection, pepper_of(settings), _id(key_id), overlap=length), settings
    )
    _show_new(new, token, as_json, old)


def _settings() -> Settings:
    settings = Settings.load()
    logs.configure(settings)
    return settings


def _quiet(_: str) -> None:
    pass


def _run(work: Callable[[Connection], Awaitable[T]], settings: Settings | None = None) -> T:
    """Work on a store that is there."""
    chosen = settings or _settings()
    with serving.store(chosen, _quiet, create=False) as dsn:
        return asyncio.run(_as_owner(chosen, dsn, work))


async def _as_owner(settings: Settings, dsn: str, work: Callable[[Connection], Awaitable[T]]) -> T:
    connection = await connect(dsn, role=roles_of(settings, dsn).owner, name="keys")
    try:
        return await work(connection)
    except db_errors.UndefinedTableError:
        raise Unavailable("the store has no table of API keys yet: run `hubscope migrate`") from None
    finally:
        await connection.close()


def _id(text: str) -> str:
    """The id of a key, from the id or from the key itself (as one finds it where it should not be)."""
    return parse(text).id if text.startswith(PREFIX) else text


def _show_new(key: Key, token: Token, as_json: bool, old: Key | None = None) -> None:
    if as_json:
        print(json.dumps({"key": token.text} | _plain(key) | ({"replaces": _plain(old)} if old else {}), indent=2))
        return
    until = f"until {_minute(key.expires_at)}" if key.expires_at else "without end"
    words = f"{key.name}, tenant {key.tenant}, may {', '.join(key.scopes)}, {until}, id {key.id}"
    err.print(words, highlight=False, markup=False, soft_wrap=True)
    if old is not None:
        end = "is revoked" if old.revoked_at else f"works until {_minute(old.expires_at)}"
        err.print(f"its predecessor {old.id} {end}", highlight=False, markup=False)
    err.print("This is the key. It is shown this once; send it as `Authorization: Bearer`:", highlight=False)
    print(token.text)


def _plain(key: Key) -> dict[str, Any]:
    """A key as JSON: times in UTC, no hash."""
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "owner": key.owner,
        "scopes": list(key.scopes),
        "state": key.state,
        "created_at": _iso(key.created_at),
        "expires_at": _iso(key.expires_at),
        "revoked_at": _iso(key.revoked_at),
        "last_used_at": _iso(key.last_used_at),
    }


def _iso(time: datetime | None) -> str | None:
    return time.astimezone(UTC).isoformat(timespec="seconds") if time else None


def _day(time: datetime | None) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d}" if time else ""


def _minute(time: datetime | None) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if time else ""
