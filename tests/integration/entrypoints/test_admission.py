"""The door: who comes in by which path, under which name, with which key; and that tenants never see one another."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, Final, cast

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from hubscope.access import Scope
from hubscope.access.token import mint
from hubscope.app import opened
from hubscope.entrypoints.admission import right_for
from hubscope.entrypoints.http import asgi
from hubscope.errors import InvalidSetting
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.conftest import held
from tests.events import tool_call
from tests.keys import PEPPER, bearer, make_key

pytestmark = [pytest.mark.integration]

REMOTE: Final = ("192.0.2.7", 50_000)
HERE: Final = ("127.0.0.1", 50_000)
NOBODY: Final = "postgresql://nobody@127.0.0.1:1/nowhere"
SCRAPE: Final = "a token for scraping only"
QUESTION: Final = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
MCP: Final = {"accept": "application/json, text/event-stream"}

# Something to ask of each path that a route answers.
REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "/v1/events": {"method": "POST", "json": []},
    "/mcp": {"method": "POST", "json": QUESTION, "headers": MCP},
    "/api/v1/analytics": {"method": "GET"},
    "/api/v1/chains": {"method": "GET"},
    "/metrics": {"method": "GET"},
    "/openapi.json": {"method": "GET"},
    "/docs": {"method": "GET"},
}
NEEDS: Final = {
    "/v1/events": Scope.INGEST,
    "/mcp": Scope.READ,
    "/api/v1/analytics": Scope.READ,
    "/api/v1/chains": Scope.CHAINS,
    "/metrics": Scope.ADMIN,
    "/openapi.json": Scope.READ,
    "/docs": Scope.READ,
}

Reach = Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]


@asynccontextmanager
async def reached(
    settings: Settings, dsn: str, *, client: tuple[str, int] = HERE, host: str = "127.0.0.1:3401"
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a service in this process, from an address of the test's choice."""
    async with opened(settings, dsn) as app, asgi(app) as application:
        transport = httpx2.ASGITransport(app=application, client=client)
        async with httpx2.AsyncClient(transport=transport, base_url=f"http://{host}") as http:
            yield http


@pytest.fixture
def reach(settings: Settings, database: str) -> Reach:
    def start(**options: Any) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
        where = {name: options.pop(name) for name in ("client", "host") if name in options}
        return held(reached(settings.model_copy(update={"key_pepper": PEPPER} | options), database, **where))

    return start


async def asked(http: httpx2.AsyncClient, path: str, key: str | None = None, **headers: str) -> httpx2.Response:
    request = dict(REQUESTS[path])
    request["headers"] = request.get("headers", {}) | (bearer(key) if key else {}) | headers
    return await http.request(url=path, **request)


def refused(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body = cast(dict[str, Any], answer.json())
    assert body["code"] == code
    assert ("www-authenticate" in answer.headers) == (status == 401 or code == "missing_scope")
    return body


# Scopes


@pytest.mark.parametrize("path", REQUESTS)
async def test_a_path_asks_for_its_scope_and_for_no_other(path: str, reach: Reach, database: str) -> None:
    keys = {scope: (await make_key(database, scope, name=scope))[1] for scope in Scope}
    async with reach() as http:
        refused(await asked(http, path), 401, "key_required")
        for scope, key in keys.items():
            answer = await asked(http, path, key)
            if scope is NEEDS[path]:
                assert answer.status_code == 200, answer.text
            else:
                body = refused(answer, 403, "missing_scope")
                assert body["scope"] == NEEDS[path]
                assert f'scope="{NEEDS[path]}"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/health", None),
        ("/livez", None),
        ("/readyz", None),
        ("/.well-known/oauth-protected-resource", None),
        ("/health/", Scope.READ),
        ("/healthz", Scope.READ),
        ("/v1/traces", Scope.INGEST),
        ("/v1/events/", Scope.INGEST),
        ("/metrics", Scope.ADMIN),
        ("/metrics/", Scope.ADMIN),
        ("/sql/mcp", Scope.SQL),
        ("/api/v1/anything", Scope.READ),
        ("/nothing", Scope.READ),
        ("//metrics", Scope.READ),
        ("/", Scope.READ),
    ],
)
def test_a_path_that_nobody_thought_of_is_closed_to_strangers(path: str, right: Scope | None) -> None:
    assert right_for(path) == right


