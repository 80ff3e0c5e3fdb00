"""What goes over one MCP connection, read as events: calls, what the server offers, and how the connection fares. Pure.

Knows both protocols, the one that begins with `initialize` and the stateless one of 2026-07-28, where every request
brings its client along in `_meta`. Nothing that it cannot read is an error of the connection: it is counted.

Arguments and results are looked at only for what is named here; none of them ends up in an event.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Raw, Struct

from hubscope.ids import uuid7
from hubscope.model import CallStatus, Event, HubEvent, ServerEvent, ServerState, ToolCall
from hubscope.wrap.lines import Line
from hubscope.wrap.pump import Moment
from hubscope.wrap.tap import Ending, signal_name

REQUEST_TIMEOUT: Final = -32001
"""The JSON-RPC error code with which the SDKs say that a request took too long."""
CLIENT_INFO: Final = "io.modelcontextprotocol/clientInfo"
PROTOCOL_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
UNREAD: Final = "(unread)"
"""The tool of a call whose request was too long to parse and did not begin with the tool's name."""
ASKED_MAX: Final = 1_000
"""Most unanswered requests other than calls that are remembered."""
PULSES_PER_STATE: Final = 2.5
"""A server counts as up for so many heartbeats after the last one."""

Key = int | str | float
LISTS: Final = {"tools/list": "tools", "resources/list": "resources", "prompts/list": "prompts"}
HANDSHAKES: Final = ("initialize", "server/discover")
CHANGES: Final = {
    f"notifications/{kind}/list_changed": f"{kind}_list_changed" for kind in ("tools", "resources", "prompts")
}
NONE: Final = Raw(b"")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIMED_OUT: Final = re.compile(r"time[ds]?[ -]?out|-32001", re.IGNORECASE)
_TRACE: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\b")
_DECIMAL: Final = re.compile(r"-?(0|[1-9]\d*)")

# The ends of a line that is too long to parse. A key at the very start, or before the brace that ends the line, is a
# key of the message itself: inside a text, its quotation marks would be escaped.
_S: Final = rb"[ \t\r]*"
_TOKEN: Final = rb'("(?:[^"\\]|\\.){0,200}"|-?\d{1,20})'
_VERSION: Final = rb'"jsonrpc"' + _S + rb":" + _S + rb'"2\.0"'
_ID: Final = rb'"id"' + _S + rb":" + _S + _TOKEN
_COMMA: Final = _S + rb"," + _S
_BEGIN: Final = re.compile(
    rb"^" + _S + rb"\{" + _S
    + rb"(?:(?:" + _VERSION + rb"|" + _ID + rb")" + _COMMA + rb"){0,2}"
    + rb'"(result|error|method|params)"' + _S + rb":" + _S + _TOKEN + rb"?"
)  # fmt: skip
_FINISH: Final = re.compile(
    rb"," + _S + rb"(?:" + _VERSION + _COMMA + _ID + rb"|" + _ID + rb"(?:" + _COMMA + _VERSION + rb")?)"
    + _S + rb"\}" + _S + rb"$"
)  # fmt: skip
_TOOL: Final = re.compile(rb'"params"' + _S + rb":" + _S + rb"\{" + _S + rb'"name"' + _S + rb":" + _S + _TOKEN)
_IS_ERROR: Final = re.compile(rb'"isError"' + _S + rb":" + _S + rb"true")


class _Message(Struct):
    id: int | str | float | None = None
    method: str | None = None
    params: Raw = NONE
    result: Raw = NONE
    error: Raw = NONE


def _on_the_wire(field: str) -> str:
    first, *others = field.split("_")
    return "_meta" if field == "meta" else first + "".join(word.title() for word in others)


class _Params(Struct, rename=_on_the_wire):
    name: Raw = NONE
    cursor: Raw = NONE
    request_id: Raw = NONE
    reason: Raw = NONE
    request_state: Raw = NONE
    task: Raw = NONE
    client_info: Raw = NONE
    protocol_version: Raw = NONE
    meta: Raw = NONE


class _Result(Struct, rename=_on_the_wire):
    is_error: Raw = NONE
    content: Raw = NONE
    result_type: Raw = NONE
    request_state: Raw = NONE
    task: Raw = NONE
    tools: Raw = NONE
    resources: Raw = NONE
    prompts: Raw = NONE
    next_cursor: Raw = NONE
    protocol_version: Raw = NONE
    server_info: Raw = NONE
    meta: Raw = NONE


