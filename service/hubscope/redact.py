"""Secrets out of text and JSON before anything is stored. No I/O.

Three steps, each dearer than the one before and only for what the one before let through: a glance (about a microsecond
for a small object), a precise search, and the rewriting itself. Every pattern is possessive or
bounded, so the time grows with the length of the text and nothing else. What was redacted once stays as it is.

High precision is meant: paths, UUIDs, hashes, page tokens, token counts and ordinary prose survive. What is recognised
is a secret by its name (`password`, `api_key`, `Authorization`, ...) or by its form (bearer tokens, JWTs, keys of
well-known clouds, private key blocks, passwords in URLs). A secret without name or form cannot be told from other text.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

REDACTED: Final = "[redacted]"

# Names of secrets in running text; in JSON it is `is_secret_name` that decides about keys.
_PAGING = "".join(
    f"(?<!{word})(?<!{word}[_-])"
    for word in (
        "next",
        "page",
        "continuation",
        "progress",
        "sync",
        "cancel",
        "cancellation",
        "stop",
        "per",
        "unexpected",
    )
)
_NAME = (
    r"(?:pass(?:word|wd|phrase|code)|db_pass|pwd|client[_-]?secret|secret|" + _PAGING + r"token|api[_-]?key|apikey|"
    r"(?:access|secret|private|account|auth|encryption|signing|sharedaccess|shared-access|session|subscription|master)"
    r"[_-]?key|credentials?)"
)
_NO_VALUE = (
    r"(?!(?:none|null|nil|true|false|undefined|missing|required|invalid|incorrect|empty|expired|not|is|was|must|cannot|"
    r"and|or|str|string|bytes|int|bool|object|value|optional\b|unset|redacted)(?![A-Za-z0-9_-])|\[redacted)"
)
_QUOTE = r"(?:\\{0,4}[\"'])"

_PRIVATE_KEY = re.compile(
    r"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)(?!\[redacted)(?:[^-]|-(?!----))*+"
    r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?"
)
# scheme://user:password@host, also where the password holds an @; a user alone only when it is as long as a token.
_USERINFO = re.compile(r"(?<=://)([^\s/:@\"'<>?#]{0,256}:)(?!\[redacted\]@)[^\s/\"'<>?#]{1,1024}@")
_LONE_USERINFO = re.compile(r"(?<=://)(?!\[redacted)[A-Za-z0-9_.~%+-]{20,1024}@")
_QUERY = re.compile(
    r"(?i)((?:[?&;]|\bx-amz-|\bx-goog-)(?:sig|signature|credential|security-token|awsaccesskeyid|access_token|id_token"
    r"|refresh_token|token|auth|code_verifier|assertion|key)=)(?!\[redacted)([^\s&\"'<>#;\\]{1,4096})"
)
_ASSIGNED = re.compile(
    rf"(?i)({_NAME}{_QUOTE}?+[ \t]{{0,4}}+=[ \t]{{0,4}}+)(?!{_QUOTE}){_NO_VALUE}"
    r"(?!(?-i:\$[A-Z_{(])|%[a-z(]|[=>{<])[^\s\"'&;,<>\\)\]}(\[{]{1,8192}"
)
# What is named without quotes before a colon is often prose ("Unexpected token: x"): only names that leave no doubt.
_CLEAR_NAME = (
    r"(?<![a-z])(?:[a-z0-9]{1,32}[_-]){0,3}(?:password|passwd|passphrase|pwd|api[_-]?key|client[_-]?secret|"
    r"(?:access|refresh|auth|session|bearer|id)[_-]token|(?:secret|private|access)[_-](?:access[_-])?key)"
)
_QUOTED = re.compile(
    rf"(?i)((?:{_NAME}(?:{_QUOTE}[ \t]{{0,4}}+[:=]|[ \t]{{0,4}}+=)|{_CLEAR_NAME}[ \t]{{0,4}}+:)[ \t]{{0,4}}+{_QUOTE})"
    r"(?!\[redacted)(?:[^\"'\\]|\\[^\"'\\]){1,8192}+"
)
_COLON = re.compile(
    rf"(?i)({_CLEAR_NAME}[ \t]{{0,4}}+:[ \t]{{1,4}}+){_NO_VALUE}([^\s\"',;<>\\)\]}}(\[{{]{{4,4096}})(?=[,;.]?(?:\s|$))"
)
# These name their parts, in quotes and after commas: the whole line goes.
_DIGEST = re.compile(
    r"(?i)((?<![a-z])(?:proxy-)?authorization[ \t]{0,4}+[:=][ \t]{0,4}+(?:digest|aws4-hmac-sha256)[ \t]{1,4}+)"
    r"(?!\[redacted)[^\r\n]{1,8192}"
)
_AUTHORIZATION = re.compile(
    rf"(?i)((?<![a-z])(?:proxy-)?authorization{_QUOTE}?+[ \t]{{0,4}}+[:=][ \t]{{0,4}}+{_QUOTE}?+"
    rf"(?:(?:bearer|basic|digest|negotiate|token|apikey|api-key|aws4-hmac-sha256)[ \t]{{1,4}}+)?+){_NO_VALUE}"
    r"(?!(?:bearer|basic|digest|negotiate|header|failed|error)(?![A-Za-z0-9]))([^\r\n\"'\\<>]{4,8192})"
)
_COOKIE = re.compile(
    rf"(?i)((?<![a-z])(?:set-)?cookie{_QUOTE}?+[ \t]{{0,4}}+:[ \t]{{0,4}}+{_QUOTE}?+)(?!\[redacted)"
    r"(?=[^\s=;:,\"']{1,128}=)([^\r\n\"'\\<>]{1,8192})"
)
_KEY_HEADER = re.compile(
    rf"(?i)((?<![a-z])x-(?:[a-z]{{1,20}}-){{0,3}}(?:token|key|secret){_QUOTE}?+[ \t]{{0,4}}+:[ \t]{{0,4}}+{_QUOTE}?+)"
    rf"{_NO_VALUE}([^\s\"'\\<>,;]{{4,8192}})"
)
# A word after "bearer" is a token when it does not look like a word.
_BEARER = re.compile(
    r"(?i)(?<![a-z])(bearer[ \t]{1,4}+)(?!\[redacted)(?=[a-z]{0,64}[0-9.~+/-][a-z0-9])([a-z0-9._~+/=-]{6,8192})"
)
_BASIC = re.compile(r"(?i)(?<![a-z])(basic[ \t]{1,4}+)([a-z0-9+/]{8,4096}={0,2})(?![a-z0-9])")
_FLAG = re.compile(
    r"(?i)((?<!\S)--(?:[a-z0-9]{1,20}-){0,3}(?:password|passwd|passphrase|token|secret|api-?key|access-key|secret-key|"
    r"private-key)[ \t]{1,4}+)(?!-|\[redacted)" + _NO_VALUE + r"([^\s\"'\\]{3,4096})(?=\s|$|[\"'\\])"
)
_FORMS = re.compile(
    r"(?<![A-Za-z0-9_])(?:"
    r"(?<!-)eyJ[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{4,8192}(?:\.[A-Za-z0-9_-]{0,8192})?"  # JWT
    r"|AKIA[A-Z0-9]{16}(?![A-Za-z0-9])"  # AWS access key ids
    r"|AIza[A-Za-z0-9_-]{30,60}"  # Google API keys
    r"|ya29\.[A-Za-z0-9_-]{20,2048}"
    r"|gh[pous]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255}"
    r"|glpat-[A-Za-z0-9_-]{16,255}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,255}"
    r"|sk-(?:[a-z]{2,12}-)?(?:[a-z0-9]{2,8}-)?[A-Za-z0-9_]{20,255}[A-Za-z0-9_-]{0,255}"
    r"|sk_(?:live|test)_[A-Za-z0-9]{10,255}"
    r"|npm_[A-Za-z0-9]{30,64}|hf_[A-Za-z0-9]{30,64}|pypi-[A-Za-z0-9_-]{40,512}"
    r"|SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,128}"
    r"|hsk_[A-Za-z0-9]{1,64}_[A-Za-z0-9_-]{8,255}"  # our own API keys
    r")"
)
_SLACK_HOOK = re.compile(r"(?<=slack\.com/services/)(?!\[redacted)[A-Za-z0-9/_-]{8,256}")

_SUSPECT: Final = re.compile(
    r"pass|pwd|secret|token|"
    r"(?:api|access|private|account|auth|encryption|signing|session|subscription|master|shared|[-_]x?)[-_]?\s?key|[?&;]key=|authori[sz]ation|x-[a-z-]{0,40}key|cookie|credential|bearer|basic\s|eyj|akia|"
    r"aiza|gh[pous]_|github_pat_|[sh]k[-_]|xox[a-z]-|glpat-|npm_|hf_|ya29\.|sg\.[a-z0-9_-]{16}|pypi-|"
    r"slack\.com/services|sig=|signature=|://[^/\s\"]*@"
)
_ESCAPED: Final = re.compile(r"\\(?:u00[2-7]|/)")
"""Characters that JSON need not escape and that could hide a name."""


# The glance: something of every secret that is recognised, from its rarest letter on (k, w, y, x come seldom, so the
# search passes over most of a text without a closer look). Names: token, key, cookie, password, pwd, pass, secret,
# credential, auth, bearer. Forms: sk- and sk_ (hsk_), slack.com/services, akia, github_pat_, npm_, ghp_ and its
# sisters, hf_, xox, eyj, ya29, pypi-, glpat, sg., sig=, aiza, and @ for what stands in URLs.
_GLANCE: Final = re.compile(
    r"k(?:e[ny]|i[ea]|[-_]|\.com/s)|w(?:ord|d)|cre[dt]|u(?:th|b_pat)|p(?:ass|m_)|h[pousf]_|xox|y(?:j|a29|pi-)|bearer|"
    r"g(?:lpat|\.|=|nature=)|iza|@"
)


def suspicious(text: str) -> bool:
    """Whether there may be a secret in it. False is certain; True costs a rewrite, which may change nothing."""
    low = text.lower()
    return _GLANCE.search(low) is not None and _SUSPECT.search(low) is not None


def suspects(documents: Sequence[str]) -> Sequence[int]:
    """Which of many JSON documents are worth a closer look (`redact_json`): the others have no secret in them.

    One search over all of them together costs a fraction of one for each.
    """
    low = _BETWEEN.join(documents).lower()
    found: list[int] = []
    at = start = 0
    while match := _GLANCE.search(low, start):
        at += low.count(_BETWEEN, start, match.start())
        found.append(at)
        end = low.find(_BETWEEN, match.end())
        if end < 0:
            break
        at, start = at + 1, end + 1
    if "\\" in low:  # characters that need no escape may hide a name
        found = sorted({*found, *(at for at, document in enumerate(documents) if "\\" in document)})
    return found


_BETWEEN: Final = "\0"
"""Between documents that are searched together; no JSON text holds it, and no pattern."""


def redact_text(text: str) -> str:
    """The text without its secrets; the same object where there are none."""
    return _rewritten(text) if suspicious(text) else text


def redact_json(document: str) -> str:
    """A JSON document without its secrets: structure, keys, numbers and white space stay as they are.

    Args:
        document: valid JSON.

    Returns:
        The same document with each secret value replaced by the string "[redacted]"; true, false, null and empty
        strings stay under every name. The same object where nothing was found.
    """
    if suspicious(document) or ("\\" in document and _ESCAPED.search(document)):
        return _rewritten_json(document)
    return document


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether what stands under this name (a JSON key, a header, an option, a variable) is a secret."""
    word = _NOT_ALNUM.sub("", name.lower())
    if word in _SECRET_WORDS:
        return True
    if not word.endswith(_SECRET_ENDINGS):
        return False
    return not (word.endswith("token") and word.removesuffix("token").endswith(_TOKENS_THAT_ARE_NONE))


