"""What a server says of its tools, and what is believed when it says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from hubscope.peers import ToolInfo


@pytest.mark.parametrize(
    ("annotations", "read_only", "idempotent"),
    [
        ({}, False, False),
        ({"readOnlyHint": True}, True, True),
        ({"idempotentHint": True}, False, True),
        ({"readOnlyHint": False, "idempotentHint": False}, False, False),
        ({"readOnlyHint": "yes", "idempotentHint": 1}, False, False),
        ({"readOnlyHint": None, "idempotentHint": None}, False, False),
    ],
)
def test_only_what_a_server_says_plainly_is_believed(
    annotations: dict[str, Any], read_only: bool, idempotent: bool
) -> None:
    tool = ToolInfo("t", annotations=annotations)
    assert (tool.read_only, tool.idempotent) == (read_only, idempotent)
