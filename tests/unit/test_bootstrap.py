"""`bootstrap(hub)`: a hub that was not written for hubscope is recorded, and never notices."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hubscope.client import Client, bootstrap, check_integration_health
from hubscope.client.wiring import Hook
from hubscope.errors import CannotWire
from tests.scripted_service import Service, serving

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/record-from-python.md"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    with serving(Service(read=lambda event: event)) as started:
        monkeypatch.setenv("HUBSCOPE_URL", started.url)
        monkeypatch.setenv("HUBSCOPE_API_KEY", "hsk_x")
        yield started


class Hub:
    """Somebody's hub."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def call_tool(self, server_name: str, tool: str, arguments: dict[str, Any] | None = None) -> Any:
        match tool:
            case "fails":
                return SimpleNamespace(isError=True, content=[SimpleNamespace(text="no such file")])
            case "fails2":
                return {"is_error": True, "content": [{"type": "text", "text": "no such key"}]}
            case "raises":
                raise ValueError("broken")
            case "hangs":
                raise TimeoutError
        return {"content": [], "echo": arguments}

    def on_server_connected(self, server: str) -> str:
        self.seen.append(server)
        return "kept"

    async def on_server_disconnected(self, server: str, reason: str = "") -> None:
        self.seen.append(reason)

    def on_tools_changed(self, server: str) -> None:
        pass


def calls(service: Service) -> list[tuple[str, str, str, str | None, str | None]]:
    return [
        (e["server"], e["tool"], e["status"], e["error_type"], e["error_message"])
        for e in service.taken
        if e["type"] == "tool_call"
    ]


async def test_each_call_of_a_hub_is_recorded_as_it_ends(service: Service) -> None:
    hub = Hub()
    async with bootstrap(hub, name="mine"):
        assert await hub.call_tool("fs", "read", {"a": 1}) == {"content": [], "echo": {"a": 1}}
        await hub.call_tool(tool="fails", server_name="fs")
        await hub.call_tool("fs", "fails2")
        with pytest.raises(ValueError, match="broken"):
            await hub.call_tool("fs", "raises")
        with pytest.raises(TimeoutError):
            await hub.call_tool("fs", "hangs")
    assert calls(service) == [
        ("fs", "read", "ok", None, None),
        ("fs", "fails", "error", "tool_error", "no such file"),
        ("fs", "fails2", "error", "tool_error", "no such key"),
        ("fs", "raises", "error", "ValueError", "broken"),
        ("fs", "hangs", "timeout", "TimeoutError", None),
    ]
    assert {event["hub"] for event in service.taken} == {"mine"}
    assert service.posts[0][0]["authorization"] == "Bearer hsk_x"
    assert [e["name"] for e in service.taken if e["type"] == "hub_event"] == ["hub_started", "hub_stopped"]


async def test_what_happens_to_servers_is_recorded(service: Service) -> None:
    hub = Hub()
    async with bootstrap(hub):
        assert hub.on_server_connected("fs") == "kept"
        await hub.on_server_disconnected("fs", reason="gone")
        hub.on_tools_changed("fs")
    assert hub.seen == ["fs", "gone"]
    found = [(e["outcome"], e["state"]) for e in service.taken if e["type"] == "server_event"]
    assert found == [("connected", "up"), ("disconnected", "down")]
    assert {"server": "fs"} in [e["payload"] for e in service.taken if e.get("name") == "tools_list_changed"]


async def test_afterwards_the_hub_is_as_it_was(service: Service) -> None:
    hub = Hub()
    before = dict(vars(hub))
    async with bootstrap(hub):
        assert vars(hub) != before
        assert hub.call_tool.__name__ == "call_tool"
    assert vars(hub) == before
    await hub.call_tool("fs", "read")
    assert calls(service) == []


async def test_what_somebody_else_put_around_a_method_stays(service: Service) -> None:
    hub = Hub()
    integration = bootstrap(hub)
    await integration.start()
    inner = hub.call_tool

    async def outer(*args: Any, **kwargs: Any) -> Any:
        return await inner(*args, **kwargs)

    hub.call_tool = outer  # type: ignore[method-assign]
    await integration.close()
    await hub.call_tool("fs", "read")  # goes through what was ours, which records no more
    assert calls(service) == []
    await integration.close()


