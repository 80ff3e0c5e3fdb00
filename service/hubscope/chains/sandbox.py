"""The process that evaluates expressions: started by `expressions`, killed when it takes too long.

It knows nothing but CEL and JMESPath: it gets an expression and values as one line of JSON, and answers with one. It
has no access to the service's memory, its memory is bounded, and an alarm ends it even when nobody is left to.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import math
import os
import signal
import sys
from typing import Any

NAMES = ("steps", "variables", "metadata", "chain")


def main() -> None:
    """Answer one line after another until the input ends. Arguments: bytes of memory, seconds of an evaluation."""
    memory, seconds = int(sys.argv[1]), float(sys.argv[2])
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    languages = {"cel": _cel(), "jmespath": _jmespath()}
    for line in sys.stdin.buffer:
        question = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            value = languages[question["language"]](question["text"], question.get("values"))
            answer = json.dumps({"value": value}, allow_nan=False, ensure_ascii=False)
        except MemoryError:
            answer = json.dumps({"error": "it needs more memory than an expression may have"})
        except RecursionError:
            answer = json.dumps({"error": "it is nested too deeply"})
        except Exception as error:  # the libraries raise what they like; each is an answer about the expression
            answer = json.dumps({"error": " ".join(str(error).split())[:500] or type(error).__name__})
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(answer.encode() + b"\n")
        answers.flush()


def _cel() -> Any:
    from cel_expr_python import cel

    environment = cel.NewEnv(variables=dict.fromkeys(NAMES, cel.Type.DYN))

    def evaluate(text: str, values: dict[str, Any] | None) -> Any:
        try:
            program = environment.compile(text)
        except RuntimeError as error:
            raise ValueError(str(error).split(" [INVALID_ARGUMENT]")[0].removeprefix("INVALID_ARGUMENT: ")) from None
        if values is None:
            return program.return_type().name()
        found = program.eval(data=values)
        if found.type() == cel.Type.ERROR:
            raise ValueError(str(found.plain_value()))
        return _plain(found.plain_value())

    return evaluate


def _jmespath() -> Any:
    import jmespath
    from jmespath.parser import Parser

    def evaluate(text: str, values: dict[str, Any] | None) -> Any:
        Parser.purge()  # its cache grows with every text
        program = jmespath.compile(text)
        return "DYN" if values is None else program.search(values)

    return evaluate


def _plain(value: Any) -> Any:
    """A value of CEL as JSON: bytes as base64, times in ISO 8601, durations in seconds."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else json.dumps(_plain(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the value is no number")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ValueError(f"a value of the type {type(value).__name__} is no JSON")


if __name__ == "__main__":
    main()
