"""Real MySQL and MariaDB servers for the demo and the tests: on 127.0.0.1, in a folder, ended by their own pid."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql

from everest.demo import debian, tls

START_SECONDS = 60
NAMES = {"mysqld": "mariadbd", "mysql": "mariadb", "mysqldump": "mariadb-dump", "mysqlbinlog": "mariadb-binlog"}
ServerUnavailable = debian.Unavailable
Say = Callable[[str], object]


@dataclass(frozen=True)
class Installation:
    """The programs of one server version.  root: where a version unpacked into the cache lies, None on the machine."""

    flavour: str
    version: str
    root: Path | None = None
    server: str = ""

    def command(self, program: str) -> list[str]:
        """The argv that runs mysqld, mysql, mysqldump or mysqlbinlog (on MariaDB its program of that purpose)."""
        if program == "mysqld" and self.server:
            return [self.server]
        name = NAMES[program] if self.flavour == "mariadb" else program
        if self.root:
            return debian.command(self.root, name)
        path = _which(name)
        if not path:
            raise ServerUnavailable(f"{name} is not installed: it comes with the server's client package.")
        return [path]

    @property
    def places(self) -> list[str]:
        """Options that tell a server of the cache where its own files are."""
        if not self.root:
            return []
        share = self.root / "usr/share" / self.flavour
        return [
            f"--basedir={self.root / 'usr'}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}",
            f"--plugin-dir={self.root / 'usr/lib/mysql/plugin'}",
        ]


def mysql(say: Say = print, minimum: tuple[int, ...] = (8, 0)) -> Installation:
    """A MySQL of at least `minimum`: the machine's own, else that of Debian's unstable suite from the cache.

    Raises:
        ServerUnavailable: neither can be had.
    """
    for path in _candidates("mysqld"):
        text = _version_text([path])
        if "MariaDB" not in text and _numbers(text) >= minimum:
            return Installation("mysql", _version(text), server=path)
    wanted = ".".join(map(str, minimum))
    try:
        root = debian.unpacked("mysql-sid", ("mysql-server-core", "mysql-client-core"), say)
        return Installation("mysql", _version(_version_text(debian.command(root, "mysqld"))), root=root)
    except debian.Unavailable as error:
        hint = f"Install a MySQL server, {wanted} or newer, so that `mysqld` is in the PATH."
        raise ServerUnavailable(f"There is no MySQL. {error} {hint}") from error


def mariadb(say: Say = print, minimum: tuple[int, ...] = ()) -> Installation:
    """The machine's MariaDB; as root on Debian it is installed where it is missing.

    minimum: where the machine's is older than that, the one of Debian's unstable suite from the cache.

    Raises:
        ServerUnavailable: there is none, naming the package.
    """
    if minimum:
        return _newer_mariadb(say, minimum)
    if not _which("mariadbd") and shutil.which("apt-get") and os.geteuid() == 0:
        say("Installing mariadb-server (once)")
        _install("mariadb-server")
    path = _which("mariadbd")
    if not path:
        raise ServerUnavailable("There is no MariaDB. Install it: apt-get install mariadb-server")
    return Installation("mariadb", _version(_version_text([path])), server=path)


def _newer_mariadb(say: Say, minimum: tuple[int, ...]) -> Installation:
    path = _which("mariadbd")
    text = _version_text([path]) if path else ""
    if path and _numbers(text) >= minimum:
        return Installation("mariadb", _version(text), server=path)
    root = debian.unpacked("mariadb-sid", ("mariadb-server-core", "mariadb-client-core"), say)
    return Installation("mariadb", _version(_version_text(debian.command(root, "mariadbd"))), root=root)


@dataclass
class Server:
    """A running server.  folder holds its data, socket, log and TLS files."""

    installation: Installation
    folder: Path
    port: int
    options: list[str]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    host: str = "127.0.0.1"

    @property
    def flavour(self) -> str:
        return self.installation.flavour

    @property
    def version(self) -> str:
        return self.installation.version

    @property
    def pid(self) -> int:
        assert self.process, "the server is not running"
        return self.process.pid

    @property
    def socket(self) -> Path:
        return Path(tempfile.gettempdir()) / f"everest-{self.port}.sock"

    @property
    def ca(self) -> str:
        """The certificate that proves this server's TLS certificate, PEM."""
        return (self.folder / "tls" / "ca.pem").read_text()

    def connect(self, **settings: Any) -> pymysql.Connection[Any]:
        """As root, by the socket, with autocommit."""
        wanted = {"user": "root", "unix_socket": str(self.socket), "autocommit": True, "charset": "utf8mb4"}
        return pymysql.connect(**(wanted | settings))

    def restart(self, *options: str) -> None:
        """Stop and start again with the same data and port; `options` are added from now on."""
        self.stop()
        self.options += options
        self.run()

    def run(self) -> None:
        """Start on the existing data folder and wait until it answers."""
        (self.folder / "error.log").unlink(missing_ok=True)
        self._lock.unlink(missing_ok=True)
        argv = [*self.installation.command("mysqld"), "--no-defaults", *self.installation.places, *self._settings()]
        with open(self.folder / "error.log", "ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        (self.folder / "pid").write_text(str(self.process.pid))
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ServerUnavailable(f"The server in {self.folder} did not start: {self.log()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Shut down cleanly; a server that does not end within 30 s is killed."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def log(self) -> str:
        """The last lines of the error log."""
        return "\n".join((self.folder / "error.log").read_text(errors="replace").splitlines()[-8:])

    def _end(self, how: signal.Signals) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        (self.folder / "pid").unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)
        self._lock.unlink(missing_ok=True)

    @property
    def _lock(self) -> Path:
        """What MySQL keeps its pid in; one that a kill left stops a start once that pid is somebody else's."""
        return self.socket.with_name(f"{self.socket.name}.lock")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self.socket)) != 0:
                return False
        try:
            self.connect(connect_timeout=2).close()
        except pymysql.err.OperationalError:
            return False
        return True

    def _settings(self) -> list[str]:
        tls_files = self.folder / "tls"
        user = ["--user=root"] if os.geteuid() == 0 else []
        only_mysql = ["--mysqlx=OFF", "--secure-file-priv="] if self.flavour == "mysql" else []
        return [
            *user,
            *only_mysql,
            f"--datadir={self.folder / 'data'}",
            f"--tmpdir={self.folder / 'tmp'}",  # a MariaDB that starts deletes temporary tables of others there
            f"--bind-address={self.host}",
            f"--port={self.port}",
            f"--socket={self.socket}",
            f"--pid-file={self.folder / 'server.pid'}",
            f"--server-id={self.port}",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=64M",
            "--innodb-use-native-aio=OFF",  # the machine's supply ends after a dozen servers
            f"--ssl-ca={tls_files / 'ca.pem'}",
            f"--ssl-cert={tls_files / 'server.pem'}",
            f"--ssl-key={tls_files / 'server-key.pem'}",
            *self.options,
        ]


