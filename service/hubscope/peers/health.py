"""How a server is, from what its probes saw. Pure: told the time, does no I/O.

    unknown      nobody looked, or not long enough ago
    up           it answers
    degraded     it answers, but slowly, or it has begun to fail
    down         it failed `unhealthy_threshold` probes in a row, or its process has ended
    maintenance  a window is open: nobody looks, and nothing counts

Hysteresis: from down or degraded a server is up again after `healthy_threshold` good probes in a row; from unknown
after the first, since nothing speaks against it. `down` begins with the first failed probe of its streak: that is when
the outage began, as far as anybody saw. A process that has ended is proof, not a symptom: it needs no second probe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from hubscope.model import ServerState

PROBES_PER_STATE: Final = 2.5
"""A state holds for so many intervals after the probe that saw it; then it is unknown."""

Verdict = Literal["ok", "slow", "failed", "dead"]
"""ok, slow: it answered. failed: it did not, in time or at all. dead: its process has ended, which needs no proof."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """As in the server's health_check; at least 1 each."""

    healthy: int = 2
    unhealthy: int = 2


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a server.

    Attributes:
        state: how it is.
        since: when that began.
        good, slow, bad: probes in a row, up to the last one. An answer that is slow is good, too.
        failed_at: the times of the failed probes in the streak, as long as they may still become an outage.
    """

    state: ServerState = "unknown"
    since: datetime | None = None
    good: int = 0
    slow: int = 0
    bad: int = 0
    failed_at: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What one probe changed.

    Attributes:
        health: as it is now.
        restated: times of earlier probes that turn out to have been in the outage, oldest first.
    """

    health: Health
    restated: tuple[datetime, ...] = ()


def seen(health: Health, verdict: Verdict, at: datetime, thresholds: Thresholds) -> Step:
    """Take a probe's verdict in.

    Args:
        at: when the probe was begun: a server that hangs was gone then, not when we gave up.
    """
    if health.since is not None:
        at = max(at, health.since)  # the clock was set back: time still goes forward
    if verdict in ("failed", "dead"):
        return _failed(health, at, thresholds, proven=verdict == "dead")
    good = health.good + 1
    slow = health.slow + 1 if verdict == "slow" else 0
    counted = replace(health, good=good, slow=slow, bad=0, failed_at=())
    if slow >= thresholds.unhealthy and (health.state != "down" or good >= thresholds.healthy):
        return Step(_moved(counted, "degraded", at))
    if health.state == "unknown":
        return Step(_moved(counted, "up", at))
    # A streak of good probes that are not all slow: one slow answer does not keep a server from being up again.
    if health.state in ("down", "degraded") and good >= thresholds.healthy and not slow:
        return Step(_moved(counted, "up", at))
    if health.state == "down" and good >= thresholds.healthy:
        return Step(_moved(counted, "degraded", at))
    return Step(counted)


def _failed(health: Health, at: datetime, thresholds: Thresholds, *, proven: bool) -> Step:
    bad = health.bad + 1
    counted = replace(health, good=0, slow=0, bad=bad)
    if health.state == "down":
        return Step(counted)
    if proven or bad >= thresholds.unhealthy:
        began = (*health.failed_at, at)
        # A server that ended was up until it did, whatever its last probes were like.
        since = at if proven else began[0]
        return Step(
            Health("down", since, bad=bad),
            () if proven else health.failed_at,
        )
    noted = replace(counted, failed_at=(*health.failed_at, at))
    if health.state == "up":
        return Step(_moved(noted, "degraded", at))
    return Step(noted)


def lapsed(health: Health, at: datetime) -> Health:
    """Nobody looked for too long: what was known is worth nothing."""
    return Health("unknown", health.since if health.state == "unknown" else at)


def paused(health: Health, at: datetime) -> Health:
    """A maintenance window has opened."""
    return health if health.state == "maintenance" else Health("maintenance", at)


def resumed(health: Health, at: datetime) -> Health:
    """The window has closed: nothing is known until the next probe."""
    return Health("unknown", at) if health.state == "maintenance" else health


def valid_until(at: datetime, interval_s: float) -> datetime:
    """Until when what was seen at a time holds."""
    return at + timedelta(seconds=interval_s * PROBES_PER_STATE)


def as_json(health: Health) -> dict[str, Any]:
    """As it is kept, so that another replica goes on where this one stopped."""
    return {
        "state": health.state,
        "since": health.since.isoformat() if health.since else None,
        "good": health.good,
        "slow": health.slow,
        "bad": health.bad,
        "failed_at": [one.isoformat() for one in health.failed_at],
    }


def from_json(value: dict[str, Any] | None) -> Health:
    """The reverse of `as_json`."""
    if not value:
        return Health()
    return Health(
        value["state"],
        datetime.fromisoformat(value["since"]) if value["since"] else None,
        value["good"],
        value["slow"],
        value["bad"],
        tuple(datetime.fromisoformat(one) for one in value["failed_at"]),
    )


def _moved(health: Health, state: ServerState, at: datetime) -> Health:
    return health if health.state == state else replace(health, state=state, since=at)
