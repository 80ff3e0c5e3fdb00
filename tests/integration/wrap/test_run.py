"""`hubscope wrap` as a process, hubscope being away: bytes, ends, signals and exit codes as without it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from hubscope.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.bridge]

DEADLINE_S = 60.0
ECHO = "import os\nwhile chunk := os.read(0, 65536):\n    while chunk:\n        chunk = chunk[os.write(1, chunk):]"


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"still waiting after {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.01)


class Wrapper:
    """Starts wrappers whose events stay in a spool of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def environment(self, **more: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in Settings.variables()}
        # Port 9 is nobody's: connections to it are refused at once.
        own = {"HUBSCOPE_URL": "http://127.0.0.1:9", "HUBSCOPE_SPOOL_DIR": str(self.folder / "spool")}
        return inherited | own | more

    def start(
        self, *command: str, options: tuple[str, ...] = ("--name", "s"), through: tuple[str, ...] = (), **more: Any
    ) -> subprocess.Popen[bytes]:
        """Start a wrapper of a command, itself by way of other commands (`through`) that set something up for it."""
        env = self.environment(**more.pop("env", {}))
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [*through, sys.executable, "-m", "hubscope", "wrap", *options, "--", *command],
            bufsize=0,
            env=env,
            **pipes,
            **more,
        )
        self.processes.append(process)
        return process

    def python(self, program: str, **more: Any) -> subprocess.Popen[bytes]:
        return self.start(sys.executable, "-c", textwrap.dedent(program), **more)

    def events(self) -> list[dict[str, Any]]:
        lines = [line for path in self.folder.glob("spool/*/*.ndjson") for line in path.read_bytes().splitlines()]
        return sorted(map(json.loads, lines), key=lambda event: str(event["event_id"]))

    def end(self) -> None:
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
            process.kill()
            process.wait(DEADLINE_S)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture
def wrapper(tmp_path: Path) -> Iterator[Wrapper]:
    made = Wrapper(tmp_path)
    yield made
    made.end()


def shell(what: str) -> tuple[str, ...]:
    """What a shell does before it becomes the command."""
    return ("sh", "-c", f'{what}; exec "$@"', "sh")


def read_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def server_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    (child,) = psutil.Process(process.pid).children()
    return child


def test_every_byte_passes_in_both_directions(wrapper: Wrapper) -> None:
    """Messages, noise, no UTF-8, very long lines, and a last line without an end."""
    rng = random.Random(4)
    parts = [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}\n',
        rng.randbytes(300_000),
        b"\n\n\r\n\xff\xfe\n[{]}\n",
        b'{"jsonrpc":"2.0","id":1,"result":"' + b"y" * 3_000_000 + b'"}\n',
        rng.randbytes(1_000_000),
        b"no newline at the end",
    ]
    process = wrapper.start(sys.executable, "-c", ECHO)
    out, err = process.communicate(b"".join(parts), timeout=DEADLINE_S)
    assert out == b"".join(parts)
    assert (process.returncode, err) == (0, b"")


def test_a_line_passes_before_the_next_one_is_written(wrapper: Wrapper) -> None:
    process = wrapper.start(sys.executable, "-c", ECHO)
    assert process.stdin is not None
    for number in range(50):
        process.stdin.write(b"%d\n" % number)
        assert read_line(process) == b"%d\n" % number


def test_half_a_line_passes_too(wrapper: Wrapper) -> None:
    process = wrapper.start(sys.executable, "-c", ECHO)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b'{"half":')
    assert os.read(process.stdout.fileno(), 100) == b'{"half":'


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("raise SystemExit(0)", 0),
        ("raise SystemExit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", 128 + 9),
        ("import os; os.kill(os.getpid(), 15)", 128 + 15),
        ("import os; os.abort()", 128 + 6),
    ],
)
def test_the_exit_code_is_the_servers(wrapper: Wrapper, program: str, code: int) -> None:
    process = wrapper.python(program)
    assert process.wait(DEADLINE_S) == code


