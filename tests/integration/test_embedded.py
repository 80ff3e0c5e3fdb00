"""The embedded database: who starts and stops it, who may use it, and what it survives.

As root PostgreSQL runs under another account, so some cases end differently for root and for everyone else; each test
says what its own user must see.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil
import pytest

from hubscope import embedded
from hubscope.embedded import EmbeddedDatabase, embedded_version, ownership
from hubscope.errors import DataDirectoryBusy, EmbeddedDatabaseFailed, InvalidSetting

pytestmark = pytest.mark.integration

ROOT = os.geteuid() == 0
US = pwd.getpwuid(os.geteuid()).pw_name
SERVER_ACCOUNT = ("postgres" if any(one.pw_name == "postgres" for one in pwd.getpwall()) else "nobody") if ROOT else US
DEADLINE_S = 30.0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"still waiting after {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.01)


def postmaster(data_dir: Path) -> psutil.Process:
    """The server process of a data directory."""
    return psutil.Process(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]))


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Every process that works in a data directory's database, backends included."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd().startswith(f"{data_dir}/"):
                found.append(process)
    return found


def ask(dsn: str, *statements: str) -> object:
    """Run statements; the value of the last one."""

    async def run() -> object:
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            for statement in statements:
                value = await connection.fetchval(statement)
            return value
        finally:
            await connection.close()

    return asyncio.run(run())


def kill_server(data_dir: Path) -> None:
    """SIGKILL of the postmaster; returns when its children have noticed and left."""
    postmaster(data_dir).kill()
    until(lambda: processes_of(data_dir) == [], "the children of the killed server leave")


def python(code: str, *arguments: object, uid: int | None = None) -> subprocess.Popen[str]:
    """Another hubscope process, in its own process group."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        start_new_session=True,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )


# Attaches, says so, and lets go when its input closes; the exit code is 0 when it stopped the server.
ATTACH = """
    import sys
    from pathlib import Path
    from hubscope.embedded import EmbeddedDatabase
    database = EmbeddedDatabase(Path(sys.argv[1]), fsync=False).attach()
    print("attached", database.adopted, flush=True)
    sys.stdin.read()
    sys.exit(0 if database.detach() else 3)
"""
OWN = """
    import sys
    from pathlib import Path
    from hubscope.embedded import ownership
    with ownership(Path(sys.argv[1]), "up") as tell:
        tell("http://127.0.0.1:3401")
        print("owned", flush=True)
        sys.stdin.read()
"""


def said(process: subprocess.Popen[str]) -> str:
    """The next line of another process."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return line.strip()


def end_processes_of(data_dir: Path) -> None:
    for process in processes_of(data_dir):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    until(lambda: processes_of(data_dir) == [], "killed processes are gone")


@pytest.fixture
def data_dir(directory: Path) -> Iterator[Path]:
    """A data directory that does not exist yet; whatever is left running in it is ended afterwards."""
    path = directory / "data"
    yield path
    end_processes_of(path)


class Lender:
    """One database directory, made once (that takes a second) and lent to one test after another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def lent(self, data_dir: Path) -> Iterator[None]:
        """While the block runs `data_dir` holds a stopped database."""
        if not (self._folder / "postgres").exists():
            EmbeddedDatabase(self._folder, fsync=False).attach().detach()
        data_dir.mkdir()
        (self._folder / "postgres").rename(data_dir / "postgres")
        try:
            yield
        finally:
            end_processes_of(data_dir)
            (data_dir / "postgres").rename(self._folder / "postgres")


@pytest.fixture(scope="module")
def lender() -> Iterator[Lender]:
    folder = Path(tempfile.mkdtemp(prefix="hubscope-test-"))
    yield Lender(folder)
    shutil.rmtree(folder)


@pytest.fixture
def made(data_dir: Path, lender: Lender) -> Iterator[Path]:
    """A data directory that holds a stopped database."""
    with lender.lent(data_dir):
        yield data_dir


