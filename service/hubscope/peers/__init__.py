"""The MCP servers of the hub: registered, called, watched; whatever happens to them becomes data.

contract      what other rooms know: call a tool by name, list tools
registration  what somebody registers, checked; pure
config        the operator's own servers (`mcpServers` JSON); pure
invocation    the federation API's request and answer; pure
guard, http   where we may go, and going there: judged addresses, authentication, bounds
stdio         a server as a child process
sessions      long-lived MCP sessions, one per server
health        from probes to a state; pure
prober        leases, probes, events
registry      the rows
outbox        events on their way into the store
federation    all of it together
"""

from hubscope.peers.contract import CallResult, Peers, Progress, ToolInfo
from hubscope.peers.federation import Federation
from hubscope.peers.invocation import Invocation

__all__ = ["CallResult", "Federation", "Invocation", "Peers", "Progress", "ToolInfo"]
