"""Event identities: UUIDs of version 7, which sort by the time they were made and so land together in an index."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Final
from uuid import UUID

_VERSION: Final = 0x7 << 76
_VARIANT: Final = 0b10 << 62
_lock = threading.Lock()
_last_tick = 0


def uuid7() -> UUID:
    """A new UUIDv7: 48 bits of Unix milliseconds, 12 bits of the millisecond's fraction, 62 random bits.

    Each id is greater than every one this process made before, in whichever thread and also when the clock is set
    back: a tick of 1/4096 ms that is not after the last one becomes the last one plus one.

    Source: RFC 9562, section 5.7 (layout) and section 6.2, method 3 (fraction of the clock in rand_a).
    """
    global _last_tick
    with _lock:
        _last_tick = tick = max(time.time_ns() * 4096 // 1_000_000, _last_tick + 1)
    milliseconds, fraction = tick >> 12, tick & 0xFFF
    return UUID(int=milliseconds << 80 | _VERSION | fraction << 64 | _VARIANT | secrets.randbits(62))
