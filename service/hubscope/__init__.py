"""hubscope: observability-centric analytics for MCP hubs."""

__version__ = "0.2.0"
