"""`make demo`: a real server loses a table by mistake, and gets it back exactly.

Everything lies in build/demo, which every run makes anew; what an earlier run left behind is ended first.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from everest.demo import accounts, s3, servers, shop
from everest.demo.compare import compare, dump_all
from everest.demo.manage import Manage, StepFailed

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "build" / "demo"
MISTAKE = "DROP TABLE shop.reviews"
USER = "admin"


def say(text: str) -> None:
    print(text, flush=True)


class Story:
    """One telling; `tell` runs the steps in order, `end` stops whatever was started."""

    def __init__(self, storage: str, port: int) -> None:
        self.storage, self.port = storage, port
        self.password = secrets.token_urlsafe(9)
        self.manage = Manage(FOLDER, say)
        self.s3: s3.S3 | None = None
        self.source: servers.Server
        self.target: servers.Server
        self.application: shop.Application | None = None
        self.running: list[servers.Server] = []
        self.noted: dict[str, Any] = {}
        self.dropped: dict[str, Any] = {}

    def tell(self) -> None:
        """Raises StepFailed naming the step."""
        steps: list[tuple[str, Callable[[], None]]] = [
            ("Start two database servers, and prepare the metadata (SQLite)", self.start_servers),
            ("Open a shop that keeps taking orders", self.open_shop),
            ("Start the web server and the workers", self.start_everest),
            ("Add a Backup Storage", self.add_storage),
            ("Add both servers as Databases", self.add_databases),
            ("Take a backup", self.back_up),
            ("Ship slices of the log", self.see_slices),
            ("Note every table, then drop one by mistake", self.make_mistake),
            ("Find the DROP in the slices", self.find_mistake),
            ("Restore to just before it, into the second server", self.restore),
            ("Compare definitions and every row", self.prove),
        ]
        for title, step in steps:
            say(f"- {title}")
            try:
                step()
            except (StepFailed, servers.ServerUnavailable, OSError) as error:
                raise StepFailed(f'The step "{title}" failed: {error}') from error

    # -- the steps

    def start_servers(self) -> None:
        installation = self.installation()
        say(f"  {installation.flavour} {installation.version}")
        with ThreadPoolExecutor() as pool:
            prepared = pool.submit(self.prepare)
            starting = [pool.submit(servers.start, installation, FOLDER / name) for name in ("source", "target")]
            self.running = [one.result() for one in starting]
            prepared.result()
        self.source, self.target = self.running

    def prepare(self) -> None:
        self.manage("migrate", "--verbosity=0", quiet=True)
        login = {"DJANGO_SUPERUSER_PASSWORD": self.password}
        self.manage("createsuperuser", "--noinput", f"--username={USER}", "--email=", quiet=True, **login)

    def installation(self) -> servers.Installation:
        try:
            return servers.mysql(say)
        except servers.ServerUnavailable as error:
            say(f"  {error} MariaDB takes its place.")
            return servers.mariadb(say)

    def open_shop(self) -> None:
        shop.create(self.source)
        self.application = shop.Application(self.source)
        self.application.start()

    def start_everest(self) -> None:
        self.manage.start("web", "-m", "gunicorn", "everest.wsgi", "--threads=8", f"--bind=127.0.0.1:{self.port}")
        self.manage.start("worker", "manage.py", "worker")
        wait_until_open(self.port, self.manage)

    def add_storage(self) -> None:
        if self.storage == "local":
            (FOLDER / "storages" / "shelf").mkdir(parents=True)
            self.manage("add_storage", "shelf", "--type=local", "--bucket=shelf")
            return
        self.s3 = s3.start(FOLDER / "s3", say)
        self.manage.remember("s3", self.s3.pid)
        place = (f"--bucket={self.s3.new_bucket()}", f"--region={self.s3.region}", f"--endpoint={self.s3.endpoint}")
        keys = {"EVEREST_STORAGE_ACCESS_KEY": self.s3.access_key, "EVEREST_STORAGE_SECRET_KEY": self.s3.secret_key}
        self.manage("add_storage", "shelf", *place, "--path-style", **keys)

    def add_databases(self) -> None:
        self.add_database("shop", self.source, "source")
        self.add_database("shop-copy", self.target, "source", "target")

    def add_database(self, name: str, server: servers.Server, *roles: str) -> None:
        """PITR is on for both: what is restored into is worth protecting as well."""
        user, password = accounts.create(server, *roles)
        authority = FOLDER / f"{name}-ca.pem"
        authority.write_text(server.ca)
        place = (f"--host={server.host}", f"--port={server.port}", f"--user={user}", f"--ca-certificate={authority}")
        pitr = ("--pitr=shelf", "--interval=1")
        self.manage("add_database", name, *place, *pitr, EVEREST_SERVER_PASSWORD=password)

    def back_up(self) -> None:
        self.manage("backup", "shop", "--name=first")

    def see_slices(self) -> None:
        """The workers ship by themselves; a transaction of after the backup shows up in the indexes."""
        found = self.manage.until_listed("transactions", "shop", "--table=shop.orders")
        say(f"  {len(found)} transactions of the shop in the storage")

    def make_mistake(self) -> None:
        assert self.application
        with self.application.paused(), self.source.connect() as connection:
            self.noted = dump_all(connection)
            with connection.cursor() as cursor:
                cursor.execute(MISTAKE)
            before = self.application.orders
        tables = self.noted["shop"]["tables"]
        say(f"  {len(tables)} tables, {sum(len(table['rows']) for table in tables.values()):,} rows; {MISTAKE}")
        wait_until(lambda: self.application.orders > before + 10, "the shop to go on")

    def find_mistake(self) -> None:
        found = self.manage.until_listed("transactions", "shop", "--kind=ddl", holding="DROP TABLE")
        if len(found) != 1:
            raise StepFailed(f"One DROP was made, but {len(found)} were found: {found}")
        self.dropped = found[0]
        say(f"  {self.dropped['time']}  {self.dropped['identity']}  {self.dropped['ddl']}")

    def restore(self) -> None:
        self.manage("restore", "shop", "--target=shop-copy", f"--before-gtid={self.dropped['identity']}")

    def prove(self) -> None:
        prove(self.noted, self.target)

    def end(self) -> None:
        if self.application and self.application.is_alive():
            self.application.stop()
        self.manage.end()
        for server in self.running:
            server.kill()
        if self.s3:
            self.s3.stop()


def prove(noted: dict[str, Any], server: servers.Server) -> None:
    """Raise StepFailed with the differences between what was noted and what the server holds."""
    with server.connect() as connection:
        differences = compare(noted, dump_all(connection))
    if differences:
        more = f" (and {len(differences) - 5} more)" if len(differences) > 5 else ""
        raise StepFailed(f"The restored server is not what it was: {'; '.join(differences[:5])}{more}")


def wait_until(condition: Callable[[], object], what: str, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise StepFailed(f"Waited {timeout:g} s for {what}.")
        time.sleep(0.05)


def wait_until_open(port: int, manage: Manage) -> None:
    def opened() -> bool:
        manage.check_alive()
        return servers.listening(port)

    wait_until(opened, f"http://127.0.0.1:{port}")


def clear() -> None:
    """End what an earlier run left behind, by the pids it wrote down, and begin with an empty folder."""
    Manage(FOLDER, say).end_left_behind()
    for name in ("source", "target"):
        servers.end_left_behind(FOLDER / name)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--storage", choices=["local", "s3"], default="local")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--once", action="store_true", help="Exit when the story is told")
    options = parser.parse_args()
    clear()
    if servers.listening(options.port):
        say(f"Port {options.port} is taken. Choose another: make demo PORT={options.port + 1}")
        return 1
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, signal.default_int_handler)
    story, began = Story(options.storage, options.port), time.monotonic()
    try:
        story.tell()
        say(f"Every definition and every row is as it was just before the mistake ({time.monotonic() - began:.0f} s).")
        if not options.once:
            say(f"The dashboard: http://127.0.0.1:{options.port}  user {USER}, password {story.password}")
            say("The shop goes on. Ctrl-C ends everything.")
            signal.pause()
    except StepFailed as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("Stopping")
        return 0 if not options.once else 130
    finally:
        story.end()
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
