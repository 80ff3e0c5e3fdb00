"""HTTP to upstream servers: who we are, where we are sent, and what we take, against a server that does as it likes."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

from hubscope.peers.guard import GuardedBackend, networks_of
from hubscope.peers.http import UpstreamTransport, trouble_of
from hubscope.peers.registration import Auth
from tests.upstream import listening

Answer = tuple[int, dict[str, str], bytes]
Script = Callable[[str, dict[str, str], bytes], Answer]
NOBODY = Auth()
OK: Answer = (200, {"content-type": "application/json"}, b'{"fine": true}')


@asynccontextmanager
async def asked(
    script: Script, auth: Auth = NOBODY, *, networks: str = "127.0.0.1", headers: dict[str, str] | None = None
) -> AsyncIterator[tuple[httpx2.AsyncClient, str]]:
    """A client of ours and the URL of a server that answers as the script says: path, headers, body -> answer."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        given = {name.decode(): value.decode() for name, value in scope["headers"]}
        status, answer_headers, answer = script(scope["path"], given, body)
        raw = [(name.encode(), value.encode()) for name, value in answer_headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": answer})

    async with listening(app) as server:
        if auth.type == "oauth2":
            auth = Auth("oauth2", {**auth.config, "token_url": f"{server.url}/token"})
        transport = UpstreamTransport(GuardedBackend(networks_of(networks)), auth, headers or {}, max_bytes=100_000)
        async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
            yield client, server.url


def trouble(response: httpx2.Response) -> str:
    """Our own word for what went wrong."""
    found = trouble_of(response.json()["error"]["data"])
    assert found is not None
    return found.error_type


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        (Auth("api_key", {"key": "k3y"}), "x-api-key", "k3y"),
        (Auth("api_key", {"key": "k3y", "header": "X-Token"}), "x-token", "k3y"),
        (Auth("bearer", {"token": "t0ken"}), "authorization", "Bearer t0ken"),
        (Auth("jwt", {"token": "a.b.c"}), "authorization", "Bearer a.b.c"),
        (
            Auth("basic", {"username": "ann", "password": "pä:ss"}),
            "authorization",
            "Basic " + base64.b64encode("ann:pä:ss".encode()).decode(),
        ),
    ],
)
async def test_we_prove_ourselves_as_registered(auth: Auth, header: str, value: str) -> None:
    seen: list[dict[str, str]] = []

    def script(_path: str, headers: dict[str, str], _body: bytes) -> Answer:
        seen.append(headers)
        return OK

    async with asked(script, auth, headers={"X-Own": "1"}) as (client, url):
        assert (await client.post(f"{url}/mcp", json={}, headers={header: "from somebody else"})).json() == {
            "fine": True
        }
    assert seen[0][header] == value
    assert seen[0]["x-own"] == "1"
    assert seen[0]["accept-encoding"] == "identity"


async def test_client_credentials_are_exchanged_once_kept_and_renewed_when_refused() -> None:
    tokens: list[str] = []
    refuse = False

    def script(path: str, headers: dict[str, str], body: bytes) -> Answer:
        if path == "/token":
            # RFC 6749, 2.3.1: both parts are form-encoded before they are joined.
            assert headers["authorization"] == "Basic " + base64.b64encode(b"me%3A:s%20cret").decode()
            assert parse_qs(body.decode()) == {"grant_type": ["client_credentials"], "scope": ["mcp"]}
            tokens.append(f"token-{len(tokens)}")
            answer = {"access_token": tokens[-1], "expires_in": 3600}
            return 200, {"content-type": "application/json"}, json.dumps(answer).encode()
        if headers["authorization"] != f"Bearer {tokens[-1]}" or (refuse and len(tokens) == 1):
            return 401, {}, b""
        return OK

    auth = Auth("oauth2", {"token_url": "", "client_id": "me:", "client_secret": "s cret", "scope": "mcp"})
    async with asked(script, auth) as (client, url):
        for _ in range(3):
            assert (await client.post(f"{url}/mcp", json={})).status_code == 200
        assert len(tokens) == 1
        refuse = True
        assert (await client.post(f"{url}/mcp", json={})).status_code == 200
        assert len(tokens) == 2


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}, b"oops"),
        (200, {"content-type": "application/json"}, b'{"error": "invalid_client"}'),
        (200, {"content-type": "application/json"}, b"not JSON"),
        (200, {"content-type": "application/json"}, b'{"access_token": "a\\nb"}'),
        (302, {"location": "http://127.0.0.1/other"}, b""),
    ],
)
async def test_without_a_token_nothing_is_sent_to_the_server(answer: Answer) -> None:
    paths: list[str] = []

    def script(path: str, _headers: dict[str, str], _body: bytes) -> Answer:
        paths.append(path)
        return answer

    auth = Auth("oauth2", {"token_url": "", "client_id": "i", "client_secret": "hunter2"})
    async with asked(script, auth) as (client, url):
        response = await client.post(f"{url}/mcp", json={})
    assert trouble(response) == "auth_failed"
    assert "hunter2" not in response.text
    assert paths == ["/token"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((307, {"location": "/elsewhere"}, b""), "redirected"),
        ((302, {"location": "http://169.254.169.254/latest"}, b""), "redirected"),
        ((200, {"content-encoding": "gzip"}, gzip.compress(b"x" * 10_000_000)), "invalid_answer"),
        ((200, {"content-type": "application/json"}, b"x" * 100_001), "answer_too_large"),
        ((401, {}, b""), "auth_failed"),
        ((403, {}, b""), "auth_failed"),
        ((500, {}, b"a stack trace with secrets"), "http_status"),
        ((503, {"content-type": "application/json"}, b'{"error": "busy"}'), "http_status"),
    ],
)
async def test_what_is_not_taken_is_an_error_of_that_request(answer: Answer, kind: str) -> None:
    paths: list[str] = []

    def script(path: str, _headers: dict[str, str], _body: bytes) -> Answer:
        paths.append(path)
        return answer

    async with asked(script, Auth("bearer", {"token": "hunter2"})) as (client, url):
        response = await client.post(f"{url}/mcp", json={})
        assert (response.status_code, trouble(response)) == (502, kind)
        assert "hunter2" not in response.text
        assert "stack trace" not in response.text
    assert paths == ["/mcp"]


async def test_a_servers_own_error_is_its_own() -> None:
    rpc = b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no"}}'
    async with asked(lambda *_: (400, {"content-type": "application/json"}, rpc)) as (client, url):
        response = await client.post(f"{url}/mcp", json={})
        assert (response.status_code, response.content) == (400, rpc)


async def test_an_address_that_is_not_allowed_is_not_connected_to() -> None:
    seen: list[str] = []

    def script(path: str, _headers: dict[str, str], _body: bytes) -> Answer:
        seen.append(path)
        return OK

    async with asked(script, networks="10.0.0.0/8") as (client, url):
        response = await client.post(f"{url}/mcp", json={})
        assert trouble(response) == "address_refused"
        assert "HUBSCOPE_PEER_NETWORKS" in response.json()["error"]["message"]
    assert seen == []


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with asked(lambda *_: OK) as (client, url):
        assert (await client.get(f"{url}/mcp")).json() == {"fine": True}
