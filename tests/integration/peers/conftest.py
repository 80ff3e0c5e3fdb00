"""Probes follow one another faster than anybody could ask for, so that tests need not wait for them."""

from __future__ import annotations

import pytest

from hubscope.peers import registration


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "LEAST_INTERVAL_S", 0.1)
