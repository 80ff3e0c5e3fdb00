"""Logs: which messages are written, and in which form."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from hubscope import logs
from hubscope.settings import Settings

LEVELS = ("debug", "info", "warning", "error")
SECRET = "s3cr3t-in-a-local-variable"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    levels = {name: logger.level for name, logger in root.manager.loggerDict.items() if hasattr(logger, "level")}
    yield
    root.handlers = handlers
    root.setLevel(level)
    for name, logger in root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger):
            logger.setLevel(levels.get(name, logging.NOTSET))
    structlog.reset_defaults()


def configured(stream: io.StringIO | None = None, **settings: Any) -> io.StringIO:
    """Logging set up anew: what it writes to."""
    written = stream or io.StringIO()
    logs.configure(Settings.load(**settings), written)
    return written


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def fail() -> None:
    password = SECRET
    raise ValueError(f"first line\nsecond line of {len(password)}")


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        ("debug", LEVELS),
        ("info", LEVELS[1:]),
        ("warning", LEVELS[2:]),
        ("warn", LEVELS[2:]),
        ("error", LEVELS[3:]),
    ],
)
@pytest.mark.parametrize("kind", ["ours", "a library's"])
def test_messages_below_the_level_are_not_logged(least: str, expected: tuple[str, ...], kind: str) -> None:
    written = configured(log_level=least, log_format="json")
    logger = structlog.get_logger("hubscope.test") if kind == "ours" else logging.getLogger("library")
    for level in LEVELS:
        getattr(logger, level)(f"a message of level {level}")
    assert [line["level"] for line in lines(written)] == list(expected)


@pytest.mark.parametrize("least", ["debug", "info", "error"])
def test_chatty_libraries_are_heard_from_warnings_on(least: str) -> None:
    written = configured(log_level=least, log_format="json")
    for level in LEVELS:
        getattr(logging.getLogger("uvicorn.error"), level)("message")
    assert [line["level"] for line in lines(written)] == (["error"] if least == "error" else ["warning", "error"])


def test_the_json_format_is_one_object_per_line() -> None:
    written = configured(log_format="json")
    log = structlog.get_logger("hubscope.test")
    with structlog.contextvars.bound_contextvars(request="r1"):
        log.info("several\nlines", count=1, text='a "quoted"\nbreak', thing={1, 2}, umlaut="ü")
    logging.getLogger("library").warning("took %s ms", 12)
    first, second = lines(written)
    assert first["event"] == "several\nlines"
    assert (first["count"], first["text"], first["umlaut"], first["request"]) == (1, 'a "quoted"\nbreak', "ü", "r1")
    assert (first["logger"], first["level"]) == ("hubscope.test", "info")
    assert (second["event"], second["logger"], second["level"]) == ("took 12 ms", "library", "warning")
    for line in (first, second):
        assert abs(datetime.fromisoformat(line["timestamp"]) - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("kind", ["ours", "a library's"])
def test_an_exception_is_one_line_too_and_shows_no_local_variable(kind: str) -> None:
    written = configured(log_format="json")
    logger = structlog.get_logger("hubscope.test") if kind == "ours" else logging.getLogger("library")
    try:
        fail()
    except ValueError:
        logger.exception("it failed")
    (line,) = lines(written)
    assert line["event"] == "it failed"
    (told,) = line["exception"]
    assert (told["exc_type"], told["exc_value"]) == ("ValueError", f"first line\nsecond line of {len(SECRET)}")
    assert [frame["name"] for frame in told["frames"]][-1] == "fail"
    assert SECRET not in written.getvalue()


@pytest.mark.parametrize("kind", ["ours", "a library's"])
def test_an_exception_for_people_is_a_plain_traceback_without_local_variables(kind: str) -> None:
    written = configured(log_format="console")
    logger = structlog.get_logger("hubscope.test") if kind == "ours" else logging.getLogger("library")
    try:
        fail()
    except ValueError:
        logger.exception("it failed")
    text = written.getvalue()
    assert "it failed" in text
    assert "Traceback (most recent call last):" in text
    assert "ValueError: first line" in text
    assert SECRET not in text


@pytest.mark.parametrize(
    ("log_format", "stream", "is_json"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("json", Terminal, True),
        ("console", io.StringIO, False),
    ],
)
def test_a_terminal_gets_text_and_everything_else_json_unless_told(
    log_format: str, stream: type[io.StringIO], is_json: bool
) -> None:
    written = configured(stream(), log_format=log_format)
    structlog.get_logger("hubscope.test").info("hello")
    assert written.getvalue().startswith("{") == is_json
    assert "hello" in written.getvalue()


@pytest.mark.parametrize(("stream", "coloured"), [(Terminal, True), (io.StringIO, False)])
def test_text_for_people_has_colours_on_a_terminal_only(stream: type[io.StringIO], coloured: bool) -> None:
    written = configured(stream(), log_format="console")
    structlog.get_logger("hubscope.test").info("hello")
    assert ("\x1b[" in written.getvalue()) == coloured


def test_logs_go_to_standard_error_because_standard_output_belongs_to_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(Settings.load())
    structlog.get_logger("hubscope.test").info("hello")
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["event"] == "hello"


def test_configuring_twice_writes_each_message_once() -> None:
    configured(log_format="json")
    written = configured(log_format="json")
    structlog.get_logger("hubscope.test").info("hello")
    logging.getLogger("library").warning("hello")
    assert len(lines(written)) == 2