def test_stderr_is_the_servers(wrapper: Wrapper) -> None:
    process = wrapper.python("import sys; sys.stderr.write('from the server'); sys.stdout.write('answer')")
    assert process.communicate(timeout=DEADLINE_S) == (b"answer", b"from the server")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("no-such-program",), 127, b"hubscope wrap: cannot start 'no-such-program': No such file or directory\n"),
        (("/",), 126, b"hubscope wrap: cannot start '/': Permission denied\n"),
    ],
)
def test_a_command_that_cannot_be_started_is_one_line_and_an_event(
    wrapper: Wrapper, command: tuple[str, ...], code: int, said: bytes
) -> None:
    process = wrapper.start(*command)
    assert process.communicate(timeout=DEADLINE_S) == (b"", said)
    assert process.returncode == code
    (event,) = wrapper.events()
    assert (event["server"], event["outcome"], event["state"]) == ("s", "failed", "down")


def test_a_setting_that_is_not_allowed_is_one_line_and_no_server(wrapper: Wrapper) -> None:
    process = wrapper.start("touch", str(wrapper.folder / "started"), env={"HUBSCOPE_WRAP_LINGER": "x"})
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out, err.count(b"\n")) == (1, b"", 1)
    assert b"HUBSCOPE_WRAP_LINGER" in err
    assert not (wrapper.folder / "started").exists()


def test_the_servers_end_of_output_is_passed_on_while_it_still_runs(wrapper: Wrapper) -> None:
    process = wrapper.python("import os, time; os.close(1); time.sleep(600)")
    assert read_line(process) == b""
    assert process.poll() is None


def test_the_clients_end_of_input_is_passed_on(wrapper: Wrapper) -> None:
    process = wrapper.python("import sys; sys.stdin.read(); print('saw the end')")
    assert process.communicate(b"x", timeout=DEADLINE_S) == (b"saw the end\n", b"")


def test_a_client_that_stops_reading_is_noticed_by_the_server(wrapper: Wrapper) -> None:
    process = wrapper.python("""
        import os, pathlib, sys
        try:
            while True:
                os.write(1, b"x" * 1000 + b"\\n")
        except BrokenPipeError:
            sys.exit(5)
    """)
    assert process.stdout is not None
    read_line(process)
    process.stdout.close()
    assert process.wait(DEADLINE_S) == 5


def test_a_server_that_stops_reading_is_noticed_by_the_client(wrapper: Wrapper) -> None:
    process = wrapper.python("import os, time; os.close(0); print('closed', flush=True); time.sleep(600)")
    assert process.stdin is not None
    assert read_line(process) == b"closed\n"

    def broken() -> bool:
        assert process.stdin is not None
        try:
            process.stdin.write(b"x\n")
        except BrokenPipeError:
            return True
        return False

    until(broken, "the client's pipe is broken")


def test_a_client_that_reads_slowly_gets_everything_after_the_servers_end(wrapper: Wrapper) -> None:
    done = wrapper.folder / "done"
    process = wrapper.python(f"print('x' * 150_000, end='', flush=True); open({str(done)!r}, 'w').close()")
    until(done.exists, "the server has written all it has to say")
    time.sleep(1.5)  # longer than an output nobody writes to is listened to
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert out == b"x" * 150_000


def test_a_process_that_the_server_leaves_behind_does_not_keep_the_wrapper(wrapper: Wrapper) -> None:
    process = wrapper.python("""
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(child.pid, flush=True)
    """)
    left = psutil.Process(int(read_line(process)))
    try:
        assert process.wait(DEADLINE_S) == 0
        assert left.is_running()
    finally:
        left.kill()


def test_a_signal_ends_the_wait_for_a_client_that_does_not_read(wrapper: Wrapper) -> None:
    done = wrapper.folder / "done"
    process = wrapper.python(f"print('x' * 150_000, end='', flush=True); open({str(done)!r}, 'w').close()")
    until(done.exists, "the server has written all it has to say")
    child = psutil.Process(process.pid).children()
    psutil.wait_procs(child, DEADLINE_S)

    def ended() -> bool:  # the wrapper may not have noticed yet that the server is gone
        process.terminate()
        return process.poll() is not None

    until(ended, "the wrapper is gone, too")
    assert process.returncode == 0


