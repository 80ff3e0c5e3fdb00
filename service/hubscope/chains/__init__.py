"""Chains of tool calls over peers: a checked plan, runs that can be resumed, and what can be learned from them."""

from hubscope.chains.keep import forget_chains
from hubscope.chains.render import as_markdown
from hubscope.chains.report import ChainAnalytics, ChainReport, ChainSummary
from hubscope.chains.service import Chains

__all__ = ["ChainAnalytics", "ChainReport", "ChainSummary", "Chains", "as_markdown", "forget_chains"]
