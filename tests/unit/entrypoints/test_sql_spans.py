"""Spans of the SQL server's calls: made where somebody takes them, and by the SDK."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
from mcp import Client
from opentelemetry import trace

from hubscope.entrypoints.sql_lines import Lines
from hubscope.entrypoints.sql_mcp import build
from hubscope.entrypoints.sql_resources import SpansIfTaken
from hubscope.entrypoints.sql_server import SqlServer
from hubscope.sqlgate import Gate, Limits, Policy, Served


@pytest.mark.parametrize("taken", [True, False])
def test_the_sdks_spans_are_made_where_there_is_a_provider(taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Served("postgresql://nobody@127.0.0.1:1/x", Policy(), Limits(connection_timeout_ms=200))
    server = build(SqlServer({"main": Gate(nowhere)}, Lines(io.StringIO())))
    (spans,) = [each for each in server._lowlevel_server.middleware if isinstance(each, SpansIfTaken)]
    made: list[str] = []
    inner = spans._spans

    async def note(context: Any, call_next: Any) -> Any:
        made.append(context.method)
        return await inner(context, call_next)

    spans._spans = note
    if taken:
        monkeypatch.setattr(trace, "get_tracer_provider", trace.NoOpTracerProvider)

    async def ask() -> None:
        async with Client(server) as client:
            answer = await client.call_tool("query", {"sql": "DROP TABLE t"})
            assert "DROP" in str(answer.content)

    asyncio.run(ask())
    assert ("tools/call" in made) is taken