@pytest.mark.parametrize("path", ["//metrics", "/%2Fmetrics", "/metrics/", "/./metrics", "/METRICS", "/metrics;x"])
async def test_no_spelling_of_a_path_opens_it_for_a_lesser_key(path: str, reach: Reach, database: str) -> None:
    _, key = await make_key(database, Scope.READ)
    async with reach() as http:
        answer = await http.get(path, headers=bearer(key))
    assert answer.status_code in (403, 404)
    assert "hubscope_build_info" not in answer.text


# Keys


BAD: Final[dict[str, tuple[str | None, str]]] = {
    "nothing": (None, "key_required"),
    "an empty header": ("", "malformed_key"),
    "no scheme": ("@", "malformed_key"),
    "another scheme": ("Basic @", "malformed_key"),
    "no credentials": ("Bearer ", "malformed_key"),
    "two keys": ("Bearer @ @", "mistyped_key"),
    "a key and a comma": ("Bearer @,", "mistyped_key"),
    "no key of ours": ("Bearer sk-12345", "malformed_key"),
    "a mistyped one": ("Bearer @x", "mistyped_key"),
    "an unknown one": (f"Bearer {mint().text}", "invalid_key"),
    "not ascii": ("Bearer hsk_\xe9", "malformed_key"),
}


@pytest.mark.parametrize(("header", "code"), BAD.values(), ids=BAD)
async def test_a_key_that_will_not_do_is_401_with_a_reason(
    header: str | None, code: str, reach: Reach, database: str
) -> None:
    _, key = await make_key(database)
    async with reach() as http:
        sent = {} if header is None else {"authorization": header.replace("@", key).encode("latin-1")}
        answer = await http.post("/v1/events", json=[tool_call()], headers=cast(dict[str, str], sent))
        body = refused(answer, 401, code)
        assert answer.headers["www-authenticate"].startswith('Bearer realm="hubscope"')
        assert key not in answer.text
        assert body["detail"]


async def test_the_scheme_is_read_as_http_reads_it(reach: Reach, database: str) -> None:
    _, key = await make_key(database)
    async with reach() as http:
        for scheme in ("Bearer ", "bearer ", "BEARER  "):
            answer = await http.post("/v1/events", json=[], headers={"authorization": scheme + key})
            assert answer.status_code == 200


async def test_two_authorization_headers_are_refused_even_when_both_are_right(reach: Reach, database: str) -> None:
    _, key = await make_key(database)
    async with reach() as http:
        answer = await http.post(
            "/v1/events", json=[], headers=[("Authorization", f"Bearer {key}"), ("authorization", f"Bearer {key}")]
        )
        refused(answer, 401, "malformed_key")


@pytest.mark.parametrize("path", ["/v1/events", "/api/v1/analytics", "/mcp", "/health", "/metrics"])
@pytest.mark.parametrize("spelt", ["?api_key={}", "?x=1&access_token={}", "?{}", "?k=%68sk_{}"])
async def test_a_key_in_the_url_is_refused_everywhere_even_where_none_is_needed(
    path: str, spelt: str, reach: Reach
) -> None:
    key = mint().text
    query = spelt.format(key.removeprefix("hsk_") if "%68" in spelt else key)
    async with reach() as http:
        answer = await http.get(path + query)
        refused(answer, 400, "key_in_url")
        assert key not in answer.text


async def test_an_expired_and_a_revoked_key_are_let_in_no_more(reach: Reach, database: str) -> None:
    _, key = await make_key(database, lives=timedelta(milliseconds=400))
    async with reach() as http:
        answer = await asked(http, "/v1/events", key)
        while answer.status_code == 200:
            answer = await asked(http, "/v1/events", key)
        refused(answer, 401, "expired_key")


async def test_refusals_are_counted(reach: Reach, database: str) -> None:
    _, key = await make_key(database, Scope.ADMIN)
    async with reach() as http:
        await asked(http, "/v1/events")
        await asked(http, "/v1/events", mint().text)
        metrics = (await asked(http, "/metrics", key)).text
    assert 'hubscope_http_refused_total{code="key_required"} 1.0' in metrics
    assert 'hubscope_http_refused_total{code="invalid_key"} 1.0' in metrics
    assert 'hubscope_ingest_posts_total{status="401"} 2.0' in metrics


# Loopback


