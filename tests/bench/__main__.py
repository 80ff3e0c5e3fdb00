"""`python -m tests.bench NAME [--json] [--events N]`: one bench, one JSON object on stdout, progress on stderr."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from tests.bench import ingest, query, rollup, stream, wrap
from tests.bench.result import Result

BENCHES: Final[dict[str, Callable[[argparse.Namespace], Coroutine[Any, Any, Result]]]] = {
    "ingest": ingest.run,
    "query": query.run,
    "rollup": rollup.run,
    "stream": stream.run,
    "wrap": wrap.run,
}


def main() -> int:
    """Run the bench that is named."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHES))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--events",
        type=int,
        default=None,
        help="size: events, or calls of each kind (default: what the bench promises)",
    )
    arguments = parser.parse_args()
    result = asyncio.run(BENCHES[arguments.name](arguments))
    if arguments.json:
        print(json.dumps(result.as_json(arguments.name), indent=2))
    else:
        print(result.as_table(arguments.name))
    for bar in result.missed:
        print(f"missed: {bar}", file=sys.stderr)
    return 1 if result.missed else 0


if __name__ == "__main__":
    sys.exit(main())
