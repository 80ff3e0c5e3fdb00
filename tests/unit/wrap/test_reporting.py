"""Where the events of a wrapper wait."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from hubscope.wrap.reporting import spool_directory


def test_events_for_another_address_or_key_wait_elsewhere() -> None:
    places = {
        spool_directory("/s", url, key)
        for url, key in (
            ("http://a", None),
            ("http://b", None),
            ("http://a", "x"),
            ("http://a", "y"),
            ("http://a", None),
        )
    }
    assert len(places) == 4
    assert {place.parent for place in places} == {Path("/s")}


def test_without_a_choice_it_is_the_accounts_own_state_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = Path(platformdirs.user_state_dir("hubscope", appauthor=False)) / "spool"
    assert spool_directory(None, "http://a", None).parent == expected
    assert spool_directory("~/x", "http://a", None).parent == tmp_path / "x"
