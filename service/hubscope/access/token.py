"""API keys as text: `hsk_<id>_<secret><checksum>`, 55 characters.

The form is the one that the large forges use for their tokens: a prefix that secret scanners can look for, underscores
so that a double click takes the whole key, base62, and at the end the CRC-32 of what comes before as six base62 digits.
The checksum tells a mistyped or cut-off key apart from an unknown one without asking anybody; it protects nothing.

    id        12 characters, 71 bits: names the key in lists and logs; no secret
    secret    32 characters, 190 bits, from the operating system
    checksum   6 characters
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field
from typing import Final

from hubscope.errors import MalformedKey, MistypedKey

PREFIX: Final = "hsk_"
ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 32
CHECKSUM_LENGTH: Final = 6

_KEY = re.compile(rf"hsk_([0-9A-Za-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}")
_LIKE_A_KEY = re.compile(r"hsk_[0-9A-Za-z]{4}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Token:
    """One key as its holder has it.

    Attributes:
        id: its public name.
        text: the whole key; never logged.
    """

    id: str
    text: str = field(repr=False)


def mint() -> Token:
    """A new key."""
    name = "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))
    secret = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_LENGTH))
    body = f"{PREFIX}{name}_{secret}"
    return Token(name, body + checksum(body))


def parse(text: str) -> Token:
    """A key from its text.

    Raises:
        MalformedKey: it is no key of ours at all.
        MistypedKey: it starts like one, but its length, its characters or its checksum are wrong.
    """
    if not text.startswith(PREFIX):
        raise MalformedKey
    match = _KEY.fullmatch(text)
    if match is None or checksum(text[:-CHECKSUM_LENGTH]) != text[-CHECKSUM_LENGTH:]:
        raise MistypedKey
    return Token(match.group(1), text)


def checksum(body: str) -> str:
    """The CRC-32 of a key's text before its checksum, as six base62 digits."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_LENGTH):  # 62^6 > 2^32
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


def digest(pepper: bytes, token: Token) -> bytes:
    """What is stored of a key: HMAC-SHA-256 of its whole text (so of its id, too) under the pepper. 32 bytes.

    A plain fast hash is enough against guessing, since the secret has 190 bits; the pepper is for whoever can write to
    the database or a backup of it: without the pepper no row of theirs is a key.
    """
    return hmac.digest(pepper, token.text.encode(), "sha256")


def fingerprint(pepper: bytes) -> str:
    """Names a pepper without telling it, so that a key made under another one can be told apart. 16 hex digits."""
    return hmac.digest(pepper, b"hubscope: name of this pepper", "sha256")[:8].hex()


def looks_like_a_key(text: str) -> bool:
    """Whether a text, such as a URL, seems to hold a key."""
    return _LIKE_A_KEY.search(text) is not None