async def test_a_mapping_of_functions_is_a_hub(service: Service) -> None:
    async def invoke(server: str, name: str) -> str:
        return server + name

    async with bootstrap({"call_tool": invoke}) as integration:
        assert await integration.wired["call_tool"]("fs", "read") == "fsread"
    assert [call[:3] for call in calls(service)] == [("fs", "read", "ok")]


async def test_methods_may_have_other_names(service: Service) -> None:
    class Other:
        async def invoke(self, *, server_id: str, tool_name: str) -> None:
            pass

    hub = Other()
    async with bootstrap(hub, names={"call_tool": "invoke"}):
        await hub.invoke(server_id="fs", tool_name="read")
    assert [call[:3] for call in calls(service)] == [("fs", "read", "ok")]


async def test_more_fields_come_from_the_arguments(service: Service) -> None:
    hub = Hub()
    async with bootstrap(hub, fields=lambda given: {"client": given["arguments"]["who"], "session_id": None}):
        await hub.call_tool("fs", "read", {"who": "claude"})
    (sent,) = [event for event in service.taken if event["type"] == "tool_call"]
    assert (sent["client"], sent["session_id"]) == ("claude", None)


@pytest.mark.parametrize("fields", [lambda _: {"duration": 1}, lambda _: 1 / 0, lambda _: {"step_index": "x"}])
async def test_fields_that_cannot_be_told_cost_the_hub_nothing(
    service: Service, fields: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    async with bootstrap(hub, fields=fields):
        for _ in range(3):
            await hub.call_tool("fs", "read")
    assert len(calls(service)) == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_call_that_does_not_fit_fails_as_it_would(service: Service) -> None:
    hub = Hub()
    async with bootstrap(hub):
        with pytest.raises(TypeError):
            await hub.call_tool()  # type: ignore[call-arg]
    assert calls(service) == []


async def test_a_client_of_ones_own_stays_open(service: Service) -> None:
    async with Client(service.url) as client:
        async with bootstrap(Hub(), client=client) as integration:
            assert integration.client is client
        client.record  # noqa: B018
        assert await client.flush(30)
    assert client.totals.refused == 0


class Slotted:
    __slots__ = ()

    async def call_tool(self, server: str, tool: str) -> None:
        pass


async def _no_tool(server: str) -> None:
    pass


def _sync(server: str, tool: str) -> None:
    pass


@pytest.mark.parametrize(
    ("hub", "names", "said"),
    [
        (object(), None, "has none of call_tool, on_server_connected"),
        ({}, None, "has none of"),
        (Slotted(), None, "Slotted has __slots__"),
        ({"call_tool": _no_tool}, None, r"call_tool\(server\) does not tell the tool"),
        ({"call_tool": _sync}, None, "must be an `async def`"),
        ({"call_tool": 5}, None, "is not a function"),
        (Hub(), {"call_tool": "invoke"}, "has no 'invoke'"),
        (Hub(), {"called": "call_tool"}, "'called' is no hook; allowed: call_tool"),
    ],
)
def test_a_hub_that_cannot_be_recorded_is_one_clear_error(hub: Any, names: dict[Hook, str] | None, said: str) -> None:
    with pytest.raises(CannotWire, match=said):
        bootstrap(hub, names=names)


async def test_the_example_of_the_documentation_works(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """The page's own code, run as it stands."""
    page = PAGE.read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(# hub\.py\n.*?)```", page, re.DOTALL)
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "hub.py", "exec"), namespace)
    await asyncio.wait_for(namespace["main"](), 30)
    assert [call[:3] for call in calls(service)] == [("files", "read", "ok"), ("files", "write", "error")]
    assert "hubscope" in capsys.readouterr().out


async def test_health_of_a_service_that_is_away_is_a_reason() -> None:
    health = await check_integration_health("http://127.0.0.1:9", timeout_s=1)
    assert (health.healthy, health.ready) == (False, False)
    assert health.reasons[0].startswith("hubscope cannot be reached")
