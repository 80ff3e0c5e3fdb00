"""Fail when a committed artefact is not what its source builds: dashboards, the settings page."""

from __future__ import annotations

import sys

from grafana.source import artefacts
from tools import settings_page


def main() -> int:
    stale = [f"grafana/dashboards/{name} (make dashboards)" for name in artefacts.stale()]
    if settings_page.PATH.read_text(encoding="utf-8") != settings_page.page():
        stale.append("docs/reference/settings.md (make docs)")
    for line in stale:
        print(f"out of date: {line}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
