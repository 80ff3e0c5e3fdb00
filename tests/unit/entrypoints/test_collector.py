"""A serving process lets the garbage collector look seldom, and still lets it free what only it can."""

from __future__ import annotations

import subprocess
import sys
import textwrap

# In a process of its own: what is frozen stays so.
PROGRAM = """
    import gc, weakref
    from datetime import UTC, datetime, timedelta
    from hubscope.entrypoints.collector import collect_seldom
    from hubscope.ingest.envelope import Window, read

    collections = []
    gc.callbacks.append(lambda phase, about: collections.append(phase) if phase == "stop" else None)
    now = datetime.now(UTC)
    line = b'{"type":"tool_call","time":"%s","server":"s","tool":"t","status":"ok"}\\n' % now.isoformat().encode()
    window = Window.around(now, max_age=timedelta(days=7), max_skew=timedelta(seconds=300))

    def posts():
        collections.clear()
        for _ in range(10):
            batch = read(line * 500, "application/x-ndjson", tenant="t", window=window, max_events=500)
            assert len(batch.events) == 500
        return len(collections)

    class Cycle:
        pass

    before = posts()
    collect_seldom()
    assert gc.get_freeze_count() > 10_000
    assert posts() < before / 5, (before, len(collections))
    cycle = Cycle()
    cycle.itself = cycle
    gone = weakref.ref(cycle)
    del cycle
    held = [[] for _ in range(200_000)]
    assert gone() is None
"""


def test_posts_are_decoded_without_collections_and_cycles_are_freed_all_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