@pytest.fixture
def used(made: Path) -> Iterator[EmbeddedDatabase]:
    """A server that this process uses."""
    with EmbeddedDatabase(made, fsync=False) as database:
        yield database


# Starting, reusing, stopping


def test_the_first_start_makes_a_database_and_the_last_one_out_stops_it(data_dir: Path) -> None:
    steps: list[str] = []
    database = EmbeddedDatabase(data_dir)
    assert not database.exists
    database.attach(steps.append)
    assert database.exists
    assert not database.adopted
    assert [step.split()[0] for step in steps] == ["making", "starting"]
    answer = ask(
        database.dsn,
        "SELECT concat_ws(' ', current_database(), current_user, current_setting('fsync'),"
        " current_setting('listen_addresses') = '', current_setting('server_encoding'), current_setting('timezone'))",
    )
    assert answer == "hubscope postgres on t UTF8 UTC"
    assert database.detach()
    assert processes_of(data_dir) == []
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


def test_a_second_start_finds_what_the_first_one_left(data_dir: Path) -> None:
    with EmbeddedDatabase(data_dir) as first:
        ask(first.dsn, "CREATE TABLE kept AS SELECT 42 AS value")
    steps: list[str] = []
    second = EmbeddedDatabase(data_dir).attach(steps.append)
    try:
        assert steps == ["starting PostgreSQL"]
        assert ask(second.dsn, "SELECT value FROM kept") == 42
    finally:
        assert second.detach()


def test_letting_go_twice_does_nothing_the_second_time(used: EmbeddedDatabase) -> None:
    assert used.detach()
    assert not used.detach()


def test_the_server_runs_under_an_account_without_rights(used: EmbeddedDatabase, data_dir: Path) -> None:
    assert postmaster(data_dir).username() == SERVER_ACCOUNT
    assert (data_dir / "postgres").owner() == SERVER_ACCOUNT
    assert (data_dir / "postgres").stat().st_mode & 0o077 == 0
    assert (data_dir / "run").stat().st_mode & 0o077 == 0
    assert (data_dir / "run" / ".s.PGSQL.5432").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("first_out", ["the one that started it", "the one that came later"])
def test_the_server_runs_until_the_last_of_two_processes_lets_go(first_out: str, made: Path) -> None:
    data_dir = made
    ours = EmbeddedDatabase(data_dir, fsync=False).attach()
    other = python(ATTACH, data_dir)
    assert said(other) == "attached True"
    if first_out == "the one that started it":
        assert not ours.detach()
        assert ask(ours.dsn, "SELECT 1") == 1
        other.communicate(timeout=DEADLINE_S)
        assert other.returncode == 0
    else:
        other.communicate(timeout=DEADLINE_S)
        assert other.returncode == 3
        assert ask(ours.dsn, "SELECT 1") == 1
        assert ours.detach()
    assert processes_of(data_dir) == []


def test_two_processes_that_start_at_once_share_one_server(data_dir: Path) -> None:
    both = [python(ATTACH, data_dir) for _ in range(2)]
    assert sorted(said(one) for one in both) == ["attached False", "attached True"]
    for one in both:
        one.communicate(timeout=DEADLINE_S)
    assert sorted(one.returncode for one in both) == [0, 3]
    assert processes_of(data_dir) == []


# Ownership


def test_a_second_owner_is_told_who_the_first_one_is(data_dir: Path) -> None:
    owner = python(OWN, data_dir)
    assert said(owner) == "owned"
    with pytest.raises(DataDirectoryBusy) as refused, ownership(data_dir, "demo"):
        pass
    for part in (str(data_dir), "`hubscope up`", f"pid {owner.pid}", "http://127.0.0.1:3401"):
        assert part in refused.value.detail
    owner.communicate(timeout=DEADLINE_S)
    with ownership(data_dir, "demo"):
        pass


