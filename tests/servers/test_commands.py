"""The command line as a person or a script meets it: spawned for real, judged by exit code and output."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from everest.demo import accounts
from everest.demo.servers import Server, free_port
from tests.helpers import clean, compare, dump_all, wait_for

ROOT = Path(__file__).parent.parent.parent
QUICK = {"PYTHONDONTWRITEBYTECODE": ""}  # compiled modules may be kept
DONE, USAGE, REFUSED, UNREACHABLE, DAMAGED, STOPPED = 0, 2, 3, 4, 5, 130


@dataclass
class Home:
    """One installation of Everest in a folder."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"EVEREST_DATA": str(self.folder), "DJANGO_SETTINGS_MODULE": "everest.settings"} | QUICK

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        argv = [sys.executable, "manage.py", *arguments]
        return subprocess.Popen(argv, cwd=ROOT, env=self.environment | environment, **pipes)

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(stdin, timeout=60)
        return process.returncode, out, err

    def ask(self, *arguments: str) -> Any:
        """The JSON result of a command that must succeed."""
        code, out, err = self.run(*arguments, "--json")
        assert code == DONE, err
        return json.loads(out)

    def add(self, name: str, server: Server, *roles: str, pitr: bool = True) -> None:
        user, password = accounts.create(server, *roles)
        place = [f"--host={server.host}", f"--port={server.port}", f"--user={user}"]
        more = ["--pitr=shelf", "--interval=1"] if pitr else []
        code, _, err = self.run("add_database", name, *place, *more, EVEREST_SERVER_PASSWORD=password)
        assert code == DONE, err


@pytest.fixture(scope="module")
def migrated(tmp_path_factory) -> Path:
    home = Home(tmp_path_factory.mktemp("migrated"))
    assert home.run("migrate", "--verbosity=0")[0] == DONE
    return home.folder


@pytest.fixture
def home(migrated, tmp_path) -> Home:
    """A fresh installation."""
    return Home(Path(shutil.copytree(migrated, tmp_path / "home")))


def with_shelf(home: Home) -> Home:
    (home.folder / "storages" / "shelf").mkdir(parents=True)
    code, _, err = home.run("add_storage", "shelf", "--type=local", "--bucket=shelf")
    assert code == DONE, err
    return home


def sql(server: Server, *statements: str) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def content(server: Server) -> dict[str, Any]:
    with server.connect() as connection:
        return dump_all(connection)


@dataclass
class Stage:
    """A source with a backup, three transactions after it and a mistake; what it held just before that."""

    home: Home
    source: Server
    before: dict[str, Any]


@pytest.fixture(scope="module")
def stage(migrated, server, tmp_path_factory) -> Stage:
    home = with_shelf(Home(Path(shutil.copytree(migrated, tmp_path_factory.mktemp("stage") / "home"))))
    source = server("mysql_source")
    clean(source)
    sql(source, "CREATE DATABASE a", "CREATE TABLE a.t (id INT PRIMARY KEY, x TEXT)", "INSERT a.t VALUES (1, 'one')")
    home.add("source", source, "source")
    assert home.ask("backup", "source", "--name=first")["rows"] == 1
    sql(source, "INSERT a.t VALUES (2, 'two'), (3, 'three')", "UPDATE a.t SET x = 'drei' WHERE id = 3")
    before = content(source)
    sql(source, "DELETE FROM a.t", "CREATE TABLE a.later (id INT)")
    assert home.ask("ship", "source")["slices"] > 0
    return Stage(home, source, before)


@pytest.fixture(scope="module")
def registered(stage, server) -> Server:
    target = server("mysql_target")
    clean(target)
    stage.home.add("target", target, "source", "target", pitr=False)
    return target


@pytest.fixture
def target(registered) -> Server:
    """An empty server that is registered."""
    sql(registered, *(f"DROP DATABASE `{name}`" for name in content(registered)))
    return registered


# -- adding


def test_a_storage_takes_its_keys_from_standard_input_and_is_refused_with_wrong_ones(home, s3):
    place = [f"--bucket={s3.new_bucket()}", f"--region={s3.region}", f"--endpoint={s3.endpoint}", "--path-style"]
    code, out, err = home.run("add_storage", "cloud", *place, stdin=f"{s3.access_key}\nwrong-secret\n")
    assert code == REFUSED
    assert "was not added" in err and "wrong-secret" not in out + err
    code, out, _ = home.run("add_storage", "cloud", *place, stdin=f"{s3.access_key}\n{s3.secret_key}\n")
    assert code == DONE and "cloud works and is saved" in out


