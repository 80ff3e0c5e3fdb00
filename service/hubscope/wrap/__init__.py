"""The stdio wrapper: `hubscope wrap --name filesystem -- CMD ARGS...` between an MCP client and a stdio server.

    client <-> pump <-> server          two threads that copy bytes and know nothing of what they carry
                 |
              observer -> protocol      a thread that reads copies: JSON-RPC lines into events
                 |
               spool -> sender          events on disk, then over HTTP, from a thread of its own

Whatever happens right of the pump never holds it up. The process starts fast and stays small: this room imports the
standard library, msgspec and the ground floor, nothing else.
"""
