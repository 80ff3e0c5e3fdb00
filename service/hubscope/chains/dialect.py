"""Conditions as an older hub took them, in JavaScript: recognised, never run, and shown in CEL. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_TOKEN: Final = re.compile(r"(?P<text>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`)|(?P<other>[^\"'`]+|.)", re.DOTALL)
_MARKS: Final = re.compile(
    r"\$\{|\$\.|===|!==|=>|\bundefined\b|\btypeof\b|\breturn\b|\bfunction\b|\bawait\b|\bnew\b|\brequire\b|\bprocess\."
    r"|\bconsole\.|\.length\b|\.includes\(|\?\.|(?<![\w.])results?\[|;\s*$"
)
_RESULTS: Final = re.compile(r"(?<![\w.])results?\[\s*(\d+)\s*\]")
_LENGTH: Final = re.compile(r"([A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*|\[[^\]\[]*\])*)\.length\b")


def in_cel(text: str, ids: Sequence[str]) -> str | None:
    """What a JavaScript expression is in CEL, as near as can be told; None when the text is no JavaScript.

    Args:
        text: the expression.
        ids: ids of the chain's steps, in order: `results[0]` means the first one.
    """
    tokens = [(match.lastgroup, match.group()) for match in _TOKEN.finditer(text)]
    code = "".join(" " * len(part) if kind == "text" else part for kind, part in tokens)
    if not _MARKS.search(code) and not re.fullmatch(r"\s*[\"']?\$\{.*\}[\"']?\s*", text, re.DOTALL):
        return None
    if re.search(r"=>|\btypeof\b|\breturn\b|\bfunction\b|\bawait\b|\bnew\b|\brequire\b|\bprocess\.|\bconsole\.", code):
        return "steps.<id>.status == 'completed' (there are no functions to call; see docs/reference/chains.md)"
    whole = re.fullmatch(r"\s*([\"'])(\$\{[^\"']*\})\1\s*", text)
    if whole:  # '"${a} > 1"' is a template that holds nothing but an expression
        tokens = [("other", whole[2])]
    # A template is taken out of its braces wherever it stands outside of a text.
    parts = [part if kind == "text" else _rewritten(part, ids) for kind, part in tokens]
    return _LENGTH.sub(r"size(\1)", "".join(parts)).strip().rstrip(";").strip()


def _rewritten(code: str, ids: Sequence[str]) -> str:
    code = re.sub(r"\$\{([^{}]*)\}", r"\1", code).replace("${", "").replace("$.", "")
    code = code.replace("===", "==").replace("!==", "!=").replace("?.", ".")
    code = re.sub(r"\bundefined\b", "null", code)
    code = re.sub(r"\.includes\(", ".contains(", code)

    def named(match: re.Match[str]) -> str:
        place = int(match[1])
        return f'steps["{ids[place]}"]' if place < len(ids) else match[0]

    code = _RESULTS.sub(named, code)
    return re.sub(r"\.success(?:\s*==\s*true)?\b", '.status == "completed"', code)