def test_a_missing_secret_a_wrong_name_and_an_unknown_database_are_errors_of_usage(home):
    assert home.run("add_storage", "cloud", "--bucket=b", "--region=r", "--endpoint=http://x")[0] == USAGE
    assert home.run("add_storage", "Cloud 9", "--type=local", "--bucket=b")[0] == USAGE
    code, _, err = home.run("backup", "nothing")
    assert code == USAGE and "There is no database named nothing. There is: none yet." in err


def test_a_database_with_a_wrong_password_is_refused_and_one_that_is_away_is_unreachable(home, mariadb_source):
    user, _ = accounts.create(mariadb_source, "source")
    place = ["--host=127.0.0.1", f"--port={mariadb_source.port}", f"--user={user}"]
    code, _, err = home.run("add_database", "one", *place, EVEREST_SERVER_PASSWORD="not-this")
    assert code in (REFUSED, UNREACHABLE) and "not-this" not in err
    away = ["--host=127.0.0.1", f"--port={free_port()}", "--user=u"]
    assert home.run("add_database", "one", *away, EVEREST_SERVER_PASSWORD="x")[0] == UNREACHABLE
    assert "There is: none yet." in home.run("timeline", "one")[2]


def test_a_database_without_its_privileges_is_refused_with_the_grant(home, mariadb_source):
    sql(mariadb_source, "CREATE USER poor@'%' IDENTIFIED BY 'p'", "GRANT SELECT ON *.* TO poor@'%'")
    place = ["--host=127.0.0.1", f"--port={mariadb_source.port}", "--user=poor"]
    code, out, _ = home.run("add_database", "one", *place, "--json", EVEREST_SERVER_PASSWORD="p")
    assert code == REFUSED
    answer = json.loads(out)
    assert answer["code"] == REFUSED and "GRANT" in answer["error"] and "REPLICATION SLAVE" in answer["error"]


# -- looking


def test_the_timeline_names_its_range_and_its_backup(stage):
    shown = stage.home.ask("timeline", "source")
    assert [one["name"] for one in shown["backups"]] == ["first"]
    assert len(shown["ranges"]) == 1 and shown["ranges"][0]["first"] < shown["ranges"][0]["last"]
    assert "Timeline 1: " in stage.home.run("timeline", "source")[1]


def listed(stage, *options: str) -> list[dict[str, Any]]:
    code, out, err = stage.home.run("transactions", "source", "--json", *options)
    assert code == DONE, err
    return [json.loads(line) for line in out.splitlines()]


def test_transactions_are_found_by_table_kind_and_time(stage):
    everything = listed(stage, "--table=a.t")
    changes = [{**one["changes"][0]} for one in everything]
    assert [(one["inserts"], one["updates"], one["deletes"]) for one in changes] == [(2, 0, 0), (0, 1, 0), (0, 0, 3)]
    assert [one["identity"] for one in listed(stage, "--kind=delete")] == [everything[2]["identity"]]
    assert "CREATE TABLE a.later" in listed(stage, "--kind=ddl")[0]["ddl"]
    second = everything[1]["time"].replace(" UTC", "Z")
    assert listed(stage, "--table=a.t", f"--from={second}", f"--to={second}") == [everything[1]]


def test_a_time_without_a_zone_is_an_error_of_usage(stage):
    code, _, err = stage.home.run("transactions", "source", "--from=2026-11-22 18:30:00")
    assert code == USAGE and "time zone" in err
    assert stage.home.run("transactions", "source", "--to=2000-01-01 18:30:00 Europe/Berlin")[0] == DONE


# -- restoring


def test_a_restore_to_just_before_a_delete_brings_every_row_back(stage, target):
    delete = listed(stage, "--kind=delete")[0]["identity"]
    code, out, err = stage.home.run("restore", "source", "--target=target", f"--before-gtid={delete}")
    assert code == DONE, err
    assert "target is restored" in out
    assert compare(stage.before, content(target)) == []


def test_a_restore_to_the_time_of_a_transaction_includes_it(stage, target):
    update = next(one for one in listed(stage, "--kind=update"))
    at = update["time"].replace(" UTC", "Z")
    code, _, err = stage.home.run("restore", "source", "--target=target", f"--to={at}")
    assert code == DONE, err
    assert compare(stage.before, content(target)) == []


