"""Named SQL: a file of `-- name: slowest_tools` blocks beside the code that uses them.

What comes between a name and the next one is the statement; a comment directly under the name is its documentation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from hubscope.errors import HubscopeError

_NAME = re.compile(r"^-- name: ([a-z][a-z0-9_]*)\s*$", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*--.*$", re.MULTILINE)
_MEANT_AS_NAME = re.compile(r"^[ \t]*--[ \t]*name[ \t]*:.*$", re.MULTILINE | re.IGNORECASE)


def load(path: Path) -> Mapping[str, str]:
    """The statements of one file, by name.

    Raises:
        HubscopeError: a name twice, a name line of another form, a name without a statement, or text before the first
            name that is no comment.
    """
    text = path.read_text(encoding="utf-8")
    for line in _MEANT_AS_NAME.findall(text):
        if not _NAME.match(line):
            raise HubscopeError(f"{path.name}: {line.strip()!r} is not of the form '-- name: slowest_tools'")
    preface, *parts = _NAME.split(text)
    if any(line.strip() and not line.startswith("--") for line in preface.splitlines()):
        raise HubscopeError(f"{path.name}: SQL before the first '-- name:' line")
    names, statements = parts[::2], parts[1::2]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise HubscopeError(f"{path.name}: {', '.join(sorted(twice))} stands there twice")
    found = {name: text.strip().rstrip(";") for name, text in zip(names, statements, strict=True)}
    empty = [name for name, text in found.items() if not _COMMENT.sub("", text).strip()]
    if empty:
        raise HubscopeError(f"{path.name}: {empty[0]} has no statement")
    return MappingProxyType(found)
