"""Everything that reports, put together: observer, spool, sender, and the threads that run them."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from hubscope.wrap.observer import Observer
from hubscope.wrap.options import Options
from hubscope.wrap.protocol import Session
from hubscope.wrap.pump import Moment
from hubscope.wrap.sender import HttpPost, Sender
from hubscope.wrap.spool import Spool
from hubscope.wrap.tap import Ending, Tap

READ_THE_REST_S: Final = 1.0
"""Longest that the observer may take, at the end, for what it has not read yet; after that it skips to the end."""


class Reporting:
    """Reports one connection from the moment it is made. Nothing of it ever raises or waits for hubscope.

    Args:
        began: when the server was started.
        failure: an error type and why, where the server could not be started. It is then reported, and that is all.
    """

    def __init__(self, options: Options, tap: Tap, began: Moment, *, failure: tuple[str, str] | None = None) -> None:
        self._tap = tap
        self._flush_timeout_s = options.flush_timeout_ms / 1_000
        self._said: set[str] = set()
        self._spool = Spool(
            spool_directory(options.spool_dir, options.url, options.api_key),
            max_bytes=options.spool_max_bytes,
            say=self._say_once,
        )
        self._sender = Sender(
            self._spool,
            HttpPost(options.url, options.api_key),
            linger_s=options.linger_ms / 1_000,
            say=self._say_once,
        )
        session = Session(
            options.name,
            error_message_chars=options.error_message_chars,
            open_calls_max=options.open_calls_max,
            heartbeat_seconds=options.heartbeat_seconds,
        )
        self._observer = Observer(
            session,
            tap,
            max_message_bytes=options.max_message_bytes,
            heartbeat_s=options.heartbeat_seconds,
            keep=self._keep,
            trouble=lambda what: self._say_once("observer", what[:500]),
        )
        for event in session.not_started(began, *failure) if failure else session.started(began):
            self._keep(msgspec.json.encode(event))
        self._observing = None if failure else self._thread(self._observe, "observer")
        self._thread(self._sender.run, "sender")
        if failure:
            self._flush()

    def finish(self, ending: Ending) -> None:
        """Report the end, give the sender HUBSCOPE_WRAP_FLUSH_TIMEOUT for what waits, and leave the rest on disk."""
        self._tap.items.put(ending)
        if self._observing is not None:
            self._observing.join(READ_THE_REST_S)
            if self._observing.is_alive():
                self._tap.hurry = True
                self._observing.join(READ_THE_REST_S)
        self._flush()

    def _flush(self) -> None:
        self._sender.finish(self._flush_timeout_s)
        self._spool.close()

    def _keep(self, event: bytes) -> None:
        self._spool.append(event)
        self._sender.poke()

    def _observe(self) -> None:
        try:
            self._observer.run()
        except Exception as error:  # ours to be ashamed of, and no reason to stop a server's work
            self._tap.closed = True
            self._say_once("observer", f"reporting has stopped: {type(error).__name__}: {error}"[:500])

    def _say_once(self, about: str, sentence: str) -> None:
        if about not in self._said:
            self._said.add(about)
            say(sentence)

    @staticmethod
    def _thread(target: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread


def spool_directory(chosen: str | None, url: str, api_key: str | None) -> Path:
    """Where the events for one hubscope, sent with one key, wait: never where another's would be sent, too."""
    if chosen is None:
        import platformdirs

        chosen = os.path.join(platformdirs.user_state_dir("hubscope", appauthor=False), "spool")
    digest = hashlib.sha256(f"{url}\0{api_key or ''}".encode()).hexdigest()[:16]
    return Path(os.path.expanduser(chosen)) / digest


def say(sentence: str) -> None:
    """One line on stderr, for people."""
    with suppress(OSError):
        os.write(2, f"hubscope wrap: {sentence}\n".encode(errors="replace"))
