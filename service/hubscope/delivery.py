"""What the answer to a post of events means, and how long to wait before the next try. Pure; for all who post."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

import msgspec

FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 5.0
LONGEST_ASKED_PAUSE_SECONDS: Final = 60.0
"""Longest Retry-After that is followed."""


class Verdict(Enum):
    """What to do with the events of a post.

    TAKEN: they are committed, or rejected for good: forget them.
    REFUSED: these bytes will never be taken: forget them, and say so.
    SPLIT: too much at once: send them in smaller pieces.
    HELD: not these events are wrong but who sends them, or where to: keep them, say so, and try now and then.
    LATER: send the same again, with the same ids.
    """

    TAKEN = "taken"
    REFUSED = "refused"
    SPLIT = "split"
    HELD = "held"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to one post.

    Attributes:
        verdict: what to do.
        reason: why, for a person; of TAKEN, the first rejection.
        rejected: how many of the events were rejected, of TAKEN.
        retry_after_seconds: what was asked for, of LATER.
    """

    verdict: Verdict
    reason: str = ""
    rejected: int = 0
    retry_after_seconds: float | None = None


class _Rejected(msgspec.Struct):
    code: str = ""
    detail: str = ""


class _Receipt(msgspec.Struct):
    accepted: int
    duplicates: int
    rejected: list[_Rejected] = []


class _Problem(msgspec.Struct):
    code: str = ""
    detail: str = ""


_RECEIPT = msgspec.json.Decoder(_Receipt)
_PROBLEM = msgspec.json.Decoder(_Problem)


def judge(status: int, headers: Mapping[str, str], body: bytes, sent: int) -> Outcome:
    """What the answer to a post of `sent` events means.

    Args:
        headers: of the answer; only retry-after is read, in lower case.
    """
    if status == 200:
        return _receipt(body, sent)
    reason = _reason(status, body)
    if status == 413:
        return Outcome(Verdict.SPLIT, reason)
    if status in (400, 415, 422):
        return Outcome(Verdict.REFUSED, reason)
    if status in (408, 425, 429) or status >= 500:
        return Outcome(Verdict.LATER, reason, retry_after_seconds=_seconds(headers.get("retry-after")))
    return Outcome(Verdict.HELD, reason)


def pause_seconds(tries: int, asked: float | None, chance: Callable[[], float] = random.random) -> float:
    """How long to wait after so many failed tries in a row.

    What the service asks for, at most a minute, and up to a tenth more; else 0.25 s doubling to 5 s, of which a random
    half, so that many senders do not come back at once.
    """
    if asked is not None:
        return min(asked, LONGEST_ASKED_PAUSE_SECONDS) * (1 + chance() / 10)
    longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 30), LONGEST_PAUSE_SECONDS)
    return longest * (0.5 + chance() / 2)


def _receipt(body: bytes, sent: int) -> Outcome:
    try:
        receipt = _RECEIPT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Outcome(Verdict.HELD, "what answers there is not hubscope")
    if receipt.accepted + receipt.duplicates + len(receipt.rejected) != sent:
        return Outcome(Verdict.LATER, f"the receipt does not add up to the {sent} events sent")
    first = receipt.rejected[0] if receipt.rejected else None
    return Outcome(Verdict.TAKEN, f"{first.code}: {first.detail}" if first else "", len(receipt.rejected))


def _reason(status: int, body: bytes) -> str:
    try:
        problem = _PROBLEM.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return f"status {status}"
    return f"status {status}" + (f", {problem.code}: {problem.detail}" if problem.code else "")


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; None for a date (which hubscope never sends) or nonsense."""
    if text is None:
        return None
    with suppress(ValueError):
        seconds = float(text)
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None
