"""Insight: one async function per question of the meta-tools, over the marts."""

from hubscope.insight.analytics import AnalyticsReport, analytics
from hubscope.insight.render import as_json, as_markdown, status_as_markdown
from hubscope.insight.status import IntegrationStatus, integration_status

__all__ = [
    "AnalyticsReport",
    "IntegrationStatus",
    "analytics",
    "as_json",
    "as_markdown",
    "integration_status",
    "status_as_markdown",
]
