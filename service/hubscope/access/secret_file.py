"""A secret that this machine made for itself, in a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from hubscope.errors import InvalidSetting


def read_secret(path: Path, *, exposed: str) -> bytes:
    """The secret in a file.

    Args:
        path: of the file.
        exposed: what to do, beside closing it, when others could read it.

    Raises:
        FileNotFoundError: there is none.
        InvalidSetting: it cannot be read, or others can read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise InvalidSetting(f"{path} can be read by others: `chmod 600` it, and {exposed}")
        return path.read_bytes().strip()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InvalidSetting(f"{path} cannot be read: {error.strerror}") from None


def write_secret(path: Path) -> None:
    """Make the file, with 256 random bits in hex, whole or not at all; of two processes at once, the first wins."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)
        except FileExistsError:
            return
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        os.unlink(name)
