"""`python -m grafana.source` writes the dashboards; with `--check` it only says which are stale, and exits 1."""

import argparse
import sys

from grafana.source import artefacts


def main(arguments: list[str] | None = None) -> int:
    """Build or check grafana/dashboards/. Returns the exit code: 0 fine, 1 something is stale (`--check` only)."""
    parser = argparse.ArgumentParser(prog="python -m grafana.source", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; name the stale files and exit 1")
    if parser.parse_args(arguments).check:
        stale = artefacts.stale()
        for path in stale:
            print(f"stale: {path} (run `python -m grafana.source`)", file=sys.stderr)
        return 1 if stale else 0
    for path in artefacts.write():
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
