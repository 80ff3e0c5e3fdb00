"""Small secrets at rest: the passwords of upstream servers, what a stopped chain needs to go on.

AES-256-GCM (NIST SP 800-38D). What is sealed is bound to a tenant and a purpose, so that a row that somebody with
rights on the database copies to another tenant, or to another column, cannot be opened there.

    sealed = version (1 byte) . key id (8) . nonce (12, random) . ciphertext and tag (length of plain + 16)

Keys are HUBSCOPE_ENCRYPTION_KEY(_FILE): one or several texts, separated by white space or commas. The first seals, all
of them open: a key is replaced by putting a new one in front, and taken away once nothing is sealed under it. For the
embedded database a key is made beside it on first need; replicas over a store of one's own must be given one, as with
the pepper.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hubscope.access.secret_file import read_secret, write_secret
from hubscope.errors import CannotUnseal, InvalidSetting, NoEncryptionKey
from hubscope.settings import Settings

FILE: Final = "encryption-key"
SHORTEST: Final = 32
VERSION: Final = b"\x01"
ID_BYTES: Final = 8
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
OVERHEAD: Final = len(VERSION) + ID_BYTES + NONCE_BYTES + TAG_BYTES
"""What sealing adds, in bytes."""


@dataclass(frozen=True, slots=True)
class _Key:
    id: bytes
    cipher: AESGCM = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> Self:
        """A key from a text of much entropy (RFC 5869); its id tells nothing about it."""
        return cls(
            HKDF(SHA256(), ID_BYTES, salt=None, info=b"hubscope: name of this key").derive(secret),
            AESGCM(HKDF(SHA256(), 32, salt=None, info=b"hubscope: AES-256-GCM").derive(secret)),
        )


class Vault:
    """Seals and opens.

    Args:
        secrets: the key texts, at least one; the first seals.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        keys = [_Key.of(secret) for secret in secrets]
        self._first = keys[0]
        self._keys = {key.id: key.cipher for key in keys}

    @property
    def key_id(self) -> str:
        """Names the key that seals, in 16 hex digits."""
        return self._first.id.hex()

    def seal(self, plain: bytes, *, tenant: str, purpose: str) -> bytes:
        """Encrypt for one tenant and purpose; the result is `OVERHEAD` bytes longer."""
        nonce = os.urandom(NONCE_BYTES)
        head = VERSION + self._first.id
        return head + nonce + self._first.cipher.encrypt(nonce, plain, _bound(head, tenant, purpose))

    def open(self, sealed: bytes, *, tenant: str, purpose: str) -> bytes:
        """Decrypt what was sealed for this tenant and purpose.

        Raises:
            CannotUnseal: it was sealed under a key that this process has not, for another tenant or purpose, or it was
                changed since.
        """
        if len(sealed) < OVERHEAD or sealed[:1] != VERSION:
            raise CannotUnseal(f"the {purpose} is not in a form that this version of hubscope has sealed")
        head = sealed[: 1 + ID_BYTES]
        cipher = self._keys.get(head[1:])
        if cipher is None:
            raise CannotUnseal(
                f"the {purpose} was sealed under the key {head[1:].hex()}, which is not in HUBSCOPE_ENCRYPTION_KEY"
                f" (there: {', '.join(known.hex() for known in self._keys)})",
                key_id=head[1:].hex(),
            )
        nonce, body = sealed[len(head) : len(head) + NONCE_BYTES], sealed[len(head) + NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, body, _bound(head, tenant, purpose))
        except InvalidTag:
            raise CannotUnseal(
                f"the {purpose} was changed after it was sealed, or was sealed for something else"
            ) from None

    def is_current(self, sealed: bytes) -> bool:
        """Whether it was sealed under the first key; what was not should be sealed again."""
        return sealed[1 : 1 + ID_BYTES] == self._first.id


def _bound(head: bytes, tenant: str, purpose: str) -> bytes:
    """The associated data; lengths come first, so that no two pairs give the same bytes."""
    parts = (head, tenant.encode(), purpose.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def vault_of(settings: Settings, *, make: bool = False) -> Vault:
    """The vault of this process.

    Args:
        settings: where its keys are.
        make: write a new key where the embedded database has none yet (the first secret is being sealed).

    Raises:
        NoEncryptionKey: there is none.
        InvalidSetting: it cannot be read, is too short, or others can read it.
    """
    given = settings.secret("encryption_key")
    if given is not None:
        texts = [text for text in re.split(r"[\s,]+", given) if text]
        if not texts or min(map(len, texts)) < SHORTEST:
            raise InvalidSetting(
                f"HUBSCOPE_ENCRYPTION_KEY: every key has at least {SHORTEST} characters, such as from"
                " `openssl rand -hex 32`"
            )
        return Vault([text.encode() for text in texts])
    if not settings.embedded:
        raise NoEncryptionKey(
            "secrets in a store of your own need HUBSCOPE_ENCRYPTION_KEY (or HUBSCOPE_ENCRYPTION_KEY_FILE): one random"
            " text for all processes, such as from `openssl rand -hex 32`"
        )
    path = settings.data_dir / FILE
    if make and not path.exists():
        write_secret(path)
    try:
        secret = read_secret(path, exposed="give the upstream servers new secrets")
    except FileNotFoundError:
        raise NoEncryptionKey(
            f"{path} is gone: put it back from a backup, or register what was sealed under it again"
        ) from None
    if len(secret) < SHORTEST:
        raise InvalidSetting(f"{path} is damaged: it holds less than {SHORTEST} characters")
    return Vault([secret])
