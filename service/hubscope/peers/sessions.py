"""Long-lived MCP client sessions: one per server, opened when first needed, opened again when they break, bounded.

A session is held by a task of its own, which enters and leaves the SDK's contexts (anyio wants both in one task) and
ends with the transport. Whoever calls waits for an answer in their own task; cancelling that cancels the request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import anyio
import httpx2
import mcp_types as types
import structlog
from mcp import Client, MCPError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import TypeAdapter, ValidationError

import hubscope
from hubscope.delivery import pause_seconds
from hubscope.errors import Overloaded, ShuttingDown
from hubscope.peers.contract import Progress
from hubscope.peers.guard import ANYWHERE, GuardedBackend
from hubscope.peers.http import Trouble, UpstreamTransport, trouble_of
from hubscope.peers.registration import Registration
from hubscope.peers.stdio import Child, started
from hubscope.settings import Settings

log = structlog.get_logger("hubscope.peers")

Key = tuple[str, str]
"""Tenant and id of a server."""
OnEnd = Callable[[Key, Trouble], None]

CLOSE_S: Final = 4.0
"""How long closing a session may take: a stdio server is given its time to end (`stdio.CLOSE_S`, three times)."""
_RAW: Final[Any] = TypeAdapter(dict[str, Any])
"""The SDK's types would drop what a newer server adds; answers go on as they came."""
_INFO: Final = types.Implementation(name="hubscope", version=hubscope.__version__)
_TERMINATED: Final = "Session terminated"


