"""The process that runs dbt and Great Expectations for the worker: `python -m hubscope.heavy`.

A process of its own because both take hundreds of megabytes and seconds to import, and because dbt can run only once
at a time in one process. It lives as long as the worker, so that the parsed dbt project serves the next run too.

One JSON line in is one job: {"job": "dbt", "dsn": ..., "role": ..., "scratch": ...}; one JSON line out is its result:
{"value": ...} or {"error": "..."}. It ends when its standard input does, so it cannot outlive the worker.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hubscope.errors import HubscopeError
from hubscope.marts import run_dbt
from hubscope.quality import check_raw

JOBS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "dbt": lambda task: run_dbt(task["dsn"], task["role"], Path(task["scratch"])),
    "quality": lambda task: check_raw(task["dsn"], task["role"]),
}


def perform(line: str) -> dict[str, Any]:
    """Run one job; what it throws becomes its result, because the other side has none of these libraries."""
    try:
        task = json.loads(line)
        return {"value": JOBS[task["job"]](task)}
    except HubscopeError as error:
        return {"error": error.detail}
    except Exception as error:  # whatever dbt or Great Expectations throw is one failed job, not a dead process
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}


def main() -> None:
    # Ctrl-C goes to the whole terminal group: the worker decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.INFO)
    # dbt and Great Expectations print; results travel on the pipe that standard output was.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        print(json.dumps(perform(line), default=str), file=results, flush=True)


if __name__ == "__main__":
    main()
