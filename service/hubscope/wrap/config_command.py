"""`hubscope wrap --config FILE`: what it does to the file, in words."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from hubscope.wrap.options import DEFAULT_URL, read
from hubscope.wrap.rewrite import BACKUP_SUFFIX, launcher, rewrite, unwrapped, wrapped

_PLACEHOLDER: Final = ("server",)


def run(
    config: str,
    given: Mapping[str, str | None],
    environment: Mapping[str, str],
    *,
    undo: bool,
    dry_run: bool,
    tell: Callable[[str], None],
) -> None:
    """Rewrite a client's file, and tell what became of each server, a line each. Arguments are not shown.

    Raises:
        InvalidConfiguration: the file cannot be read, edited or written; it is as it was.
        InvalidSetting: a setting of the wrappers is not allowed.
    """
    path = Path(config).expanduser()
    options = told_on(given, environment)
    start = launcher()
    changes, changed = rewrite(path, unwrapped if undo else lambda text: wrapped(text, start, options), dry_run=dry_run)
    for change in changes:
        tell(f"{change.done:<10}  {change.server}  ({change.why})")
    if not changed:
        tell(f"{path}: nothing to do")
    elif dry_run:
        tell(f"{path}: would be rewritten")
    else:
        tell(f"{path}: rewritten; as it was before: {path.name}{BACKUP_SUFFIX}")
        if not undo and environment.get("HUBSCOPE_API_KEY") and "--api-key-file" not in options:
            tell("HUBSCOPE_API_KEY is not written into the file: set it where the client runs, or use --api-key-file")


def told_on(given: Mapping[str, str | None], environment: Mapping[str, str]) -> list[str]:
    """Options for the wrappers of a file: MCP clients hand only some of the environment on to what they start."""
    checked = read({**given, "name": "x"}, _PLACEHOLDER, environment)
    found = ["--url", checked.url] if checked.url != DEFAULT_URL else []
    if checked.spool_dir is not None:
        found += ["--spool-dir", os.path.abspath(os.path.expanduser(checked.spool_dir))]
    key_file = given.get("api_key_file") or environment.get("HUBSCOPE_API_KEY_FILE")
    return [*found, "--api-key-file", os.path.abspath(os.path.expanduser(key_file))] if key_file else found