def test_without_a_standard_stream_the_server_runs_all_the_same(wrapper: Wrapper) -> None:
    program = f"open({str(wrapper.folder / 'ran')!r}, 'w').close(); raise SystemExit(4)"
    process = wrapper.python(program, through=shell("exec <&- >&-"))
    assert process.wait(DEADLINE_S) == 4
    assert (wrapper.folder / "ran").exists()


def test_an_exit_code_is_known_where_exits_of_children_are_ignored(wrapper: Wrapper) -> None:
    process = wrapper.python("raise SystemExit(4)", through=shell("trap '' CHLD"))
    assert process.wait(DEADLINE_S) == 4


def test_reporting_that_cannot_begin_costs_the_server_nothing(wrapper: Wrapper) -> None:
    """A library that is broken, say."""
    (wrapper.folder / "msgspec.py").write_text("raise RuntimeError('broken')")
    path = os.pathsep.join(filter(None, [str(wrapper.folder), os.environ.get("PYTHONPATH")]))
    process = wrapper.start("cat", env={"PYTHONPATH": path})
    out, err = process.communicate(b"hello\n", timeout=DEADLINE_S)
    assert (process.returncode, out) == (0, b"hello\n")
    assert err == b"hubscope wrap: nothing is reported: RuntimeError: broken\n"


COUNT_SIGNALS = """
    import os, signal, sys, time
    got = []
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        signal.signal(getattr(signal, name), lambda number, _: got.append(number))
    print("ready", flush=True)
    while not got:
        time.sleep(0.01)
    time.sleep(0.2)
    print(*(signal.Signals(number).name for number in got), flush=True)
    sys.exit(3)
"""


