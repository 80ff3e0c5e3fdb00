"""Every failure by name. One class per cause; the docstring's first line is what a person is told by default.

`status` is the HTTP status that entrypoints answer with, `code` the word a program can switch on.
"""

from __future__ import annotations

from typing import Any, ClassVar


class HubscopeError(Exception):
    """Something went wrong in hubscope."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retry_after_seconds: ClassVar[int | None] = None

    def __init__(self, detail: str | None = None, **context: Any) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip().splitlines()[0]
        self.context = context
        super().__init__(self.detail)


class InvalidSetting(HubscopeError):
    """A setting has a value that is not allowed."""

    code = "invalid_setting"


class InvalidRequest(HubscopeError):
    """The request cannot be understood."""

    status = 400
    code = "invalid_request"


class UnsupportedMediaType(HubscopeError):
    """The body is in a form that is not accepted."""

    status = 415
    code = "unsupported_media_type"


class TooLarge(HubscopeError):
    """The body is over a limit."""

    status = 413
    code = "too_large"


class ForbiddenOrigin(HubscopeError):
    """A browser page of another site, or an unknown host name, may not talk to this service."""

    status = 403
    code = "forbidden_origin"


class InvalidParameter(InvalidRequest):
    """A parameter has a value that is not allowed."""

    code = "invalid_parameter"


class Unavailable(HubscopeError):
    """The service cannot do this now; the same request may work in a moment."""

    status = 503
    code = "unavailable"
    retry_after_seconds = 1


class DatabaseAway(Unavailable):
    """The database cannot be reached."""

    code = "database_away"
    retry_after_seconds = 2


class QueueFull(Unavailable):
    """More events are waiting to be committed than the queue holds."""

    code = "queue_full"


class CommitUnknown(Unavailable):
    """The outcome of the commit is not known; send the same events with the same ids again."""

    code = "commit_unknown"


class ShuttingDown(Unavailable):
    """The service is stopping."""

    code = "shutting_down"


class MigrationFailed(HubscopeError):
    """The database schema could not be brought up to date."""

    code = "migration_failed"


class DataDirectoryBusy(HubscopeError):
    """Another process owns the data directory."""

    code = "data_directory_busy"


class EmbeddedDatabaseFailed(HubscopeError):
    """The embedded PostgreSQL could not be started."""

    code = "embedded_database_failed"


class PortBusy(HubscopeError):
    """Another process listens on the port."""

    code = "port_busy"


class JobFailed(HubscopeError):
    """A scheduled job failed."""

    code = "job_failed"


class QueryRefused(InvalidRequest):
    """The query is not one that may be run here."""

    code = "query_refused"


class QueryFailed(InvalidRequest):
    """The database could not run the query."""

    code = "query_failed"


class QueryTimedOut(QueryFailed):
    """The query took longer than allowed and was stopped on the server."""

    status = 408
    code = "query_timeout"


class QueryQueueFull(Unavailable):
    """Too many queries are waiting."""

    code = "query_queue_full"
