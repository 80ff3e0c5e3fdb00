"""hubscope: observability-centric analytics for MCP hubs."""

__version__ = "0.1.0"
