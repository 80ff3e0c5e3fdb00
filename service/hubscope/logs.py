"""Logs: structlog for ours, the same renderer for what libraries log. JSON lines, or text for people."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

from hubscope.settings import Settings


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Set up logging for this process.

    Args:
        settings: LOG_LEVEL and HUBSCOPE_LOG_FORMAT.
        stream: where lines go; stderr by default, since stdout belongs to answers.
    """
    out = stream or sys.stderr
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not out.isatty())
    level = getattr(logging, settings.log_level.upper())
    before: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    last: list[structlog.typing.Processor] = (
        [
            # Without the values of local variables, which may be secrets.
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)]
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn.error", "mcp", "apscheduler", "httpx", "httpcore", "asyncio", "httpx2", "httpcore2"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    # What goes wrong with an upstream server comes back to us as its error, and is recorded and told there.
    logging.getLogger("mcp.client").setLevel(logging.CRITICAL)