def start(installation: Installation, folder: Path, *, gtid: bool = True, options: Sequence[str] = ()) -> Server:
    """Start a server in `folder`: on the data that is there, else on a copy of the template, at a free port.

    A server that an earlier run left behind in the folder is ended first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end_left_behind(folder)
    if not (folder / "data").exists():
        shutil.copytree(_template(installation), folder / "data")
        (folder / "data" / "auto.cnf").unlink(missing_ok=True)
    (folder / "tmp").mkdir(exist_ok=True)
    if not (folder / "tls").exists():
        tls.write_certificates(folder / "tls")
    if installation.flavour == "mysql":
        mode = [f"--gtid-mode={'ON' if gtid else 'OFF'}", f"--enforce-gtid-consistency={'ON' if gtid else 'OFF'}"]
    else:
        mode = ["--log-bin=binlog", "--binlog-format=ROW", "--character-set-server=utf8mb4"]
    server = Server(installation, folder, free_port(), [*mode, *options])
    server.run()
    return server


def end_left_behind(folder: Path) -> None:
    """End the server whose pid the folder remembers, if that process still runs on this folder."""
    try:
        pid = int((folder / "pid").read_text())
        command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
        if str(folder / "data").encode() in command_line:
            os.kill(pid, signal.SIGKILL)
            while Path(f"/proc/{pid}/cmdline").read_bytes():
                time.sleep(0.02)
    except (FileNotFoundError, ProcessLookupError):
        pass
    (folder / "pid").unlink(missing_ok=True)


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives to outgoing connections."""
    while True:
        port = random.randrange(15000, 32000)
        if not listening(port):
            return port


