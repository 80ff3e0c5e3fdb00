"""Puts the wrapper in front of every stdio server of a client's `mcpServers` file, and takes it away again.

The text is edited where it has to change and left alone everywhere else: order, indentation, unknown keys, how a string
is escaped. Wrapping and undoing gives the same bytes.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from hubscope.errors import HubscopeError
from hubscope.wrap.options import FLAGS, SWITCHES

NO_ARGS_KEY: Final = SWITCHES[0]
"""Says, in a wrapped entry, that the original had no `args` at all."""
BACKUP_SUFFIX: Final = ".before-hubscope"
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_DECODER: Final = json.JSONDecoder()
_BOM: Final = "\ufeff"


class InvalidConfiguration(HubscopeError):
    """The file is not a configuration with mcpServers."""

    code = "invalid_configuration"


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one server of the file."""

    server: str
    done: Literal["wrapped", "unwrapped", "left alone"]
    why: str


@dataclass(frozen=True, slots=True)
class _Span:
    """A value in the text: from its first character to past its last; `key` is where its key begins, in an object."""

    start: int
    end: int
    key: int = -1


Edit = tuple[int, int, str]
"""Replace the text from here to there by this."""


def launcher() -> list[str]:
    """How to start this hubscope from anywhere: its program, or its Python with `-m hubscope`."""
    program = Path(sys.executable).with_name("hubscope")
    return [str(program)] if os.access(program, os.X_OK) else [sys.executable, "-m", "hubscope"]


def wrapped(text: str, start: Sequence[str], options: Sequence[str] = ()) -> tuple[str, list[Change]]:
    """The text with every stdio server wrapped that is not yet.

    Args:
        start: how hubscope is started.
        options: more options for each wrapper.

    Raises:
        InvalidConfiguration: it is not JSON, or has no `mcpServers` object.
    """
    return _edited(text, lambda text, name, entry: _wrap(text, name, entry, start, options))


def unwrapped(text: str) -> tuple[str, list[Change]]:
    """The text with every wrapped server as it was.

    Raises:
        InvalidConfiguration: it is not JSON, or has no `mcpServers` object.
    """
    return _edited(text, lambda text, name, entry: _unwrap(text, name, entry))


