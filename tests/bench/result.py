"""What a bench says: figures by name, and the context without which they mean nothing."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(slots=True)
class Result:
    """Figures of one run.

    Attributes:
        figures: name -> number, or None where it could not be measured (context says why).
        context: what was measured on and with, and notes.
        missed: bars that the figures do not reach, in words.
    """

    figures: dict[str, float | None] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def as_json(self, name: str) -> dict[str, Any]:
        """The one JSON object that others rely on."""
        return {"bench": name, "figures": self.figures, "context": machine() | self.context}

    def as_table(self, name: str) -> str:
        """The same for people."""
        width = max(len(key) for key in self.figures)
        lines = [f"bench {name}"]
        lines += [f"  {key:<{width}}  {'-' if value is None else f'{value:g}'}" for key, value in self.figures.items()]
        lines += [f"  {key}: {value}" for key, value in (machine() | self.context).items()]
        return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}


def say(line: str) -> None:
    """Progress, for whoever waits."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)


def percentile(values: list[float], quantile: float) -> float:
    """Of rank ceil(q * n)."""
    ordered = sorted(values)
    rank = max(1, -(-int(quantile * 1000 * len(ordered)) // 1000))
    return ordered[min(rank, len(ordered)) - 1]


def rounded(value: float, digits: int = 3) -> float:
    """To so many significant digits: a bench is no more exact than that."""
    return float(f"{value:.{digits}g}")


def middle(values: list[float]) -> float:
    """The median."""
    return median(values)