_NOT_ALNUM: Final = re.compile(r"[^a-z0-9]+")
_SECRET_WORDS: Final = frozenset(
    {
        "pass", "pwd", "secrets", "passwords", "apikeys", "dbpass", "userpass",
        "setcookie", "cookies", "passwordhash", "pgpass", "mysqlpwd",
        "bearer",
    }
)  # fmt: skip
_SECRET_ENDINGS: Final = (
    "password", "passwd", "passphrase", "passcode", "secret", "token", "apikey", "accesskey", "secretkey",
    "privatekey", "signingkey", "encryptionkey", "accountkey", "masterkey", "authkey", "sessionkey", "sharedkey",
    "subscriptionkey", "functionskey", "credential", "credentials", "authorization", "cookie",
    "secretvalue", "accesstokens", "refreshtokens", "privatekeypem",
)  # fmt: skip
_TOKENS_THAT_ARE_NONE: Final = (
    "next", "page", "continuation", "progress", "sync", "cancel", "cancellation", "eos", "bos", "pad", "unk", "stop",
    "start", "end", "mask", "cls", "sep", "first", "last", "per", "special", "unexpected", "delta",
)  # fmt: skip
"""Before "token": places in a list, parts of a language model's text."""


def _rewritten(text: str) -> str:
    low = text.lower()
    if "private key" in low:
        text = _PRIVATE_KEY.sub(rf"\g<1>{REDACTED}", text)
    if "://" in low:
        text = _USERINFO.sub(rf"\g<1>{REDACTED}@", text)
        text = _LONE_USERINFO.sub(f"{REDACTED}@", text)
        text = _SLACK_HOOK.sub(REDACTED, text)
    text = _FORMS.sub(REDACTED, text)
    if "auth" in low:
        text = _DIGEST.sub(rf"\g<1>{REDACTED}", text)
        text = _AUTHORIZATION.sub(rf"\g<1>{REDACTED}", text)
    if "cookie" in low:
        text = _COOKIE.sub(rf"\g<1>{REDACTED}", text)
    if "x-" in low:
        text = _KEY_HEADER.sub(rf"\g<1>{REDACTED}", text)
    if "bearer" in low:
        text = _BEARER.sub(rf"\g<1>{REDACTED}", text)
    if "basic" in low:
        text = _BASIC.sub(_basic, text)
    if "=" in low:
        text = _QUERY.sub(_query, text)
        text = _ASSIGNED.sub(rf"\g<1>{REDACTED}", text)
    if '"' in low or "'" in low:
        text = _QUOTED.sub(rf"\g<1>{REDACTED}", text)
    if ":" in low:
        text = _COLON.sub(rf"\g<1>{REDACTED}", text)
    if "--" in low:
        text = _FLAG.sub(rf"\g<1>{REDACTED}", text)
    return text


