"""Settings: every limit and switch, frozen, from the environment and from `hubscope.toml` below it.

Each field carries what the reference page and the contract tests need: the unit, what "off" means, and the test that
proves it. Names: own settings are HUBSCOPE_<NAME>; those that the product's specifications name keep that name.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self
from urllib.parse import quote, urlsplit

import platformdirs
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from hubscope.errors import InvalidSetting

CONFIG_FILE: Final = "hubscope.toml"
SQL_TABLE: Final = "sql"
TOOLS_TABLE: Final = "tools"
DATABASES_TABLE: Final = "databases"
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


class _Sourced(BaseSettings):
    """Settings of one kind: from arguments, then the environment, then their part of hubscope.toml.

    Attributes:
        toml_table: where they stand in hubscope.toml; None for its top.
        toml_prefix: what their names there leave out.
    """

    toml_table: ClassVar[str | None] = None
    toml_prefix: ClassVar[str] = "HUBSCOPE_"

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
        return (init_settings, env_settings, _TomlSource(cls))

    @classmethod
    def load(cls, **overrides: Any) -> Self:
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


class Settings(_Sourced):
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
        ge=5,
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
        "Address to listen on; 0.0.0.0 or :: for all. Beyond loopback there must be an API key.",
        unit="IP address or localhost",
        test="tests/unit/test_settings.py::test_only_an_address_is_listened_on",
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
        3,
        "Group-commit writers, each with a connection of its own.",
        unit="connections",
        test="tests/integration/ingest/test_writer.py::test_every_writer_has_a_connection_of_its_own",
        le=16,
    )
    commit_max_events: Positive = _setting(
        "HUBSCOPE_COMMIT_MAX_EVENTS",
        2_000,
        "Most events that one transaction commits together.",
        unit="events",
        test="tests/integration/ingest/test_writer.py::test_a_commit_takes_no_more_than_its_share",
    )
    commit_timeout_ms: Positive = _setting(
        "HUBSCOPE_COMMIT_TIMEOUT",
        10_000,
        "Longest that one commit may take before its posts are answered 503 (retry with the same ids). Then the"
        " database gives it up, too (statement_timeout, idle_in_transaction_session_timeout).",
        unit="ms",
        test="tests/integration/ingest/test_writer.py::test_a_commit_that_hangs_is_answered_as_unknown",
    )
    error_message_max_chars: Positive = _setting(
        "HUBSCOPE_ERROR_MESSAGE_MAX_CHARS",
        2_000,
        "Characters of an error message that are kept (after secrets were taken out); a longer one is cut.",
        unit="characters",
        test="tests/unit/ingest/test_scrub.py::test_an_error_message_is_cut_after_redaction",
        le=8_000,
    )
    otlp_max_attributes: Positive = _setting(
        "HUBSCOPE_OTLP_MAX_ATTRIBUTES",
        64,
        "Attributes of a span that are kept beside those that have a field of their own.",
        unit="attributes",
        test="tests/unit/ingest/test_spans.py::test_attributes_are_kept_within_their_limits",
    )
    otlp_max_attribute_chars: Positive = _setting(
        "HUBSCOPE_OTLP_MAX_ATTRIBUTE_CHARS",
        1_000,
        "Characters of one attribute of a span that are kept.",
        unit="characters",
        test="tests/unit/ingest/test_spans.py::test_attributes_are_kept_within_their_limits",
    )
    max_servers: Positive = _setting(
        "HUBSCOPE_MAX_SERVERS",
        500,
        "Server names of one tenant. Past it a name is stored as `_other`.",
        unit="names",
        test="tests/integration/ingest/test_names.py::test_past_the_limit_a_name_is_stored_as_other",
    )
    max_tools: Positive = _setting(
        "HUBSCOPE_MAX_TOOLS",
        5_000,
        "Tools of one tenant, counted per server. Past it a name is stored as `_other`.",
        unit="names",
        test="tests/integration/ingest/test_names.py::test_past_the_limit_a_name_is_stored_as_other",
    )
    max_clients: Positive = _setting(
        "HUBSCOPE_MAX_CLIENTS",
        500,
        "Client names of one tenant. Past it a name is stored as `_other`.",
        unit="names",
        test="tests/integration/ingest/test_names.py::test_past_the_limit_a_name_is_stored_as_other",
    )
    max_hubs: Positive = _setting(
        "HUBSCOPE_MAX_HUBS",
        100,
        "Hub names of one tenant. Past it a name is stored as `_other`.",
        unit="names",
        test="tests/integration/ingest/test_names.py::test_past_the_limit_a_name_is_stored_as_other",
    )
    vantage_silence_minutes: Positive = _setting(
        "HUBSCOPE_VANTAGE_SILENCE_MINUTES",
        15,
        "When the counting observer of a server saw nothing for so long while another one did, the other one counts.",
        unit="minutes",
        test="tests/integration/ingest/test_names.py::test_an_observer_that_falls_silent_gives_way",
    )
    import_patience_seconds: Positive = _setting(
        "HUBSCOPE_IMPORT_PATIENCE",
        60,
        "How long `hubscope import` waits for a database that is away before it gives up (and can be resumed).",
        unit="seconds",
        test="tests/integration/ingest/test_history.py::test_a_database_that_is_away_is_waited_for_and_then_given_up",
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
        "How often pending calls are folded into stored hours.",
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
    # Retention
    retention_raw_days: Positive = _setting(
        "HUBSCOPE_RETENTION_RAW_DAYS",
        90,
        "How long single events are kept, in whole days (UTC). At least HUBSCOPE_MAX_EVENT_AGE_DAYS and one.",
        unit="days",
        test="tests/integration/store/test_retention.py::test_what_is_past_its_days_goes_and_everything_else_stays",
        le=36_500,
    )
    retention_hourly_days: Positive = _setting(
        "HUBSCOPE_RETENTION_HOURLY_DAYS",
        400,
        "How long hourly rollups (calls, checks) are kept. At least HUBSCOPE_MAX_EVENT_AGE_DAYS and one.",
        unit="days",
        test="tests/integration/store/test_retention.py::test_what_is_past_its_days_goes_and_everything_else_stays",
        le=36_500,
    )
    retention_hourly_latency_days: Positive = _setting(
        "HUBSCOPE_RETENTION_HOURLY_LATENCY_DAYS",
        8,
        "How long hourly latency buckets are kept; older percentiles are by the day."
        " At least HUBSCOPE_MAX_EVENT_AGE_DAYS and one.",
        unit="days",
        test="tests/integration/store/test_retention.py::test_what_is_past_its_days_goes_and_everything_else_stays",
        le=36_500,
    )
    retention_daily_days: int = _setting(
        "HUBSCOPE_RETENTION_DAILY_DAYS",
        0,
        "How long daily rollups are kept. At least HUBSCOPE_RETENTION_HOURLY_DAYS.",
        unit="days",
        test="tests/integration/store/test_retention.py::test_what_is_past_its_days_goes_and_everything_else_stays",
        off="0 keeps them for ever",
        ge=0,
        le=36_500,
    )
    retention_audit_days: int = _setting(
        "HUBSCOPE_RETENTION_AUDIT_DAYS",
        400,
        "How long records of the audit log are kept. Whole months (UTC) go.",
        unit="days",
        test="tests/integration/journal/test_audit_log.py::test_retention_takes_whole_months_and_leaves_the_rest",
        off="0 keeps them for ever",
        ge=0,
        le=36_500,
    )
    audit_on_failure: Literal["log", "refuse"] = _setting(
        "HUBSCOPE_AUDIT_ON_FAILURE",
        "log",
        "When audit records cannot be written: `log` answers, counts what is lost and puts it into the log; `refuse`"
        " gives no answer before its record is committed.",
        unit="log, refuse",
        test="tests/integration/journal/test_journal.py::test_without_its_record_nothing_is_answered_where_that_is_wished",
    )
    audit_timeout_ms: Positive = _setting(
        "HUBSCOPE_AUDIT_TIMEOUT",
        1_000,
        "With HUBSCOPE_AUDIT_ON_FAILURE=refuse: how long an answer waits for its record. Otherwise none waits.",
        unit="ms",
        test="tests/integration/journal/test_journal.py::test_without_its_record_nothing_is_answered_where_that_is_wished",
    )
    audit_queue_max_records: Positive = _setting(
        "HUBSCOPE_AUDIT_QUEUE_MAX_RECORDS",
        10_000,
        "Audit records that wait to be written; what comes on top is lost, counted and logged.",
        unit="records (a kilobyte or so each)",
        test="tests/integration/journal/test_journal.py::test_the_queue_is_bounded_and_what_is_lost_is_counted_and_logged",
    )
    compress_after_days: int = _setting(
        "HUBSCOPE_COMPRESS_AFTER_DAYS",
        8,
        "TimescaleDB: chunks of raw events and hourly rollups older than this become columnstore."
        " Best past HUBSCOPE_MAX_EVENT_AGE_DAYS: late events still go in, only slower.",
        unit="days",
        test="tests/timescale/test_retention.py::test_old_chunks_become_columnstore_and_answers_stay",
        off="0 leaves everything as rows",
        ge=0,
        le=36_500,
    )
    pack_after_days: int = _setting(
        "HUBSCOPE_PACK_AFTER_DAYS",
        2,
        "PostgreSQL: daily latency older than this is packed, one row per tool and day instead of one per bucket.",
        unit="days",
        test="tests/integration/store/test_rollups.py::test_a_packed_day_takes_less_room_and_says_the_same",
        off="0 packs nothing",
        ge=0,
        le=36_500,
    )
    ops_retention_days: Positive = _setting(
        "HUBSCOPE_OPS_RETENTION_DAYS",
        90,
        "How long the records of job runs are kept.",
        unit="days",
        test="tests/integration/test_worker.py::test_old_job_runs_are_pruned",
    )

    # The stdio wrapper (it reads these by itself, from the environment only: hubscope.wrap.options)
    url: str = _setting(
        "HUBSCOPE_URL",
        "http://127.0.0.1:3401",
        "Where `hubscope wrap` and `hubscope bridge` send what they see. From the environment only, never from"
        " hubscope.toml.",
        unit="URL",
        test="tests/unit/wrap/test_options.py::test_a_value_that_is_not_allowed_is_one_error_that_names_it",
    )
    api_key: str | None = _setting(
        "HUBSCOPE_API_KEY",
        None,
        "What `hubscope wrap` and `hubscope bridge` show there, as a bearer token. Never logged, and kept from the"
        " wrapped server. From the environment only.",
        unit="text",
        off="HUBSCOPE_API_KEY_FILE is used",
        test="tests/unit/wrap/test_options.py::test_a_key_comes_from_a_variable_or_a_file",
        repr=False,
    )
    api_key_file: Path | None = _setting(
        "HUBSCOPE_API_KEY_FILE",
        None,
        "A file with the key, where HUBSCOPE_API_KEY is not set. From the environment only.",
        unit="path",
        off="no key is sent",
        test="tests/unit/wrap/test_options.py::test_a_key_comes_from_a_variable_or_a_file",
    )
    spool_dir: Path | None = _setting(
        "HUBSCOPE_SPOOL_DIR",
        None,
        "Where events of `hubscope wrap` wait until they are sent, in a folder for each address and key.",
        unit="path",
        off="`hubscope/spool` in the platform's state directory (`~/.local/state` on Linux)",
        test="tests/unit/wrap/test_reporting.py::test_events_for_another_address_or_key_wait_elsewhere",
    )
    spool_max_bytes: int = _setting(
        "HUBSCOPE_SPOOL_MAX_BYTES",
        64 * 1024 * 1024,
        "Most bytes that all wrappers of an account keep waiting for one address; past it the oldest are dropped.",
        unit="bytes",
        test="tests/unit/wrap/test_spool.py::test_the_spool_stays_within_its_bound_and_drops_the_oldest",
        ge=1024 * 1024,
    )
    wrap_max_message_bytes: int = _setting(
        "HUBSCOPE_WRAP_MAX_MESSAGE_BYTES",
        1024 * 1024,
        "A longer message passes through a wrapper like any other, but only its two ends are looked at.",
        unit="bytes",
        test="tests/unit/wrap/test_lines.py::test_a_line_over_the_limit_keeps_its_ends_only",
        ge=1024,
    )
    wrap_buffer_max_bytes: int = _setting(
        "HUBSCOPE_WRAP_BUFFER_MAX_BYTES",
        16 * 1024 * 1024,
        "Copies waiting to be read by a wrapper's observer; what does not fit passes through unseen and is counted.",
        unit="bytes",
        test="tests/unit/wrap/test_tap.py::test_what_does_not_fit_is_a_gap_of_known_size",
        ge=1024 * 1024,
    )
    wrap_open_calls_max: Positive = _setting(
        "HUBSCOPE_WRAP_OPEN_CALLS_MAX",
        10_000,
        "Most unanswered calls that a wrapper remembers; past it the oldest goes unreported and is counted.",
        unit="calls",
        test="tests/unit/wrap/test_protocol.py::test_open_calls_are_bounded_and_the_oldest_is_counted",
    )
    wrap_error_message_chars: int = _setting(
        "HUBSCOPE_WRAP_ERROR_MESSAGE_CHARS",
        500,
        "Longest error message that a wrapper sends. Arguments and results are never sent.",
        unit="characters",
        off="0 sends none",
        test="tests/unit/wrap/test_protocol.py::test_error_messages_are_cut_to_the_length_allowed",
        ge=0,
        le=8_000,
    )
    wrap_linger_ms: int = _setting(
        "HUBSCOPE_WRAP_LINGER",
        100,
        "How long an event of a wrapper waits for others before it is sent; under steady traffic, five times as long.",
        unit="ms",
        off="0 sends each at once",
        test="tests/unit/wrap/test_sender.py::test_events_gather_for_the_time_of_the_linger",
        ge=0,
        le=60_000,
    )
    wrap_flush_timeout_ms: int = _setting(
        "HUBSCOPE_WRAP_FLUSH_TIMEOUT",
        500,
        "How long the end of a wrapper may wait for hubscope; what is not sent then stays in the spool.",
        unit="ms",
        off="0 leaves everything to the next wrapper",
        test="tests/unit/wrap/test_sender.py::test_the_end_waits_for_a_silent_service_no_longer_than_told",
        ge=0,
        le=60_000,
    )
    wrap_heartbeat_seconds: int = _setting(
        "HUBSCOPE_WRAP_HEARTBEAT_SECONDS",
        60,
        "How often a wrapper reports a connected server alive (it counts as up for 2.5 times as long).",
        unit="seconds",
        off="0 never does; then up lasts until the next event",
        test="tests/unit/wrap/test_protocol.py::test_up_is_valid_for_two_and_a_half_heartbeats",
        ge=0,
        le=86_400,
    )

    # The bridge to an mcp-hub
    bridge_poll_seconds: Positive = _setting(
        "HUBSCOPE_BRIDGE_POLL_SECONDS",
        10,
        "How often `hubscope bridge` asks the hub how its servers are. A killed server is noticed within two of these.",
        unit="seconds",
        test="tests/integration/bridge/test_mcp_hub.py::test_a_killed_server_is_down_within_two_polls",
        le=3_600,
    )
    bridge_probe_seconds: Positive = _setting(
        "HUBSCOPE_BRIDGE_PROBE_SECONDS",
        60,
        "How often a bridge reports each server's state (it counts for 2.5 times as long), whether it changed or not.",
        unit="seconds",
        test="tests/unit/bridge/test_watch.py::test_every_state_is_valid_for_two_and_a_half_probes",
        le=86_400,
    )
    bridge_probe: Literal["status", "refresh"] = _setting(
        "HUBSCOPE_BRIDGE_PROBE",
        "status",
        "What a bridge's probe is: `status` believes what the hub says; `refresh` also has the hub ask each connected"
        " server for its lists (POST /api/servers/refresh), which finds servers that hang and measures their latency.",
        unit="status, refresh",
        test="tests/integration/bridge/test_mcp_hub.py::test_a_server_that_hangs_is_found_by_asking_it",
    )
    bridge_stream: bool = _setting(
        "HUBSCOPE_BRIDGE_STREAM",
        True,
        "A bridge follows the hub's event stream beside polling it. A hub started with --auto-shutdown stays up as long"
        " as anybody does.",
        unit="true or false",
        off="the hub is only polled: states of the hub that last less than a poll are not seen",
        test="tests/unit/bridge/test_run.py::test_without_the_stream_the_hub_is_only_polled",
    )
    bridge_timeout_ms: Positive = _setting(
        "HUBSCOPE_BRIDGE_TIMEOUT",
        5_000,
        "Longest that an answer of the hub to a bridge may take.",
        unit="ms",
        test="tests/unit/bridge/test_link.py::test_a_hub_that_is_silent_counts_as_away_after_the_timeout",
    )
    bridge_max_answer_bytes: int = _setting(
        "HUBSCOPE_BRIDGE_MAX_ANSWER_BYTES",
        32 * 1024 * 1024,
        "Longest answer of a hub that a bridge reads (it holds every tool of every server).",
        unit="bytes",
        test="tests/unit/bridge/test_link.py::test_an_answer_over_the_limit_is_not_read_to_its_end",
        ge=1_024,
    )
    bridge_max_event_bytes: int = _setting(
        "HUBSCOPE_BRIDGE_MAX_EVENT_BYTES",
        1024 * 1024,
        "Longest event of a hub's stream that a bridge reads; a longer one only makes it poll.",
        unit="bytes",
        test="tests/unit/bridge/test_sse.py::test_an_event_over_the_limit_is_counted_and_not_kept",
        ge=1_024,
    )
    bridge_error_message_chars: int = _setting(
        "HUBSCOPE_BRIDGE_ERROR_MESSAGE_CHARS",
        500,
        "Longest error message of a hub or server that a bridge sends, after secrets were taken out.",
        unit="characters",
        off="0 sends none",
        test="tests/unit/bridge/test_seen.py::test_error_texts_are_redacted_and_cut",
        ge=0,
        le=8_000,
    )
    bridge_buffer_max_bytes: int = _setting(
        "HUBSCOPE_BRIDGE_BUFFER_MAX_BYTES",
        8 * 1024 * 1024,
        "Most bytes of events that wait in a bridge's memory while hubscope is away; past it the oldest are dropped.",
        unit="bytes",
        test="tests/unit/test_client.py::test_memory_is_bounded_and_the_oldest_go_first",
        ge=64 * 1024,
    )

    # Who may do what
    key_pepper: str | None = _setting(
        "HUBSCOPE_KEY_PEPPER",
        None,
        "Secret under which API keys are hashed, the same for every process over a store (at least 16 characters)."
        " Another pepper makes every key invalid.",
        unit="text",
        off="the embedded database has a generated one in `key-pepper` in the data directory; a store of one's own can"
        " have no keys",
        test="tests/integration/access/test_admin.py::test_a_store_of_ones_own_needs_a_pepper_for_keys",
        repr=False,
    )
    key_pepper_file: Path | None = _setting(
        "HUBSCOPE_KEY_PEPPER_FILE",
        None,
        "File that holds HUBSCOPE_KEY_PEPPER.",
        unit="path",
        off="HUBSCOPE_KEY_PEPPER counts",
        test="tests/unit/test_settings.py::test_a_secret_may_stand_in_a_file",
    )
    key_cache_ms: int = _setting(
        "HUBSCOPE_KEY_CACHE_TIME",
        5_000,
        "How old the list of API keys may be that a process goes by: a revoked key works no longer than this.",
        unit="ms",
        test="tests/integration/access/test_keyring.py::test_a_revoked_key_works_no_longer_than_the_cache_time",
        ge=500,
        le=300_000,
    )
    key_use_interval_ms: Positive = _setting(
        "HUBSCOPE_KEY_USE_INTERVAL",
        60_000,
        "How often the last use of API keys is written down.",
        unit="ms",
        test="tests/integration/access/test_keyring.py::test_the_last_use_is_written_down_once_per_interval",
    )
    loopback_trust: Literal["auto", "always", "never"] = _setting(
        "HUBSCOPE_LOOPBACK_TRUST",
        "auto",
        "Whether callers on this machine need no API key: auto until the first key is made, always (unsafe behind a"
        " reverse proxy on the same machine that does not say for whom it asks), or never.",
        unit="auto, always, never",
        test="tests/integration/entrypoints/test_admission.py::test_whether_loopback_is_trusted",
    )
    allowed_hosts: str = _setting(
        "HUBSCOPE_ALLOWED_HOSTS",
        "",
        "Names, apart from loopback and the address itself, under which the service may be called (`Host`) and whose"
        " pages may call it (`Origin`).",
        unit="host names, separated by commas",
        test="tests/integration/entrypoints/test_admission.py::test_only_allowed_names_reach_the_service",
    )
    scrape_token: str | None = _setting(
        "HUBSCOPE_SCRAPE_TOKEN",
        None,
        "Bearer token that may read /metrics and nothing else (at least 16 characters).",
        unit="text",
        off="/metrics wants an API key with the scope admin",
        test="tests/integration/entrypoints/test_admission.py::test_the_scrape_token_opens_metrics_and_nothing_else",
        repr=False,
    )
    scrape_token_file: Path | None = _setting(
        "HUBSCOPE_SCRAPE_TOKEN_FILE",
        None,
        "File that holds HUBSCOPE_SCRAPE_TOKEN.",
        unit="path",
        off="HUBSCOPE_SCRAPE_TOKEN counts",
        test="tests/unit/test_settings.py::test_a_secret_may_stand_in_a_file",
    )

    # Shares of a tenant
    tenant_events_per_second: Positive | None = _setting(
        "HUBSCOPE_TENANT_EVENTS_PER_SECOND",
        None,
        "Events that one tenant may send per second in the long run; past it 429 with Retry-After. Per process.",
        unit="events/s",
        off="no limit",
        test="tests/integration/ingest/test_shares.py::test_a_tenant_over_its_rate_waits_and_others_do_not",
    )
    tenant_burst_events: Positive = _setting(
        "HUBSCOPE_TENANT_BURST_EVENTS",
        20_000,
        "Events that a tenant may send at once after a pause, where HUBSCOPE_TENANT_EVENTS_PER_SECOND is set.",
        unit="events",
        test="tests/unit/access/test_shares.py::test_a_burst_is_taken_at_once_and_the_rest_at_the_rate",
    )
    tenant_queue_percent: Positive = _setting(
        "HUBSCOPE_TENANT_QUEUE_PERCENT",
        50,
        "Share of the queue (events and bytes) that one tenant may fill; past it 429 with Retry-After.",
        unit="percent",
        test="tests/integration/ingest/test_shares.py::test_a_tenant_fills_no_more_than_its_share_of_the_queue",
        le=100,
    )

    # HTTP
    max_attrs_bytes: Positive = _setting(
        "HUBSCOPE_MAX_ATTRS_BYTES",
        64 * 1024,
        "Largest attrs or payload of one event, as JSON text; a larger one is rejected as attrs_too_large.",
        unit="bytes",
        test="tests/unit/ingest/test_envelope.py::test_free_data_over_a_limit_is_rejected_with_the_limit",
    )
    max_attrs_depth: Positive = _setting(
        "HUBSCOPE_MAX_ATTRS_DEPTH",
        16,
        "Deepest nesting of attrs or payload; deeper ones are rejected as attrs_too_deep.",
        unit="levels",
        test="tests/unit/ingest/test_envelope.py::test_free_data_over_a_limit_is_rejected_with_the_limit",
        le=200,
    )
    max_buffered_bytes: Positive = _setting(
        "HUBSCOPE_MAX_BUFFERED_BYTES",
        64 * 1024 * 1024,
        "Bytes of posts that are being received at once, all clients together; past it 503 with Retry-After.",
        unit="bytes",
        test="tests/integration/entrypoints/test_hardening.py::test_bodies_under_way_are_bounded_together",
    )
    max_connections: Positive = _setting(
        "HUBSCOPE_MAX_CONNECTIONS",
        1_000,
        "Connections at once; one more is answered 503 and closed.",
        unit="connections",
        test="tests/integration/entrypoints/test_hardening.py::test_a_connection_too_many_is_told_and_closed",
    )
    max_header_bytes: int = _setting(
        "HUBSCOPE_MAX_HEADER_BYTES",
        32 * 1024,
        "Longest request line and header fields together; past it 431.",
        unit="bytes",
        test="tests/integration/entrypoints/test_hardening.py::test_a_head_over_the_limit_is_refused",
        ge=1024,
    )
    header_timeout_ms: int = _setting(
        "HUBSCOPE_HEADER_TIMEOUT",
        10_000,
        "Longest time from a request's first byte (or from connecting) to the end of its header fields; then 408.",
        unit="ms",
        test="tests/integration/entrypoints/test_hardening.py::test_a_client_that_trickles_is_cut_off",
        ge=100,
    )
    body_timeout_ms: int = _setting(
        "HUBSCOPE_BODY_TIMEOUT",
        30_000,
        "Longest time from the end of the header fields to the end of the body; then 408.",
        unit="ms",
        test="tests/integration/entrypoints/test_hardening.py::test_a_client_that_trickles_is_cut_off",
        ge=100,
    )
    write_timeout_ms: int = _setting(
        "HUBSCOPE_WRITE_TIMEOUT",
        30_000,
        "Longest time that a client may leave an answer unread before it is cut off.",
        unit="ms",
        test="tests/integration/entrypoints/test_hardening.py::test_a_client_that_does_not_read_is_cut_off",
        ge=100,
    )
    keep_alive_timeout_ms: int = _setting(
        "HUBSCOPE_KEEP_ALIVE_TIMEOUT",
        75_000,
        "How long a connection may stay idle between two requests.",
        unit="ms",
        test="tests/integration/entrypoints/test_hardening.py::test_an_idle_connection_is_closed",
        ge=100,
    )
    drain_timeout_ms: int = _setting(
        "HUBSCOPE_DRAIN_TIMEOUT",
        10_000,
        "How long the service takes at most, when it is stopped, to answer what it has begun and to commit what waits.",
        unit="ms",
        test="tests/acceptance/test_keys.py::test_a_service_that_is_stopped_ends_within_the_drain_time",
        ge=100,
    )

    # MCP servers of the hub
    servers_file: Path | None = _setting(
        "HUBSCOPE_SERVERS_FILE",
        None,
        "The operator's own MCP servers, in the `mcpServers` JSON of MCP clients. Only these may be stdio commands.",
        unit="path",
        off="only what is registered over HTTP is there",
        test="tests/unit/peers/test_config.py::test_servers_are_read_from_the_json_of_mcp_clients",
    )
    peer_networks: str = _setting(
        "HUBSCOPE_PEER_NETWORKS",
        "",
        "Networks beside the public internet in which registered servers may be, separated by commas, such as"
        " `10.0.0.0/8,127.0.0.1`. Servers of HUBSCOPE_SERVERS_FILE may be anywhere.",
        unit="networks",
        test="tests/unit/peers/test_guard.py::test_only_named_networks_are_reached_beside_the_internet",
    )
    max_registrations: Positive = _setting(
        "HUBSCOPE_MAX_REGISTRATIONS",
        200,
        "MCP servers that one tenant may register.",
        unit="servers",
        test="tests/integration/peers/test_federation.py::test_a_tenant_registers_only_so_many_servers",
    )
    peer_max_request_bytes: Positive = _setting(
        "HUBSCOPE_PEER_MAX_REQUEST_BYTES",
        1024 * 1024,
        "Largest body of a request to `/api/v1/federation`.",
        unit="bytes",
        test="tests/integration/entrypoints/test_federation.py::test_a_body_over_the_limit_is_refused_with_the_limit",
    )
    peer_max_answer_bytes: int = _setting(
        "HUBSCOPE_PEER_MAX_ANSWER_BYTES",
        8 * 1024 * 1024,
        "Longest message taken from an MCP server; a longer one fails its call (and ends a stdio server).",
        unit="bytes",
        test="tests/integration/peers/test_sessions.py::test_an_answer_over_the_limit_fails_its_call_alone",
        ge=1024,
    )
    peer_max_sessions: Positive = _setting(
        "HUBSCOPE_PEER_MAX_SESSIONS",
        100,
        "Sessions with MCP servers at once; the one unused longest gives way, and with all in use 503.",
        unit="sessions",
        test="tests/integration/peers/test_sessions.py::test_the_session_unused_longest_gives_way",
    )
    peer_max_calls: Positive = _setting(
        "HUBSCOPE_PEER_MAX_CALLS",
        64,
        "Requests to MCP servers at once; more wait for their turn, within their own timeout.",
        unit="requests",
        test="tests/integration/peers/test_federation.py::test_calls_wait_for_their_turn_within_their_timeout",
    )
    peer_timeout_ms: Positive = _setting(
        "HUBSCOPE_PEER_TIMEOUT",
        30_000,
        "How long an invoked server may take, where the request does not say (`metadata.timeout`).",
        unit="ms",
        test="tests/integration/entrypoints/test_federation.py::test_a_server_that_does_not_answer_is_a_504",
    )
    peer_max_timeout_ms: Positive = _setting(
        "HUBSCOPE_PEER_MAX_TIMEOUT",
        600_000,
        "Longest time that a request may ask for.",
        unit="ms",
        test="tests/integration/entrypoints/test_federation.py::test_a_timeout_over_the_limit_is_refused",
    )
    peer_connect_timeout_ms: Positive = _setting(
        "HUBSCOPE_PEER_CONNECT_TIMEOUT",
        30_000,
        "How long an MCP server may take to start and shake hands (npx and uvx download first).",
        unit="ms",
        test="tests/integration/peers/test_sessions.py::test_a_server_that_never_shakes_hands_is_given_up",
    )
    peer_idle_timeout_ms: Positive = _setting(
        "HUBSCOPE_PEER_IDLE_TIMEOUT",
        600_000,
        "A session with an MCP server that nobody uses, no probe either, is closed after this time.",
        unit="ms",
        test="tests/integration/peers/test_sessions.py::test_an_idle_session_is_closed",
    )
    enable_auto_persistence: bool = _setting(
        "ENABLE_AUTO_PERSISTENCE",
        True,
        "Record the calls that hubscope itself makes to MCP servers.",
        unit="true or false",
        off="own calls are made and not recorded; health is",
        test="tests/integration/peers/test_federation.py::test_recording_own_calls_can_be_switched_off",
    )
    enable_probes: bool = _setting(
        "HUBSCOPE_ENABLE_PROBES",
        True,
        "Watch registered servers. One replica probes each.",
        unit="true or false",
        off="servers are registered and called, and their state is unknown",
        test="tests/integration/peers/test_prober.py::test_probing_can_be_switched_off",
    )
    probe_interval_ms: int = _setting(
        "HUBSCOPE_PROBE_INTERVAL",
        30_000,
        "Time between two probes of a server, where its health_check does not say.",
        unit="ms",
        test="tests/unit/peers/test_registration.py::test_what_a_health_check_leaves_out_is_the_operators",
        ge=1_000,
    )
    probe_timeout_ms: Positive = _setting(
        "HUBSCOPE_PROBE_TIMEOUT",
        10_000,
        "A probe without an answer after this time has failed, where health_check does not say.",
        unit="ms",
        test="tests/unit/peers/test_registration.py::test_what_a_health_check_leaves_out_is_the_operators",
    )
    probe_slow_ms: Positive = _setting(
        "HUBSCOPE_PROBE_SLOW",
        2_000,
        "A probe that takes longer is slow: so many of them as would make a server down make it degraded.",
        unit="ms",
        test="tests/unit/peers/test_registration.py::test_what_a_health_check_leaves_out_is_the_operators",
    )
    probe_concurrency: Positive = _setting(
        "HUBSCOPE_PROBE_CONCURRENCY",
        16,
        "Probes at once; more wait.",
        unit="probes",
        test="tests/integration/peers/test_prober.py::test_only_so_many_probes_run_at_once",
    )
    probe_lease_ms: int = _setting(
        "HUBSCOPE_PROBE_LEASE",
        10_000,
        "How long a replica may say nothing before another one probes its servers.",
        unit="ms",
        test="tests/integration/peers/test_prober.py::test_one_replica_probes_and_another_takes_over",
        ge=500,
    )

    encryption_key: str | None = _setting(
        "HUBSCOPE_ENCRYPTION_KEY",
        None,
        "Secret under which what must be read again (such as passwords of upstream servers) is encrypted, the same for"
        " every process over a store (at least 32 characters). Several, separated by commas or white space: the first"
        " encrypts, all decrypt.",
        unit="text",
        off="the embedded database has a generated one in `encryption-key` in the data directory; in a store of one's"
        " own no secrets can be kept",
        test="tests/unit/access/test_vault.py::test_a_store_of_ones_own_needs_a_key_for_secrets",
        repr=False,
    )
    encryption_key_file: Path | None = _setting(
        "HUBSCOPE_ENCRYPTION_KEY_FILE",
        None,
        "File that holds HUBSCOPE_ENCRYPTION_KEY.",
        unit="path",
        off="HUBSCOPE_ENCRYPTION_KEY counts",
        test="tests/unit/access/test_vault.py::test_keys_may_stand_in_a_file",
    )

    allow_unsafe_database: bool = _setting(
        "HUBSCOPE_ALLOW_UNSAFE_DATABASE",
        False,
        "Be ready even over a database with fsync, full_page_writes or synchronous_commit off.",
        unit="true or false",
        off="such a database is refused by /readyz, since it may lose what was acknowledged",
        test="tests/integration/test_readiness.py::test_a_database_that_may_lose_commits_is_not_ready",
    )

    # Chains of tool calls
    chain_max_steps: int = _setting(
        "HUBSCOPE_CHAIN_MAX_STEPS",
        100,
        "Most steps of a chain.",
        unit="steps",
        test="tests/unit/chains/test_plan.py::test_a_definition_over_a_limit_is_refused_with_the_setting",
        ge=1,
        le=1_000,
    )
    chain_max_bytes: int = _setting(
        "HUBSCOPE_CHAIN_MAX_BYTES",
        1_048_576,
        "Longest definition of a chain as JSON, arguments included.",
        unit="bytes",
        test="tests/unit/chains/test_plan.py::test_a_definition_over_a_limit_is_refused_with_the_setting",
        ge=1_024,
    )
    chain_max_parallel: int = _setting(
        "HUBSCOPE_CHAIN_MAX_PARALLEL",
        8,
        "Most steps of one chain that run at once, and so many when a chain does not say.",
        unit="steps",
        test="tests/unit/chains/test_plan.py::test_the_limits_are_those_of_the_settings",
        ge=1,
        le=100,
    )
    chain_max_running: Positive = _setting(
        "HUBSCOPE_CHAIN_MAX_RUNNING",
        20,
        "Chains that run in one process at once; the next one is told to come again.",
        unit="chains",
        test="tests/integration/chains/test_service.py::test_past_the_limit_no_chain_is_started",
    )
    chain_max_running_tenant: Positive = _setting(
        "HUBSCOPE_CHAIN_MAX_RUNNING_TENANT",
        10,
        "Those of them that may be one tenant's.",
        unit="chains",
        test="tests/integration/chains/test_service.py::test_one_tenant_cannot_take_every_place",
    )
    chain_step_timeout_ms: Positive = _setting(
        "HUBSCOPE_CHAIN_STEP_TIMEOUT_MS",
        60_000,
        "Longest attempt of a step that does not say.",
        unit="ms",
        test="tests/unit/chains/test_plan.py::test_the_limits_are_those_of_the_settings",
    )
    chain_timeout_ms: Positive = _setting(
        "HUBSCOPE_CHAIN_TIMEOUT_MS",
        600_000,
        "Longest run of a chain, and the most that a chain or a step may ask for.",
        unit="ms",
        test="tests/unit/chains/test_plan.py::test_the_limits_are_those_of_the_settings",
    )
    chain_expression_chars: Positive = _setting(
        "HUBSCOPE_CHAIN_EXPRESSION_CHARS",
        1_000,
        "Longest condition or mapping.",
        unit="characters",
        test="tests/unit/chains/test_plan.py::test_a_definition_over_a_limit_is_refused_with_the_setting",
        le=10_000,
    )
    chain_expression_timeout_ms: Positive = _setting(
        "HUBSCOPE_CHAIN_EXPRESSION_TIMEOUT_MS",
        1_000,
        "Longest evaluation of a condition or mapping; then its process is killed.",
        unit="ms",
        test="tests/integration/chains/test_expressions.py::test_an_expression_that_takes_too_long_is_killed",
        le=60_000,
    )
    chain_result_bytes: int = _setting(
        "HUBSCOPE_CHAIN_RESULT_BYTES",
        1_048_576,
        "Largest result of a step, as JSON, that later steps can read, and a 16th of all results of a chain together;"
        " a larger one is truncated.",
        unit="bytes",
        test="tests/integration/chains/test_service.py::test_a_result_that_is_too_large_to_read_fails_the_step_that_reads_it",
        ge=1_024,
    )
    chain_answer_bytes: int = _setting(
        "HUBSCOPE_CHAIN_ANSWER_BYTES",
        16_384,
        "How much of each step's result stands in the answer.",
        unit="bytes",
        test="tests/unit/chains/test_report.py::test_a_long_result_is_cut_in_the_answer_and_says_so",
        ge=64,
    )
    chain_resume_bytes: int = _setting(
        "HUBSCOPE_CHAIN_RESUME_BYTES",
        4_194_304,
        "What is kept, sealed, of one chain's definition and results so that it can be resumed.",
        unit="bytes",
        test="tests/integration/chains/test_resume.py::test_a_chain_whose_results_were_truncated_is_not_resumable_and_says_so",
        ge=1_024,
    )
    chain_resume_days: Positive = _setting(
        "HUBSCOPE_CHAIN_RESUME_DAYS",
        7,
        "How long what a stopped chain needs to be resumed is kept.",
        unit="days",
        test="tests/integration/chains/test_service.py::test_old_chains_go_and_what_they_need_to_go_on_before_them",
    )
    chain_lease_ms: int = _setting(
        "HUBSCOPE_CHAIN_LEASE_MS",
        15_000,
        "A chain counts as interrupted when its process was not heard of for so long; it speaks three times as often.",
        unit="ms",
        test="tests/integration/chains/test_resume.py::test_only_an_expired_lease_is_marked_interrupted",
        ge=500,
    )
    retention_chain_days: Positive = _setting(
        "HUBSCOPE_RETENTION_CHAIN_DAYS",
        90,
        "How long chains and their steps are kept after they ended.",
        unit="days",
        test="tests/integration/chains/test_service.py::test_old_chains_go_and_what_they_need_to_go_on_before_them",
        le=36_500,
    )

    # Live updates
    stream_interval_ms: int = _setting(
        "HUBSCOPE_STREAM_INTERVAL",
        100,
        "How often live updates are looked for while somebody listens; what came meanwhile goes out together.",
        unit="ms",
        test="tests/integration/entrypoints/test_stream.py::test_what_came_together_goes_out_together",
        ge=10,
        le=5_000,
    )
    stream_heartbeat_ms: int = _setting(
        "HUBSCOPE_STREAM_HEARTBEAT",
        15_000,
        "How often a stream says that it is alive, and its key is looked at again.",
        unit="ms",
        test="tests/integration/entrypoints/test_stream.py::test_a_quiet_stream_beats_and_moves_the_position_of_its_reader",
        ge=50,
        le=300_000,
    )
    stream_lease_ms: int = _setting(
        "HUBSCOPE_STREAM_LEASE",
        3_000,
        "How long after its last word the process that numbers live updates is replaced by another one.",
        unit="ms",
        test="tests/integration/entrypoints/test_stream_replicas.py::test_another_replica_goes_on_when_the_one_that_numbers_is_killed",
        ge=200,
        le=60_000,
    )
    stream_retention_hours: Positive = _setting(
        "HUBSCOPE_STREAM_RETENTION_HOURS",
        72,
        "How long a live update can be asked for again (Last-Event-ID).",
        unit="hours",
        test="tests/integration/journal/test_sequencer.py::test_the_log_is_bounded_by_age_and_by_rows_of_each_tenant",
        le=24 * 366,
    )
    stream_max_rows: Positive = _setting(
        "HUBSCOPE_STREAM_MAX_ROWS",
        100_000,
        "Most live updates of a tenant that are kept; past it the oldest go.",
        unit="events",
        test="tests/integration/journal/test_sequencer.py::test_the_log_is_bounded_by_age_and_by_rows_of_each_tenant",
    )
    stream_event_bytes: int = _setting(
        "HUBSCOPE_STREAM_EVENT_BYTES",
        16 * 1024,
        "A live update with a larger payload goes out without it, and says so.",
        unit="bytes",
        test="tests/integration/journal/test_sequencer.py::test_a_payload_that_is_too_large_is_left_out_and_said_so",
        ge=256,
        le=1024 * 1024,
    )
    stream_queue_events: int = _setting(
        "HUBSCOPE_STREAM_QUEUE_EVENTS",
        1_000,
        "Events that a reader may be behind before it is cut off; so many of a tenant stand in memory, once for all.",
        unit="events",
        test="tests/integration/entrypoints/test_stream.py::test_a_slow_reader_is_cut_off_and_loses_nothing_when_it_resumes",
        ge=8,
        le=100_000,
    )
    stream_max_subscribers: Positive = _setting(
        "HUBSCOPE_STREAM_MAX_SUBSCRIBERS",
        800,
        "Streams at once in this process; one more is answered 503.",
        unit="streams",
        test="tests/integration/entrypoints/test_stream.py::test_a_stream_too_many_is_told_so",
    )
    stream_max_subscribers_tenant: Positive = _setting(
        "HUBSCOPE_STREAM_MAX_SUBSCRIBERS_TENANT",
        600,
        "A tenant's streams at once in this process; one more is answered 429.",
        unit="streams",
        test="tests/integration/entrypoints/test_stream.py::test_a_stream_too_many_is_told_so",
    )

    def model_post_init(self, _context: Any) -> None:
        """Refuse values that cannot work together, and those whose form a type cannot state."""
        if self.host != "localhost" and not _is_address(self.host):
            raise InvalidSetting(
                f"HUBSCOPE_HOST is {self.host!r}, which is no address to listen on (allowed: an IP address such as"
                " 127.0.0.1, ::1, 0.0.0.0 or ::, or localhost)"
            )
        if self.database_url is not None and not _names_one_postgresql(self.database_url):
            raise InvalidSetting(
                "HUBSCOPE_DATABASE_URL is not the URL of one PostgreSQL"
                " (postgresql://user:password@host:5432/database, special characters percent-encoded)"
            )
        if self.pool_max < self.writers + 7:
            raise InvalidSetting(
                f"HUBSCOPE_POOL_MAX is {self.pool_max}: {self.writers} writers (HUBSCOPE_WRITERS), the partition check,"
                f" the list of API keys, the audit log, two for servers and chains, live updates, and a reader need at"
                f" least {self.writers + 7}"
                " connections"
            )
        for secret in ("key_pepper", "scrape_token", "encryption_key"):
            if getattr(self, secret) is not None and getattr(self, f"{secret}_file") is not None:
                raise InvalidSetting(f"HUBSCOPE_{secret.upper()} and HUBSCOPE_{secret.upper()}_FILE: set one of them")
        self._refuse_posts_that_never_fit()
        self._check_retention()

    def _check_retention(self) -> None:
        """Nothing is kept shorter than what builds on it, or may come late for it."""
        least = self.max_event_age_days + 1
        for name in ("retention_raw_days", "retention_hourly_days", "retention_hourly_latency_days"):
            if getattr(self, name) < least:
                raise InvalidSetting(
                    f"{describe(type(self), name)['env']} is {getattr(self, name)}: events up to"
                    f" {self.max_event_age_days} days old are taken (HUBSCOPE_MAX_EVENT_AGE_DAYS), so at least"
                    f" {least} days are kept"
                )
        if 0 < self.retention_daily_days < self.retention_hourly_days:
            raise InvalidSetting(
                f"HUBSCOPE_RETENTION_DAILY_DAYS is {self.retention_daily_days}: days outlive hours"
                f" (HUBSCOPE_RETENTION_HOURLY_DAYS is {self.retention_hourly_days}); 0 keeps them for ever"
            )

    def _refuse_posts_that_never_fit(self) -> None:
        """What HTTP lets through must fit a tenant's share of an empty queue: else it is told to try again for ever."""
        for largest, post, queue, unit in (
            ("HUBSCOPE_MAX_BATCH_EVENTS", self.max_batch_events, "queue_max_events", "events"),
            ("HUBSCOPE_MAX_DECODED_BYTES", self.max_decoded_bytes, "queue_max_bytes", "bytes"),
            ("HUBSCOPE_MAX_BODY_BYTES", self.max_body_bytes, "queue_max_bytes", "bytes"),
        ):
            share = self.tenant_share(getattr(self, queue))
            if post > share:
                raise InvalidSetting(
                    f"{largest} is {post}, but a tenant's share of HUBSCOPE_{queue.upper()} ({getattr(self, queue)}) is"
                    f" {share} {unit} (HUBSCOPE_TENANT_QUEUE_PERCENT is {self.tenant_queue_percent}): such a post would"
                    " be refused for ever"
                )
        if self.max_body_bytes > self.max_buffered_bytes:
            raise InvalidSetting(
                f"HUBSCOPE_MAX_BODY_BYTES is {self.max_body_bytes}, but HUBSCOPE_MAX_BUFFERED_BYTES is"
                f" {self.max_buffered_bytes}: such a post would be refused for ever"
            )

    def tenant_share(self, whole: int) -> int:
        """What one tenant may fill of the queue's events or bytes."""
        return whole * self.tenant_queue_percent // 100

    def secret(self, field: str) -> str | None:
        """A secret of these settings, from the variable or from the file that its _FILE twin names; None if unset.

        Raises:
            InvalidSetting: the file cannot be read, or is empty.
        """
        value: str | None = getattr(self, field)
        path: Path | None = getattr(self, f"{field}_file")
        if path is None:
            return value.strip() if value is not None else None
        try:
            value = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise InvalidSetting(f"HUBSCOPE_{field.upper()}_FILE: {path} cannot be read: {reason}") from None
        if not value:
            raise InvalidSetting(f"HUBSCOPE_{field.upper()}_FILE: {path} is empty")
        return value

    @property
    def on_loopback(self) -> bool:
        """True where only this machine can reach the service."""
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback

    @property
    def names(self) -> frozenset[str]:
        """The host names of HUBSCOPE_ALLOWED_HOSTS, in lower case."""
        return frozenset(name.strip().strip("[]").lower() for name in self.allowed_hosts.split(",") if name.strip())

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
    """hubscope.toml in the working directory: the same names as the environment, in lower case, without the prefix."""

    def __init__(self, settings: type[_Sourced]) -> None:
        super().__init__(settings)
        self._settings = settings

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        name = self._settings.toml_table
        everything = _toml_table()
        table = {k: v for k, v in everything.items() if k not in TABLES} if name is None else everything.get(name, {})
        known = {
            variable.removeprefix(self._settings.toml_prefix).lower(): variable
            for variable in self._settings.variables()
        }
        if name == SQL_TABLE:
            table = {key: value for key, value in table.items() if key != DATABASES_TABLE}
        unknown = sorted(key for key in table if key.lower() not in known)
        if unknown:
            shown = unknown[0] if name is None else f"{name}.{unknown[0]}"
            raise InvalidSetting(f"{CONFIG_FILE} names {shown!r}, which is no setting (see the settings reference)")
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