CALLERS: Final[list[tuple[tuple[str, int], dict[str, str], bool]]] = [
    (HERE, {}, True),
    (("127.8.9.1", 1), {}, True),
    (("::1", 1), {}, True),
    (("::ffff:127.0.0.1", 1), {}, True),
    (REMOTE, {}, False),
    (("::ffff:192.0.2.1", 1), {}, False),
    (("", 1), {}, False),
    (REMOTE, {"x-forwarded-for": "127.0.0.1"}, False),
    (HERE, {"x-forwarded-for": "127.0.0.1"}, False),
    (HERE, {"forwarded": "for=192.0.2.1"}, False),
    (HERE, {"x-real-ip": "192.0.2.1"}, False),
    (HERE, {"via": "1.1 proxy"}, False),
]


@pytest.mark.parametrize("with_keys", [False, True], ids=["no keys", "keys"])
@pytest.mark.parametrize("trust", ["auto", "always", "never"])
async def test_whether_loopback_is_trusted(trust: str, with_keys: bool, reach: Reach, database: str) -> None:
    if with_keys:
        await make_key(database)
    async with reach(loopback_trust=trust) as http:
        for client, headers, here in CALLERS:
            cast(httpx2.ASGITransport, http._transport).client = client
            let_in = here and (trust == "always" or (trust == "auto" and not with_keys))
            for path in ("/v1/events", "/mcp", "/api/v1/analytics", "/metrics"):
                answer = await asked(http, path, **headers)
                assert answer.status_code == (200 if let_in else 401), (client, headers, path, answer.text)


async def test_a_wrong_key_is_refused_where_none_would_be_needed(reach: Reach) -> None:
    async with reach() as http:
        assert (await asked(http, "/v1/events")).status_code == 200
        refused(await asked(http, "/v1/events", mint().text), 401, "invalid_key")


async def test_without_the_database_nobody_is_taken_for_anybody(settings: Settings) -> None:
    """Whether keys are needed is not known: a service that has not seen its store lets nobody in, but tells health."""
    away = Settings.load(database_url=NOBODY, key_pepper=PEPPER, drain_timeout_ms=200)
    async with held(reached(away, NOBODY)) as http:
        for path in ("/v1/events", "/api/v1/analytics", "/mcp"):
            assert refused(await asked(http, path), 503, "database_away")
            assert refused(await asked(http, path, mint().text), 503, "database_away")
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/health")).json()["status"] == "unhealthy"
        assert (await asked(http, "/metrics")).status_code == 200  # of this process: the database has nothing to say


# Open paths, names, the scrape token


@pytest.mark.parametrize(
    ("client", "host", "whole"),
    [
        (HERE, "127.0.0.1:3401", True),
        (HERE, "hub.example:3401", False),
        (REMOTE, "127.0.0.1:3401", False),
        (REMOTE, "10.1.2.3:3401", False),
    ],
)
async def test_health_is_told_whole_to_this_machine_and_in_one_word_to_others(
    client: tuple[str, int], host: str, whole: bool, reach: Reach, database: str
) -> None:
    await make_key(database)
    async with reach(client=client, host=host) as http:
        health = await http.get("/health")
        assert health.status_code == 200
        assert (set(health.json()) == {"status", "service"}) is not whole
        assert (await http.get("/livez")).json() == {"status": "alive"}
        assert (await http.get("/readyz")).json() == {"status": "ready"}


async def test_health_says_who_may_come_in(reach: Reach, database: str) -> None:
    async with reach() as http:
        assert "no API keys yet (`hubscope keys create`" in (await http.get("/health")).json()["access"]
    await make_key(database)
    async with reach() as http:
        assert (await http.get("/health")).json()["access"] == "holders of an API key (1 live)"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "hub.example"}, 200),
        ({"host": "HUB.example:8443"}, 200),
        ({"host": "[2001:db8::1]:3401"}, 200),
        ({"host": "localhost"}, 200),
        ({"origin": "https://hub.example"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "hub.example.evil"}, 403),
        ({"host": "hub.example@evil"}, 403),
        ({"host": ""}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
    ids=str,
)
async def test_only_allowed_names_reach_the_service(headers: dict[str, str], status: int, reach: Reach) -> None:
    async with reach(allowed_hosts="hub.example, 2001:db8::1") as http:
        for path in ("/v1/events", "/mcp", "/api/v1/analytics"):
            answer = await asked(http, path, **headers)
            assert answer.status_code == status, answer.text
            if status == 403:
                assert answer.json()["code"] == "forbidden_origin"