_MESSAGE = msgspec.json.Decoder(_Message)
_BATCH = msgspec.json.Decoder(list[Raw])
_PARAMS = msgspec.json.Decoder(_Params)
_RESULT = msgspec.json.Decoder(_Result)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(slots=True)
class Counts:
    """What one connection amounted to."""

    calls: int = 0
    failed: int = 0
    oversized_lines: int = 0
    unreadable_lines: int = 0
    missed_bytes: int = 0
    unreported_calls: int = 0


@dataclass(slots=True)
class _Call:
    tool: str
    began: Moment
    request_bytes: int
    trace: tuple[str, str] | None
    client: str
    attrs: dict[str, Any] = field(default_factory=dict)
    earlier_ns: int = 0  # what earlier rounds took, of a call that asked for more input
    since: int = 0  # when this round began
    certain: bool = True  # False once bytes were missed in which its answer may have been


@dataclass(slots=True)
class _Asked:
    method: str
    at: Moment
    first_page: bool


class Session:
    """One connection from start to end. Not for several threads at once.

    Args:
        server: its name in every event.
        error_message_chars: longest error message that is reported; 0 for none.
        open_calls_max: most calls without an answer that are remembered; past it the oldest goes unreported.
        heartbeat_seconds: how often `pulse` will be called; 0 for never.
        new_id: makes event ids.
    """

    def __init__(
        self,
        server: str,
        *,
        error_message_chars: int = 500,
        open_calls_max: int = 10_000,
        heartbeat_seconds: int = 0,
        new_id: Callable[[], UUID] = uuid7,
    ) -> None:
        self.counts = Counts()
        self._server = server
        self._chars = error_message_chars
        self._open_max = open_calls_max
        self._heartbeat_seconds = heartbeat_seconds
        self._new_id = new_id
        self._id = str(new_id())
        self._client = ""
        self._connected = False
        self._calls: dict[Key, _Call] = {}
        self._waiting: dict[tuple[str, str], _Call] = {}  # calls that asked their client for more input
        self._asked: dict[Key, _Asked] = {}
        self._pages: dict[str, int] = {}
        self._offers: dict[str, int] = {}

    # What happens

    def started(self, at: Moment) -> list[Event]:
        """The server's process is there."""
        return [self._state(at, "started", "unknown")]

    def not_started(self, at: Moment, error_type: str, reason: str) -> list[Event]:
        """The server's process could not be started."""
        return [self._state(at, "failed", "down", error_type=error_type, error_message=self._message(reason))]

    def sent(self, line: Line, at: Moment) -> list[Event]:
        """A line from the client to the server."""
        found: list[Event] = []
        for message, size in self._messages(line):
            found += self._request(message, size, at)
        return found

    def received(self, line: Line, at: Moment) -> list[Event]:
        """A line from the server to the client."""
        found: list[Event] = []
        for message, size in self._messages(line):
            if message.method is not None:
                if message.method in CHANGES:
                    found.append(self._changed(CHANGES[message.method], at))
            elif message.id is not None and (bytes(message.result) or bytes(message.error)):
                found += self._answer(message, size, at)
        return found

    def missed(self, size: int, *, answers: bool) -> None:
        """Bytes went by unseen; with `answers`, from the server to the client."""
        self.counts.missed_bytes += size
        if answers:
            for call in self._calls.values():
                call.certain = False

    def pulse(self, at: Moment) -> list[Event]:
        """The connection is still there."""
        return [self._state(at, "alive", "up")] if self._connected else []

    def ended(self, ending: Ending, at: Moment) -> list[Event]:
        """The server's process is gone; what was not answered never will be."""
        found: list[Event] = []
        for call in [*self._calls.values(), *self._waiting.values()]:
            if not call.certain:
                self.counts.unreported_calls += 1
            elif ending.by_client or not call.since:
                found.append(self._finished(call, at, "cancelled", "client_closed", "the client closed the connection"))
            else:
                words = f"the server {ending.in_words} before it answered"
                found.append(self._finished(call, at, "error", "server_exited", words))
        self._calls.clear()
        self._waiting.clear()
        how: dict[str, Any] = {
            name: value for name in Counts.__slots__ if (value := getattr(self.counts, name)) or name == "calls"
        }
        if ending.signal is not None:
            how["signal"] = signal_name(ending.signal)
        else:
            how["exit_code"] = ending.exit_code
        if ending.by_client:
            found.append(self._state(at, "closed", "unknown", attrs=how))
        else:
            kind = "exited" if ending.exit_code == 0 else "crashed"
            error_type = f"signal:{how['signal']}" if ending.signal is not None else f"exit:{ending.exit_code}"
            words = f"the server {ending.in_words}"
            found.append(self._state(at, kind, "down", error_type=error_type, error_message=words, attrs=how))
        return found

    # The client's side

    def _request(self, message: _Message, size: int, at: Moment) -> list[Event]:
        method, key = message.method, _key(message.id)
        if method == "tools/call" and key is not None:
            return self._call(key, message, size, at)
        if method == "notifications/cancelled":
            return self._cancelled(_params(message), at)
        if method is None or key is None:
            return []
        if method in HANDSHAKES or method in LISTS or not self._connected:
            params = _params(message)
            if method in HANDSHAKES:
                self._introduced(params)
            if len(self._asked) >= ASKED_MAX:
                del self._asked[next(iter(self._asked))]
            self._asked[key] = _Asked(method, at, not _given(params.cursor))
        return []

    def _call(self, key: Key, message: _Message, size: int, at: Moment) -> list[Event]:
        params = _params(message)
        meta = _object(params.meta)
        tool = name_of(_text(params.name) or UNREAD)
        found: list[Event] = []
        if (stale := self._calls.pop(key, None)) is not None:
            found.append(self._finished(stale, at, "cancelled", "id_reused", "its id was used again before an answer"))
        call = None
        if _given(params.request_state) or self._waiting:
            call = self._waiting.pop((tool, bytes(params.request_state).decode(errors="replace")), None)
        if call is None:
            call = _Call(tool, at, 0, _trace(_text(meta.get("traceparent", NONE))), self._client)
        call.client = _who(meta.get(CLIENT_INFO, NONE)) or call.client
        call.request_bytes += size
        call.since = at.steady_ns
        if _given(params.task):
            call.attrs["task"] = True
        if len(self._calls) >= self._open_max:
            del self._calls[next(iter(self._calls))]
            self.counts.unreported_calls += 1
        self._calls[key] = call
        return found

    def _cancelled(self, params: _Params, at: Moment) -> list[Event]:
        call = self._calls.pop(_key(_scalar(params.request_id)), None)  # type: ignore[arg-type]
        if call is None:
            return []
        reason = _text(params.reason) or ""
        status: CallStatus = "timeout" if _TIMED_OUT.search(reason) else "cancelled"
        return [self._finished(call, at, status, "client_timeout" if status == "timeout" else "cancelled", reason)]

    def _introduced(self, params: _Params) -> None:
        meta = _object(params.meta)
        self._client = _who(params.client_info) or _who(meta.get(CLIENT_INFO, NONE)) or self._client

    # The server's side

    def _answer(self, message: _Message, size: int, at: Moment) -> list[Event]:
        key = _key(message.id)
        if key is None:
            return []
        call, asked = self._calls.pop(key, None), self._asked.pop(key, None)
        found: list[Event] = []
        result = _result(message)
        if result is not None and not self._connected and (asked is not None or call is not None):
            found.append(self._up(result, asked, at))
        if call is not None:
            found += self._answered(call, message, result, size, at)
        elif asked is not None and result is not None and asked.method in LISTS:
            found += self._listed(LISTS[asked.method], asked, result, at)
        return found

    def _answered(self, call: _Call, message: _Message, result: _Result | None, size: int, at: Moment) -> list[Event]:
        if result is None:
            code, words = _error(message.error)
            status: CallStatus = "timeout" if code == REQUEST_TIMEOUT else "error"
            return [self._finished(call, at, status, f"mcp:{code}", words, size)]
        if _text(result.result_type) == "input_required":
            call.earlier_ns += at.steady_ns - call.since
            call.since = 0
            call.attrs["rounds"] = call.attrs.get("rounds", 1) + 1
            if len(self._waiting) >= ASKED_MAX:
                del self._waiting[next(iter(self._waiting))]
                self.counts.unreported_calls += 1
            self._waiting[call.tool, bytes(result.request_state).decode(errors="replace")] = call
            return []
        if bytes(result.is_error) == b"true":
            return [self._finished(call, at, "error", "tool_error", _first_text(result.content), size)]
        return [self._finished(call, at, "ok", None, None, size)]

    def _up(self, result: _Result, asked: _Asked | None, at: Moment) -> ServerEvent:
        """The first answer that is no error: the server is there."""
        self._connected = True
        attrs: dict[str, Any] = {}
        latency = None
        if asked is not None and asked.method in HANDSHAKES:
            latency = (at.steady_ns - asked.at.steady_ns) / 1e6
            info = _object(result.server_info) or _object(_object(result.meta).get(SERVER_INFO, NONE))
            told = {
                "protocol_version": _text(result.protocol_version),
                "server_name": _text(info.get("name", NONE)),
                "server_version": _text(info.get("version", NONE)),
            }
            attrs = {name: name_of(value) for name, value in told.items() if value}
        return self._state(at, "connected", "up", latency_ms=latency, attrs=attrs)

    def _listed(self, kind: str, asked: _Asked, result: _Result, at: Moment) -> list[Event]:
        items: Raw = getattr(result, kind)
        try:
            count = len(_BATCH.decode(items)) + (0 if asked.first_page else self._pages.get(kind, 0))
        except _UNREADABLE:
            return []
        self._pages[kind] = count
        if _given(result.next_cursor) or self._offers.get(kind) == count:
            return []
        self._offers[kind] = count
        return [self._state(at, "listed", "up")]

    # Events

    def _finished(
        self,
        call: _Call,
        at: Moment,
        status: CallStatus,
        error_type: str | None,
        words: str | None,
        response_bytes: int | None = None,
    ) -> ToolCall:
        self.counts.calls += 1
        self.counts.failed += status != "ok"
        took_ns = call.earlier_ns + (at.steady_ns - call.since if call.since else 0)
        return ToolCall(
            event_id=self._new_id(),
            time=_time(call.began),
            server=self._server,
            tool=call.tool,
            status=status,
            duration_ms=took_ns / 1e6,
            error_type=error_type,
            error_message=self._message(words) if words else None,
            session_id=self._id,
            client=call.client,
            transport="stdio",
            trace_id=call.trace[0] if call.trace else None,
            span_id=call.trace[1] if call.trace else None,
            request_bytes=call.request_bytes,
            response_bytes=response_bytes,
            vantage="wrapper",
            attrs=_attrs(call.attrs),
        )

    def _state(
        self,
        at: Moment,
        outcome: str,
        state: ServerState,
        *,
        latency_ms: float | None = None,
        error_type: str | None = None,
        error_message: str | None = None,
        attrs: dict[str, Any] | None = None,
    ) -> ServerEvent:
        beats = self._heartbeat_seconds * PULSES_PER_STATE
        more: dict[str, Any] = {"session_id": self._id}
        if self._client:
            more["client"] = self._client
        return ServerEvent(
            event_id=self._new_id(),
            time=_time(at),
            server=self._server,
            source="connection",
            outcome=outcome,
            state=state,
            valid_until=_time(at) + timedelta(seconds=beats) if beats and state == "up" else None,
            latency_ms=latency_ms,
            transport="stdio",
            tools=self._offers.get("tools"),
            resources=self._offers.get("resources"),
            prompts=self._offers.get("prompts"),
            error_type=error_type,
            error_message=error_message,
            attrs=_attrs(more | (attrs or {})),
        )

    def _changed(self, name: str, at: Moment) -> HubEvent:
        payload = _attrs({"server": self._server, "session_id": self._id, "transport": "stdio"})
        return HubEvent(event_id=self._new_id(), time=_time(at), name=name, payload=payload)

    def _message(self, words: str) -> str | None:
        return words.replace("\0", "\N{REPLACEMENT CHARACTER}")[: self._chars] or None

    # Reading

    def _messages(self, line: Line) -> Iterator[tuple[_Message, int]]:
        """The messages of a line with their sizes: one, or several of a batch; none of what cannot be read."""
        if line.whole is None:
            self.counts.oversized_lines += 1
            skimmed = skim(line.head, line.tail)
            if skimmed is not None:
                yield skimmed, line.size
            return
        try:
            if line.whole.lstrip()[:1] != b"[":
                yield _MESSAGE.decode(line.whole), line.size
                return
            parts = _BATCH.decode(line.whole)
        except _UNREADABLE:
            self.counts.unreadable_lines += 1
            return
        for part in parts:
            try:
                message = _MESSAGE.decode(part)
            except _UNREADABLE:
                self.counts.unreadable_lines += 1
                continue
            yield message, len(bytes(part))