def sql_databases() -> dict[str, dict[str, Any]]:
    """`[sql.databases.<name>]` of hubscope.toml, as they stand there, in their order.

    Raises:
        InvalidSetting: the file cannot be read, or one of them is no table.
    """
    found = _toml_table().get(SQL_TABLE, {}).get(DATABASES_TABLE, {})
    if not isinstance(found, dict) or not all(isinstance(table, dict) for table in found.values()):
        raise InvalidSetting(f"{CONFIG_FILE}: databases are tables, [{SQL_TABLE}.{DATABASES_TABLE}.<name>]")
    return found


def describe(settings: type[BaseSettings], field: str) -> dict[str, Any]:
    """What the reference page says of one field: env, unit, off, test (from `_setting`)."""
    extra = settings.model_fields[field].json_schema_extra
    assert isinstance(extra, dict)
    return dict(extra)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _names_one_postgresql(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("postgresql", "postgres") and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, several hosts, a bracket that is not closed
        return False


def _in_plain_words(error: ValidationError, settings: type[BaseSettings]) -> str:
    first = error.errors(include_url=False)[0]
    variable = str(first["loc"][0]) if first["loc"] else "a setting"
    shown = {str(field.validation_alias) for field in settings.model_fields.values() if field.repr}
    value = f" is {repr(first.get('input'))[:100]}" if variable in shown else ""
    return f"{variable}{value}: {first['msg'][0].lower()}{first['msg'][1:]}"


SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]