def listening(port: int) -> bool:
    """Whether something on this machine answers at the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _template(installation: Installation) -> Path:
    """A freshly initialised data folder in the cache, made once per version."""
    name = f"template-{installation.flavour}-{re.sub(r'[^0-9A-Za-z.]+', '-', installation.version)}"
    final = debian.cache() / name
    with debian.locked(name):
        if not final.exists():
            work = final.with_name(name + ".part")
            shutil.rmtree(work, ignore_errors=True)
            _initialise(installation, work)
            work.rename(final)
    return final


def _initialise(installation: Installation, folder: Path) -> None:
    user = ["--user=root"] if os.geteuid() == 0 else []
    statements = ""
    if installation.flavour == "mysql":
        program = [*installation.command("mysqld"), "--no-defaults", *installation.places, "--initialize-insecure"]
        program += ["--innodb-redo-log-capacity=8M"]
    elif installation.root:
        program = [*installation.command("mysqld"), "--no-defaults", *installation.places, "--bootstrap"]
        statements = _system_tables(installation.root / "usr/share/mariadb")
        folder.mkdir()
    else:
        program = [_which("mariadb-install-db") or "mariadb-install-db", "--no-defaults", "--skip-test-db"]
        program += ["--auth-root-authentication-method=normal"]
    argv = [*program, *user, f"--datadir={folder}"]
    ran = subprocess.run(argv, capture_output=True, text=True, input=statements)
    if ran.returncode:
        raise ServerUnavailable(f"{program[0]} could not make a data folder: {(ran.stdout + ran.stderr)[-800:]}")


def _system_tables(share: Path) -> str:
    """What mariadb-install-db, a script that knows nothing of a loader, gives to the server."""
    names = ("mariadb_system_tables", "mariadb_performance_tables", "mariadb_system_tables_data",
             "maria_add_gis_sp_bootstrap", "mariadb_sys_schema")  # fmt: skip
    scripts = [(share / f"{name}.sql").read_text() for name in names]
    return "\n".join(["CREATE DATABASE mysql;", "USE mysql;", "SET @auth_root_socket = NULL;", *scripts])


def _install(package: str) -> None:
    """By apt, without starting the service it brings."""
    policy = Path("/usr/sbin/policy-rc.d")
    made = not policy.exists()
    if made:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "capture_output": True}
        subprocess.run(["apt-get", "-qq", "update"], **quiet)
        subprocess.run(["apt-get", "-qq", "--yes", "--no-install-recommends", "install", package], **quiet)
    finally:
        if made:
            policy.unlink()


def _candidates(program: str) -> list[str]:
    folders = [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/usr/local/mysql/bin", "/opt/homebrew/bin"]
    return [str(path) for folder in dict.fromkeys(folders) if (path := Path(folder or ".") / program).is_file()]


def _which(program: str) -> str | None:
    return next(iter(_candidates(program)), None)


def _version_text(command: Sequence[str]) -> str:
    """What the program says it is; a file's name proves nothing (MariaDB installs a `mysqld` too)."""
    return subprocess.run([*command, "--version"], capture_output=True, text=True).stdout


def _version(text: str) -> str:
    found = re.search(r"Ver (\S+)", text)
    return found[1] if found else ""


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"[0-9.]*", _version(text))[0].strip(".").split(".") if part)  # type: ignore[index]
