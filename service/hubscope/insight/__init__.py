"""Insight: one async function per question of the meta-tools, over the marts."""

from hubscope.insight.analytics import AnalyticsReport, analytics
from hubscope.insight.render import as_json, as_markdown

__all__ = ["AnalyticsReport", "analytics", "as_json", "as_markdown"]
