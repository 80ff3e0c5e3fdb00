"""What can be told of an expression from its tokens: which steps it reads, and whether it is JavaScript, as an older
hub took it; that is never run, but shown in CEL. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

Language = Literal["cel", "jmespath"]

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


_TOKENS: Final = {
    "cel": re.compile(
        r"(?P<space>\s+|//[^\n]*)|(?P<text>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')|(?P<name>[A-Za-z_]\w*)|(?P<rest>.)",
        re.ASCII | re.DOTALL,
    ),
    "jmespath": re.compile(
        r"(?P<space>\s+)|(?P<literal>'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`)|(?P<text>\"(?:[^\"\\]|\\.)*\")"
        r"|(?P<name>[A-Za-z_]\w*)|(?P<rest>.)",
        re.ASCII | re.DOTALL,
    ),
}


def references(language: Language, text: str) -> tuple[list[str], bool]:
    """Ids of the steps that an expression reads, and whether it also uses `steps` without saying which.

    Read from its tokens: `steps.<id>`, `steps["<id>"]` (CEL), `steps."<id>"` (JMESPath).
    """
    tokens = [
        (str(match.lastgroup), match.group())
        for match in _TOKENS[language].finditer(text)
        if match.lastgroup != "space"
    ]
    names: list[str] = []
    vague = False
    for place, (kind, token) in enumerate(tokens):
        if kind != "name" or token != "steps" or (place and tokens[place - 1][1] == "."):
            continue
        ahead = [*tokens[place + 1 : place + 4], ("", ""), ("", ""), ("", "")]
        (_, dot), (named, name), (_, then) = ahead[:3]
        if dot == "." and named == "name" and then != "(":
            names.append(name)
        elif (language == "jmespath" and dot == "." and named == "text") or (
            language == "cel" and dot == "[" and named == "text" and then == "]"
        ):
            names.append(_unquoted(name))
        elif dot != ":":  # the key of an object
            vague = True
    return names, vague


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])
