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


def load(path: Path) -> Mapping[str, str]:
    """The statements of one file, by name.

    Raises:
        HubscopeError: a name twice, or text before the first name that is no comment.
    """
    preface, *parts = _NAME.split(path.read_text(encoding="utf-8"))
    if any(line.strip() and not line.startswith("--") for line in preface.splitlines()):
        raise HubscopeError(f"{path.name}: SQL before the first '-- name:' line")
    names, statements = parts[::2], parts[1::2]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise HubscopeError(f"{path.name}: {', '.join(sorted(twice))} stands there twice")
    return MappingProxyType({name: text.strip().rstrip(";") for name, text in zip(names, statements, strict=True)})