def _basic(match: re.Match[str]) -> str:
    """Basic credentials are base64 of user:password; "basic authentication" is not."""
    try:
        decoded = base64.b64decode(match.group(2) + "=" * (-len(match.group(2)) % 4), validate=True)
    except (binascii.Error, ValueError):
        return match.group()
    return match.group(1) + REDACTED if b":" in decoded and decoded.isascii() else match.group()


def _query(match: re.Match[str]) -> str:
    """`key=` in a query is a secret when its value is as long as one: ?key=name is not."""
    if match.group(1).lower().endswith("key=") and len(match.group(2)) < 20 and "id=" not in match.group(1).lower():
        return match.group()
    return match.group(1) + REDACTED


_TOKENS: Final = re.compile(
    r'(?P<text>"(?:[^"\\]++|\\.)*+")(?P<key>[ \t\r\n]*+:)?'
    r"|(?P<open>[{\[])|(?P<close>[}\]])|(?P<number>-?[0-9][0-9.eE+-]*+)"
)
_NAMING: Final = frozenset({"name", "key", "header", "variable", "env", "option"})
_MARK: Final = f'"{REDACTED}"'


class _Frame:
    """One open object or array.

    Attributes:
        secret: all below it stands under the name of a secret.
        naming: what `{"name": "DB_PASSWORD", "value": "..."}` has said so far: its name is that of a secret.
        value: where in the output its "value" stands, if that came first.
    """

    __slots__ = ("is_array", "naming", "secret", "value")

    def __init__(self, secret: bool, is_array: bool) -> None:
        self.secret = secret
        self.is_array = is_array
        self.naming = False
        self.value: int | None = None