def rewrite(path: Path, edit: Callable[[str], tuple[str, list[Change]]], *, dry_run: bool) -> tuple[list[Change], bool]:
    """Edit a file: all or nothing, with what was there before beside it (`BACKUP_SUFFIX`).

    Returns:
        What became of each server, and whether the file is (or would be) another than before.

    Raises:
        InvalidConfiguration: the file cannot be read, edited or written.
    """
    try:
        path = path.resolve(strict=True)  # a link stays one
        before = path.read_bytes()
        after, changes = edit(before.decode())
        new = after.encode()
        if new != before and not dry_run:
            _write(path.with_name(path.name + BACKUP_SUFFIX), before, like=path)
            if path.read_bytes() != before:
                raise InvalidConfiguration(f"{path} has just been changed by another program; try again")
            _write(path, new, like=path)
    except UnicodeDecodeError:
        raise InvalidConfiguration(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise InvalidConfiguration(f"{path} cannot be rewritten: {error.strerror}") from None
    return changes, new != before


def _edited(text: str, edit: Callable[[str, str, _Span], tuple[Change, list[Edit]]]) -> tuple[str, list[Change]]:
    bom = _BOM if text.startswith(_BOM) else ""
    text = text.removeprefix(_BOM)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidConfiguration(f"the file is not valid JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("mcpServers"), dict):
        raise InvalidConfiguration('the file has no "mcpServers" object')
    top = _Span(_past_space(text, 0), len(text))
    changes: list[Change] = []
    edits: list[Edit] = []
    for name, entry in _members(text, _members(text, top)["mcpServers"]).items():
        change, needed = edit(text, name, entry)
        changes.append(change)
        edits += needed
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return bom + text, changes


def _wrap(
    text: str, name: str, entry: _Span, start: Sequence[str], options: Sequence[str]
) -> tuple[Change, list[Edit]]:
    value = _value(text, entry)
    why = _not_for_us(value) or ("" if 1 <= len(name) <= 200 and name.isprintable() else "its name cannot be an option")
    if why:
        return Change(name, "left alone", why), []
    if _own_arguments(value) is not None:
        return Change(name, "left alone", "wrapped already"), []
    members = _members(text, entry)
    command, args = members["command"], members.get("args")
    named = [f"--name={name}"] if name.startswith("-") else ["--name", name]
    words = [*start[1:], "wrap", *named, *options, *([] if args else [NO_ARGS_KEY]), "--"]
    tokens = [json.dumps(word, ensure_ascii=False) for word in words] + [text[command.start : command.end]]
    edits: list[Edit] = [(command.start, command.end, json.dumps(start[0], ensure_ascii=False))]
    if args is None:
        before = text[: command.key]
        space = before[len(before.rstrip()) :] or " "
        edits.append((command.end, command.end, f',{space}"args": [{", ".join(tokens)}]'))
    else:
        elements = _elements(text, args)
        if elements:
            space = text[args.start + 1 : elements[0].start]
            comma = "," + (space if "\n" in space else " ")
            edits.append((elements[0].start, elements[0].start, comma.join(tokens) + comma))
        else:
            edits.append((args.start + 1, args.start + 1, ", ".join(tokens)))
    return Change(name, "wrapped", str(value["command"])), edits


def _unwrap(text: str, name: str, entry: _Span) -> tuple[Change, list[Edit]]:
    value = _value(text, entry)
    own = None if _not_for_us(value) else _own_arguments(value)
    if own is None:
        return Change(name, "left alone", _not_for_us(value) or "not wrapped"), []
    members = _members(text, entry)
    command, args = members["command"], members["args"]
    elements = _elements(text, args)
    original = elements[own]
    edits: list[Edit] = [(command.start, command.end, text[original.start : original.end])]
    if own + 1 < len(elements):
        edits.append((elements[0].start, elements[own + 1].start, ""))
    elif NO_ARGS_KEY in value["args"][:own] and _past_space(text, command.end + 1) == args.key:
        edits.append((command.end, args.end, ""))
    else:
        edits.append((elements[0].start, elements[-1].end, ""))
    return Change(name, "unwrapped", str(value["args"][own])), edits


def _not_for_us(entry: Any) -> str:
    """Why an entry is no stdio server; empty for one that is."""
    if not isinstance(entry, dict):
        return "not an object"
    kind = entry.get("type", "stdio")
    if kind != "stdio" or "command" not in entry:
        return "not a stdio server"
    args = entry.get("args", [])
    if not isinstance(entry["command"], str) or not entry["command"]:
        return "its command is not a text"
    return "" if isinstance(args, list) and all(isinstance(word, str) for word in args) else "its args are not texts"


def _own_arguments(entry: dict[str, Any]) -> int | None:
    """Where, in the args of a wrapped entry, the original command is; None for one that is not wrapped."""
    program, args = os.path.basename(entry["command"]), entry.get("args", [])
    at = 0 if program == "hubscope" else 2 if program.startswith("python") and args[:2] == ["-m", "hubscope"] else -1
    if at < 0 or args[at : at + 1] != ["wrap"] or "--" not in args:
        return None
    end = int(args.index("--"))
    known = all(word.partition("=")[0] in (*FLAGS, *SWITCHES) for word in args[at + 1 : end] if word.startswith("-"))
    return end + 1 if known and end + 1 < len(args) else None


# Where things are in a text that is known to be JSON


def _value(text: str, span: _Span) -> Any:
    return json.loads(text[span.start : span.end])


def _past_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _members(text: str, span: _Span) -> dict[str, _Span]:
    found: dict[str, _Span] = {}
    if text[span.start] != "{":
        return found
    at = _past_space(text, span.start + 1)
    while text[at] != "}":
        key_at = at
        key, at = _DECODER.raw_decode(text, at)
        start = _past_space(text, _past_space(text, at) + 1)
        end = _DECODER.raw_decode(text, start)[1]
        found[key] = _Span(start, end, key_at)
        at = _past_space(text, end)
        if text[at] == ",":
            at = _past_space(text, at + 1)
    return found


def _elements(text: str, span: _Span) -> list[_Span]:
    found: list[_Span] = []
    at = _past_space(text, span.start + 1)
    while text[at] != "]":
        end = _DECODER.raw_decode(text, at)[1]
        found.append(_Span(at, end))
        at = _past_space(text, end)
        if text[at] == ",":
            at = _past_space(text, at + 1)
    return found


def _write(path: Path, content: bytes, *, like: Path) -> None:
    """Write a file as a whole, readable by whom another one is."""
    about = like.stat()
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, about.st_mode & 0o777)
            if (about.st_uid, about.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
                os.fchown(fd, about.st_uid, about.st_gid)
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
