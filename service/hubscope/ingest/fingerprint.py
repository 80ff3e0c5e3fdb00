"""Which error messages are the same but for their particulars: a short stable id of a message's pattern.

What differs from call to call (numbers, ids, quoted texts, paths, URLs, times) is masked, white space is folded, and
the rest is hashed. Error type, server and tool are no part of it, so that one cause met on two servers, or reported by
two observers with types of their own, has one fingerprint; whoever wants them apart groups by them, too.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

# In this order: what may hold the next stands before it. Bounded or possessive throughout, as in redact.py.
_PARTICULARS: Final = re.compile(
    r"(?P<url>[a-z][a-z0-9+.-]{1,15}://[^\s\"'<>)\]]{1,2048}+)"
    r"|(?P<time>\d{4}-\d\d-\d\d(?:[t ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:z|[+-]\d\d:?\d\d)?)?"
    r"|\b\d\d:\d\d:\d\d(?:[.,]\d{1,9})?)"
    r"|(?P<uuid>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)"
    r"|(?P<text>\"[^\"\n]{0,1024}\"|`[^`\n]{0,1024}`|(?<![a-z0-9])'[^'\n]{0,1024}'(?![a-z0-9]))"
    r"|(?P<path>(?<![\w.])(?:[a-z]:\\|\\\\|~?/|\.{1,2}/)[^\s\"'`:;,<>()\[\]{}|]{1,2048}+)"
    r"|(?P<address>[\w.+-]{1,64}@[\w.-]{1,255})"
    r"|(?P<hex>\b0x[0-9a-f]{1,64}\b|\b(?=[a-f]{0,64}\d)(?=\d{0,64}[a-f])[0-9a-f]{6,64}\b)"
    r"|(?P<id>\b(?=[a-z_-]{0,64}\d)[a-z0-9]{2,64}(?:[_-][a-z0-9]{1,64}){1,8}+\b"
    r"|\b(?=[a-z]{0,64}\d)[a-z0-9]{12,64}\b)"
    r"|(?P<number>[+-]?\d[\d.,_]{0,64}+)"
)
_SPACE: Final = re.compile(r"\s+")


def pattern(message: str) -> str:
    """The message in lower case with its particulars masked: `<path>`, `<url>`, `<time>`, ..., and `<*>` for numbers
    and ids of every kind, which cannot be told apart for certain (an id may happen to be all digits)."""
    masked = _PARTICULARS.sub(_mask, message.lower())
    return _SPACE.sub(" ", masked).strip()


def _mask(match: re.Match[str]) -> str:
    return "<*>" if match.lastgroup in ("number", "hex", "id", "uuid") else f"<{match.lastgroup}>"


def fingerprint(message: str | None) -> str | None:
    """16 hexadecimal digits that messages of one pattern share; None for no message."""
    if not message:
        return None
    return hashlib.blake2b(pattern(message).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