def _rewritten_json(document: str) -> str:
    out: list[str] = []
    done = 0
    frames = [_Frame(False, False)]
    secret = False  # the value that comes next stands under a secret's name
    key = ""
    flagged = False  # the text before this one in an array was an option such as --token
    changed = False
    for token in _TOKENS.finditer(document):
        frame = frames[-1]
        kind = token.lastgroup
        if kind == "key":
            key = _plain(token.group("text"))
            secret = frame.secret or is_secret_name(key) or (frame.naming and key.lower() == "value")
            continue
        if kind == "open":
            frames.append(_Frame(secret or frame.secret, token.group() == "["))
            secret = frames[-1].secret
            flagged = False
            continue
        if kind == "close":
            if len(frames) > 1:
                frames.pop()
            secret = frames[-1].secret
            flagged = False
            continue
        new: str | None = None
        if kind == "number":
            if secret:
                new = _MARK
        else:
            written = token.group("text")
            text = _plain(written)
            if secret or (flagged and frame.is_array and not text.startswith("-")):
                if text and text != REDACTED:
                    new = _MARK
            else:
                clean = redact_text(text)
                if clean is not text and clean != text:
                    new = json.dumps(clean, ensure_ascii=False)
            if frame.is_array:
                flagged = text.startswith("-") and "=" not in text and is_secret_name(text)
            else:
                name = key.lower()
                if name in _NAMING and is_secret_name(text):
                    frame.naming = True
                    if frame.value is not None:
                        out[frame.value] = _MARK
                        changed = True
                elif name == "value" and new is None and text and text != REDACTED:
                    new = written  # a piece of its own, so that it can be replaced when the name comes later
                    frame.value = len(out) + 1
        if new is not None:
            out.append(document[done : token.start()])
            out.append(new)
            done = token.end("text") if kind != "number" else token.end()
            changed = changed or new != token.group()
        secret = frame.secret
    if not changed:
        return document
    out.append(document[done:])
    return "".join(out)


def _plain(written: str) -> str:
    """The text of a JSON string as it is written, quotes included."""
    if "\\" not in written:
        return written[1:-1]
    try:
        text: str = json.loads(written, strict=False)
    except ValueError:
        return written[1:-1]
    return text