@pytest.fixture
def _hangups_count() -> Iterator[None]:
    """Also where the tests themselves were started with `nohup`: children inherit what is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_hangups_count")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_reaches_the_server_once_and_its_exit_code_comes_back(wrapper: Wrapper, name: str) -> None:
    process = wrapper.python(COUNT_SIGNALS, start_new_session=True)
    assert read_line(process) == b"ready\n"
    process.send_signal(getattr(signal, name))
    assert read_line(process) == name.encode() + b"\n"
    assert process.wait(DEADLINE_S) == 3


def test_a_key_of_the_terminal_reaches_the_server_once(wrapper: Wrapper) -> None:
    master, slave = os.openpty()
    take_it = f"import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl({slave}, termios.TIOCSCTTY, 0)"
    through = (sys.executable, "-c", f"{take_it}; os.execvp(sys.argv[1], sys.argv[1:])")
    process = wrapper.python(COUNT_SIGNALS, through=through, pass_fds=(slave,))
    os.close(slave)
    try:
        assert read_line(process) == b"ready\n"
        os.write(master, b"\x03")
        assert read_line(process) == b"SIGINT\n"
        assert process.wait(DEADLINE_S) == 3
    finally:
        os.close(master)


def test_what_ends_a_process_group_leaves_nothing_behind(wrapper: Wrapper) -> None:
    """As the Python SDK does with a server that does not go by itself."""
    process = wrapper.python(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)",
        start_new_session=True,
    )
    assert read_line(process) == b"ready\n"
    child = server_of(process)
    os.killpg(process.pid, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(DEADLINE_S) == -9
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the server is gone, too")


def test_a_killed_wrapper_is_an_end_of_input_for_the_server(wrapper: Wrapper) -> None:
    saw = wrapper.folder / "saw"
    process = wrapper.python(
        f"import sys; print('ready', flush=True); sys.stdin.read(); open({str(saw)!r}, 'w').close()"
    )
    assert read_line(process) == b"ready\n"
    process.kill()
    until(saw.exists, "the server saw the end of its input")


def test_an_ignored_signal_stays_ignored(wrapper: Wrapper) -> None:
    """As `nohup` asks for."""
    process = wrapper.python(
        "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)",
        through=shell("trap '' HUP"),
    )
    assert read_line(process) == b"True\n"


def test_the_server_does_not_see_the_key(wrapper: Wrapper) -> None:
    process = wrapper.python(
        "import os; print(os.environ.get('HUBSCOPE_API_KEY'), os.environ['OTHER'])",
        env={"HUBSCOPE_API_KEY": "hsk_secret", "OTHER": "kept"},
    )
    assert read_line(process) == b"None kept\n"


def test_a_connection_is_reported_from_start_to_crash(wrapper: Wrapper) -> None:
    process = wrapper.python("""
        import json, os, signal, sys
        for line in sys.stdin:
            message = json.loads(line)
            if message["params"]["name"] == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}}), flush=True)
    """)
    assert process.stdin is not None
    for key, tool in enumerate(("read", "die")):
        params = {"name": tool, "arguments": {"token": "s3cret"}}
        process.stdin.write(json.dumps({"id": key, "method": "tools/call", "params": params}).encode() + b"\n")
        if tool == "read":
            read_line(process)
    assert process.wait(DEADLINE_S) == 137
    events = wrapper.events()
    assert [event.get("outcome") or event["tool"] for event in events] == [
        "started", "connected", "read", "die", "crashed"
    ]  # fmt: skip
    assert [event["status"] for event in events if event["type"] == "tool_call"] == ["ok", "error"]
    assert events[3]["error_message"] == "the server was ended by SIGKILL before it answered"
    assert (events[4]["state"], events[4]["error_type"]) == ("down", "signal:SIGKILL")
    assert "s3cret" not in json.dumps(events)


def test_a_server_that_dies_is_at_fault_also_when_the_client_leaves_at_once(wrapper: Wrapper) -> None:
    process = wrapper.python("import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 9)")
    assert process.stdin is not None
    process.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x"}}\n')
    assert read_line(process) == b""
    process.stdin.close()
    assert process.wait(DEADLINE_S) == 137
    assert [event.get("error_type") for event in wrapper.events()] == [None, "server_exited", "signal:SIGKILL"]


def test_an_observer_that_cannot_keep_up_holds_nothing_up(wrapper: Wrapper) -> None:
    """100 MB go by; what is not seen is counted, and memory stays bounded."""
    program = f"import sys\nfor _ in range(100):\n    sys.stdout.write('{{}}\\n' * 350_000)\nsys.stdout.flush()\n{ECHO}"
    process = wrapper.start(sys.executable, "-c", program, env={"HUBSCOPE_WRAP_BUFFER_MAX_BYTES": "1048576"})
    assert process.stdout is not None
    assert process.stdin is not None
    got = 0
    while got < 100 * 350_000 * 3:
        got += len(os.read(process.stdout.fileno(), 1_000_000))
    assert psutil.Process(process.pid).memory_info().rss < 100_000_000
    process.stdin.close()
    assert process.wait(DEADLINE_S) == 0
    last = wrapper.events()[-1]
    assert (last["outcome"], last["attrs"]["missed_bytes"] > 0) == ("closed", True)


def test_many_wrappers_share_one_spool(wrapper: Wrapper) -> None:
    processes = [wrapper.start(sys.executable, "-c", ECHO, options=("--name", f"s{number}")) for number in range(6)]
    threads = [threading.Thread(target=process.communicate, args=(b"{}\n",)) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = wrapper.events()
    assert {(event["server"], event["outcome"]) for event in events} == {
        (f"s{number}", outcome) for number in range(6) for outcome in ("started", "closed")
    }
    assert len({event["event_id"] for event in events}) == 12


def test_the_wrapper_loads_none_of_the_service() -> None:
    """What a server's start waits for is the standard library and msgspec."""
    program = (
        "import sys, hubscope.__main__, hubscope.wrap.command, hubscope.wrap.run, hubscope.wrap.reporting\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint(
        {"asyncio", "asyncpg", "dbt", "fastapi", "great_expectations", "httpx2", "mcp", "prometheus_client", "pydantic",
         "rich", "structlog", "typer", "uvicorn", "hubscope.settings", "hubscope.store", "hubscope.entrypoints"}
    )  # fmt: skip
