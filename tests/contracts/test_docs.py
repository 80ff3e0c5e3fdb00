"""What the documentation promises is there, and what is there is documented."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hubscope.model import EVENT_TYPES, RejectionCode
from tests.events import server_event, tool_call

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("prometheus/runbooks/*.md")])


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_field_of_an_event_is_on_the_events_page(kind: str) -> None:
    page = (ROOT / "docs/reference/events.md").read_text()
    assert f"`{kind}`" in page
    missing = [field for field in EVENT_TYPES[kind].__struct_fields__ if f"`{field}`" not in page]
    assert missing == []


def test_every_rejection_code_is_on_the_events_page_and_no_other() -> None:
    section = (ROOT / "docs/reference/events.md").read_text().partition("## Codes of rejected events")[2]
    documented = set(re.findall(r"^\| `(\w+)` \|", section.partition("## Limits")[0], re.MULTILINE))
    assert documented == set(get_args(RejectionCode))


async def test_every_metric_is_on_the_metrics_page_and_no_other(client: httpx2.AsyncClient) -> None:
    await client.post("/v1/events", json=[tool_call(), server_event(), {"type": "x"}])
    text = (await client.get("/metrics")).text
    served = set()
    for family in text_string_to_metric_families(text):
        if family.name.startswith("hub"):
            served.add(family.name + ("_total" if family.type == "counter" else ""))
    page = (ROOT / "docs/reference/metrics.md").read_text()
    documented = set(re.findall(r"^\| `(hub\w+)` \|", page, re.MULTILINE))
    # The age of the marts appears with the first dbt build.
    assert documented - {"hubscope_mart_age_seconds"} == served


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_make_command_in_the_documentation_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE))
        assert named <= targets, page
