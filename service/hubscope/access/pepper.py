"""The pepper: the secret outside the database under which keys are hashed.

HUBSCOPE_KEY_PEPPER or HUBSCOPE_KEY_PEPPER_FILE; else, for the embedded database only, a file that is made beside it on
first need. A store of one's own may be served by several replicas, and a file that each of them made for itself would
have half of them refuse the other half's keys: there the pepper has to be given.
"""

from __future__ import annotations

from typing import Final

from hubscope.access.secret_file import read_secret, write_secret
from hubscope.errors import InvalidSetting, NoPepper
from hubscope.settings import Settings

FILE: Final = "key-pepper"
SHORTEST: Final = 16


def pepper_of(settings: Settings, *, make: bool = False) -> bytes:
    """The pepper of this process.

    Args:
        settings: where it is.
        make: write a new one where the embedded database has none yet (the first key is being made).

    Raises:
        NoPepper: there is none.
        InvalidSetting: it cannot be read, is too short, or others can read it.
    """
    given = settings.secret("key_pepper")
    if given is not None:
        if len(given) < SHORTEST:
            raise InvalidSetting(f"HUBSCOPE_KEY_PEPPER is too short: at least {SHORTEST} characters")
        return given.encode()
    if not settings.embedded:
        raise NoPepper(
            "API keys in a store of your own need HUBSCOPE_KEY_PEPPER (or HUBSCOPE_KEY_PEPPER_FILE): one random text"
            " for all processes, such as from `openssl rand -hex 32`"
        )
    path = settings.data_dir / FILE
    if make and not path.exists():
        write_secret(path)
    try:
        return read_secret(path, exposed="rotate all keys")
    except FileNotFoundError:
        raise NoPepper(f"{path} is gone: put it back from a backup, or revoke all keys and make new ones") from None
