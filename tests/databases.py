"""Real servers for tests: PostgreSQL, pgbouncer, MariaDB, Redis.

They serve on the loopback, on data of their own, not as root, and come from Debian's packages
(``scripts/databases.sh`` installs them). Without those, tests are skipped with a reason, and fail where CI
runs.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from scripts.processes import end_group, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

USER = "feedamp"
PASSWORD = "pass-of-the-test-database"
PATIENCE = 30.0  # seconds that a server gets to answer
PACKAGES = "Run scripts/databases.sh (Debian: postgresql, pgbouncer, mariadb-server, redis-server)."


class DatabaseServer(ABC):
    """One server; it can be stopped and started again on the same port and data.

    :param folder: An empty folder for all that the server writes.
    """

    #: The type of the Airflow connection, and the account that runs the server when the tests are root's.
    conn_type: str
    account: str
    #: The signal that ends the server at once and in order.
    quit: signal.Signals

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.chmod(0o700)
        if os.geteuid() == 0:
            shutil.chown(folder, self.account, self.account)

    @property
    def connection(self) -> str:
        """Return the Airflow connection to the server's database, as JSON for AIRFLOW_CONN_..."""
        fields = {"host": "127.0.0.1", "port": self.port, "login": USER, "password": PASSWORD}
        return json.dumps({"conn_type": self.conn_type, "schema": "feedamp", **fields})

    @abstractmethod
    def create(self) -> None:
        """Lay out the server's data."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the command that serves until it gets a signal."""

    @abstractmethod
    def answers(self) -> bool:
        """Say whether the database can be used now."""

    def administer(self, *statements: str) -> None:
        """Run statements as the server's administrator, each in a transaction of its own."""
        raise NotImplementedError

    def start(self) -> None:
        """Serve; returns when the database answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                # The server ends with the process that started it, however that ends.
                self.as_account("--pdeathsig", self.quit.name.removeprefix("SIG"), "--", *self.command()),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                pytest.fail(f"{self.conn_type} did not start:\n{(self.folder / 'log').read_text()[-3000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server and all its children."""
        if self._process is None:
            return
        send(self._process, self.quit)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        finally:
            end_group(self._process)
            self._process = None

    def as_account(self, *arguments: str) -> list[str]:
        """Return the command line that gives up root's rights: the servers refuse to run with them."""
        drop = ("--reuid", self.account, "--regid", self.account, "--clear-groups")
        return ["setpriv", *(drop if os.geteuid() == 0 else ()), *arguments]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the database with the server's rights."""
        return subprocess.run(
            self.as_account("--", *command), cwd=self.folder, capture_output=True, text=True, check=False
        )

    def must_run(self, *command: str) -> None:
        """Run a program of the database that has to succeed."""
        done = self.run(*command)
        if done.returncode:
            pytest.fail(f"{command[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


class PostgresqlServer(DatabaseServer):
    """PostgreSQL, as Debian packages it."""

    conn_type = "postgres"
    account = "postgres"
    quit = signal.SIGINT

    def create(self) -> None:
        """Lay out the data with one superuser, who needs a password."""
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        options = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        self.must_run(_postgresql("initdb"), "-D", "data", "-U", USER, f"--pwfile={password}", *options)
        password.unlink()

    def command(self) -> Sequence[str]:
        """Return the command of the server."""
        here = ("-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.folder))
        return (_postgresql("postgres"), "-D", str(self.folder / "data"), *here, "-F")

    def answers(self) -> bool:
        """Make the database if it is not there; a server that starts refuses."""
        made = self.run(*self._psql("postgres"), "-c", "CREATE DATABASE feedamp")
        return made.returncode == 0 or "already exists" in made.stderr

    def administer(self, *statements: str) -> None:
        """Run statements as the server's administrator, each in a transaction of its own."""
        commands = (part for statement in statements for part in ("-c", statement))
        self.must_run(*self._psql("feedamp"), "-v", "ON_ERROR_STOP=1", *commands)

    def _psql(self, database: str) -> tuple[str, ...]:
        url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"
        return (_postgresql("psql"), "--no-psqlrc", "-d", url)


class Pgbouncer(DatabaseServer):
    """pgbouncer in transaction mode, as Debian packages it: each transaction may run in another session.

    :param target: The PostgreSQL behind it.
    """

    conn_type = "postgres"
    account = "postgres"
    quit = signal.SIGTERM

    def __init__(self, folder: Path, target: DatabaseServer) -> None:
        super().__init__(folder)
        self.target = target

    def create(self) -> None:
        """Write the configuration."""
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "pool_mode": "transaction",
            "auth_type": "scram-sha-256",
            "auth_file": self.folder / "users",
        }
        lines = (f"{name} = {value}" for name, value in settings.items())
        behind = f"feedamp = host=127.0.0.1 port={self.target.port}"
        (self.folder / "users").write_text(f'"{USER}" "{PASSWORD}"\n')
        (self.folder / "ini").write_text("\n".join(("[databases]", behind, "[pgbouncer]", *lines, "")))

    def command(self) -> Sequence[str]:
        """Return the command of the pooler."""
        return (_program("pgbouncer"), str(self.folder / "ini"))

    def answers(self) -> bool:
        """Look whether the user can log in."""
        url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/feedamp"
        return self.run(_postgresql("psql"), "--no-psqlrc", "-c", "SELECT 1", url).returncode == 0


class MariadbServer(DatabaseServer):
    """MariaDB, as Debian packages it."""

    conn_type = "mysql"
    account = "mysql"
    quit = signal.SIGTERM

    def create(self) -> None:
        """Lay out the data with one database and its user."""
        options = ("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
        self.must_run("mariadb-install-db", "--no-defaults", f"--datadir={self.folder}/data", *options)
        (self.folder / "init.sql").write_text(
            "CREATE DATABASE IF NOT EXISTS feedamp;\n"
            f"CREATE USER IF NOT EXISTS {USER}@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON feedamp.* TO {USER}@'%';\n"
            f"GRANT PROCESS ON *.* TO {USER}@'%';\n"  # to look for open transactions
        )
        (self.folder / "init.sql").chmod(0o644)

    def command(self) -> Sequence[str]:
        """Return the command of the server."""
        names = {
            "datadir": "data",
            "socket": "socket",
            "pid-file": "pid",
            "init-file": "init.sql",
        }
        files = (f"--{option}={self.folder / name}" for option, name in names.items())
        here = ("--bind-address=127.0.0.1", f"--port={self.port}", "--skip-name-resolve")
        return (_program("mariadbd"), "--no-defaults", *files, *here, "--innodb-flush-log-at-trx-commit=0")

    def answers(self) -> bool:
        """Look whether the user can log in."""
        here = ("-h", "127.0.0.1", "-P", str(self.port), "-u", USER, f"-p{PASSWORD}", "feedamp")
        return self.run("mariadb", "--no-defaults", *here, "-e", "SELECT 1").returncode == 0

    def administer(self, *statements: str) -> None:
        """Run statements as the server's administrator."""
        here = ("--no-defaults", "-S", str(self.folder / "socket"), "-u", "root", "feedamp")
        self.must_run("mariadb", *here, "-e", ";".join(statements))


class RedisServer(DatabaseServer):
    """Redis, as Debian packages it; it keeps nothing on disk."""

    conn_type = "redis"
    account = "redis"
    quit = signal.SIGTERM

    def create(self) -> None:
        """Nothing has to be laid out."""

    def command(self) -> Sequence[str]:
        """Return the command of the server."""
        here = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder))
        return (_program("redis-server"), *here, "--save", "", "--appendonly", "no")

    def answers(self) -> bool:
        """Look whether it answers a ping."""
        return self.run("redis-cli", "-p", str(self.port), "ping").stdout == "PONG\n"


