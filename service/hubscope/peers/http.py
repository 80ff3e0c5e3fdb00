"""HTTP to upstream servers: guarded, authenticated, bounded, and every failure an answer.

The SDK's transports run all requests of a session in one task group: an exception out of one request ends the others
with it. So nothing is raised here: what goes wrong becomes a JSON-RPC error response, with our own word for it in
`data`, and only the request that failed fails.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, cast
from urllib.parse import quote

import httpcore2
import httpx2
import msgspec

from hubscope.peers.guard import AddressRefused, GuardedBackend, NameUnknown
from hubscope.peers.registration import Auth

ERROR_KEY: Final = "hubscope.dev/error"
"""Where, in the `data` of an error, our own word for it stands."""
ERROR_CODE: Final = -32099
TOKEN_MARGIN_S: Final = 30.0
TOKEN_LIFE_S: Final = 300.0
"""How long a token counts as good whose server does not say."""
TOKEN_ANSWER_BYTES: Final = 64 * 1024
_TOO_LATE: Final = (httpcore2.ConnectTimeout, httpcore2.ReadTimeout, httpcore2.WriteTimeout, httpcore2.PoolTimeout)


class Trouble(Exception):
    """What went wrong with a request, in our own words.

    Attributes:
        error_type: for events.
        message: for people; no secrets, no addresses beyond what was registered.
        sent: whether the request may have reached the server.
        status: of the HTTP answer, if there was one.
    """

    def __init__(self, error_type: str, message: str, sent: bool, status: int | None = None) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.sent = sent
        self.status = status


class Authorizer:
    """Headers that prove us to one server. Tokens of client credentials (RFC 6749, 4.4) are kept until they expire."""

    def __init__(self, auth: Auth, pool: httpcore2.AsyncConnectionPool) -> None:
        self._auth = auth
        self._pool = pool
        self._lock = asyncio.Lock()
        self._token: str | None = None
        self._good_until = 0.0

    @property
    def renewable(self) -> bool:
        return self._auth.type == "oauth2"

    def forget(self) -> None:
        """The token was refused."""
        self._good_until = 0.0

    async def headers(self, timeout: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
        """What to send along.

        Raises:
            Trouble: no token is to be had.
        """
        config = self._auth.config
        match self._auth.type:
            case "api_key":
                return [(config.get("header", "X-API-Key").encode(), config["key"].encode())]
            case "bearer" | "jwt":
                return [(b"authorization", b"Bearer " + config["token"].encode())]
            case "basic":
                pair = base64.b64encode(f"{config['username']}:{config['password']}".encode())
                return [(b"authorization", b"Basic " + pair)]
            case "oauth2":
                async with self._lock:
                    if self._token is None or time.monotonic() >= self._good_until:
                        await self._fetch(timeout)
                return [(b"authorization", f"Bearer {self._token}".encode())]
        return []

    async def _fetch(self, timeout: Mapping[str, Any]) -> None:
        config = self._auth.config
        form = {"grant_type": "client_credentials"} | {
            name: config[name] for name in ("scope", "audience") if name in config
        }
        pair = f"{quote(config['client_id'], safe='')}:{quote(config['client_secret'], safe='')}".encode()
        request = httpx2.Request("POST", config["token_url"], data=form)
        core = httpcore2.Request(
            "POST",
            _core_url(request.url),
            headers=[
                *((name, value) for name, value in request.headers.raw if name.lower() != b"authorization"),
                (b"Authorization", b"Basic " + base64.b64encode(pair)),
                (b"Accept", b"application/json"),
                (b"Accept-Encoding", b"identity"),
            ],
            content=request.content,
            extensions={"timeout": dict(timeout)},
        )
        try:
            answer = await self._pool.handle_async_request(core)
        except httpcore2.TimeoutException:
            raise Trouble("auth_failed", "the token server does not answer", sent=False) from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
            raise Trouble("auth_failed", f"the token server cannot be reached: {_words(error)}", sent=False) from None
        try:
            body = await _whole(answer, TOKEN_ANSWER_BYTES)
        finally:
            await answer.aclose()
        try:
            found: Any = msgspec.json.decode(body) if answer.status == 200 else {}
            token = found["access_token"]
            life = float(found.get("expires_in", TOKEN_LIFE_S))
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError, UnicodeDecodeError):
            raise Trouble("auth_failed", f"the token server gives no token (status {answer.status})", False) from None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
            raise Trouble("auth_failed", "the token server's token cannot be sent", sent=False)
        self._token = token
        self._good_until = time.monotonic() + max(1.0, life - TOKEN_MARGIN_S)


class UpstreamTransport(httpx2.AsyncBaseTransport):
    """The one transport to an upstream server.

    Args:
        backend: opens sockets.
        auth: how to prove ourselves.
        headers: sent with every request.
        max_bytes: longest answer that is not an event stream.
        on_trouble: told of every failure, too.
        context: of TLS; tests bring their own.
    """

    def __init__(
        self,
        backend: GuardedBackend,
        auth: Auth,
        headers: Mapping[str, str],
        *,
        max_bytes: int,
        on_trouble: Callable[[Trouble], None] = lambda _: None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._on_trouble = on_trouble
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context,
            max_connections=None,
            max_keepalive_connections=8,
            keepalive_expiry=30.0,
            network_backend=backend,
        )
        self._authorizer = Authorizer(auth, self._pool)
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._max_bytes = max_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; whatever goes wrong is an answer, too."""
        try:
            try:
                try:
                    return await self._send(request)
                except Trouble as trouble:
                    if trouble.status != 401 or not self._authorizer.renewable:
                        raise
                self._authorizer.forget()
                return await self._send(request)
            except _TOO_LATE as error:
                started = not isinstance(error, httpcore2.ConnectTimeout | httpcore2.PoolTimeout)
                raise Trouble("timeout", "the server does not answer", sent=started) from None
            except (AddressRefused, NameUnknown) as error:
                kind = "address_refused" if isinstance(error, AddressRefused) else "name_unknown"
                raise Trouble(kind, str(error), sent=False) from None
            except httpcore2.ConnectError as error:
                raise Trouble("connect_failed", f"the server cannot be reached: {_words(error)}", sent=False) from None
            except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
                raise Trouble("connection_lost", f"the connection broke: {_words(error)}", sent=True) from None
        except Trouble as trouble:
            self._on_trouble(trouble)
            return _as_response(request, trouble)

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        timeout = request.extensions.get("timeout", {})
        ours = [*self._headers, *await self._authorizer.headers(timeout), (b"Accept-Encoding", b"identity")]
        replaced = {name.lower() for name, _ in ours}
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        core = httpcore2.Request(
            request.method,
            _core_url(request.url),
            headers=[pair for pair in request.headers.raw if pair[0].lower() not in replaced] + ours,
            content=request.stream,
            extensions=request.extensions,
        )
        answer = await self._pool.handle_async_request(core)
        streamed = False
        try:
            headers = httpx2.Headers(answer.headers)
            if 300 <= answer.status < 400:
                raise Trouble("redirected", "the server redirects, which is not followed", True, answer.status)
            if headers.get("content-encoding", "identity").lower() != "identity":
                raise Trouble("invalid_answer", "the server compresses although it was asked not to", sent=True)
            media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
            if media_type == "text/event-stream" and answer.status == 200:
                streamed = True
                return httpx2.Response(answer.status, headers=headers, stream=_Events(answer), request=request)
            body = await _whole(answer, self._max_bytes)
            # 404 is how a server says that it does not know the session any more; the SDK reads that by itself.
            if answer.status >= 400 and answer.status not in (404, 405) and not _is_rpc_error(media_type, body):
                kind = "auth_failed" if answer.status in (401, 403) else "http_status"
                raise Trouble(kind, f"the server answers with status {answer.status}", True, answer.status)
            return httpx2.Response(answer.status, headers=headers, content=body, request=request)
        finally:
            if not streamed:
                await answer.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._pool.aclose()