def skim(head: bytes, tail: bytes) -> _Message | None:
    """What the two ends of a message tell of it; None where they do not tell whose it is.

    The id is read where the SDKs write it: at the start, or as the last key. A result counts as an error only where one
    of its ends says so.
    """
    begin, finish = _BEGIN.match(head), _FINISH.search(tail)
    if begin is None:
        return None
    token = begin.group(1) or (finish and (finish.group(1) or finish.group(2)))
    key, value = begin.group(2), begin.group(3)
    if key == b"result" or key == b"error":
        if not token:
            return None
        if key == b"error":
            return _Message(_scalar(Raw(token)), error=Raw(b"{}"))
        failed = _IS_ERROR.search(head) or _IS_ERROR.search(tail)
        return _Message(_scalar(Raw(token)), result=Raw(b'{"isError":true}' if failed else b"{}"))
    if key == b"method" and value == b'"tools/call"' and token:
        tool = _TOOL.search(head)
        params = b'{"name":' + tool.group(1) + b"}" if tool else b"{}"
        return _Message(_scalar(Raw(token)), method="tools/call", params=Raw(params))
    return None


def name_of(text: str) -> str:
    """A text as the name of something: 1 to 200 characters, at most 600 bytes, none of them NUL."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")[:200]
    return text if len(text) <= 150 else text.encode()[:600].decode(errors="ignore")


def _given(raw: Raw) -> bool:
    return bytes(raw) not in (b"", b"null")


def _params(message: _Message) -> _Params:
    try:
        return _PARAMS.decode(message.params)
    except _UNREADABLE:
        return _Params()


def _result(message: _Message) -> _Result | None:
    """None for an answer that is an error."""
    if _given(message.error) or not bytes(message.result):
        return None
    try:
        return _RESULT.decode(message.result)
    except _UNREADABLE:
        return _Result()


def _object(raw: Raw) -> dict[str, Raw]:
    try:
        return _OBJECT.decode(raw)
    except _UNREADABLE:
        return {}


def _scalar(raw: Raw) -> Any:
    try:
        return msgspec.json.decode(raw) if _given(raw) else None
    except _UNREADABLE:
        return None


def _text(raw: Raw) -> str | None:
    value = _scalar(raw) if bytes(raw)[:1] == b'"' else None
    return value if isinstance(value, str) else None


def _key(request_id: Any) -> Key | None:
    """An id as a key. 7 and "7" are one: there are servers that answer with the other."""
    if isinstance(request_id, str):
        return int(request_id) if len(request_id) < 20 and _DECIMAL.fullmatch(request_id) else request_id
    return request_id if isinstance(request_id, int | float) and not isinstance(request_id, bool) else None


def _who(info: Raw) -> str:
    """Name and version of a client, as one label."""
    about = _object(info)
    name, version = _text(about.get("name", NONE)), _text(about.get("version", NONE))
    return name_of(f"{name}/{version}" if version else name) if name else ""


def _trace(traceparent: str | None) -> tuple[str, str] | None:
    """Trace and span of a W3C traceparent (Trace Context, section 3.2.2)."""
    found = _TRACE.match(traceparent or "")
    return (found.group(1), found.group(2)) if found else None


def _error(raw: Raw) -> tuple[str | int, str | None]:
    about = _object(raw)
    code = _scalar(about.get("code", NONE))
    sound = isinstance(code, int) and not isinstance(code, bool)
    return (code if sound else "unknown"), _text(about.get("message", NONE))


def _first_text(content: Raw) -> str | None:
    """The first text of a result."""
    try:
        parts = _BATCH.decode(content)
    except _UNREADABLE:
        return None
    for part in parts[:10]:
        if text := _text(_object(part).get("text", NONE)):
            return text
    return None


def _time(at: Moment) -> datetime:
    return _EPOCH + timedelta(microseconds=at.unix_ns // 1_000)


def _attrs(values: dict[str, Any]) -> Raw:
    return Raw(msgspec.json.encode(values) if values else b"null")