Server = TypeVar("Server", bound=DatabaseServer)


@contextmanager
def served(kind: Callable[[Path], Server]) -> Iterator[Server]:
    """Serve a fresh database; once the block is left, the server and its data are gone."""
    # Not below pytest's own folders, which another account cannot enter; short, for the sockets' names.
    with tempfile.TemporaryDirectory(prefix="feedamp-database-") as folder:
        server = kind(Path(folder))
        try:
            server.create()
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """Serve one PostgreSQL for all tests."""
    _need("PostgreSQL")
    with served(PostgresqlServer) as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgresql: PostgresqlServer) -> Iterator[Pgbouncer]:
    """Serve one pgbouncer before the PostgreSQL of all tests."""
    _need("pgbouncer")
    with served(partial(Pgbouncer, target=postgresql)) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariadbServer]:
    """Serve one MariaDB for all tests."""
    _need("MariaDB")
    with served(MariadbServer) as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """Serve one Redis for all tests."""
    _need("Redis")
    with served(RedisServer) as server:
        yield server


def missing() -> list[str]:
    """Return the servers that this machine lacks, with their drivers, and whose tests are left out."""
    return [name for name in _needed() if _lacking(name)]


def _needed() -> dict[str, tuple[str, str]]:
    """Return the program and the Python module that the tests of each server need."""
    return {
        "PostgreSQL": (_postgresql("postgres"), "psycopg2"),
        "pgbouncer": (_program("pgbouncer"), "psycopg2"),
        "MariaDB": (_program("mariadbd"), "MySQLdb"),
        "Redis": (_program("redis-server"), "redis"),
    }


def _need(server: str) -> None:
    """Skip the test when a server or its driver is missing; where CI runs, that is a failure."""
    if os.environ.get("FEEDAMP_TEST_DATABASES") == "no":
        pytest.skip("FEEDAMP_TEST_DATABASES=no: other cells of the matrix test the database servers")
    if lacking := _lacking(server):
        reason = f"This machine lacks {' and '.join(lacking)}. {PACKAGES}"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason)
        pytest.skip(reason)


def _lacking(server: str) -> list[str]:
    program, driver = _needed()[server]
    found = {
        f"the program {program}": shutil.which(program),
        f"the Python module {driver}": find_spec(driver),
    }
    return [name for name, there in found.items() if not there]


def _postgresql(program: str) -> str:
    """Return the newest of the versions that Debian installs beside each other."""
    found = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: float(path.parts[4])
    )
    return str(found[-1]) if found else program


def _program(name: str) -> str:
    return shutil.which(name) or shutil.which(f"/usr/sbin/{name}") or name


def free_port() -> int:
    """Return a port that no outgoing connection takes before its server does: those are from 32768 on."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
