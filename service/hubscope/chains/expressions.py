"""Conditions and mappings, evaluated in a process of their own.

Expressions come from outside. The libraries bound some of what they do (CEL counts iterations), but not memory, and not
time while they hold the interpreter; JMESPath bounds nothing. So neither runs in the service: `sandbox` is another
process with bounded memory, which is killed when it does not answer in time. A killed one costs its expression, and the
next one some tens of milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from hubscope.chains.plan import Expression, Problem
from hubscope.errors import HubscopeError, ShuttingDown

SANDBOX: Final = Path(__file__).with_name("sandbox.py")
MEMORY_BYTES: Final = 1 << 30
START_S: Final = 20.0
"""The first answer of a new process may take as long: it imports the libraries first."""
_KEPT: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL")

log = structlog.get_logger("hubscope.chains")


class ExpressionFailed(HubscopeError):
    """An expression could not be evaluated."""

    code = "expression_failed"


class Evaluator:
    """Evaluates one expression after another. One per process.

    Args:
        timeout_ms: longest evaluation.
        max_bytes: most bytes of values that an expression gets, and of what it gives.
    """

    def __init__(self, *, timeout_ms: int, max_bytes: int) -> None:
        self._timeout_s = timeout_ms / 1000
        self._max_bytes = max_bytes
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._cold = True
        self._closed = False

    async def close(self) -> None:
        """End the process; nothing is evaluated any more."""
        self._closed = True
        await self._kill()

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def evaluate(self, expression: Expression, values: Mapping[str, Any]) -> Any:
        """The value of an expression, as JSON.

        Args:
            values: what `steps`, `variables`, `metadata` and `chain` are.

        Raises:
            ExpressionFailed: it has none, is too large, or took too long.
        """
        answer = await self._ask({"language": expression.language, "text": expression.text, "values": values})
        if "error" in answer:
            raise ExpressionFailed(str(answer["error"]))
        return answer["value"]

    async def check(self, expression: Expression, *, condition: bool = False) -> Problem | None:
        """What is wrong with an expression before there are values; a condition must be true or false."""
        try:
            answer = await self._ask({"language": expression.language, "text": expression.text})
        except ExpressionFailed as error:
            answer = {"error": error.detail}
        if "error" in answer:
            return Problem(expression.path, "invalid_expression", str(answer["error"]))
        if condition and answer["value"] not in ("BOOL", "DYN"):
            told = f"a condition is true or false, this one is {str(answer['value']).lower()}"
            return Problem(expression.path, "invalid_expression", told)
        return None

    async def _ask(self, question: Mapping[str, Any]) -> Any:
        line = json.dumps(question, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        if len(line) > self._max_bytes:
            raise ExpressionFailed(f"it reads {len(line)} bytes, at most {self._max_bytes} are taken")
        async with self._turn:
            process = await self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            answer: bytes | None = None
            reason = "it broke the process that evaluates expressions"
            try:
                async with asyncio.timeout(self._timeout_s + (START_S if self._cold else 0)):
                    process.stdin.write(line)
                    await process.stdin.drain()
                    answer = await process.stdout.readline() or None
            except TimeoutError:
                reason = f"it took longer than {self._timeout_s * 1000:.0f} ms (HUBSCOPE_CHAIN_EXPRESSION_TIMEOUT_MS)"
            except ValueError:  # readline: the line is too long
                reason = f"its value has more than {self._max_bytes} bytes"
            except OSError:
                pass
            finally:
                if answer is None:  # also when we are cancelled: what it answers next would be to this question
                    await asyncio.shield(self._kill())
            if answer is None:
                if process.returncode == -14:  # its own alarm was earlier
                    reason = (
                        f"it took longer than {self._timeout_s * 1000:.0f} ms (HUBSCOPE_CHAIN_EXPRESSION_TIMEOUT_MS)"
                    )
                log.warning("expression stopped", reason=reason)
                raise ExpressionFailed(reason)
            self._cold = False
            return json.loads(answer)

    async def _running(self) -> asyncio.subprocess.Process:
        if self._closed:
            raise ShuttingDown
        if self._process is None or self._process.returncode is not None:
            self._cold = True
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # nothing is imported from the folder of the file
                str(SANDBOX),
                str(MEMORY_BYTES),
                str(self._timeout_s),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=self._max_bytes,
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                start_new_session=True,  # Ctrl-C is for the service; it ends this process when it ends
            )
        return self._process
