"""docs/reference/settings.md, from the settings themselves: `make docs` writes it, `make lint` compares it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings

from hubscope.settings import Settings, SqlSettings, describe

PATH = Path(__file__).resolve().parent.parent / "docs" / "reference" / "settings.md"

HEAD = """# Settings

Every setting is an environment variable; `hubscope.toml` in the working directory is read below the environment (the
same names in lower case, without `HUBSCOPE_`: `max_body_bytes = 1000000`). A value that is not allowed ends the process
with one line that names the variable. This page is made from the code by `make docs`.

| Variable | Default | Unit | What it does | When off or unset | Proved by |
|---|---|---|---|---|---|
"""


SQL_HEAD = """
## The read-only SQL server

What `hubscope sql-mcp` reads beside LOG_LEVEL, HUBSCOPE_LOG_FORMAT, HEALTH_PORT and HUBSCOPE_AUDIT_*, and the service
for `/sql/mcp`. In `hubscope.toml` these stand in `[sql]`, in lower case, without `HUBSCOPE_SQL_`; what holds for one of
several databases stands in `[sql.databases.<name>]`.

| Variable | Default | Unit | What it does | When off or unset | Proved by |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = "".join(_row(Settings, name) for name in Settings.model_fields)
    return HEAD + rows + SQL_HEAD + "".join(_row(SqlSettings, name) for name in SqlSettings.model_fields)


def _row(settings: type[BaseSettings], name: str) -> str:
    field, about = settings.model_fields[name], describe(settings, name)
    default = "see right" if field.default_factory is not None else _value(field.default)
    limits = _limits(field.metadata)
    cells = (
        f"`{about['env']}`",
        default,
        str(about["unit"]) + (f" ({limits})" if limits else ""),
        str(field.description),
        str(about["off"]),
        f"`{about['test']}`",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _value(default: Any) -> str:
    if default is None:
        return "unset"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _limits(metadata: list[Any]) -> str:
    lowest = [item.ge for item in metadata if hasattr(item, "ge")]
    highest = [item.le for item in metadata if hasattr(item, "le")]
    told = ([f"at least {max(lowest)}"] if lowest else []) + ([f"at most {min(highest)}"] if highest else [])
    return ", ".join(told)


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
