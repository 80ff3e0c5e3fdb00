"""The MCP servers of the hub: registered, called, watched; whatever happens to them becomes data."""

from hubscope.peers.contract import CallResult, Peers, Progress, ToolInfo

__all__ = ["CallResult", "Peers", "Progress", "ToolInfo"]
