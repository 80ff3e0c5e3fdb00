"""What `invoke` takes, and the shape of its answer."""

from __future__ import annotations

from typing import Any

import pytest

from hubscope.errors import InvalidParameter
from hubscope.peers.invocation import Answer, Invocation


def test_a_request_needs_a_method_only() -> None:
    one = Invocation.of({"method": "list_tables"}, 600)
    assert (one.method, one.params, one.timeout_s) == ("list_tables", {}, None)
    assert one.id.startswith("req_")


def test_a_request_says_its_id_and_how_long_it_may_take() -> None:
    one = Invocation.of({"id": 7, "method": "tools/list", "params": None, "metadata": {"timeout": "5s"}}, 600)
    assert (one.id, one.timeout_s) == ("7", 5)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "^method: "),
        ({"method": ""}, "^method: "),
        ({"method": 5}, "^method: "),
        ({"method": "x" * 201}, "^method: "),
        ({"method": "initialize/x"}, "cannot be passed on"),
        ({"method": "notifications/cancelled"}, "cannot be passed on"),
        ({"method": "sampling/createMessage"}, "cannot be passed on"),
        ({"method": "x", "params": []}, "^params: "),
        ({"method": "x", "metadata": 5}, "^metadata: "),
        ({"method": "x", "metadata": {"timeout": "soon"}}, r"^metadata\.timeout: "),
        ({"method": "x", "metadata": {"timeout": 601}}, r"^metadata\.timeout: .*600s"),
        ({"method": "x", "id": {}}, "^id: "),
        ({"method": "x", "arguments": {}}, "'arguments' is no field"),
    ],
)
def test_what_will_not_do_is_named(body: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        Invocation.of(body, 600)


def test_an_answer_has_a_result_or_an_error() -> None:
    assert Answer("1", "s", result={"content": []}, duration_ms=1.23456).shown() == {
        "id": "1",
        "result": {"content": []},
        "meta": {"server_id": "s", "duration_ms": 1.235},
    }
    assert Answer("1", "s", error={"code": -32601, "message": "no"}).shown().keys() == {"id", "error", "meta"}