class _Events(httpx2.AsyncByteStream):
    """An event stream as it comes; each of its events is bounded by who reads it."""

    def __init__(self, answer: httpcore2.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._answer.aiter_stream():
                yield part
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
            raise httpx2.ReadError(_words(error)) from None

    async def aclose(self) -> None:
        await self._answer.aclose()


async def _whole(answer: httpcore2.Response, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in answer.aiter_stream():
        size += len(part)
        if size > most:
            raise Trouble("answer_too_large", f"the answer is larger than {most} bytes", sent=True)
        parts.append(part)
    return b"".join(parts)


def _core_url(url: httpx2.URL) -> httpcore2.URL:
    return httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _is_rpc_error(media_type: str, body: bytes) -> bool:
    if media_type != "application/json":
        return False
    try:
        return isinstance(json.loads(body).get("error"), dict)
    except (ValueError, AttributeError, RecursionError):
        return False


def _as_response(request: httpx2.Request, trouble: Trouble) -> httpx2.Response:
    error = {
        "code": ERROR_CODE,
        "message": trouble.message,
        "data": {
            ERROR_KEY: {"type": trouble.error_type, "sent": trouble.sent, "status": trouble.status},
        },
    }
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
    return httpx2.Response(502, headers={"content-type": "application/json"}, content=body, request=request)


def trouble_of(data: Any) -> Trouble | None:
    """What this transport put into the `data` of an error; None if the error is the server's own."""
    try:
        found = cast(dict[str, Any], data)[ERROR_KEY]
        return Trouble(str(found["type"]), "", bool(found["sent"]), found["status"])
    except (KeyError, TypeError):
        return None


def _words(error: BaseException) -> str:
    """An error of the network in short; never more than a line."""
    text = str(error).splitlines()[0] if str(error).strip() else type(error).__name__
    return text[:200]
