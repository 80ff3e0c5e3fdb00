"""The smallest MCP server over stdio: answers initialize, and every tools/call with its own arguments. Standard library
only, so that it takes no time of its own; run as a script."""

import json
import os
import sys


def main() -> None:
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "id" not in message:
            continue
        result: object
        if message["method"] == "initialize":
            result = {
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "echo", "version": "1"},
            }
        else:
            text = json.dumps(message["params"]["arguments"])
            result = {"content": [{"type": "text", "text": text}], "isError": False}
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
