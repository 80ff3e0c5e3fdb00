"""Settings: every limit and switch, frozen, from the environment and from `hubscope.toml` below it.

Each field carries what the reference page and the contract tests need: the unit, what "off" means, and the test that
proves it. Names: own settings are HUBSCOPE_<NAME>; those that the product's specifications name keep that name.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote, urlsplit

import platformdirs
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from hubscope.errors import InvalidSetting

CONFIG_FILE: Final = "hubscope.toml"
SQL_TABLE: Final = "sql"
TOOLS_TABLE: Final = "tools"
TABLES: Final = (SQL_TABLE, TOOLS_TABLE)


def _setting(env: str, default: Any, description: str, *, unit: str, test: str, off: str = "-", **limits: Any) -> Any:
    """One setting: environment variable, default, unit, what switching it off means, and the test that proves it."""
    start: dict[str, Any] = {"default_factory": default} if callable(default) else {"default": default}
    return Field(
        **start,
        validation_alias=env,
        description=description,
        json_schema_extra={"env": env, "unit": unit, "off": off, "test": test},
        **limits,
    )


def default_data_dir() -> Path:
    """Where the embedded database lives when nothing else was said.

    For root it is a system path, because PostgreSQL then runs under another account that cannot enter root's home.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/hubscope")
    return Path(platformdirs.user_data_dir("hubscope", appauthor=False))


Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """All settings of one process. Immutable; read once at start. A variable that is empty counts as not set.

    Raises:
        InvalidSetting: from `load`, naming the variable and the allowed values.
    """

    # By variable only: with populate_by_name, DATABASE_URL, HOST and PORT of the environment would be read, too.
    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    # Which database
    database_url: str | None = _setting(
        "HUBSCOPE_DATABASE_URL",
        None,
        "The store, as a PostgreSQL URL. The user must be able to create roles and schemas on first start.",
        unit="URL",
        off="POSTGRES_HOST decides; with neither set, hubscope runs its own embedded PostgreSQL",
        test="tests/unit/test_settings.py::test_which_database_follows_the_documented_order",
        repr=False,
    )
    postgres_host: str | None = _setting(
        "POSTGRES_HOST",
        None,
        "Host of the store, where HUBSCOPE_DATABASE_URL is not set.",
        unit="host name or socket directory",
        off="the embedded PostgreSQL is used",
        test="tests/unit/test_settings.py::test_which_database_follows_the_documented_order",
    )
    postgres_port: Port = _setting(
        "POSTGRES_PORT",
        5432,
        "Port of the store.",
        unit="TCP port",
        test="tests/unit/test_settings.py::test_which_database_follows_the_documented_order",
    )
    postgres_db: str = _setting(
        "POSTGRES_DB",
        "postgres",
        "Database name of the store.",
        unit="name",
        test="tests/unit/test_settings.py::test_which_database_follows_the_documented_order",
    )
    postgres_user: str = _setting(
        "POSTGRES_USER",
        "postgres",
        "User of the store.",
        unit="name",
        test="tests/unit/test_settings.py::test_which_database_follows_the_documented_order",
    )
    postgres_password: str | None = _setting(
        "POSTGRES_PASSWORD",
        None,
        "Password of the store's user. Never logged.",
        unit="text",
        off="no password is sent (.pgpass still works)",
        test="tests/unit/test_settings.py::test_which_database_follows_the_documented_order",
        repr=False,
    )
    data_dir: Path = _setting(
        "HUBSCOPE_DATA_DIR",
        default_data_dir,
        "Where the embedded PostgreSQL keeps its data. Default: the platform's data directory"
        " (`/var/lib/hubscope` for root, else `~/.local/share/hubscope` on Linux).",
        unit="path",
        test="tests/unit/test_settings.py::test_the_data_directory_has_a_default_for_root_and_for_others",
    )
    embedded_user: str | None = _setting(
        "HUBSCOPE_EMBEDDED_USER",
        None,
        "The account that runs the embedded PostgreSQL when hubscope runs as root (PostgreSQL refuses root).",
        unit="account name",
        off="`postgres` where that account exists, else `nobody`",
        test="tests/integration/test_embedded.py::test_an_unknown_embedded_user_is_one_clear_error",
    )
    role_prefix: str | None = _setting(
        "HUBSCOPE_ROLE_PREFIX",
        None,
        "Prefix of the database roles `<prefix>_owner`, `_writer`, `_reader`, `_worker`, `_grafana`"
        " (roles belong to the whole PostgreSQL cluster, so two stores in one cluster need two prefixes).",
        unit="name",
        off="the name of the database",
        test="tests/integration/store/test_roles.py::test_roles_are_named_after_the_prefix",
    )
    grafana_password: str | None = _setting(
        "HUBSCOPE_GRAFANA_PASSWORD",
        None,
        "Lets the role `<prefix>_grafana` log in with this password, from the next migration run on.",
        unit="text",
        off="the grafana role stays as it is: at first it cannot log in",
        test="tests/integration/store/test_roles.py::test_the_grafana_role_logs_in_only_when_given_a_password",
        repr=False,
    )

    enable_timeseries: bool = _setting(
        "HUBSCOPE_ENABLE_TIMESERIES",
        True,
        "A new store uses TimescaleDB Community where the database has it. A store keeps its engine for life.",
        unit="true or false",
        off="a new store uses the postgres engine everywhere",
        test="tests/integration/store/test_capabilities.py::test_timeseries_can_be_switched_off",
    )

    # Connections
    pool_max: int = _setting(
        "HUBSCOPE_POOL_MAX",
        20,
        "Connections of one service process to the store, writers and readers together.",
        unit="connections",
        test="tests/integration/store/test_pool.py::test_the_pools_together_never_exceed_pool_max",
        ge=4,
    )
    pool_idle_timeout_ms: Positive = _setting(
        "HUBSCOPE_POOL_IDLE_TIMEOUT",
        30_000,
        "An idle connection is closed after this time.",
        unit="ms",
        test="tests/integration/store/test_pool.py::test_an_idle_connection_is_closed",
    )
    pool_connection_timeout_ms: Positive = _setting(
        "HUBSCOPE_POOL_CONNECTION_TIMEOUT",
        2_000,
        "How long to wait for a connection before the database counts as away.",
        unit="ms",
        test="tests/integration/store/test_pool.py::test_a_silent_database_counts_as_away_after_the_timeout",
    )
    query_timeout_ms: Positive = _setting(
        "HUBSCOPE_QUERY_TIMEOUT",
        30_000,
        "Longest run of one reading statement.",
        unit="ms",
        test="tests/integration/store/test_pool.py::test_a_reading_statement_is_stopped_at_the_query_timeout",
    )

    # Service
    host: str = _setting(
        "HUBSCOPE_HOST",
        "127.0.0.1",
        "Address to listen on. Only loopback addresses are allowed while there is no authentication.",
        unit="IP address or localhost",
        test="tests/unit/test_settings.py::test_only_loopback_addresses_are_listened_on",
    )
    port: Port = _setting(
        "HEALTH_PORT",
        3401,
        "Port of everything HTTP: health, metrics, ingest, MCP. 0 picks a free one.",
        unit="TCP port",
        test="tests/acceptance/test_up.py::test_two_at_once_are_told_who_holds_the_port",
    )
    log_level: Literal["debug", "info", "warning", "warn", "error"] = _setting(
        "LOG_LEVEL",
        "info",
        "The least severe message that is logged.",
        unit="debug, info, warning, error",
        test="tests/unit/test_logs.py::test_messages_below_the_level_are_not_logged",
    )
    log_format: Literal["auto", "json", "console"] = _setting(
        "HUBSCOPE_LOG_FORMAT",
        "auto",
        "JSON lines or text for people; auto is console on a terminal and JSON elsewhere.",
        unit="auto, json, console",
        test="tests/unit/test_logs.py::test_the_json_format_is_one_object_per_line",
    )
    enable_enhanced_analytics: bool = _setting(
        "ENABLE_ENHANCED_ANALYTICS",
        True,
        "The hub__* meta-tools on /mcp.",
        unit="true or false",
        off="the MCP server lists no meta-tools",
        test="tests/integration/entrypoints/test_mcp.py::test_meta_tools_can_be_switched_off",
    )

    # Ingest
    max_body_bytes: Positive = _setting(
        "HUBSCOPE_MAX_BODY_BYTES",
        8 * 1024 * 1024,
        "Largest body of POST /v1/events as sent.",
        unit="bytes",
        test="tests/integration/entrypoints/test_events.py::test_a_body_over_a_limit_is_refused_whole_with_the_limits",
    )
    max_decoded_bytes: Positive = _setting(
        "HUBSCOPE_MAX_DECODED_BYTES",
        32 * 1024 * 1024,
        "Largest body of POST /v1/events after gzip.",
        unit="bytes",
        test="tests/integration/entrypoints/test_events.py::test_a_body_over_a_limit_is_refused_whole_with_the_limits",
    )
    max_batch_events: Positive = _setting(
        "HUBSCOPE_MAX_BATCH_EVENTS",
        10_000,
        "Most events in one post.",
        unit="events",
        test="tests/integration/entrypoints/test_events.py::test_a_body_over_a_limit_is_refused_whole_with_the_limits",
    )
    max_event_age_days: Positive = _setting(
        "HUBSCOPE_MAX_EVENT_AGE_DAYS",
        7,
        "An event older than this is rejected as too_old.",
        unit="days",
        test="tests/unit/ingest/test_envelope.py::test_an_event_outside_the_accepted_window_is_rejected",
        le=60,
    )
    max_clock_skew_seconds: Positive = _setting(
        "HUBSCOPE_MAX_CLOCK_SKEW_SECONDS",
        300,
        "An event further ahead of the server's clock than this is rejected as in_future.",
        unit="seconds",
        test="tests/unit/ingest/test_envelope.py::test_an_event_outside_the_accepted_window_is_rejected",
        le=86_400,
    )
    queue_max_events: Positive = _setting(
        "HUBSCOPE_QUEUE_MAX_EVENTS",
        50_000,
        "Events waiting to be committed; past it a post is answered 503 with Retry-After.",
        unit="events",
        test="tests/integration/ingest/test_writer.py::test_a_full_queue_is_refused_at_once",
    )
    queue_max_bytes: Positive = _setting(
        "HUBSCOPE_QUEUE_MAX_BYTES",
        64 * 1024 * 1024,
        "Bytes waiting to be committed; past it a post is answered 503 with Retry-After.",
        unit="bytes",
        test="tests/integration/ingest/test_writer.py::test_a_full_queue_is_refused_at_once",
    )
    writers: Positive = _setting(
        "HUBSCOPE_WRITERS",
        2,
        "Group-commit writers, each with a connection of its own.",
        unit="connections",
        test="tests/integration/ingest/test_writer.py::test_every_writer_has_a_connection_of_its_own",
        le=16,
    )
    commit_max_events: Positive = _setting(
        "HUBSCOPE_COMMIT_MAX_EVENTS",
        5_000,
        "Most events that one transaction commits together.",
        unit="events",
        test="tests/integration/ingest/test_writer.py::test_a_commit_takes_no_more_than_its_share",
    )
    commit_timeout_ms: Positive = _setting(
        "HUBSCOPE_COMMIT_TIMEOUT",
        10_000,
        "Longest that one commit may take before its posts are answered 503 (retry with the same ids).",
        unit="ms",
        test="tests/integration/ingest/test_writer.py::test_a_commit_that_hangs_is_answered_as_unknown",
    )

    # Answers
    minute_grouping_max_hours: Positive = _setting(
        "HUBSCOPE_MINUTE_GROUPING_MAX_HOURS",
        24,
        "Longest timeRange that groupBy=minute answers (it reads single calls).",
        unit="hours",
        test="tests/unit/insight/test_window.py::test_minute_grouping_over_a_long_range_is_refused_with_the_limit",
    )

    # Worker
    fold_interval_ms: int = _setting(
        "HUBSCOPE_FOLD_INTERVAL",
        1_000,
        "How often pending rollup deltas are folded into stored hours.",
        unit="ms",
        test="tests/unit/test_worker.py::test_the_timetable_follows_the_settings",
        ge=100,
    )
    marts_interval_minutes: Positive = _setting(
        "HUBSCOPE_MARTS_INTERVAL_MINUTES",
        15,
        "How often dbt builds the marts (also once at start).",
        unit="minutes",
        test="tests/unit/test_worker.py::test_the_timetable_follows_the_settings",
    )
    quality_interval_minutes: Positive = _setting(
        "HUBSCOPE_QUALITY_INTERVAL_MINUTES",
        60,
        "How often Great Expectations checks the raw tables (also once at start).",
        unit="minutes",
        test="tests/unit/test_worker.py::test_the_timetable_follows_the_settings",
    )
    ops_retention_days: Positive = _setting(
        "HUBSCOPE_OPS_RETENTION_DAYS",
        90,
        "How long the records of job runs are kept.",
        unit="days",
        test="tests/integration/test_worker.py::test_old_job_runs_are_pruned",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then hubscope.toml in the working directory."""
        return (init_settings, env_settings, _TomlSource(settings_cls))

    @classmethod
    def load(cls, **overrides: Any) -> Settings:
        """The settings of this process; every mistake is one InvalidSetting that names the variable.

        Args:
            overrides: values by field name, above every source.
        """
        try:
            return cls(**{str(describe(cls, name)["env"]): value for name, value in overrides.items()})
        except ValidationError as error:
            raise InvalidSetting(_in_plain_words(error)) from None

    @classmethod
    def variables(cls) -> list[str]:
        """Every environment variable that is read, in the order of the reference page."""
        return [str(describe(cls, name)["env"]) for name in cls.model_fields]

    def model_post_init(self, _context: Any) -> None:
        """Refuse an address that strangers could reach, a URL that is none, and a pool without a reader."""
        if self.host not in ("127.0.0.1", "::1", "localhost"):
            raise InvalidSetting(
                f"HUBSCOPE_HOST is {self.host!r}, but without authentication hubscope listens on loopback only"
                " (allowed: 127.0.0.1, ::1, localhost)"
            )
        if self.database_url is not None and not _names_one_postgresql(self.database_url):
            raise InvalidSetting(
                "HUBSCOPE_DATABASE_URL is not the URL of one PostgreSQL"
                " (postgresql://user:password@host:5432/database, special characters percent-encoded)"
            )
        if self.pool_max < self.writers + 2:
            raise InvalidSetting(
                f"HUBSCOPE_POOL_MAX is {self.pool_max}: {self.writers} writers (HUBSCOPE_WRITERS), the partition check"
                f" and a reader need at least {self.writers + 2} connections"
            )

    @property
    def embedded(self) -> bool:
        """True where hubscope runs its own PostgreSQL."""
        return self.database_url is None and self.postgres_host is None

    def external_dsn(self) -> str:
        """The URL of the store that the environment names. Only for a store that is not embedded."""
        if self.database_url is not None:
            return self.database_url
        assert self.postgres_host is not None
        user = quote(self.postgres_user, safe="")
        if self.postgres_password is not None:
            user += ":" + quote(self.postgres_password, safe="")
        database = quote(self.postgres_db, safe="")
        if self.postgres_host.startswith("/"):
            return (
                f"postgresql://{user}@/{database}?host={quote(self.postgres_host, safe='')}&port={self.postgres_port}"
            )
        host = f"[{self.postgres_host}]" if ":" in self.postgres_host else self.postgres_host
        return f"postgresql://{user}@{host}:{self.postgres_port}/{database}"


class _TomlSource(PydanticBaseSettingsSource):
    """hubscope.toml in the working directory: the same names as the environment, in lower case, without HUBSCOPE_."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        table = {name: value for name, value in _toml_table().items() if name not in TABLES}
        known = {variable.removeprefix("HUBSCOPE_").lower(): variable for variable in Settings.variables()}
        unknown = sorted(key for key in table if key.lower() not in known)
        if unknown:
            raise InvalidSetting(
                f"{CONFIG_FILE} names {unknown[0]!r}, which is no setting (see the settings reference)"
            )
        return {known[key.lower()]: value for key, value in table.items() if value != ""}


def _toml_table() -> dict[str, Any]:
    """What hubscope.toml in the working directory holds; nothing where there is none.

    Raises:
        InvalidSetting: it cannot be read, or `[sql]` is no table.
    """
    path = Path(CONFIG_FILE)
    if not path.is_file():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{CONFIG_FILE} is not valid TOML: {error}") from None
    except OSError as error:
        raise InvalidSetting(f"{CONFIG_FILE} cannot be read: {error.strerror}") from None
    for name in TABLES:
        if not isinstance(table.get(name, {}), dict):
            raise InvalidSetting(f"{CONFIG_FILE}: {name} is a table, [{name}]")
    return table


def custom_tools() -> dict[str, Any]:
    """`[tools.<name>]` of hubscope.toml, as they stand there.

    Raises:
        InvalidSetting: the file cannot be read.
    """
    tools: dict[str, Any] = _toml_table().get(TOOLS_TABLE, {})
    return tools


def describe(settings: type[BaseSettings], field: str) -> dict[str, Any]:
    """What the reference page says of one field: env, unit, off, test (from `_setting`)."""
    extra = settings.model_fields[field].json_schema_extra
    assert isinstance(extra, dict)
    return dict(extra)


def _names_one_postgresql(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("postgresql", "postgres") and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, several hosts, a bracket that is not closed
        return False


def _in_plain_words(error: ValidationError, settings: type[BaseSettings] | None = None) -> str:
    first = error.errors(include_url=False)[0]
    variable = str(first["loc"][0]) if first["loc"] else "a setting"
    shown = {str(field.validation_alias) for field in (settings or Settings).model_fields.values() if field.repr}
    value = f" is {repr(first.get('input'))[:100]}" if variable in shown else ""
    return f"{variable}{value}: {first['msg'][0].lower()}{first['msg'][1:]}"


SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]


class SqlSettings(BaseSettings):
    """Settings of the read-only SQL server: what it serves, to whom it connects, within which limits.

    The names are those of the server's specification, which belong to it alone; in hubscope.toml they stand in `[sql]`.

    Raises:
        InvalidSetting: from `load`, naming the variable and the allowed values.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: str | None = _setting(
        "DATABASE_URL",
        None,
        "The database that the SQL server serves. Takes libpq's parameters, `pool_max_conns` and `pool_timeout=10s`.",
        unit="URL",
        off="`--database-url` or DATABASE_URL_FILE names it",
        test="tests/unit/sqlgate/test_config.py::test_where_the_database_is_comes_from_one_place",
        repr=False,
    )
    database_url_file: str | None = _setting(
        "DATABASE_URL_FILE",
        None,
        "A file that holds DATABASE_URL, such as a mounted secret.",
        unit="path",
        off="DATABASE_URL names the database",
        test="tests/unit/sqlgate/test_config.py::test_where_the_database_is_comes_from_one_place",
    )
    read_only: bool = _setting(
        "READ_ONLY",
        True,
        "Transactions are READ ONLY and rolled back.",
        unit="true or false",
        off="refused, unless HUBSCOPE_SQL_READ_WRITE_AT_MY_OWN_RISK is true as well",
        test="tests/unit/sqlgate/test_config.py::test_read_only_cannot_be_switched_off_by_itself",
    )
    read_write_at_my_own_risk: bool = _setting(
        "HUBSCOPE_SQL_READ_WRITE_AT_MY_OWN_RISK",
        False,
        "With READ_ONLY=false: transactions are READ WRITE and committed, so that functions of"
        " HUBSCOPE_SQL_ALLOWED_FUNCTIONS may write. The SQL that is taken stays the same.",
        unit="true or false",
        off="READ_ONLY=false is refused",
        test="tests/unit/sqlgate/test_config.py::test_read_only_cannot_be_switched_off_by_itself",
    )
    allowed_schemas: str | None = _setting(
        "ALLOWED_SCHEMAS",
        None,
        "Schemas whose relations may be read, views and partitions included; also the search path of queries.",
        unit="names parted by commas",
        off="all but the system's; the search path is the role's own",
        test="tests/integration/sqlgate/test_policy.py::test_only_allowed_schemas_are_read",
    )
    blocked_tables: str | None = _setting(
        "BLOCKED_TABLES",
        None,
        "Relations that are never read, neither by themselves nor through views, partitions or inheritance.",
        unit="`name` (in any schema) or `schema.name`, parted by commas",
        off="none is blocked",
        test="tests/integration/sqlgate/test_policy.py::test_a_blocked_table_is_not_read_by_any_way",
    )
    view_schemas: str | None = _setting(
        "HUBSCOPE_SQL_VIEW_SCHEMAS",
        None,
        "Further schemas that views may read although queries may not name them.",
        unit="names parted by commas",
        off="views may read ALLOWED_SCHEMAS only",
        test="tests/integration/sqlgate/test_policy.py::test_views_may_read_what_view_schemas_names",
    )
    allowed_functions: str | None = _setting(
        "HUBSCOPE_SQL_ALLOWED_FUNCTIONS",
        None,
        "Functions of your own that queries may call. What they do is yours to answer for: volatile and"
        " SECURITY DEFINER ones are reported at start.",
        unit="`schema.name`, parted by commas",
        off="built-in functions and those of reviewed extensions only",
        test="tests/integration/sqlgate/test_policy.py::test_a_function_of_ones_own_is_called_once_it_is_listed",
    )
    max_query_length: Positive = _setting(
        "MAX_QUERY_LENGTH",
        10_000,
        "Longest SQL text, checked before it is parsed.",
        unit="bytes",
        test="tests/unit/sqlgate/test_guard.py::test_a_text_over_the_limit_is_refused_before_it_is_parsed",
        le=20_000,
    )
    query_timeout_ms: Positive = _setting(
        "QUERY_TIMEOUT",
        30_000,
        "From a call to its answer, waiting included; then the query is cancelled on the server.",
        unit="ms",
        test="tests/integration/sqlgate/test_run.py::test_a_query_is_stopped_on_the_server_at_the_deadline",
    )
    pool_statement_timeout_ms: Positive = _setting(
        "POOL_STATEMENT_TIMEOUT",
        30_000,
        "The server's own clock on one statement (statement_timeout).",
        unit="ms",
        test="tests/integration/sqlgate/test_run.py::test_the_server_itself_stops_a_statement",
    )
    max_rows: Positive = _setting(
        "HUBSCOPE_SQL_MAX_ROWS",
        1_000,
        "Most rows in one answer.",
        unit="rows",
        test="tests/integration/sqlgate/test_run.py::test_an_answer_stops_at_its_limits_and_says_so",
    )
    max_result_bytes: int = _setting(
        "HUBSCOPE_SQL_MAX_BYTES",
        1_048_576,
        "Most bytes of values in one answer.",
        unit="bytes",
        test="tests/integration/sqlgate/test_run.py::test_an_answer_stops_at_its_limits_and_says_so",
        ge=1_024,
    )
    max_value_chars: int = _setting(
        "HUBSCOPE_SQL_MAX_VALUE_CHARS",
        8_192,
        "Longest single value; the server cuts it there.",
        unit="characters",
        test="tests/integration/sqlgate/test_run.py::test_an_answer_stops_at_its_limits_and_says_so",
        ge=64,
        le=1_048_576,
    )
    max_connections: Positive = _setting(
        "MAX_CONNECTIONS",
        10,
        "Connections to the database, and so queries at once.",
        unit="connections",
        test="tests/integration/sqlgate/test_run.py::test_no_more_run_at_once_than_there_are_connections",
        le=500,
    )
    max_waiting: Positive = _setting(
        "HUBSCOPE_SQL_MAX_WAITING",
        100,
        "Calls that wait for their turn; the next one is told to come again.",
        unit="calls",
        test="tests/unit/sqlgate/test_turns.py::test_past_the_limit_nobody_may_wait",
    )
    verdict_seconds: float = _setting(
        "HUBSCOPE_SQL_VERDICT_SECONDS",
        5.0,
        "How long what was found out about a text holds for the same text. 0 looks every time.",
        unit="seconds",
        test="tests/integration/sqlgate/test_run.py::test_a_verdict_holds_for_its_time_only",
        ge=0,
        le=5,
    )
    pool_idle_timeout_ms: Positive = _setting(
        "POOL_IDLE_TIMEOUT",
        30_000,
        "An idle connection is closed after this time.",
        unit="ms",
        test="tests/integration/sqlgate/test_run.py::test_an_idle_connection_is_given_back",
    )
    pool_connection_timeout_ms: Positive = _setting(
        "POOL_CONNECTION_TIMEOUT",
        2_000,
        "How long to wait for a connection before the database counts as away.",
        unit="ms",
        test="tests/integration/sqlgate/test_run.py::test_a_database_that_is_away_is_said_within_the_timeout",
    )
    health_check_enabled: bool = _setting(
        "HEALTH_CHECK_ENABLED",
        True,
        "The SQL server's /health over HTTP.",
        unit="true or false",
        off="/health is not there; /livez and /metrics are",
        test="tests/integration/sqlgate/test_sql_mcp.py::test_health_can_be_switched_off",
    )
    enable_ssl: bool | None = _setting(
        "ENABLE_SSL",
        None,
        "TLS to the database: true means at least SSL_MODE=require.",
        unit="true or false",
        off="SSL_MODE or the URL decides; false means SSL_MODE=disable",
        test="tests/unit/sqlgate/test_config.py::test_tls_settings_reach_the_url",
    )
    ssl_mode: SslMode | None = _setting(
        "SSL_MODE",
        None,
        "As libpq's sslmode; wins over the URL's.",
        unit="disable, prefer, require, verify-ca, verify-full",
        off="the URL decides (prefer)",
        test="tests/unit/sqlgate/test_config.py::test_tls_settings_reach_the_url",
    )
    ssl_cert_path: str | None = _setting(
        "SSL_CERT_PATH",
        None,
        "The client's certificate.",
        unit="path",
        off="none is sent",
        test="tests/unit/sqlgate/test_config.py::test_tls_settings_reach_the_url",
    )
    ssl_key_path: str | None = _setting(
        "SSL_KEY_PATH",
        None,
        "The key of the client's certificate.",
        unit="path",
        off="none is used",
        test="tests/unit/sqlgate/test_config.py::test_tls_settings_reach_the_url",
    )
    ssl_ca_path: str | None = _setting(
        "SSL_CA_PATH",
        None,
        "Certificates of the authorities that the server's is checked against.",
        unit="path",
        off="`~/.postgresql/root.crt`, as libpq has it",
        test="tests/unit/sqlgate/test_config.py::test_tls_settings_reach_the_url",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then `[sql]` of hubscope.toml."""
        return (init_settings, env_settings, _SqlTomlSource(settings_cls))

    @classmethod
    def load(cls, **overrides: Any) -> SqlSettings:
        """The settings of this process; every mistake is one InvalidSetting that names the variable.

        Args:
            overrides: values by field name, above every source.
        """
        try:
            return cls(**{str(describe(cls, name)["env"]): value for name, value in overrides.items()})
        except ValidationError as error:
            raise InvalidSetting(_in_plain_words(error, cls)) from None

    @classmethod
    def variables(cls) -> list[str]:
        """Every environment variable that is read, in the order of the reference page."""
        return [str(describe(cls, name)["env"]) for name in cls.model_fields]

    def model_post_init(self, _context: Any) -> None:
        """Refuse a URL that is none."""
        if self.database_url is not None and not _names_one_postgresql(self.database_url):
            raise InvalidSetting(
                "DATABASE_URL is not the URL of one PostgreSQL"
                " (postgresql://user:password@host:5432/database, special characters percent-encoded)"
            )


class _SqlTomlSource(_TomlSource):
    """`[sql]` of hubscope.toml: the same names as the environment, in lower case, without HUBSCOPE_SQL_."""

    def __call__(self) -> dict[str, Any]:
        table = _toml_table().get(SQL_TABLE, {})
        known = {variable.removeprefix("HUBSCOPE_SQL_").lower(): variable for variable in SqlSettings.variables()}
        unknown = sorted(key for key in table if key.lower() not in known)
        if unknown:
            raise InvalidSetting(
                f"{CONFIG_FILE} names '{SQL_TABLE}.{unknown[0]}', which is no setting (see the settings reference)"
            )
        return {known[key.lower()]: value for key, value in table.items() if value != ""}