class RpcError(Exception):
    """The server's own JSON-RPC error: an answer, not a failure of ours."""

    def __init__(self, code: int, message: str, data: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


class _Terminated(Exception):
    """The server does not know our session any more; it has not run the request."""


class Session:
    """One connection to one server. `opened` makes it; `close` or the server's end ends it.

    Args:
        children: where its process stands while it runs.

    Attributes:
        child: the process, for stdio.
        in_flight: requests that wait for their answer.
    """

    def __init__(
        self, registration: Registration, settings: Settings, backend: GuardedBackend, children: set[Child]
    ) -> None:
        self._children = children
        self.registration = registration
        self.child: Child | None = None
        self.in_flight = 0
        self.lists_changed = False
        self.trouble: Trouble | None = None
        self._settings = settings
        self._backend = backend
        self._client: Client | None = None
        self._leave = asyncio.Event()
        self._ended = asyncio.Event()
        self._asked_to_close = False
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold(), name=f"session of {registration.id}")

    @property
    def alive(self) -> bool:
        return self._client is not None and not self._leave.is_set() and not self._ended.is_set()

    @property
    def modern(self) -> bool:
        """Whether it speaks a protocol without handshake, and so without ping."""
        assert self._client is not None
        return self._client.session.discover_result is not None

    @property
    def offers_tools(self) -> bool:
        assert self._client is not None
        return self._client.server_capabilities.tools is not None

    async def opened(self) -> None:
        """Wait until requests can be sent.

        Raises:
            Trouble: they never will.
        """
        await asyncio.shield(self._ready)

    async def request(self, method: str, params: Mapping[str, Any] | None, progress: Progress | None) -> dict[str, Any]:
        """One MCP request; the raw result.

        Raises:
            RpcError: the server's own error.
            Trouble: no answer, or none that MCP allows.
        """
        assert self._client is not None
        self.in_flight += 1
        try:
            answer: dict[str, Any] = await self._client.session.send_request(
                types.Request[dict[str, Any] | None, str](method=method, params=dict(params) if params else None),
                _RAW,
                progress_callback=cast(Any, progress),
            )
            return answer
        except MCPError as error:
            if error.code == types.CONNECTION_CLOSED:
                raise await self._why() from None
            trouble = trouble_of(error.error.data)
            if trouble is not None:
                raise Trouble(trouble.error_type, error.message, trouble.sent, trouble.status) from None
            if error.code == types.INVALID_REQUEST and error.message == _TERMINATED:
                raise _Terminated from None
            if error.code == types.REQUEST_TIMEOUT:
                raise Trouble("timeout", "the server says that it took too long", sent=True) from None
            raise RpcError(error.code, error.message, error.error.data) from None
        except (ValidationError, ValueError) as error:
            what = str(error).splitlines()[0][:200]
            raise Trouble("invalid_answer", f"the answer to {method} is not what MCP allows: {what}", True) from None
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, RuntimeError):
            raise await self._why() from None
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        """End it, in bounded time."""
        self._asked_to_close = True
        self._leave.set()
        if self._client is None:  # it waits for a handshake that may never come
            self._task.cancel()
        done, _ = await asyncio.wait({self._task}, timeout=CLOSE_S)
        if not done:
            log.warning("a session does not close", server=self.registration.id)
            self._task.cancel()

    async def gone(self) -> Trouble | None:
        """Wait for its end; why, unless it was closed by us."""
        await asyncio.wait({self._task})
        return None if self._asked_to_close else self.trouble

    async def _why(self) -> Trouble:
        """Why the connection closed: known a moment after it did."""
        await asyncio.wait({self._task}, timeout=1.0)
        return self.trouble or Trouble("connection_closed", "the connection was closed", sent=True)

    async def _hold(self) -> None:
        try:
            async with Client(
                self._transport(), mode="auto", cache=None, client_info=_INFO, message_handler=self._notified
            ) as client:
                self._client = client
                self._ready.set_result(None)
                leave = asyncio.create_task(self._leave.wait())
                ended = asyncio.create_task(self._ended.wait())
                try:
                    await asyncio.wait({leave, ended}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    leave.cancel()
                    ended.cancel()
        except Exception as error:
            self.trouble = _trouble(error)
        finally:
            self._ended.set()
            if self.child is not None:
                self._children.discard(self.child)
            if self.child is not None and not self._asked_to_close and (self.trouble is None or self._client):
                self.trouble = Trouble("transport_closed", f"the server has ended: {self.child.last_words()}", True)
            elif self.child is not None and self.trouble is not None and self._client is None:
                words = f"the server ended while it was starting: {self.child.last_words()}"
                self.trouble = Trouble("connect_failed", words, sent=False)
            if not self._ready.done():
                self._ready.set_exception(self.trouble or Trouble("connect_failed", "it closed at once", sent=False))
                self._ready.exception()  # nobody may wait for it

    def _transport(self) -> AbstractAsyncContextManager[Any]:
        registration, settings = self.registration, self._settings
        if registration.command is not None:
            return started(
                registration.command,
                max_bytes=settings.peer_max_answer_bytes,
                on_start=self._started,
                on_end=self._ended.set,
            )
        return self._over_http()

    @asynccontextmanager
    async def _over_http(self) -> AsyncIterator[Any]:
        registration, settings = self.registration, self._settings
        longest = settings.peer_max_timeout_ms / 1000
        timeout = httpx2.Timeout(settings.peer_connect_timeout_ms / 1000, read=longest)
        if registration.protocol == "sse":
            client = http_client(registration, settings, self._backend, timeout, self._lost)

            def made(headers: Any = None, timeout: Any = None, auth: Any = None) -> httpx2.AsyncClient:
                return client

            async with sse_client(registration.url, sse_read_timeout=longest, httpx_client_factory=made) as streams:
                yield _Noticing(streams[0], self._ended.set), streams[1]
            return
        client = http_client(registration, settings, self._backend, timeout)
        async with (
            client,
            streamable_http_client(
                registration.url, http_client=client, max_sse_event_size=settings.peer_max_answer_bytes
            ) as streams,
        ):
            yield streams

    def _lost(self, trouble: Trouble) -> None:
        """A message did not get through: over SSE its answer would be waited for in vain."""
        self.trouble = trouble
        self._ended.set()

    def _started(self, child: Child) -> None:
        self.child = child
        self._children.add(child)

    async def _notified(self, message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.lists_changed = True


def http_client(
    registration: Registration,
    settings: Settings,
    backend: GuardedBackend,
    timeout: httpx2.Timeout,
    on_trouble: Callable[[Trouble], None] = lambda _: None,
) -> httpx2.AsyncClient:
    """An HTTP client that goes to one server, as that server wants it."""
    return httpx2.AsyncClient(
        transport=UpstreamTransport(
            backend,
            registration.auth,
            registration.headers,
            max_bytes=settings.peer_max_answer_bytes,
            on_trouble=on_trouble,
        ),
        timeout=timeout,
        trust_env=False,
        follow_redirects=False,
        max_redirects=0,
    )


async def status_of(client: httpx2.AsyncClient, url: str) -> int:
    """The status of a GET.

    Raises:
        Trouble: there is none.
    """
    response = await client.get(url)
    with contextlib.suppress(ValueError, AttributeError):
        trouble = trouble_of(response.json()["error"]["data"]) if response.status_code == 502 else None
        if trouble is not None and trouble.status is None:
            raise Trouble(trouble.error_type, response.json()["error"]["message"], trouble.sent)
        if trouble is not None and trouble.status is not None:
            return trouble.status
    return response.status_code


class _Noticing:
    """A read stream that tells when it has ended."""

    def __init__(self, inner: Any, ended: Callable[[], None]) -> None:
        self._inner = inner
        self._tell = ended

    @property
    def last_context(self) -> Any:
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> Any:
        try:
            return await self._inner.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._tell()
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> _Noticing:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._inner.__anext__()
        except (StopAsyncIteration, anyio.ClosedResourceError):
            self._tell()
            raise

    async def __aenter__(self) -> _Noticing:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> bool | None:
        result: bool | None = await self._inner.__aexit__(*exc)
        return result


def _trouble(error: BaseException) -> Trouble:
    """What ended a session, out of the groups that anyio puts errors into."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if isinstance(error, Trouble):
        return error
    if isinstance(error, MCPError):
        trouble = trouble_of(error.error.data)
        if trouble is not None:
            return Trouble(trouble.error_type, error.message, trouble.sent, trouble.status)
        return Trouble("connect_failed", f"the handshake failed: {error.message[:300]}", sent=False)
    if isinstance(error, OSError):
        return Trouble("connect_failed", f"it cannot be started: {error.strerror or type(error).__name__}", sent=False)
    if isinstance(error, httpx2.HTTPStatusError):
        body = error.response
        with contextlib.suppress(ValueError, KeyError, httpx2.ResponseNotRead):
            trouble = trouble_of(body.json()["error"]["data"])
            if trouble is not None:
                return Trouble(trouble.error_type, body.json()["error"]["message"], trouble.sent, trouble.status)
        return Trouble("http_status", f"the server answers with status {body.status_code}", True, body.status_code)
    log.debug("a session ended", error=repr(error)[:500])
    return Trouble("connect_failed", f"the handshake failed ({type(error).__name__})", sent=False)


@dataclass(slots=True)
class _Entry:
    registration: Registration
    session: Session | None = None
    opening: asyncio.Task[Session] | None = None
    failures: int = 0
    retry_at: float = 0.0
    trouble: Trouble | None = None
    used_at: float = 0.0
    watchers: set[asyncio.Task[None]] = field(default_factory=set)


class Sessions:
    """The sessions of a process, by tenant and server.

    Args:
        settings: limits.
        backend: opens sockets to registered servers.
        on_end: told when a session ends that was not closed by us.
    """

    def __init__(self, settings: Settings, backend: GuardedBackend, on_end: OnEnd = lambda _key, _why: None) -> None:
        self.on_end = on_end
        self._settings = settings
        self._backends = {False: backend, True: GuardedBackend(ANYWHERE)}
        self._entries: dict[Key, _Entry] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._children: set[Child] = set()
        self._closed = False

    def __len__(self) -> int:
        return sum(entry.session is not None or entry.opening is not None for entry in self._entries.values())

    async def request(
        self,
        key: Key,
        registration: Registration,
        method: str,
        params: Mapping[str, Any] | None,
        *,
        progress: Progress | None = None,
        eager: bool = False,
    ) -> dict[str, Any]:
        """One MCP request on the server's session, which is opened where there is none.

        Args:
            eager: try to open it although that failed a moment ago.

        Raises:
            RpcError, Trouble, Overloaded.
        """
        for _ in range(2):
            session = await self.get(key, registration, eager=eager)
            try:
                return await session.request(method, params, progress)
            except _Terminated:
                self.drop(key)
            finally:
                if key in self._entries:
                    self._entries[key].used_at = asyncio.get_running_loop().time()
        raise Trouble("session_lost", "the server forgets its sessions at once", sent=False)

    async def get(self, key: Key, registration: Registration, *, eager: bool = False) -> Session:
        """The session of a server.

        Raises:
            Trouble: it cannot be opened.
            Overloaded: there are too many.
        """
        if self._closed:
            raise ShuttingDown
        entry = self._entries.get(key)
        if entry is not None and entry.registration != registration:
            self.drop(key)
            self._entries.pop(key, None)
            entry = None
        if entry is None:
            entry = self._entries[key] = _Entry(registration)
        now = asyncio.get_running_loop().time()
        entry.used_at = now
        if entry.session is not None and entry.session.alive:
            return entry.session
        if entry.opening is None:
            if not eager and entry.trouble is not None and now < entry.retry_at:
                raise entry.trouble
            self._make_room(key)
            entry.opening = asyncio.create_task(self._open(key, entry), name=f"open {registration.id}")
            entry.opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        opening = entry.opening
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            asked = asyncio.current_task()
            if opening.cancelled() and asked is not None and not asked.cancelling():
                raise Trouble("connection_closed", "its session was closed while it was being opened", False) from None
            raise

    async def status(self, registration: Registration, url: str) -> int:
        """GET a path of a server, such as its health check: the status of the answer.

        Raises:
            Trouble: there is none.
        """
        timeout = httpx2.Timeout(self._settings.peer_connect_timeout_ms / 1000)
        backend = self._backends[registration.trusted]
        async with http_client(registration, self._settings, backend, timeout) as client:
            return await status_of(client, url)

    def peek(self, key: Key) -> Session | None:
        """The session of a server, if it is open."""
        entry = self._entries.get(key)
        return entry.session if entry is not None and entry.session is not None and entry.session.alive else None

    def opening(self, key: Key) -> bool:
        """Whether a session of the server is being opened."""
        entry = self._entries.get(key)
        return entry is not None and entry.opening is not None

    def drop(self, key: Key) -> None:
        """Close the session of a server, if there is one; the next request opens another."""
        entry = self._entries.get(key)
        if entry is None:
            return
        if entry.opening is not None:
            entry.opening.cancel()
            entry.opening = None
        if entry.session is not None:
            task = asyncio.create_task(entry.session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            entry.session = None

    def forget(self, key: Key) -> None:
        """The server is registered no more."""
        self.drop(key)
        self._entries.pop(key, None)

    def close_idle(self, than_s: float) -> None:
        """Close sessions that nobody used for so long."""
        now = asyncio.get_running_loop().time()
        for key, entry in list(self._entries.items()):
            if entry.session is not None and not entry.session.in_flight and now - entry.used_at > than_s:
                self.drop(key)

    async def close(self) -> None:
        """Close them all, side by side."""
        self._closed = True
        for key in list(self._entries):
            self.forget(key)
        while self._closing:
            await asyncio.wait(set(self._closing))

    def kill(self) -> None:
        """Time is up: processes that have not ended by themselves are ended."""
        for child in self._children:
            child.kill()

    def _make_room(self, key: Key) -> None:
        if len(self) < self._settings.peer_max_sessions:
            return
        idle = [
            (entry.used_at, other)
            for other, entry in self._entries.items()
            if other != key and entry.session is not None and not entry.session.in_flight
        ]
        if not idle:
            raise Overloaded(
                f"{self._settings.peer_max_sessions} sessions with MCP servers are open (HUBSCOPE_PEER_MAX_SESSIONS),"
                " and all of them are in use"
            )
        self.drop(min(idle)[1])

    async def _open(self, key: Key, entry: _Entry) -> Session:
        session = Session(
            entry.registration, self._settings, self._backends[entry.registration.trusted], self._children
        )
        try:
            try:
                async with asyncio.timeout(self._settings.peer_connect_timeout_ms / 1000):
                    await session.opened()
            except TimeoutError:
                raise Trouble("connect_timeout", "the server does not complete the handshake in time", False) from None
        except BaseException as error:
            task = asyncio.create_task(session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            if isinstance(error, Trouble):
                entry.failures += 1
                entry.trouble = error
                entry.retry_at = asyncio.get_running_loop().time() + pause_seconds(entry.failures, None)
            entry.opening = None
            raise
        entry.session, entry.opening = session, None
        entry.failures, entry.trouble = 0, None
        watcher = asyncio.create_task(self._watch(key, entry, session))
        entry.watchers.add(watcher)
        watcher.add_done_callback(entry.watchers.discard)
        return session

    async def _watch(self, key: Key, entry: _Entry, session: Session) -> None:
        trouble = await session.gone()
        if entry.session is session:
            entry.session = None
        if trouble is not None and not self._closed:
            self.on_end(key, trouble)
