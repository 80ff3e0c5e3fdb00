"""`hubscope sql-mcp` refuses what would open a database to strangers."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from hubscope.entrypoints.cli import cli
from hubscope.errors import InvalidSetting


def test_the_sql_server_by_itself_listens_on_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBSCOPE_HOST", "0.0.0.0")
    arguments = ["sql-mcp", "--database-url", "postgresql://nobody@127.0.0.1:1/none", "--transport", "http"]
    refused = CliRunner().invoke(cli, arguments).exception
    assert isinstance(refused, InvalidSetting)
    assert "loopback only" in refused.detail
