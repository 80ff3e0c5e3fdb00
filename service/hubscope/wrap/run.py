"""One wrapped server from start to end: its process, its signals, the threads around it.

The order of the start is what keeps it fast: the server's process first, then the two pumps, and only then, while the
server itself is still starting, all that is needed to read and to report.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Final

from hubscope.wrap.options import Options
from hubscope.wrap.pump import Moment, Progress, copy
from hubscope.wrap.tap import Ending, Tap

if TYPE_CHECKING:
    from hubscope.wrap.reporting import Reporting

SWITCH_INTERVAL_S: Final = 0.0002
"""Longest that a thread which reports keeps a pump waiting for the interpreter (5 ms by default)."""
AFTER_EXIT_S: Final = 1.0
"""How long a stdout that stays open, in the hands of a process that the server left, is read after its exit."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes of a command that cannot be started, as shells have them."""
FORWARDED: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
FROM_THE_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
CRASHES: Final = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)
"""Signals that nobody asks for."""
OWN_SECRETS: Final = ("HUBSCOPE_API_KEY",)
"""What hubscope needs and a wrapped server must not see."""


class Signals:
    """Passes signals on to the server.

    The server stays in our process group: who signals the group, a terminal among them, reaches both, so that killing
    a client's process tree leaves nothing behind. A key of the terminal (Ctrl-C) has therefore reached the server
    already and is not passed on a second time.
    """

    def __init__(self) -> None:
        self.asked_to_end = False
        self.late = False  # an end was asked for when the server was gone already
        self._child: int | None = None
        self._gone = False
        self._early: list[int] = []
        # An inherited SIG_IGN would make the kernel forget the server's exit code.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for name in FORWARDED:
            number = getattr(signal, name)
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def watch(self, child: int) -> None:
        """The server's process is there: pass on what came before it."""
        self._child = child
        for number in self._early:
            self._pass_on(number)

    def forget(self) -> None:
        """The server's process is gone, and its number may soon be another's."""
        self._child, self._gone = None, True

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number in ENDING_SIGNALS:
            self.asked_to_end, self.late = not self._gone, self._gone
        if self._child is None:
            self._early.append(number)
        elif number not in FROM_THE_TERMINAL or not _in_the_foreground():
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self._child is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._child, number)


def run(options: Options) -> int:
    """Run the server until it ends; its exit code, 128 + n if signal n ended it.

    Standard input and output of this process are closed when their other side is. Ends by returning while threads may
    still be reading standard input: the process has to be left with `os._exit`.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _have_standard_streams()
    signals = Signals()
    began = Moment.now()
    try:
        child = subprocess.Popen(
            options.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={name: value for name, value in os.environ.items() if name not in OWN_SECRETS},
        )
    except (OSError, ValueError) as error:
        return _not_started(options, began, error)
    signals.watch(child.pid)
    tap = Tap(options.buffer_max_bytes)
    pumps = _Pumps(child, tap)
    reporting = _report(options, tap, began)
    # What is there by now stays: the collector need not look through it again, which would hold up the pumps.
    gc.collect()
    gc.freeze()
    code = child.wait()
    by_client = pumps.client_closed or signals.asked_to_end  # now: a client that finds out closes its side, too
    signals.forget()
    pumps.drain(lambda: signals.late)
    if reporting is not None:
        reporting.finish(
            Ending(None, -code, by_client=by_client and -code not in CRASHES)
            if code < 0
            else Ending(code, by_client=by_client)
        )
    return 128 - code if code < 0 else code


def _report(options: Options, tap: Tap, began: Moment) -> Reporting | None:
    """Begin to report. What goes wrong here must not cost the server its client."""
    try:
        from hubscope.wrap.reporting import Reporting  # only now: the server is already on its way

        return Reporting(options, tap, began)
    except Exception as error:
        tap.closed = True
        with suppress(OSError):
            os.write(2, f"hubscope wrap: nothing is reported: {type(error).__name__}: {error}\n".encode())
        return None


class _Pumps:
    """The two copying threads of a server's process."""

    def __init__(self, child: subprocess.Popen[bytes], tap: Tap) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        self.client_closed = False
        """The client ended the connection, before the server did."""
        self._server_closed = False
        self._to_server, self._from_server = child.stdin, child.stdout
        self._tap = tap
        self._progress = Progress()
        threading.Thread(target=self._requests, name="requests", daemon=True).start()
        self._answers_thread = threading.Thread(target=self._answers, name="answers", daemon=True)
        self._answers_thread.start()

    def drain(self, enough: Callable[[], bool]) -> None:
        """Wait for the rest of what the server said, once it has exited.

        A client that is slow to read is waited for, until somebody has had enough. A process that the server left
        behind is not: it may keep the pipe open for ever.
        """
        quiet_since = time.monotonic()
        while self._answers_thread.is_alive() and time.monotonic() - quiet_since < AFTER_EXIT_S and not enough():
            self._answers_thread.join(0.02)
            if self._progress.writing:
                quiet_since = time.monotonic()

    def _requests(self) -> None:
        if copy(0, self._to_server.fileno(), self._tap.of("client"), watch_first=True) == "source":
            self.client_closed = not self._server_closed
        else:
            _let_go_of(0)  # the client finds out, as it would without us
        with suppress(OSError):
            self._to_server.close()

    def _answers(self) -> None:
        source = self._from_server.fileno()
        if copy(source, 1, self._tap.of("server"), watch_first=False, progress=self._progress) == "sink":
            self.client_closed = True
        else:
            self._server_closed = True  # before the client can know
        _let_go_of(1)
        with suppress(OSError):
            self._from_server.close()


def _not_started(options: Options, at: Moment, error: OSError | ValueError) -> int:
    """Say that the command cannot be started, here and to hubscope; the exit code that a shell would give."""
    from hubscope.wrap.reporting import Reporting, say

    reason = error.strerror if isinstance(error, OSError) else str(error)
    missing = isinstance(error, FileNotFoundError)
    say(f"cannot start {options.command[0]!r}: {reason}")
    failure = ("not_found" if missing else "not_started", str(reason))
    Reporting(options, Tap(options.buffer_max_bytes), at, failure=failure)
    return NOT_FOUND if missing else NOT_EXECUTABLE


def _have_standard_streams() -> None:
    """Keep the numbers 0 to 2 from being given to pipes of ours, where somebody started us without those streams."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            _let_go_of(fd)


def _let_go_of(fd: int) -> None:
    """Close our end of a standard stream, and keep its number taken."""
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != fd:
        os.dup2(nothing, fd)
        os.close(nothing)


def _in_the_foreground() -> bool:
    """True where our process group is the one that the keys of a terminal signal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
