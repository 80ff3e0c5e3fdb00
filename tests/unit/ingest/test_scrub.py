"""What is taken out of events before they are stored, whatever their type."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from hubscope.ingest.scrub import scrubbed, to_scrub
from hubscope.model import Event
from tests.events import server_event, tool_call

SECRET = "hunter2-9f8e7d"
FREE = {
    "arguments": {"password": SECRET},
    "url": f"https://u:{SECRET}@h/x",
    "headers": {"Authorization": f"Bearer {SECRET}"},
}
TIME = "2026-11-21T20:00:00Z"


def event(fields: dict[str, Any]) -> Event:
    decoded: Event = msgspec.json.decode(json.dumps(fields), type=Event)
    return decoded


@pytest.mark.parametrize(
    "fields",
    [
        tool_call(attrs=FREE, status="error", error_message=f"password={SECRET}", error_type=f"token={SECRET}"),
        server_event(attrs=FREE, error_message=f"Cookie: a={SECRET}", error_type=f"pwd={SECRET}"),
        server_event(outcome=f"pwd={SECRET}"),
        {"type": "hub_event", "time": TIME, "name": f"password={SECRET}", "payload": FREE},
        {"type": "audit", "time": TIME, "name": "login", "payload": FREE},
        {"type": "chain", "time": TIME, "chain_id": "c", "status": f"token={SECRET}", "payload": FREE},
        {"type": "chain_step", "time": TIME, "chain_id": "c", "step_index": 0, "status": "ok", "payload": FREE},
    ],
    ids=lambda fields: str(fields["type"]),
)  # fmt: skip
def test_no_secret_is_left_in_any_type_of_event(fields: dict[str, Any]) -> None:
    sent = event(fields)
    clean = msgspec.json.encode(scrubbed(sent, 2000)).decode()
    assert SECRET not in clean
    assert "[redacted]" in clean
    plain = event(tool_call(attrs={"path": "/srv/x"}))
    assert list(to_scrub([plain, sent, plain])) == [1]
    assert scrubbed(event(json.loads(clean)), 2000) == event(json.loads(clean))


def test_an_event_without_secrets_is_the_same_object() -> None:
    for attrs in ({}, {"path": "/srv/x", "max_tokens": 5}):
        sent = event(tool_call(attrs=attrs, status="error", error_message="no such file"))
        assert scrubbed(sent, 2000) is sent


def test_an_error_message_is_cut_after_redaction() -> None:
    secret = "password=" + "x" * 500
    sent = event(tool_call(status="error", error_message=secret + " " + "y" * 60))
    clean = scrubbed(sent, 50)
    assert clean.error_message == "password=[redacted] " + "y" * 24 + " [cut]"  # type: ignore[union-attr]
    assert len(clean.error_message) == 50  # type: ignore[union-attr]
    assert scrubbed(sent, 3).error_message == "ut]"  # type: ignore[union-attr]
