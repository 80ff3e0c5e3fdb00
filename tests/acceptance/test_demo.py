"""`hubscope demo` as a person runs it: its answer is held against an independent count of its calls."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.integration, pytest.mark.xdist_group("heavy")]

TIMEOUT_S = 150


def hubscope(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hubscope", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def marked(mark: str) -> list[psutil.Process]:
    """Every living process that was started, directly or not, with the mark in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HUBSCOPE_TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def percentile_disc(durations: list[float], q: float) -> float:
    return sorted(durations)[math.ceil(q * len(durations)) - 1]


def assert_same(answer: dict[str, Any], calls: list[dict[str, Any]], *, tolerance: float) -> None:
    """The answer counts exactly these calls, and its percentiles are theirs within the tolerance."""
    usage = answer["overview"]["usage"]
    by_status = Counter(call["status"] for call in calls)
    assert usage["calls"] == len(calls)
    assert (usage["ok"], usage["errors"], usage["timeouts"]) == tuple(by_status[s] for s in ("ok", "error", "timeout"))
    assert sum(point["usage"]["calls"] for point in answer["time_series"]) == len(calls)
    by_server = Counter(call["server"] for call in calls)
    assert {row["server"]: row["usage"]["calls"] for row in answer["servers"] if row["usage"]} == by_server
    by_tool = Counter((call["server"], call["tool"]) for call in calls)
    for row in answer["top_tools"]:
        key = (row["server"], row["tool"])
        assert row["usage"]["calls"] == by_tool[key]
        durations = [call["duration_ms"] for call in calls if (call["server"], call["tool"]) == key]
        for name, q in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
            assert row["latency"][name] == pytest.approx(percentile_disc(durations, q), rel=tolerance, abs=1e-3)


def test_the_demo_answers_with_what_it_really_did_and_leaves_nothing_behind(directory: Path) -> None:
    mark = uuid.uuid4().hex
    environment = {
        "HUBSCOPE_DATA_DIR": str(directory / "data"),
        "HEALTH_PORT": "0",
        "HUBSCOPE_TEST_MARK": mark,
        # Nothing is fetched in a test: the filesystem server is left out unless npm has it already.
        "npm_config_offline": "true",
    }
    done = hubscope("demo", "--once", "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    calls = shown["calls"]

    assert len(calls) >= 200
    assert {"ok", "error", "timeout"} <= {call["status"] for call in calls}
    assert {"time", "fetch"} <= {server["name"] for server in shown["servers"] if server["state"] == "up"}
    assert shown["answer"]["freshness"]["marts_built_at"] is not None
    assert shown["answer"]["freshness"]["marts_build_ok"] is True
    assert_same(shown["answer"], calls, tolerance=1e-3)
    assert marked(mark) == []

    # The data stays where it was told to; by the hour percentiles come from buckets.
    report = hubscope("report", "--range", "1 hour", "--group-by", "hour", "--json", environment=environment)
    assert report.returncode == 0, report.stderr
    assert_same(json.loads(report.stdout), calls, tolerance=0.044)
    assert marked(mark) == []


def test_the_demo_shows_its_answer_stays_up_and_ends_cleanly_at_ctrl_c(directory: Path) -> None:
    mark = uuid.uuid4().hex
    environment = {
        "HUBSCOPE_DATA_DIR": str(directory / "data"),
        "HEALTH_PORT": "0",
        "HUBSCOPE_TEST_MARK": mark,
        "npm_config_offline": "true",
    }
    with (directory / "stderr").open("w") as stderr:
        demo = subprocess.Popen(
            [sys.executable, "-m", "hubscope", "demo"],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        said = wait_for(directory / "stderr", "Ctrl-C stops it.", demo)
        url = re.findall(r"http://127\.0\.0\.1:\d+", said)[-1].removesuffix("/mcp")
        before = httpx2.get(f"{url}/api/v1/analytics").json()["overview"]["usage"]["calls"]
        assert httpx2.get(f"{url}/readyz").status_code == 200

        # A second one is told who holds the directory.
        second = hubscope("demo", "--once", environment=environment | {"HUBSCOPE_TEST_MARK": "second"})
        assert second.returncode == 1
        assert f"in use by `hubscope demo` (pid {demo.pid}, {url}," in second.stderr
        assert "Traceback" not in second.stderr

        # It goes on calling tools.
        deadline = time.monotonic() + 30
        while httpx2.get(f"{url}/api/v1/analytics").json()["overview"]["usage"]["calls"] <= before:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        demo.send_signal(signal.SIGINT)
        out, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 0, (directory / "stderr").read_text()
    assert "# Tool analytics" in out
    assert "| `fetch` | `fetch` |" in out
    assert "Traceback" not in (directory / "stderr").read_text()
    assert marked(mark) == []


def wait_for(file: Path, words: str, process: subprocess.Popen[str]) -> str:
    """What the file says, once it says these words."""
    deadline = time.monotonic() + TIMEOUT_S
    while words not in (said := file.read_text()):
        assert process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    return said
