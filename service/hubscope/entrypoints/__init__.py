"""How the world comes in: HTTP, MCP, metrics, the command line. Parse, authorise, call one function."""
