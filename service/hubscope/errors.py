"""Every failure by name. One class per cause; the docstring's first line is what a person is told by default.

`status` is the HTTP status that entrypoints answer with, `code` the word a program can switch on.
"""

from __future__ import annotations

from typing import Any, ClassVar


class HubscopeError(Exception):
    """Something went wrong in hubscope."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retry_after_seconds: int | None = None
    challenge: ClassVar[str | None] = None
    """What WWW-Authenticate says (RFC 6750), for errors of authentication."""

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


class BodyTooLarge(TooLarge):
    """The body as sent is larger than HUBSCOPE_MAX_BODY_BYTES."""

    code = "body_too_large"


class DecodedTooLarge(TooLarge):
    """The unzipped body is larger than HUBSCOPE_MAX_DECODED_BYTES."""

    code = "decoded_too_large"


class TooManyEvents(TooLarge):
    """There are more than HUBSCOPE_MAX_BATCH_EVENTS events in one post."""

    code = "too_many_events"


class ForbiddenOrigin(HubscopeError):
    """A browser page of another site, or an unknown host name, may not talk to this service."""

    status = 403
    code = "forbidden_origin"


class KeyInUrl(InvalidRequest):
    """An API key in a URL ends up in logs and histories; send it as `Authorization: Bearer`, and rotate this one."""

    code = "key_in_url"


class KeyRequired(HubscopeError):
    """An API key is required: send `Authorization: Bearer hsk_...` (`hubscope keys create` makes one)."""

    status = 401
    code = "key_required"
    challenge = 'Bearer realm="hubscope"'


class _BadKey(KeyRequired):
    """A key was shown and will not do."""

    challenge = 'Bearer realm="hubscope", error="invalid_token"'


class MalformedKey(_BadKey):
    """What was sent as `Authorization` is no API key of hubscope (`Bearer hsk_...`, once)."""

    code = "malformed_key"


class MistypedKey(_BadKey):
    """The API key is mistyped or cut off: its checksum does not fit."""

    code = "mistyped_key"


class UnknownKey(_BadKey):
    """The API key is not known here, or it was revoked."""

    code = "invalid_key"


class ExpiredKey(_BadKey):
    """The API key has expired."""

    code = "expired_key"


class ScopeMissing(HubscopeError):
    """The API key may not do this."""

    status = 403
    code = "missing_scope"

    def __init__(self, scope: str) -> None:
        self.scope = str(scope)
        super().__init__(f"the API key lacks the scope {self.scope!r}", scope=self.scope)


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


class AuditAway(Unavailable):
    """The audit record cannot be written, and nothing is answered without one."""

    code = "audit_away"


class NoPepper(Unavailable):
    """API keys cannot be verified: their pepper is missing."""

    code = "no_pepper"
    retry_after_seconds = 10


class Overloaded(Unavailable):
    """More is being sent at once than this process takes."""

    code = "overloaded"


class QueueFull(Unavailable):
    """More events are waiting to be committed than the queue holds."""

    code = "queue_full"


class CommitUnknown(Unavailable):
    """The outcome of the commit is not known; send the same events with the same ids again."""

    code = "commit_unknown"


class ShuttingDown(Unavailable):
    """The service is stopping."""

    code = "shutting_down"


class TooManyRequests(HubscopeError):
    """The tenant's share is used up."""

    status = 429
    code = "too_many_requests"
    retry_after_seconds = 1


class RateExceeded(TooManyRequests):
    """The tenant sends more events per second than it may."""

    code = "rate_exceeded"

    def __init__(self, detail: str, *, retry_after_seconds: int, **context: Any) -> None:
        super().__init__(detail, **context)
        self.retry_after_seconds = retry_after_seconds


class ShareExceeded(TooManyRequests):
    """The tenant's share of the queue is used up."""

    code = "share_exceeded"


class UnsafeDatabase(Unavailable):
    """The database may lose what it has committed."""

    code = "unsafe_database"
    retry_after_seconds = 60


class NoKeys(HubscopeError):
    """hubscope listens beyond loopback only when there are API keys."""

    code = "no_keys"


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


class HubAway(HubscopeError):
    """The mcp-hub does not answer."""

    code = "hub_away"


class CannotWire(HubscopeError):
    """The hub has nothing that can be recorded."""

    code = "cannot_wire"


class NoEncryptionKey(Unavailable):
    """Secrets cannot be kept: there is no key to seal them with (HUBSCOPE_ENCRYPTION_KEY)."""

    code = "no_encryption_key"
    retry_after_seconds = 10


class CannotUnseal(HubscopeError):
    """A stored secret cannot be opened with the keys of this process."""

    code = "cannot_unseal"


class UnknownServer(HubscopeError):
    """There is no such server."""

    status = 404
    code = "unknown_server"


class UnknownTool(HubscopeError):
    """The server has no such tool."""

    status = 404
    code = "unknown_tool"


class UpstreamFailed(HubscopeError):
    """The upstream server could not be reached, or did not answer as an MCP server does.

    Attributes:
        sent: whether the request may have reached the server, so that it may have had an effect.
        error_type: as recorded with the call.
    """

    status = 502
    code = "upstream_failed"

    def __init__(self, detail: str | None = None, *, sent: bool, error_type: str = "upstream", **context: Any) -> None:
        super().__init__(detail, **context)
        self.sent = sent
        self.error_type = error_type


class UpstreamTimeout(UpstreamFailed):
    """The upstream server did not answer in time; whether the request had an effect is not known."""

    status = 504
    code = "upstream_timeout"


class InvalidChain(InvalidRequest):
    """The chain cannot be run as it is written."""

    code = "invalid_chain"


class UnknownChain(HubscopeError):
    """There is no such chain."""

    status = 404
    code = "unknown_chain"


class ChainNotResumable(HubscopeError):
    """The chain cannot go on from where it is."""

    status = 409
    code = "chain_not_resumable"


class ChainLost(Unavailable):
    """The chain was stopped here, because its lease could not be renewed in time; it can be resumed."""

    code = "chain_lost"


class TooManyChains(TooManyRequests):
    """As many chains are running here as may run at once."""

    code = "too_many_chains"


class TooManyStreams(TooManyRequests):
    """The tenant has as many streams open here as it may (HUBSCOPE_STREAM_MAX_SUBSCRIBERS_TENANT)."""

    code = "too_many_streams"
    retry_after_seconds = 5


class StreamsFull(Unavailable):
    """As many streams are open here as may be (HUBSCOPE_STREAM_MAX_SUBSCRIBERS)."""

    code = "streams_full"
    retry_after_seconds = 5