def test_a_plan_shows_the_moment_and_touches_nothing(stage, target):
    code, out, err = stage.home.run("restore", "source", "--target=target", "--latest", "--plan")
    assert code == DONE, err
    assert "Base backup: first" in out and "CREATE TABLE a.later" in out and "Nothing was touched" in out
    assert content(target) == {}


def test_a_target_that_holds_schemas_is_replaced_only_by_name(stage, target):
    sql(target, "CREATE DATABASE precious", "CREATE TABLE precious.t (id INT)")
    for given in ([], ["--replace=source"]):
        code, _, err = stage.home.run("restore", "source", "--target=target", "--backup=first", *given)
        assert code == REFUSED and "precious" in err
        assert "precious" in content(target)
    code, _, err = stage.home.run("restore", "source", "--target=target", "--backup=first", "--replace=target")
    assert code == DONE, err
    assert set(content(target)) == {"a"}
    assert content(target)["a"]["tables"]["t"]["rows"] == [(b"1", b"one")]


def test_a_moment_that_is_not_covered_is_refused_with_the_range_that_is(stage, target):
    first = stage.home.ask("timeline", "source")["ranges"][0]["first"]
    code, _, err = stage.home.run("restore", "source", "--target=target", "--to=2001-01-01T00:00:00Z")
    assert code == REFUSED and first[:19].replace("T", " ") in err
    assert stage.home.run("restore", "source", "--target=target", "--to-gtid=nonsense")[0] in (USAGE, REFUSED)
    assert content(target) == {}


# -- the bucket


def test_the_catalogue_comes_back_from_the_bucket_alone_and_a_restore_works(stage, home, target):
    shutil.copytree(stage.home.folder / "storages", home.folder / "storages")
    assert home.run("add_storage", "shelf", "--type=local", "--bucket=shelf")[0] == DONE
    report = home.ask("catalog", "shelf")
    assert (report["databases"], report["timelines"], report["backups"]) == (1, 1, 1)
    home.add("target", target, "source", "target", pitr=False)
    code, _, err = home.run("restore", "source", "--target=target", "--backup=first")
    assert code == DONE, err
    assert content(target)["a"]["tables"]["t"]["rows"] == [(b"1", b"one")]


def test_verify_passes_and_tells_a_damaged_object(stage, home):
    assert stage.home.ask("verify", "source")["objects"] > 0
    shutil.copytree(stage.home.folder, home.folder, dirs_exist_ok=True)
    victim = next((home.folder / "storages").rglob("*.tsv.zst"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    code, _, err = home.run("verify", "source")
    assert code == DAMAGED and victim.name in err


# -- stopping


def test_a_signal_stops_a_backup_within_seconds_and_leaves_it_cancelled(home, mariadb_source):
    with_shelf(home).add("source", mariadb_source, "source")
    sql(mariadb_source, "CREATE DATABASE a", "CREATE TABLE a.t (id INT PRIMARY KEY)")
    with mariadb_source.connect() as blocker, blocker.cursor() as cursor:
        cursor.execute("LOCK TABLES a.t WRITE")
        process = home.start("backup", "source", "--name=stopped")
        at_work = "SELECT 1 FROM information_schema.processlist WHERE user LIKE 'everest%'"
        wait_for(lambda: cursor.execute(at_work), 10)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=15)
    assert process.returncode == STOPPED
    assert [one["state"] for one in home.ask("timeline", "source")["backups"]] == ["cancelled"]


def test_a_backup_that_cannot_begin_yet_does_nothing_and_says_so(stage, target):
    shell = "from backups.models import *; d = Database.objects.get(name='target'); "
    begin = "Restore.objects.create(source=d, target=d, moment='latest', state='running')"
    assert stage.home.run("shell", "-c", shell + begin)[0] == DONE
    code, _, err = stage.home.run("backup", "target", "--name=early", "--storage=shelf")
    stage.home.run("shell", "-c", shell + "Restore.objects.filter(state='running').delete()")
    assert code == UNREACHABLE and "is being restored into" in err
    backups = stage.home.ask("timeline", "target")["backups"]
    assert [one["state"] for one in backups if one["name"] == "early"] == ["cancelled"]
