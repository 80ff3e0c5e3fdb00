"""Every alert can be acted on: it has a runbook whose queries run, and rules that Prometheus itself accepts."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import promql_parser
import pytest
import yaml

PROMETHEUS = Path(__file__).resolve().parents[2] / "prometheus"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
RULE_TESTS = sorted((PROMETHEUS / "tests").glob("*.test.yml"))
RUNBOOKS = {path.stem: path.read_text() for path in sorted((PROMETHEUS / "runbooks").glob("*.md"))}
RULES: list[dict[str, Any]] = [
    rule for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}

# Which Debian package holds the tool, for whoever reads the reason of a skip.
PACKAGES = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}


def blocks(language: str) -> dict[str, str]:
    """The fenced blocks of that language in all runbooks, by runbook and number."""
    return {
        f"{name} {number}": block
        for name, text in RUNBOOKS.items()
        for number, block in enumerate(re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE), 1)
    }


def run(tool: str, *arguments: str | Path) -> None:
    """Run promtool or amtool; what it prints becomes the failure. Skips where the tool is not installed."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not on the PATH; it comes with the Debian package {PACKAGES[tool]}")
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert ALERTS.keys() == RUNBOOKS.keys()


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_what_to_read(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() >= {"summary", "description"}
    assert rule["annotations"]["runbook"] == f"prometheus/runbooks/{alert}.md"
    assert "for" in rule


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_exercised_by_a_rule_test(alert: str) -> None:
    assert any(alert in path.read_text() for path in RULE_TESTS)


@pytest.mark.parametrize("name", RUNBOOKS)
def test_a_runbook_says_what_it_means_what_to_look_at_and_what_to_do(name: str) -> None:
    headings = re.findall(r"^#+ (.+)$", RUNBOOKS[name], re.MULTILINE)
    assert headings == [name, "What it means", "What to look at", "What to do"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_the_expression_of_a_rule_parses(rule: dict[str, Any]) -> None:
    promql_parser.parse(rule["expr"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_what_every_replica_reports_alike_is_taken_once(rule: dict[str, Any]) -> None:
    """hub_* is database truth, the same from every replica, so it is read under `max without (instance)` only."""
    reads = len(re.findall(r"\bhub_\w+", re.sub(r"[\w:]+:hub_\w+[\w:]*", "", rule["expr"])))
    assert reads == len(re.findall(r"max without \(instance\) \(\s*(?:\w+\()?hub_", rule["expr"]))


@pytest.mark.parametrize("expression", blocks("promql").values(), ids=blocks("promql"))
def test_the_promql_of_a_runbook_parses(expression: str) -> None:
    promql_parser.parse(expression)


@pytest.mark.parametrize("sql", blocks("sql").values(), ids=blocks("sql"))
async def test_the_sql_of_a_runbook_runs_as_the_reader(reader: asyncpg.Connection, sql: str) -> None:
    await reader.fetch(sql)


def test_the_prometheus_configuration_is_valid() -> None:
    run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.name)
def test_the_rules_are_valid(path: Path) -> None:
    run("promtool", "check", "rules", path)


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.name)
def test_the_rules_do_what_their_tests_say(path: Path) -> None:
    run("promtool", "test", "rules", path)


def test_the_alertmanager_configuration_is_valid() -> None:
    run("amtool", "check-config", PROMETHEUS / "alertmanager.yml")
