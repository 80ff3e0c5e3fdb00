"""From the bytes of a post to events and rejections: every odd input by name, and that nothing is lost on the way."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubscope.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from hubscope.ingest.envelope import Batch, Window, json_object, read
from hubscope.ingest.rows import record
from hubscope.model import CALL_STATUSES, EVENT_TYPES, HubEvent, Rejected, ToolCall
from tests.events import server_event, tool_call

pytestmark = pytest.mark.bridge

JSON, NDJSON = "application/json", "application/x-ndjson"
NOW = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)
WINDOW = Window.around(NOW, max_age=timedelta(days=7), max_skew=timedelta(seconds=300))
ID = "0192f3a0-0000-7000-8000-000000000001"
ASTRAL = "\U0001f600"
DEEP = 20_000


def call(**changes: Any) -> dict[str, Any]:
    return tool_call(event_id=ID, time=NOW.isoformat(), **changes)


def without(field: str, event: dict[str, Any] | None = None) -> str:
    return json.dumps({name: value for name, value in (event or call()).items() if name != field})


def spelt(**fields: str) -> str:
    """A tool_call with more fields whose JSON is spelt out, whatever a JSON encoder would make of them."""
    return without("duration_ms")[:-1] + "".join(f', "{name}": {value}' for name, value in fields.items()) + "}"


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def read_it(body: str | bytes, content_type: str = JSON, *, tenant: str = "default", max_events: int = 1_000) -> Batch:
    encoded = body.encode() if isinstance(body, str) else body
    return read(encoded, content_type, tenant=tenant, window=WINDOW, max_events=max_events)


def framed(texts: list[str], framing: str) -> tuple[bytes, str]:
    match framing:
        case "array":
            return f"[{', '.join(texts)}]".encode(), JSON
        case "wrapped":
            return f'{{"events": [{",".join(texts)}]}}'.encode(), JSON
        case _:
            return "\n".join(texts).encode(), NDJSON


def rejection(text: str | bytes, framing: str = "lines") -> Rejected:
    """Why one event is not taken; a good one on either side of it is."""
    before, after = json.dumps(call(server="before")), json.dumps(call(server="after"))
    body, content_type = framed([before, "@", after], framing)
    batch = read_it(body.replace(b"@", text.encode() if isinstance(text, str) else text), content_type)
    assert list(batch.places) == [0, 2]
    assert [event.server for event in batch.events if isinstance(event, ToolCall)] == ["before", "after"]
    [rejected] = batch.rejected
    assert rejected.index == 1
    msgspec.json.encode(rejected)
    return rejected


REJECTED = {
    "a number": ("5", "not_an_object", ["JSON object", "int"]),
    "null": ("null", "not_an_object", ["JSON object", "null"]),
    "a string": ('"tool_call"', "not_an_object", ["JSON object", "str"]),
    "an array": (f"[{json.dumps(call())}]", "not_an_object", ["JSON object", "array"]),
    "no type": (without("type"), "missing_field", ["'type'"]),
    "an unknown type": (json.dumps(call(type="toolcall")), "unknown_type", ["type:", "'toolcall'", *EVENT_TYPES]),
    "a type that is a number": (json.dumps(call(type=5)), "unknown_type", ["type:", *EVENT_TYPES]),
    "no time": (without("time"), "missing_field", ["'time'"]),
    "a time without a zone": (
        json.dumps(call() | {"time": "2026-11-21T20:00:00"}),
        "invalid_field",
        ["time:", "timezone"],
    ),
    "a time that is a number": (json.dumps(call() | {"time": 1_795_291_200}), "invalid_field", ["time:", "int"]),
    "a time that is a word": (json.dumps(call() | {"time": "yesterday"}), "invalid_field", ["time:", "RFC3339"]),
    "a leap second": (json.dumps(call() | {"time": "2026-11-21T19:59:60Z"}), "invalid_field", ["time:"]),
    "the first time there is": (json.dumps(call() | {"time": "0001-01-01T00:00:00+14:00"}), "too_old", ["time:"]),
    "the last time there is": (json.dumps(call() | {"time": "9999-12-31T23:59:59-14:00"}), "in_future", ["time:"]),
    "no server": (without("server"), "missing_field", ["'server'"]),
    "an empty server": (json.dumps(call(server="")), "invalid_field", ["server:", ">= 1"]),
    "a server of 201 characters": (json.dumps(call(server="x" * 201)), "too_long", ["server:", "<= 200"]),
    "a server of too many bytes": (json.dumps(call(server=ASTRAL * 151)), "too_long", ["server:", "604", "600"]),
    "a client of too many bytes": (
        json.dumps(call(client=ASTRAL * 200), ensure_ascii=False),
        "too_long",
        ["client:", "800", "600"],
    ),
    "an unknown status": (json.dumps(call(status="failed")), "invalid_field", ["status:", "'failed'", *CALL_STATUSES]),
    "a status that is a number": (json.dumps(call(status=1)), "invalid_field", ["status:", *CALL_STATUSES]),
    "an unknown transport": (
        json.dumps(call(transport="udp")),
        "invalid_field",
        ["transport:", '""', "stdio", "http", "sse"],
    ),
    "an unknown state": (
        json.dumps(server_event(time=NOW.isoformat(), state="sleepy")),
        "invalid_field",
        ["state:", "up", "degraded", "down", "maintenance", "unknown"],
    ),
    "an unknown source": (
        json.dumps(server_event(time=NOW.isoformat(), source="guess")),
        "invalid_field",
        ["source:", "connection", "probe"],
    ),
    "an id that is none": (json.dumps(call() | {"event_id": "42"}), "invalid_field", ["event_id:", "UUID"]),
    "an id that is a number": (json.dumps(call() | {"event_id": 42}), "invalid_field", ["event_id:"]),
    "a negative duration": (spelt(duration_ms="-0.001"), "invalid_duration", ["duration_ms:", ">= 0"]),
    "an infinite duration": (spelt(duration_ms="1e400"), "invalid_duration", ["duration_ms:", "out of range"]),
    "a duration of 400 digits": (spelt(duration_ms="9" * 400), "invalid_duration", ["duration_ms:", "out of range"]),
    "a duration of ages": (spelt(duration_ms="1e13"), "invalid_duration", ["duration_ms:", "<= "]),
    "a duration that is text": (spelt(duration_ms='"5"'), "invalid_duration", ["duration_ms:", "str"]),
    "a duration that is true": (spelt(duration_ms="true"), "invalid_duration", ["duration_ms:", "bool"]),
    "a negative latency": (
        json.dumps(server_event(time=NOW.isoformat(), latency_ms=-1)),
        "invalid_duration",
        ["latency_ms:"],
    ),
    "negative bytes": (json.dumps(call(request_bytes=-1)), "invalid_field", ["request_bytes:", ">= 0"]),
    "half a step": (json.dumps(call(step_index=0.5)), "invalid_field", ["step_index:"]),
    "an unknown field": (json.dumps(call(serverr="x")), "unknown_field", ["'serverr'", "attrs"]),
    "another type's field": (
        json.dumps(server_event(time=NOW.isoformat(), tool="x")),
        "unknown_field",
        ["'tool'", "attrs"],
    ),
    "attrs that are an array": (json.dumps(call(attrs=[1])), "invalid_field", ["attrs:", "JSON object"]),
    "attrs that are text": (json.dumps(call(attrs="{}")), "invalid_field", ["attrs:", "JSON object"]),
    "a payload that is a number": (
        json.dumps({"type": "hub_event", "time": NOW.isoformat(), "name": "x", "payload": 5}),
        "invalid_field",
        ["payload:", "JSON object"],
    ),
    "NUL in a name": (json.dumps(call(server="a\0b")), "invalid_field", ["server:", "NUL"]),
    "NUL in a long text": (json.dumps(call(error_message="a\0b")), "invalid_field", ["error_message:", "NUL"]),
    "NUL in attrs": (json.dumps(call(attrs={"a": "\0"})), "invalid_field", ["attrs:", "NUL"]),
    "NUL in a nested key": (json.dumps(call(attrs={"a": [{"\0": 1}]})), "invalid_field", ["attrs:", "NUL"]),
    "NUL after a backslash": (json.dumps(call(attrs={"a": "\\\0"})), "invalid_field", ["attrs:", "NUL"]),
    "NUL beside a number out of range": (
        spelt(attrs='{"a": 1e999999, "b": "\\u0000"}'),
        "invalid_field",
        ["attrs:", "NUL"],
    ),
    "NUL in a payload": (
        json.dumps({"type": "audit", "time": NOW.isoformat(), "name": "x", "payload": {"a": "\0"}}),
        "invalid_field",
        ["payload:", "NUL"],
    ),
    "broken UTF-8 in attrs": (
        spelt(attrs='{"a": "@"}').encode().replace(b"@", b"\xff"),
        "invalid_field",
        ["attrs:", "UTF-8"],
    ),
    "broken UTF-8 in a name": (spelt(client='"@"').encode().replace(b"@", b"\xff"), "invalid_json", ["not valid JSON"]),
    "broken UTF-8 in a field's name": (
        spelt(**{"@": "1"}).encode().replace(b"@", b"\xff"),
        "invalid_json",
        ["not valid JSON"],
    ),
    # What follows is no JSON, yet other languages' encoders write it, also inside arrays.
    "a duration that is NaN": (spelt(duration_ms="NaN"), "invalid_json", ["not valid JSON"]),
    "a duration that is Infinity": (spelt(duration_ms="-Infinity"), "invalid_json", ["not valid JSON"]),
    "NaN in attrs": (spelt(attrs='{"a": [NaN]}'), "invalid_json", ["not valid JSON"]),
    "half a surrogate pair": (spelt(error_message='"cut \\ud83d"'), "invalid_json", ["not valid JSON"]),
    "half a surrogate pair in attrs": (spelt(attrs='{"a": "\\udc00"}'), "invalid_json", ["not valid JSON"]),
    "half a surrogate pair in a field's name": (spelt(**{"\\ud800": "1"}), "invalid_json", ["not valid JSON"]),
    "a bare control character": (spelt(client='"a\tb"'), "invalid_json", ["not valid JSON"]),
    "a bare NUL": (spelt(client='"\0"'), "invalid_json", ["not valid JSON"]),
    "NaN beside broken UTF-8": (
        spelt(duration_ms="NaN", client='"@"').encode().replace(b"@", b"\xff"),
        "invalid_json",
        ["not valid JSON"],
    ),
}


@pytest.mark.parametrize("framing", ["array", "wrapped", "lines"])
@pytest.mark.parametrize(("text", "code", "words"), REJECTED.values(), ids=REJECTED)
def test_a_broken_event_is_rejected_by_name_and_costs_only_itself(
    text: str | bytes, code: str, words: list[str], framing: str
) -> None:
    rejected = rejection(text, framing)
    assert rejected.code == code
    assert [word for word in words if word not in rejected.detail] == []


@pytest.mark.parametrize(
    ("text", "event_id"),
    [
        (json.dumps(call(status="failed")), ID),
        (json.dumps(call() | {"event_id": "42"}), "42"),
        (json.dumps(call() | {"event_id": "x" * 5_000}), "x" * 100),
        (json.dumps(call() | {"event_id": 42}), None),
        (without("event_id", call(status="failed")), None),
        (spelt(duration_ms="NaN"), None),
        ("5", None),
    ],
)
def test_a_rejection_names_the_id_that_was_sent_when_it_can_be_read(text: str, event_id: str | None) -> None:
    assert rejection(text).event_id == event_id


@pytest.mark.parametrize(
    ("late", "code"),
    [
        (timedelta(days=7, microseconds=1), "too_old"),
        (timedelta(days=7), None),
        (timedelta(0), None),
        (-timedelta(seconds=300), None),
        (-timedelta(seconds=300, microseconds=1), "in_future"),
    ],
)
@pytest.mark.parametrize(
    "zone", [UTC, timezone(timedelta(hours=14)), timezone(-timedelta(hours=9, minutes=30))], ids=str
)
def test_an_event_outside_the_accepted_window_is_rejected(late: timedelta, code: str | None, zone: timezone) -> None:
    event = call() | {"time": (NOW - late).astimezone(zone).isoformat()}
    batch = read_it(json.dumps([event]))
    assert [rejected.code for rejected in batch.rejected] == ([code] if code else [])
    assert [event.time for event in batch.events] == ([] if code else [NOW - late])
    for rejected in batch.rejected:
        assert event["time"] in rejected.detail
        assert ("2026-11-14T20:00:00+00:00" if code == "too_old" else "2026-11-21T20:05:00+00:00") in rejected.detail


ACCEPTED = {
    "no duration": without("duration_ms"),
    "a null duration": json.dumps(call(duration_ms=None)),
    "a duration of zero": spelt(duration_ms="0"),
    "a duration of minus zero": spelt(duration_ms="-0.0"),
    "the least duration there is": spelt(duration_ms="5e-324"),
    "200 characters of three bytes": json.dumps(call(server="漢" * 200, client="漢" * 200), ensure_ascii=False),
    "150 characters of four bytes": json.dumps(call(server=ASTRAL * 150)),
    "a long text of many bytes": json.dumps(call(error_message=ASTRAL * 8_000)),
    "no attrs": json.dumps(call(attrs=None)),
    "empty attrs": json.dumps(call(attrs={})),
    "attrs after spaces": spelt(attrs='  {"a": 1}'),
    "text that spells an escaped NUL": json.dumps(call(error_message="\\u0000", attrs={"\\u0000": "a\\\\u0000"})),
    "a whole surrogate pair": spelt(client='"\\ud83d\\ude00"'),
    "a field twice": spelt(server='"again"'),
    "attrs with a key twice": spelt(attrs='{"a": 1, "a": 2}'),
    "attrs nested as deep as allowed": spelt(attrs=nested(16)),
    "a number that only a database can refuse": spelt(attrs='{"a": 1e999999}'),
    "a null id": json.dumps(call() | {"event_id": None}),
}


@pytest.mark.parametrize("framing", ["array", "wrapped", "lines"])
@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED)
def test_an_odd_event_is_taken(text: str, framing: str) -> None:
    body, content_type = framed([text], framing)
    batch = read_it(body, content_type)
    assert batch.rejected == []
    [event] = batch.events
    assert list(batch.places) == [0]
    assert event.event_id is not None
    assert record("default", event.event_id, event).columns


def test_free_json_is_kept_as_it_was_sent() -> None:
    attrs = '{ "b" : 1.50, "a":"\\u00e9" }'
    [event] = read_it(f"[{spelt(attrs=attrs)}]").events
    assert isinstance(event, ToolCall)
    assert json_object(event.attrs) == attrs


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_type_is_taken_in_its_smallest_form(kind: str) -> None:
    smallest: dict[str, dict[str, Any]] = {
        "tool_call": {"server": "s", "tool": "t", "status": "ok"},
        "server_event": {"server": "s", "source": "probe", "outcome": "ok", "state": "up"},
        "audit": {"name": "n"},
        "chain": {"chain_id": "c", "status": "running"},
        "chain_step": {"chain_id": "c", "step_index": 0, "status": "running"},
        "hub_event": {"name": "n"},
    }
    [event] = read_it(json.dumps([{"type": kind, "time": NOW.isoformat()} | smallest[kind]])).events
    assert type(event) is EVENT_TYPES[kind]


EVENT = json.dumps(call())


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (f"[{EVENT}, {EVENT}]", "application/json"),
        (f" \r\n\t[{EVENT},{EVENT}]\n", "Application/JSON; charset=UTF-8"),
        (f'{{"events": [{EVENT}, {EVENT}]}}', "application/json;"),
        (f"\ufeff[{EVENT}, {EVENT}]", "application/json"),
        (f'\ufeff{{"events": [{EVENT}, {EVENT}]}}', "application/json"),
        (f"{EVENT}\n{EVENT}", "application/x-ndjson"),
        (f"{EVENT}\r\n\r\n  \n{EVENT}\r\n", "application/ndjson"),
        (f"\ufeff{EVENT}\n{EVENT}\n", "application/jsonl; charset=utf-8"),
    ],
)
def test_a_post_may_be_an_array_an_object_with_events_or_lines(body: str, content_type: str) -> None:
    batch = read_it(body, content_type)
    assert batch.rejected == []
    assert [(place, str(event.event_id)) for place, event in zip(batch.places, batch.events, strict=True)] == [
        (0, ID),
        (1, ID),
    ]


@pytest.mark.parametrize("body", ["[]", '{"events": []}', '{"events":[],"events":[]}'])
def test_a_post_of_no_events_is_taken(body: str) -> None:
    assert read_it(body) == Batch([], [], [])


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        ("", JSON, ["empty", '{"events": [...]}']),
        (" \n", JSON, ["empty"]),
        ("", NDJSON, ["empty", "line"]),
        ("\r\n \n", NDJSON, ["empty", "line"]),
        ("\ufeff", JSON, ["empty"]),
        ("5", JSON, ["neither"]),
        ('"x"', JSON, ["neither"]),
        ("events=1", JSON, ["neither"]),
        (f"[{EVENT}]".encode("utf-16"), JSON, ["neither"]),
        (EVENT, JSON, ['{"events": [...]}', "application/x-ndjson"]),
        (f"{EVENT}\n{EVENT}", JSON, ["application/x-ndjson"]),
        ("{}", JSON, ["events"]),
        ('{"events": null}', JSON, ['{"events": [...]}']),
        ('{"events": {}}', JSON, ['{"events": [...]}']),
        (f'{{"events": [], "events": [{EVENT}, 5]}}', JSON, ["nothing else"]),
        (f'{{"events": [{EVENT}], "more": 1}}', JSON, ["more"]),
        (f"[{EVENT}", JSON, ["not valid JSON"]),
        (f"[{EVENT},]", JSON, ["not valid JSON"]),
        (f"[{EVENT}]]", JSON, ["not valid JSON"]),
        (f"[{EVENT} {EVENT}]", JSON, ["not valid JSON"]),
        (f"[{EVENT}, NaN", JSON, ["not valid JSON"]),
        (f'{{"events": [{EVENT}, NaN]', JSON, ["not valid JSON"]),
        (f'{{"events": [NaN], "more": [{EVENT}]}}', JSON, ["not valid JSON"]),
        ("[01]", JSON, ["not valid JSON"]),
        ('["\\q"]', JSON, ["not valid JSON"]),
        (f"[{spelt(attrs=nested(DEEP))}]", JSON, ["nested too deeply"]),
        ("[" * DEEP, JSON, ["nested too deeply"]),
        ("[NaN," + "[" * DEEP, JSON, ["not valid JSON"]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_body_that_cannot_be_read_is_refused_whole_with_the_reason(
    body: str | bytes, content_type: str, words: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_it(body, content_type)
    assert [word for word in words if word not in refused.value.detail] == []


@pytest.mark.parametrize("text", [spelt(attrs=nested(DEEP)), "[" * DEEP + "]" * DEEP], ids=["object", "array"])
def test_a_line_that_is_nested_too_deeply_costs_only_itself(text: str) -> None:
    rejected = rejection(text)
    assert rejected.code in ("invalid_json", "not_an_object")


@pytest.mark.parametrize(
    "content_type", ["", ";", "text/plain", "application/xml", "application/json-seq", "json", "multipart/form-data"]
)
def test_another_content_type_is_refused_with_the_allowed_ones(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=r"allowed: application/json, application/x-ndjson"):
        read_it(f"[{EVENT}]", content_type)


@pytest.mark.parametrize("framing", ["array", "wrapped", "lines"])
@pytest.mark.parametrize("text", [EVENT, "5", spelt(duration_ms="NaN")], ids=["good", "bad", "no JSON"])
def test_more_events_than_the_limit_are_refused_whole(text: str, framing: str) -> None:
    body, content_type = framed([text] * 3, framing)
    batch = read_it(body, content_type, max_events=3)
    assert len(batch.events) + len(batch.rejected) == 3
    with pytest.raises(TooLarge) as refused:
        read_it(body, content_type, max_events=2)
    assert refused.value.context == {"limit_events": 2}


def ids_of(body: str | bytes, content_type: str = JSON, tenant: str = "default") -> list[UUID]:
    events = read_it(body, content_type, tenant=tenant).events
    return [event.event_id for event in events if event.event_id is not None]


def test_an_event_without_an_id_gets_the_same_one_each_time_it_is_sent() -> None:
    nameless = without("event_id")
    [first] = ids_of(f"[{nameless}]")
    assert first.version == 8
    assert ids_of(f"{nameless}\n{nameless}\n", NDJSON) == [first, first]
    assert ids_of(f'{{"events": [{nameless}]}}') == [first]
    # The same content, read one by one because of a neighbour.
    assert ids_of(f"[5, {nameless}]") == [first]


@pytest.mark.parametrize(
    "changes", [{"tool": "other"}, {"duration_ms": 12.6}, {"attrs": {"a": 1}}, {"hub": "h"}], ids=str
)
def test_events_without_an_id_that_differ_get_different_ones(changes: dict[str, Any]) -> None:
    assert ids_of(f"[{without('event_id')}]") != ids_of(f"[{without('event_id', call(**changes))}]")


def test_events_without_an_id_differ_by_tenant_and_type() -> None:
    nameless = without("event_id")
    assert ids_of(f"[{nameless}]", tenant="a") != ids_of(f"[{nameless}]", tenant="b")
    [hub, audit] = ids_of(
        json.dumps([{"type": kind, "time": NOW.isoformat(), "name": "n"} for kind in ("hub_event", "audit")])
    )
    assert hub != audit


GOOD = st.builds(
    lambda minutes, duration, name: json.dumps(
        call(server=name, duration_ms=duration) | {"time": (NOW - timedelta(minutes=minutes)).isoformat()}
    ),
    st.integers(-5, 7 * 24 * 60),
    st.none() | st.floats(0, 1e9),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=150),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CHANGED = st.builds(
    lambda field, value: json.dumps(call() | {field: value}),
    st.sampled_from([*ToolCall.__struct_fields__, "type", "other"]),
    VALUES,
)
BAD_TEXTS = [text for text, _, _ in REJECTED.values() if isinstance(text, str)]
ITEMS = st.lists(GOOD | CHANGED | st.sampled_from(BAD_TEXTS) | VALUES.map(json.dumps), max_size=12)


@given(texts=ITEMS, framing=st.sampled_from(["array", "wrapped", "lines"]))
@example(texts=[EVENT, spelt(duration_ms="NaN"), EVENT], framing="array")
def test_every_event_of_a_post_is_either_taken_or_rejected_in_its_place(texts: list[str], framing: str) -> None:
    body, content_type = framed(texts, framing)
    if framing == "lines" and not texts:
        body = b"5"
        texts = ["5"]
    batch = read_it(body, content_type)
    assert sorted([*batch.places] + [one.index for one in batch.rejected]) == [*range(len(texts))]
    for place, event in zip(batch.places, batch.events, strict=True):
        assert WINDOW.oldest <= event.time <= WINDOW.newest
        assert isinstance(json.loads(texts[place]), dict)
        assert event.event_id is not None
        record("default", event.event_id, event)
    msgspec.json.encode(batch.rejected)


@given(good=st.lists(GOOD, min_size=1, max_size=8), framing=st.sampled_from(["array", "wrapped", "lines"]))
def test_good_events_are_all_taken_in_their_order(good: list[str], framing: str) -> None:
    batch = read_it(*framed(good, framing))
    assert batch.rejected == []
    taken = batch.events
    assert [event.server for event in taken if isinstance(event, ToolCall)] == [json.loads(g)["server"] for g in good]


@given(
    body=st.binary(max_size=300)
    | st.builds(
        lambda texts, framing, cut, put: (whole := framed(texts, framing)[0])[:cut] + put + whole[cut + len(put) :],
        ITEMS,
        st.sampled_from(["array", "wrapped", "lines"]),
        st.integers(0, 500),
        st.binary(max_size=4) | st.sampled_from([b'"', b"\\", b"{", b"]", b"\\u0000", b"\xed\xa0\x80", b"1e999"]),
    ),
    content_type=st.sampled_from([JSON, NDJSON, "text/plain"]),
)
@example(
    body=b'{"type":"hub_event","time":"2026-11-21T20:00:00Z","name":"a","payload":{"a":"\xff"}}', content_type=NDJSON
)
def test_whatever_is_sent_fails_only_in_the_documented_ways(body: bytes, content_type: str) -> None:
    try:
        batch = read_it(body, content_type)
    except (InvalidRequest, UnsupportedMediaType, TooLarge):
        return
    for event in batch.events:
        assert event.event_id is not None
        record("default", event.event_id, event)
    msgspec.json.encode(batch.rejected)


def test_a_foreign_payload_is_no_less_checked_than_attrs() -> None:
    body = json.dumps([{"type": "hub_event", "time": NOW.isoformat(), "name": "n", "payload": {"deep": [{"a": 1}]}}])
    [event] = read_it(body).events
    assert isinstance(event, HubEvent)
    assert json.loads(json_object(event.payload) or "") == {"deep": [{"a": 1}]}


BRACES = '"' + "{[" * 40 + '"'


@pytest.mark.parametrize(
    ("attrs", "code"),
    [
        (nested(16), None),
        (nested(17), "attrs_too_deep"),
        (nested(500), "attrs_too_deep"),
        ('{"a": ' + "[" * 16 + "]" * 16 + "}", "attrs_too_deep"),
        ('{"a": ' + ",".join(["[]"] * 1).join(["[", "]"]) + "}", None),
        ('{"a": [' + ",".join(["{}"] * 100) + "]}", None),
        ('{"a": ' + BRACES + "}", None),
        ('{"\\"{": ' + BRACES + ', "b": "\\\\"}', None),
        ('{"a": "' + "x" * 10_000 + '"}', "attrs_too_large"),
    ],
    ids=["deepest", "too deep", "much too deep", "arrays", "array", "wide", "text", "quotes", "large"],
)
def test_free_data_over_a_limit_is_rejected_with_the_limit(attrs: str, code: str | None) -> None:
    for text in (
        spelt(attrs=attrs),
        json.dumps({"type": "hub_event", "time": NOW.isoformat(), "name": "n"})[:-1] + f', "payload": {attrs}}}',
    ):
        batch = read(
            f"[{text}]".encode(), JSON, tenant="t", window=WINDOW, max_events=1, max_free_bytes=8_000, max_free_depth=16
        )
        assert [one.code for one in batch.rejected] == ([code] if code else [])
        assert all("8000" in one.detail or "16 levels" in one.detail for one in batch.rejected)


@pytest.mark.parametrize("field", ["tenant", "tenant_id"])
@pytest.mark.parametrize("value", ["default", "other"])
def test_an_event_cannot_name_a_tenant_and_costs_only_itself(field: str, value: str) -> None:
    batch = read_it(f"[{json.dumps(call())}, {json.dumps(call() | {field: value})}]")
    assert list(batch.places) == [0]
    (rejected,) = batch.rejected
    assert (rejected.index, rejected.code) == (1, "unknown_field")
    assert "tenant of the API key" in rejected.detail