def test_the_lock_of_a_killed_owner_is_free(data_dir: Path) -> None:
    owner = python(OWN, data_dir)
    assert said(owner) == "owned"
    owner.kill()
    owner.communicate(timeout=DEADLINE_S)
    with ownership(data_dir, "up") as tell:
        tell("http://127.0.0.1:1")
        assert f'"pid": {os.getpid()}' in (data_dir / "owner.lock").read_text()
    assert (data_dir / "owner.lock").read_text() == ""


def test_an_owner_that_has_not_said_who_it_is_is_called_another_process(data_dir: Path) -> None:
    data_dir.mkdir()
    with (data_dir / "owner.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataDirectoryBusy, match="in use by another hubscope process"), ownership(data_dir, "up"):
            pass


# Kills


def test_a_server_left_by_a_kill_is_adopted_and_stopped_by_the_next_one(made: Path) -> None:
    data_dir = made
    other = python(ATTACH, data_dir)
    assert said(other) == "attached False"
    server = postmaster(data_dir)
    os.killpg(other.pid, signal.SIGKILL)
    other.communicate(timeout=DEADLINE_S)
    ours = EmbeddedDatabase(data_dir, fsync=False).attach()
    assert ours.adopted
    assert postmaster(data_dir) == server
    assert ask(ours.dsn, "SELECT 1") == 1
    assert ours.detach()
    assert processes_of(data_dir) == []


def test_what_was_committed_survives_a_kill_of_the_server(data_dir: Path) -> None:
    database = EmbeddedDatabase(data_dir).attach()
    ask(database.dsn, "CREATE TABLE kept AS SELECT 42 AS value")
    postmaster(data_dir).kill()
    again = EmbeddedDatabase(data_dir).attach()
    try:
        assert not again.adopted
        assert ask(again.dsn, "SELECT value FROM kept") == 42
    finally:
        again.detach()
        database.detach()


def test_a_start_waits_for_the_children_of_a_killed_server(used: EmbeddedDatabase, data_dir: Path) -> None:
    server = postmaster(data_dir)
    child = server.children()[0]
    child.suspend()  # it still uses the shared memory
    server.kill()
    other = python(ATTACH, data_dir)
    log = data_dir / "run-log" / "postgres.log"
    until(lambda: "still in use" in log.read_text(), "PostgreSQL refuses to start beside it")
    assert other.poll() is None
    child.resume()
    assert said(other) == "attached False"
    other.communicate(timeout=DEADLINE_S)
    assert ask(used.dsn, "SELECT 1") == 1


def test_a_database_that_dies_under_those_who_use_it_is_started_again(used: EmbeddedDatabase, data_dir: Path) -> None:
    assert not used.revive()
    kill_server(data_dir)
    assert used.revive()
    assert ask(used.dsn, "SELECT 1") == 1
    assert not used.revive()


def test_a_process_that_has_the_id_of_the_dead_server_now_is_not_taken_for_it(
    used: EmbeddedDatabase, data_dir: Path
) -> None:
    kill_server(data_dir)
    account = pwd.getpwnam(SERVER_ACCOUNT)
    stranger = subprocess.Popen(["sleep", "600"], user=account.pw_uid if ROOT else None)
    try:
        for lock in (data_dir / "postgres" / "postmaster.pid", data_dir / "run" / ".s.PGSQL.5432.lock"):
            lines = lock.read_text().splitlines(keepends=True)
            with lock.open("r+") as file:
                file.writelines([f"{stranger.pid}\n", *lines[1:]])
                file.truncate()
        assert used.revive()
        assert ask(used.dsn, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_kill_in_the_middle_of_making_the_database_leaves_nothing_in_the_way(data_dir: Path) -> None:
    other = python(ATTACH, data_dir)
    until(lambda: any(data_dir.glob("postgres.new-*/PG_VERSION")), "initdb has begun")
    os.killpg(other.pid, signal.SIGKILL)
    other.communicate(timeout=DEADLINE_S)
    assert not EmbeddedDatabase(data_dir).exists
    with EmbeddedDatabase(data_dir, fsync=False) as database:
        assert ask(database.dsn, "SELECT 1") == 1
    assert list(data_dir.glob("postgres.new-*")) == []


def test_a_server_that_does_not_answer_is_waited_for_and_then_named(
    used: EmbeddedDatabase, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 1)
    server = postmaster(data_dir)
    server.suspend()
    try:
        with pytest.raises(EmbeddedDatabaseFailed, match=r"data/postgres does not answer$"):
            EmbeddedDatabase(data_dir).attach()
    finally:
        server.resume()
    assert ask(used.dsn, "SELECT 1") == 1


def test_somebody_who_never_ends_starting_is_not_waited_for_for_ever(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LOCK_TIMEOUT_S", 0.1)
    data_dir.mkdir()
    with (data_dir / "changing.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataDirectoryBusy, match="starting or stopping the database"):
            EmbeddedDatabase(data_dir).attach()


# Data directories that will do, and that will not


@pytest.mark.parametrize(
    "name", ["with space", "it's", 'say "hello"', "a,b", "$HOME", "`id`", "back\\slash", "ünï-%41", "x" * 90]
)
def test_a_data_directory_may_have_any_printable_name(name: str, directory: Path, lender: Lender) -> None:
    database = EmbeddedDatabase(directory / name, fsync=False)
    host = Path(parse_qs(urlsplit(database.dsn).query)["host"][0])
    with lender.lent(directory / name), database:
        assert ask(database.dsn, "SELECT current_setting('data_directory')") == str(directory / name / "postgres")
        assert len(os.fsencode(host / ".s.PGSQL.5432")) <= 107
        assert host.stat().st_mode & 0o777 == 0o700
        assert host.owner() == SERVER_ACCOUNT
        database.detach()
        assert host.parent == directory / name or not host.exists()
        assert processes_of(directory / name) == []


def test_a_socket_folder_that_somebody_else_put_there_first_is_refused(directory: Path) -> None:
    database = EmbeddedDatabase(directory / ("x" * 90))
    host = Path(parse_qs(urlsplit(database.dsn).query)["host"][0])
    target = directory / "target"
    target.mkdir()
    owner = target.owner()
    host.symlink_to(target)
    try:
        with pytest.raises(InvalidSetting, match=f"^{host} belongs to another account"):
            database.attach()
    finally:
        host.unlink()
    assert target.owner() == owner


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("line\nbreak", "control characters"),
        ("~there-is-no-such-account/x", "no such home directory"),
        ("file/below", "Not a directory"),
        ("file", "File exists"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_data_directory_that_will_not_do_is_one_clear_error(name: str, said: str, directory: Path) -> None:
    (directory / "file").write_text("")
    path = Path(name) if name.startswith("~") else directory / name

    def attach() -> None:
        EmbeddedDatabase(path).attach()

    def own() -> None:
        with ownership(path, "up"):
            pass

    for use in (attach, own):
        with pytest.raises(InvalidSetting, match=said) as refused:
            use()
        assert "HUBSCOPE_DATA_DIR" in refused.value.detail
        assert "\n" not in refused.value.detail


def test_a_data_directory_that_holds_something_else_is_left_alone(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "precious").write_text("mine")
    with pytest.raises(InvalidSetting, match="holds something that is no database"):
        EmbeddedDatabase(data_dir).attach()
    assert (data_dir / "postgres" / "precious").read_text() == "mine"


def test_a_parent_directory_that_is_closed_to_the_server_is_named(directory: Path) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    database = EmbeddedDatabase(closed / "below" / "data", fsync=False)
    if ROOT:
        with pytest.raises(InvalidSetting) as refused:
            database.attach()
        assert f"{SERVER_ACCOUNT!r}" in refused.value.detail
        assert f"cannot enter {closed};" in refused.value.detail
    else:
        with database:
            assert ask(database.dsn, "SELECT 1") == 1


def test_a_link_to_a_place_that_is_closed_to_the_server_is_seen_through(directory: Path) -> None:
    closed = directory / "closed"
    (closed / "below").mkdir(parents=True)
    closed.chmod(0o700)
    (directory / "link").symlink_to(closed / "below")
    database = EmbeddedDatabase(directory / "link" / "data", fsync=False)
    if ROOT:
        with pytest.raises(InvalidSetting, match=f"cannot enter {closed};"):
            database.attach()
    else:
        with database:
            assert ask(database.dsn, "SELECT 1") == 1


def test_a_database_of_another_major_version_is_refused_with_the_way_out(
    used: EmbeddedDatabase, data_dir: Path
) -> None:
    used.detach()
    version = data_dir / "postgres" / "PG_VERSION"
    major = int(version.read_text())
    assert str(major) == embedded_version().split(".")[0]
    version.write_text(f"{major - 1}\n")
    with pytest.raises(EmbeddedDatabaseFailed) as refused:
        EmbeddedDatabase(data_dir).attach()
    for part in (f"made by PostgreSQL {major - 1}", f"brings PostgreSQL {major}", "pg_dump", "restore"):
        assert part in refused.value.detail
    assert processes_of(data_dir) == []
    version.write_text(f"{major}\n")


# Accounts


def test_an_unknown_embedded_user_is_one_clear_error(directory: Path) -> None:
    if ROOT:
        with pytest.raises(InvalidSetting) as refused:
            EmbeddedDatabase(directory / "data", user="nobody-like-this")
        assert refused.value.detail == (
            "HUBSCOPE_EMBEDDED_USER is 'nobody-like-this': there is no such account on this machine"
        )
    else:  # an ordinary user cannot choose: the server runs as that user
        with EmbeddedDatabase(directory / "data", user="nobody-like-this", fsync=False):
            assert postmaster(directory / "data").username() == US


def test_the_server_does_not_run_as_root(directory: Path) -> None:
    if ROOT:
        with pytest.raises(InvalidSetting, match="PostgreSQL refuses to run as root"):
            EmbeddedDatabase(directory / "data", user="root")
    else:
        with EmbeddedDatabase(directory / "data", user="root", fsync=False):
            assert postmaster(directory / "data").username() == US


def test_the_account_that_is_named_runs_the_server_and_goes_on_running_it(data_dir: Path) -> None:
    account = "daemon" if ROOT else US
    for user in (account, None):  # made by it; later on unnamed, with another default account on the machine
        with EmbeddedDatabase(data_dir, user=user, fsync=False):
            assert postmaster(data_dir).username() == account
    if ROOT:
        with pytest.raises(InvalidSetting, match=r"belongs to another account than 'nobody'.*chown -R nobody"):
            EmbeddedDatabase(data_dir, user="nobody")


def test_a_user_id_without_an_account_is_one_clear_error(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unused = max(one.pw_uid for one in pwd.getpwall()) + 1
    monkeypatch.setattr(os, "geteuid", lambda: unused)  # as in a container that runs under a number
    with pytest.raises(InvalidSetting, match=rf"user id {unused} has no account .* HUBSCOPE_DATABASE_URL$"):
        EmbeddedDatabase(directory / "data")


def test_another_account_can_neither_connect_nor_look_nor_own(used: EmbeddedDatabase, data_dir: Path) -> None:
    """As root every other account, the server's own included, is tried for real. An ordinary user can become nobody
    else: what keeps the others out is then read from the folders and from PostgreSQL's access rules."""
    code = """
        import asyncio, sys
        from pathlib import Path
        import asyncpg
        from hubscope.embedded import EmbeddedDatabase, ownership
        from hubscope.errors import HubscopeError

        def attempt(use):
            try:
                use()
            except (HubscopeError, OSError, asyncpg.PostgresError) as error:
                return type(error).__name__
            return "allowed"

        def own():
            with ownership(Path(sys.argv[1]), "up"):
                pass

        print(
            attempt(lambda: asyncio.run(asyncpg.connect(sys.argv[2], timeout=5))),
            attempt(lambda: EmbeddedDatabase(Path(sys.argv[1])).attach()),
            attempt(own),
        )
    """
    if not ROOT:
        assert (data_dir.stat().st_mode & 0o777, (data_dir / "run").stat().st_mode & 0o777) == (0o700, 0o700)
        rules = "SELECT string_agg(concat_ws(' ', type, auth_method, options), '; ') FROM pg_hba_file_rules"
        assert ask(used.dsn, rules) == "local peer {map=hubscope}"
        names = "SELECT string_agg(concat_ws(' ', sys_name, pg_username), '; ') FROM pg_ident_file_mappings"
        assert ask(used.dsn, names) == f"{US} all"
        return
    results = {}
    for account in (SERVER_ACCOUNT, "daemon"):
        process = python(code, data_dir, used.dsn, uid=pwd.getpwnam(account).pw_uid)
        out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err
        results[account] = out.split()
    # The server's account reaches the socket, which is its own, and is turned away by PostgreSQL (peer authentication).
    assert results[SERVER_ACCOUNT] == ["InvalidAuthorizationSpecificationError", "InvalidSetting", "InvalidSetting"]
    assert results["daemon"] == ["PermissionError", "InvalidSetting", "InvalidSetting"]
    assert ask(used.dsn, "SELECT 1") == 1


def test_a_program_that_the_server_may_not_enter_is_copied_to_where_it_may(
    made: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    package = embedded._PACKAGE
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            (closed / folder.name).symlink_to(folder)
    monkeypatch.setattr(embedded, "_PACKAGE", closed / package.name)
    steps: list[str] = []
    database = EmbeddedDatabase(made, fsync=False).attach(steps.append)
    assert ask(database.dsn, "SELECT 1") == 1
    assert Path(postmaster(made).cmdline()[0]).is_relative_to(
        made / "program" / embedded_version() if ROOT else package.resolve()
    )
    assert any("copying PostgreSQL" in step for step in steps) == ROOT
    assert database.detach()
    steps.clear()
    EmbeddedDatabase(made, fsync=False).attach(steps.append).detach()
    assert steps == ["starting PostgreSQL"]


# Failures


def test_a_start_that_fails_shows_the_last_words_of_the_server(used: EmbeddedDatabase, data_dir: Path) -> None:
    used.detach()
    configuration = data_dir / "postgres" / "postgresql.conf"
    text = configuration.read_text()
    configuration.write_text(f"{text}\nno_such_setting = 1\n")
    with pytest.raises(EmbeddedDatabaseFailed, match=r"^PostgreSQL did not start: .*no_such_setting") as failed:
        EmbeddedDatabase(data_dir).attach()
    assert "\n" not in failed.value.detail
    assert processes_of(data_dir) == []
    configuration.write_text(text)
    with EmbeddedDatabase(data_dir, fsync=False) as mended:  # nobody holds a lock on account of the failure
        assert ask(mended.dsn, "SELECT 1") == 1
    assert processes_of(data_dir) == []


def test_a_program_that_cannot_be_run_is_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_PACKAGE", Path("/nowhere"))
    with pytest.raises(EmbeddedDatabaseFailed, match=r"^/nowhere/pginstall/bin/\w+ cannot be run"):
        EmbeddedDatabase(data_dir).attach()


def test_the_environment_of_other_postgresql_programs_is_not_listened_to(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGHOST": "/nowhere",
        "PGPORT": "1",
        "PGUSER": "x",
        "PGDATA": "/nowhere",
        "PGOPTIONS": "-x",
    }.items():
        monkeypatch.setenv(name, value)
    with EmbeddedDatabase(made, fsync=False) as database:
        monkeypatch.undo()
        assert ask(database.dsn, "SELECT 1") == 1