async def test_a_second_host_header_is_refused(reach: Reach) -> None:
    async with reach() as http:
        answer = await http.get("/metrics", headers=[("host", "127.0.0.1"), ("host", "127.0.0.1")])
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_the_scrape_token_opens_metrics_and_nothing_else(reach: Reach, database: str) -> None:
    await make_key(database)
    async with reach(scrape_token=SCRAPE, client=REMOTE) as http:
        assert (await asked(http, "/metrics", SCRAPE)).status_code == 200
        refused(await asked(http, "/metrics", SCRAPE + "x"), 401, "malformed_key")
        for path in REQUESTS.keys() - {"/metrics"}:
            refused(await asked(http, path, SCRAPE), 401, "malformed_key")


async def test_the_scrape_token_works_while_the_database_is_away() -> None:
    away = Settings.load(database_url=NOBODY, scrape_token=SCRAPE, drain_timeout_ms=200)
    async with held(reached(away, NOBODY, client=REMOTE)) as http:
        assert "hubscope_database_connected 0.0" in (await asked(http, "/metrics", SCRAPE)).text


async def test_a_short_scrape_token_is_refused_at_start(reach: Reach) -> None:
    with pytest.raises(InvalidSetting, match="HUBSCOPE_SCRAPE_TOKEN is too short"):
        async with reach(scrape_token="short"):
            pass


# Tenants


async def answers(http: httpx2.AsyncClient, key: str) -> dict[str, str]:
    """Everything that a tenant is told, as text, by path."""
    found = {}
    for parameters in ("groupBy=hour", "groupBy=minute&timeRange=1+hour", "groupBy=day&includeMetadata=true&top=100"):
        answer = await http.get(f"/api/v1/analytics?{parameters}", headers=bearer(key))
        assert answer.status_code == 200, answer.text
        found[parameters] = answer.text
    for arguments in ({}, {"format": "json", "groupBy": "day"}, {"includeMetadata": True}):
        question = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "hub__analytics_advanced", "arguments": arguments},
        }
        answer = await http.post("/mcp", json=question, headers=MCP | bearer(key))
        assert answer.status_code == 200, answer.text
        found[str(arguments)] = answer.text
    return found


async def test_tenants_never_see_one_another_in_any_answer(reach: Reach, database: str, admin: Connection) -> None:
    keys = {tenant: (await make_key(database, Scope.INGEST, Scope.READ, tenant=tenant))[1] for tenant in ("a", "b")}
    shared = tool_call(server="shared", tool="shared")
    async with reach() as http:
        for tenant, key in keys.items():
            own = [tool_call(server=f"server-of-{tenant}", tool=f"tool-of-{tenant}") for _ in range(3)]
            posted = await http.post("/v1/events", json=[*own, shared], headers=bearer(key))
            assert posted.json() == {"accepted": 4, "duplicates": 0, "rejected": []}  # the same id is another event
        named = await http.post(
            "/v1/events",
            json=[tool_call(), tool_call() | {"tenant": "b"}, tool_call() | {"tenant_id": "b"}],
            headers=bearer(keys["a"]),
        )
        assert [one["code"] for one in named.json()["rejected"]] == ["unknown_field"] * 2
        for tenant, other in (("a", "b"), ("b", "a")):
            for where, text in (await answers(http, keys[tenant])).items():
                assert f"of-{tenant}" in text, where
                assert f"of-{other}" not in text, where
        refused(await asked(http, "/metrics", keys["a"]), 403, "missing_scope")
    counted = await admin.fetch("SELECT tenant_id, count(*) AS calls FROM raw.tool_calls GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in counted] == [("a", 5), ("b", 4)]


async def test_tools_are_called_in_the_name_of_whoever_calls(reach: Reach, database: str) -> None:
    """One MCP server for all: two real clients at once, each with its own key."""
    keys = {tenant: (await make_key(database, tenant=tenant))[1] for tenant in ("a", "b")}
    async with reach() as http:
        for count, key in enumerate(keys.values(), start=1):
            await http.post("/v1/events", json=[tool_call() for _ in range(count)], headers=bearer(key))
        transport = http._transport

        @asynccontextmanager
        async def client(key: str) -> AsyncIterator[Client]:
            async with (
                httpx2.AsyncClient(transport=transport, headers=bearer(key)) as own,
                Client(streamable_http_client("http://127.0.0.1:3401/mcp", http_client=own)) as mcp,
            ):
                yield mcp

        async with client(keys["a"]) as first, client(keys["b"]) as second:
            for mcp, calls in ((first, 1), (second, 2), (first, 1)):
                result = await mcp.call_tool("hub__analytics_advanced", {})
                assert result.structured_content is not None
                assert result.structured_content["overview"]["usage"]["calls"] == calls, json.dumps(
                    result.structured_content
                )