class SqlSettings(_Sourced):
    """Settings of the read-only SQL server: what it serves, to whom it connects, within which limits.

    The names are those of the server's specification, which belong to it alone; in hubscope.toml they stand in `[sql]`.

    Raises:
        InvalidSetting: from `load`, naming the variable and the allowed values.
    """

    toml_table: ClassVar[str | None] = SQL_TABLE
    toml_prefix: ClassVar[str] = "HUBSCOPE_SQL_"
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
        "How long what was found out about a text holds for the same text.",
        unit="seconds",
        off="0 looks every time",
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

    default_database: str | None = _setting(
        "HUBSCOPE_SQL_DEFAULT_DATABASE",
        None,
        "Of several databases, the one that is asked when a call names none.",
        unit="name",
        off="the first of the command line, or DATABASE_URL, or the first of hubscope.toml",
        test="tests/unit/sqlgate/test_databases.py::test_the_default_is_the_first_one_or_the_one_that_is_named",
    )
    audit_chars: int = _setting(
        "HUBSCOPE_SQL_AUDIT_CHARS",
        2_000,
        "How much of a query's text stands in its audit record, after secrets were taken out.",
        unit="characters",
        off="0 leaves the text out",
        test="tests/integration/sqlgate/test_sql_mcp.py::test_the_text_of_a_query_is_audited_without_secrets_and_cut",
        ge=0,
        le=20_000,
    )
    in_service: bool = _setting(
        "HUBSCOPE_SQL_IN_SERVICE",
        True,
        "Serve /sql/mcp inside the service (`hubscope up`, `hubscope serve`).",
        unit="true or false",
        off="/sql/mcp is not there; `hubscope sql-mcp` works as before",
        test="tests/integration/entrypoints/test_sql_service.py::test_it_can_be_left_out",
    )
    store_connections: Positive = _setting(
        "HUBSCOPE_SQL_STORE_CONNECTIONS",
        4,
        "Connections of /sql/mcp to hubscope's own store, where no other database is named. None of them is ingest's.",
        unit="connections",
        test="tests/integration/entrypoints/test_sql_service.py::test_it_has_connections_of_its_own",
        le=100,
    )

    def narrowed(self, table: dict[str, Any], url: str | None = None) -> Self:
        """These settings with those of one database above them.

        Args:
            table: as in hubscope.toml, in lower case, without HUBSCOPE_SQL_.
            url: of the database, above what the table says.

        Raises:
            InvalidSetting: naming the setting.
        """
        fields = {
            str(describe(type(self), field)["env"]).removeprefix(self.toml_prefix).lower(): field
            for field in type(self).model_fields
            if field
            not in ("health_check_enabled", "default_database", "audit_chars", "in_service", "store_connections")
        }
        unknown = sorted(key for key in table if key not in fields)
        if unknown:
            raise InvalidSetting(f"{unknown[0]!r} is no setting of a database; allowed: {', '.join(sorted(fields))}")
        own = {fields[key]: value for key, value in table.items() if value != ""}
        if url is not None:
            own["database_url"] = url
        where = {"database_url": None, "database_url_file": None}  # of another database
        return type(self).load(**(self.model_dump() | where | own | ({"database_url_file": None} if url else {})))

    def model_post_init(self, _context: Any) -> None:
        """Refuse a URL that is none."""
        if self.database_url is not None and not _names_one_postgresql(self.database_url):
            raise InvalidSetting(
                "DATABASE_URL is not the URL of one PostgreSQL"
                " (postgresql://user:password@host:5432/database, special characters percent-encoded)"
            )
