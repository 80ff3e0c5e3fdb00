"""Python's garbage collector in processes that serve: where it finds nothing, it should not look so often."""

from __future__ import annotations

import gc
from typing import Final

THRESHOLDS: Final = (200_000, 20, 20)
"""Containers allocated more than freed before the youngest generation is looked through (700 by default), and how many
times that for the older ones. Thirty posts of 500 events, while they wait for their commit, are some 50,000."""


def collect_seldom() -> None:
    """Spare the collector what it will never free. For a process that does nothing but serve, once it has started.

    What start-up left (some hundred thousand objects) stays for ever and need not be looked through again. Events,
    rows and syntax trees hold no cycles, so reference counting frees them; by the default threshold a post would be
    gone through several times while it is decoded and laid out as rows: 40 % of the time of a busy service.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
