"""JSON-RPC lines into events: a table of conversations, and no conversation that stops the reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubscope.model import Event, HubEvent, ServerEvent, ToolCall
from hubscope.wrap.lines import Line, Lines
from hubscope.wrap.protocol import UNREAD, Session, name_of, skim
from hubscope.wrap.pump import Moment
from hubscope.wrap.tap import Ending

START = datetime(2026, 11, 21, 20, tzinfo=UTC)
UNIX_NS = int(START.timestamp()) * 1_000_000_000


class Talk:
    """A conversation, a line each millisecond."""

    def __init__(self, limit: int = 100_000, **options: Any) -> None:
        self.session = Session("fs", **options)
        self.events: list[Event] = []
        self._limit = limit
        self._ms = 0

    def at(self) -> Moment:
        self._ms += 1
        # The clock on the wall goes back all the time: durations must not notice.
        return Moment(1_000_000_000 + self._ms * 1_000_000, UNIX_NS - self._ms * 1_000_000)

    def _line(self, what: Any) -> Line:
        data = what if isinstance(what, bytes) else json.dumps(what).encode()
        (line,) = Lines(self._limit).feed(data + b"\n")
        return line

    def client(self, *messages: Any) -> Talk:
        for message in messages:
            self.events += self.session.sent(self._line(message), self.at())
        return self

    def server(self, *messages: Any) -> Talk:
        for message in messages:
            self.events += self.session.received(self._line(message), self.at())
        return self

    def end(self, ending: Ending) -> Talk:
        self.events += self.session.ended(ending, self.at())
        return self

    @property
    def calls(self) -> list[ToolCall]:
        return [event for event in self.events if isinstance(event, ToolCall)]

    @property
    def call(self) -> ToolCall:
        (call,) = self.calls
        return call

    @property
    def states(self) -> list[ServerEvent]:
        return [event for event in self.events if isinstance(event, ServerEvent)]


def request(key: Any, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": key, "method": method, "params": params}


def call(key: Any = 1, tool: str = "read", **params: Any) -> dict[str, Any]:
    return request(key, "tools/call", name=tool, arguments={"path": "/secret"}, **params)


def result(key: Any = 1, **members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": key, "result": members}


def error(key: Any, code: Any, message: Any = "no") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": key, "error": {"code": code, "message": message}}


def notice(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


TEXT = {"content": [{"type": "image", "data": "x"}, {"type": "text", "text": "it broke"}]}


@pytest.mark.parametrize(
    ("answer", "status", "error_type", "message"),
    [
        (result(1, content=[]), "ok", None, None),
        (result(1, isError=False, **TEXT), "ok", None, None),
        (result(1, isError=True, **TEXT), "error", "tool_error", "it broke"),
        (result(1, isError=True, content="?"), "error", "tool_error", None),
        (error(1, -32602, "no such tool"), "error", "mcp:-32602", "no such tool"),
        (error(1, -32001, "Request timed out"), "timeout", "mcp:-32001", "Request timed out"),
        (error(1, "x", 5), "error", "mcp:unknown", None),
        ({"id": 1, "error": {}, "jsonrpc": "2.0"}, "error", "mcp:unknown", None),
        ({"id": 1, "error": "no", "jsonrpc": "2.0"}, "error", "mcp:unknown", None),
        ({"id": 1, "error": None, "result": {}}, "ok", None, None),
        ({"id": 1, "result": None}, "ok", None, None),
        (result("1"), "ok", None, None),
        (result(1.0), "ok", None, None),
    ],
)
def test_an_answer_decides_the_status(answer: Any, status: str, error_type: str | None, message: str | None) -> None:
    talk = Talk().client(call(1)).server(answer)
    assert (talk.call.status, talk.call.error_type, talk.call.error_message) == (status, error_type, message)


@pytest.mark.parametrize(
    ("reason", "status", "error_type"),
    [
        ("caller cancelled", "cancelled", "cancelled"),
        (None, "cancelled", "cancelled"),
        (7, "cancelled", "cancelled"),
        ("timed out after 5s", "timeout", "client_timeout"),
        ("McpError: MCP error -32001: Request timed out", "timeout", "client_timeout"),
        ("request timeout", "timeout", "client_timeout"),
    ],
)
def test_a_call_that_the_client_gives_up_is_cancelled_or_timed_out(reason: Any, status: str, error_type: str) -> None:
    talk = Talk().client(call(7), notice("notifications/cancelled", requestId=7, reason=reason)).server(result(7))
    assert (talk.call.status, talk.call.error_type) == (status, error_type)


def test_a_call_is_reported_with_all_that_is_known_of_it() -> None:
    meta = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    talk = Talk().client(request(0, "initialize", clientInfo={"name": "claude", "version": "1.2"}))
    talk.server(result(0, protocolVersion="2025-11-25", serverInfo={"name": "files", "version": "3"}))
    asked, answered = call(1, "read", _meta=meta), result(1, content=[])
    talk.client(asked).server(result(1, content=[]))
    found = talk.call
    assert found.event_id is not None
    assert found.time == START - timedelta(milliseconds=3)  # when it was asked
    assert (found.server, found.tool, found.status, found.duration_ms) == ("fs", "read", "ok", 1.0)
    assert (found.client, found.transport, found.hub) == ("claude/1.2", "stdio", "")
    assert (found.trace_id, found.span_id) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert (found.request_bytes, found.response_bytes) == (len(json.dumps(asked)), len(json.dumps(answered)))
    assert found.session_id == json.loads(bytes(talk.states[0].attrs))["session_id"]


def test_no_argument_and_no_result_is_ever_in_an_event() -> None:
    talk = Talk().client(request(0, "initialize", clientInfo={"name": "c"}, secret="s3cret"))
    talk.server(result(0, serverInfo={"name": "n"}, secret="s3cret"))
    talk.client(request(1, "tools/call", name="t", arguments={"k": "s3cret"}, _meta={"x": "s3cret"}))
    talk.server(result(1, content=[{"type": "text", "text": "s3cret"}], structuredContent={"a": "s3cret"}))
    talk.client(request(2, "tools/list")).server(result(2, tools=[{"name": "s3cret"}], nextCursor=None))
    talk.end(Ending(1))
    assert len(talk.events) == 4
    assert b"s3cret" not in msgspec.json.encode(talk.events)


def test_the_handshake_is_a_connection_with_its_latency() -> None:
    talk = Talk().client(request("a", "initialize", clientInfo={"name": "claude"}))
    talk.server(result("a", protocolVersion="2025-11-25", serverInfo={"name": "files", "version": "3"}))
    talk.client(request("b", "ping")).server(result("b"))
    (connected,) = talk.states
    assert (connected.source, connected.outcome, connected.state) == ("connection", "connected", "up")
    assert (connected.latency_ms, connected.transport) == (1.0, "stdio")
    attrs = json.loads(bytes(connected.attrs))
    assert attrs.pop("session_id")
    assert attrs == {
        "client": "claude", "protocol_version": "2025-11-25", "server_name": "files", "server_version": "3"
    }  # fmt: skip


def test_the_stateless_protocol_brings_its_client_along_with_each_request() -> None:
    meta = {"io.modelcontextprotocol/clientInfo": {"name": "new", "version": "2"}}
    talk = Talk().client(request(1, "server/discover", _meta=meta))
    info = {"io.modelcontextprotocol/serverInfo": {"name": "files"}}
    talk.server(result(1, supportedVersions=["2026-07-28"], _meta=info))
    other = {"io.modelcontextprotocol/clientInfo": {"name": "other"}}
    talk.client(call(2, _meta=other)).server(result(2, resultType="complete", content=[]))
    assert [state.outcome for state in talk.states] == ["connected"]
    assert json.loads(bytes(talk.states[0].attrs))["server_name"] == "files"
    assert talk.call.client == "other"


def test_without_any_handshake_the_first_answer_is_the_connection() -> None:
    talk = Talk().client(request(1, "server/discover")).server(error(1, -32601))
    assert talk.events == []
    talk.client(call(2)).server(result(2))
    assert [type(event) for event in talk.events] == [ServerEvent, ToolCall]
    assert talk.states[0].latency_ms is None


def test_a_call_that_asks_its_client_for_input_is_one_call_of_the_servers_time() -> None:
    talk = Talk().client(call(1)).server(result(1, resultType="input_required", requestState="s"))
    talk.client(request(2, "ping")).server(result(2))
    assert talk.calls == []
    talk.client(call(3, requestState="s", inputResponses={"a": 1})).server(result(3, content=[]))
    assert (talk.call.status, talk.call.duration_ms) == ("ok", 2.0)
    assert json.loads(bytes(talk.call.attrs)) == {"rounds": 2}
    assert talk.call.time == START - timedelta(milliseconds=1)


def test_a_call_whose_input_never_comes_is_cancelled_at_the_end() -> None:
    talk = Talk().client(call(1)).server(result(1, resultType="input_required", requestState="s")).end(Ending(1))
    assert (talk.call.status, talk.call.error_type, talk.call.duration_ms) == ("cancelled", "client_closed", 1.0)


def test_a_batch_is_read_message_by_message() -> None:
    talk = Talk().client([call(1, "a"), notice("x"), call(2, "b")])
    talk.server([result(2), 17, error(1, -1)])
    assert [(found.tool, found.status) for found in talk.calls] == [("b", "ok"), ("a", "error")]
    assert talk.calls[0].response_bytes == len(json.dumps(result(2)))
    assert talk.session.counts.unreadable_lines == 1


@pytest.mark.parametrize(
    ("ending", "status", "error_type", "state", "outcome", "state_error"),
    [
        (Ending(1), "error", "server_exited", "down", "crashed", "exit:1"),
        (Ending(None, 9), "error", "server_exited", "down", "crashed", "signal:SIGKILL"),
        (Ending(0), "error", "server_exited", "down", "exited", "exit:0"),
        (Ending(0, by_client=True), "cancelled", "client_closed", "unknown", "closed", None),
        (Ending(None, 15, by_client=True), "cancelled", "client_closed", "unknown", "closed", None),
    ],
)
def test_what_is_open_at_the_end_depends_on_who_ended_it(
    ending: Ending, status: str, error_type: str, state: str, outcome: str, state_error: str | None
) -> None:
    talk = Talk().client(call(1)).end(ending)
    assert (talk.call.status, talk.call.error_type) == (status, error_type)
    (last,) = talk.states
    assert (last.state, last.outcome, last.error_type) == (state, outcome, state_error)
    assert json.loads(bytes(last.attrs))["calls"] == 1


def test_a_server_that_cannot_be_started_is_down() -> None:
    (event,) = Session("fs").not_started(Talk().at(), "not_found", "No such file or directory")
    assert isinstance(event, ServerEvent)
    assert (event.outcome, event.state, event.error_type) == ("failed", "down", "not_found")


def test_lists_are_counted_over_all_their_pages_and_told_when_they_change() -> None:
    talk = Talk().client(request(1, "initialize")).server(result(1))
    talk.client(request(2, "tools/list")).server(result(2, tools=[1, 2], nextCursor="n"))
    talk.client(request(3, "tools/list", cursor="n")).server(result(3, tools=[3]))
    talk.client(request(4, "prompts/list")).server(result(4, prompts=[]))
    talk.client(request(5, "tools/list")).server(result(5, tools=[1, 2, 3]))
    talk.client(request(6, "resources/list")).server(error(6, -32601))
    talk.client(request(7, "tools/list")).server(result(7, tools="?"))
    listed = [(state.outcome, state.tools, state.prompts, state.resources) for state in talk.states[1:]]
    assert listed == [("listed", 3, None, None), ("listed", 3, 0, None)]


@pytest.mark.parametrize("kind", ["tools", "resources", "prompts"])
def test_a_changed_list_is_a_hub_event(kind: str) -> None:
    talk = Talk().server(notice(f"notifications/{kind}/list_changed"), notice("notifications/message", data="x"))
    (event,) = talk.events
    assert isinstance(event, HubEvent)
    assert event.name == f"{kind}_list_changed"
    payload = json.loads(bytes(event.payload))
    assert (payload["server"], payload["transport"]) == ("fs", "stdio")


def test_up_is_valid_for_two_and_a_half_heartbeats() -> None:
    talk = Talk(heartbeat_seconds=60)
    assert talk.session.pulse(talk.at()) == []
    talk.client(request(1, "initialize")).server(result(1))
    (pulse,) = talk.session.pulse(talk.at())
    assert isinstance(pulse, ServerEvent)
    assert (pulse.outcome, pulse.state) == ("alive", "up")
    assert pulse.valid_until == pulse.time + timedelta(seconds=150)
    assert talk.session.started(talk.at())[0].valid_until is None  # type: ignore[union-attr]
    assert Talk().client(call(1)).server(result(1)).states[0].valid_until is None


def test_error_messages_are_cut_to_the_length_allowed() -> None:
    long = "x" * 100 + "\0"
    for chars, expected in ((0, None), (5, "xxxxx"), (1_000, "x" * 100 + "\ufffd")):
        talk = Talk(error_message_chars=chars).client(call(1)).server(error(1, 5, long))
        assert talk.call.error_message == expected


def test_open_calls_are_bounded_and_the_oldest_is_counted() -> None:
    talk = Talk(open_calls_max=2).client(call(1), call(2), call(3)).server(result(1), result(2), result(3))
    assert len(talk.calls) == 2
    assert talk.session.counts.unreported_calls == 1


def test_calls_whose_answer_may_have_been_missed_are_not_called_failed() -> None:
    talk = Talk().client(call(1), call(2))
    talk.session.missed(100, answers=True)
    talk.client(call(3)).server(result(2)).end(Ending(1))
    assert [(found.status, found.error_type) for found in talk.calls] == [("ok", None), ("error", "server_exited")]
    counts = json.loads(bytes(talk.states[-1].attrs))
    assert (counts["missed_bytes"], counts["unreported_calls"], counts["calls"]) == (100, 1, 2)


def test_an_id_that_is_used_again_ends_the_call_before() -> None:
    talk = Talk().client(call(1, "a"), call(1, "b")).server(result(1))
    assert [(found.tool, found.status, found.error_type) for found in talk.calls] == [
        ("a", "cancelled", "id_reused"), ("b", "ok", None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "unreadable"),
    [
        (b"Server listening on stdio", 1), (b"{", 1), (b"\xff\xfe", 1), (b"[" * 100_000, 1), (b'{"id": {}}', 1),
        (b'"text"', 1), (b"[1]", 1), (b'{"id": true, "result": {}}', 1), (b"{}", 0), (b"[]", 0),
        (b'{"jsonrpc": "2.0", "id": null, "method": "tools/call"}', 0), (b'{"method": "tools/call", "id": 1}', 0),
        (b'{"id": 99, "result": {}}', 0), (b'{"method": "notifications/cancelled", "params": [1]}', 0),
        (b'{"id": 1, "method": "tools/call", "params": {"name": 5, "_meta": 5}}', 0),
    ],
)  # fmt: skip
def test_what_is_no_message_is_counted_and_nothing_else(line: bytes, unreadable: int) -> None:
    talk = Talk(limit=1_000_000).client(line).server(line)
    assert talk.session.counts.unreadable_lines == 2 * unreadable
    assert talk.calls == []


def python_sdk(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def typescript_sdk(message: dict[str, Any]) -> bytes:
    """The order in which the TypeScript SDK writes: what is asked or answered, then the version and the id."""
    order = ("method", "params", "result", "error", "jsonrpc", "id")
    return json.dumps({key: message[key] for key in order if key in message}, separators=(",", ":")).encode()


@pytest.mark.parametrize("written", [python_sdk, typescript_sdk])
def test_a_message_too_long_to_parse_is_still_matched_by_its_ends(written: Callable[[Any], bytes]) -> None:
    long = "x" * 50_000
    talk = Talk(limit=10_000)
    talk.client(written(call(1, "write", extra=long))).server(written(result(1, content=long)))
    talk.client(written(call("two"))).server(written(result("two", content=long, isError=True)))
    talk.client(written(call(3))).server(written(error(3, -5, long)))
    assert [(found.tool, found.status) for found in talk.calls] == [
        ("write", "ok"),
        ("read", "error"),
        ("read", "error"),
    ]
    assert talk.calls[0].response_bytes == len(written(result(1, content=long)))
    assert talk.session.counts.oversized_lines == 4


def test_a_long_request_that_does_not_begin_with_its_tool_is_a_call_of_an_unread_one() -> None:
    params = {"arguments": {"name": "x" * 50_000}, "name": "write"}
    talk = Talk(limit=10_000).client(python_sdk({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}))
    assert talk.server(result(1)).call.tool == UNREAD


@pytest.mark.parametrize(
    "inside",
    ['","jsonrpc":"2.0","id":7}', '{"jsonrpc":"2.0","id":7,"result":{}}', '"isError":true', '\\"isError\\":true'],
)
def test_what_only_looks_like_a_message_inside_a_text_is_none(inside: str) -> None:
    line = typescript_sdk(result(1, content=[{"text": inside + "x" * 5_000 + inside}]))
    message = skim(line[:4_096], line[-4_096:])
    assert message is not None
    assert (message.id, bytes(message.result)) == (1, b"{}")


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_any_two_ends_can_be_looked_at(head: bytes, tail: bytes) -> None:
    skim(head, tail)


@given(st.text(max_size=400))
def test_any_text_makes_a_name_that_hubscope_takes(text: str) -> None:
    name = name_of(text)
    assert len(name) <= 200
    assert len(name.encode()) <= 600
    assert "\0" not in name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3) | st.just("tools/call"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["id", "method", "params", "result", "error", "name", "_meta", "isError", "content", "code"]),
        inner, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip
MESSAGES = st.builds(
    lambda key, method, params: {"id": key, "method": method, "params": params},
    st.integers(0, 2),
    st.sampled_from(["tools/call", "tools/list", "initialize", "notifications/cancelled"]),
    JSON,
) | st.builds(lambda key, found: {"id": key, "result": found}, st.integers(0, 2), JSON)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.booleans(), MESSAGES | JSON), max_size=12))
def test_whatever_is_said_every_event_is_one_that_hubscope_takes(said: list[tuple[bool, Any]]) -> None:
    talk = Talk()
    for by_client, message in said:
        line = json.dumps(message).encode()
        if line.strip():
            (talk.client if by_client else talk.server)(line)
    talk.end(Ending(1))
    for event in talk.events:
        assert msgspec.json.decode(msgspec.json.encode(event), type=type(event)) is not None
    assert talk.session.counts.calls == len(talk.calls)
