"""A backup is one exact moment of the server, whatever is going on there meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backups.engine.archive import Archive
from backups.engine.errors import Refused, Stopped, Transient
from backups.engine.manifest import TableEntry
from backups.engine.mysql import ranges, reading, view
from backups.engine.mysql.gtid import executed
from backups.engine.mysql.preflight import preflight_source
from everest.demo.servers import Server
from tests.helpers import compare, dump_all, source_config, target_config, wait_for
from tests.servers.backups import Told, archive_in, back_up, put_back, script

FLAVOURS = pytest.mark.parametrize("flavour", ["mysql", "mariadb"])

BANK = (
    "CREATE DATABASE bank",
    "CREATE TABLE bank.a (id INT PRIMARY KEY, balance INT, writes INT)",
    "CREATE TABLE bank.b LIKE bank.a",
    "CREATE TABLE bank.transfers (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(10))",
    "INSERT INTO bank.a SELECT seq, 100, 0 FROM (SELECT 1 seq UNION SELECT 2 UNION SELECT 3 UNION SELECT 4) s",
    "INSERT INTO bank.b SELECT * FROM bank.a",
)


def pair(request: Any, flavour: str) -> tuple[Server, Server]:
    return request.getfixturevalue(f"{flavour}_source"), request.getfixturevalue(f"{flavour}_target")


@contextmanager
def background(*tasks: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run tasks until the block ends; an error of theirs is an error of the test."""
    over, errors = threading.Event(), []

    def run(task: Callable[[threading.Event], None]) -> None:
        try:
            task(over)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert errors == []


def transfer_money(server: Server, account: int) -> Callable[[threading.Event], None]:
    """Transactions that keep the sum of all balances, count themselves in both tables, and log one row each."""

    def work(over: threading.Event) -> None:
        with server.connect(autocommit=False) as connection, connection.cursor() as cursor:
            while not over.is_set():
                cursor.execute("UPDATE bank.a SET balance = balance - 1, writes = writes + 1 WHERE id = %s", (account,))
                cursor.execute("INSERT INTO bank.transfers (v) VALUES ('x')")
                cursor.execute("UPDATE bank.b SET balance = balance + 1, writes = writes + 1 WHERE id = %s", (account,))
                connection.commit()

    return work


@FLAVOURS
def test_all_tables_are_of_one_moment_and_its_position(flavour: str, request: Any, tmp_path: Path) -> None:
    source, _ = pair(request, flavour)
    script(source, BANK)
    archive, config = archive_in(tmp_path), source_config(source, tls="off")
    before = transactions(source)
    with unsynced(source), background(*(transfer_money(source, account) for account in (1, 2, 3, 4))):
        wait_for(lambda: count(source, "bank.transfers") > 20)
        manifests = [back_up(config, archive, threads=4) for _ in range(12)]
    for manifest in manifests:
        tables = {table.name: lines(archive, table) for table in manifest.schemas[0].tables}
        balance, writes = (sum(int(row[n]) for row in tables["a"] + tables["b"]) for n in (1, 2))
        # Every transaction up to the position is in the backup, and none after it.
        made = transactions(source, manifest.position["gtids"]) - before
        assert (balance, writes, len(tables["transfers"])) == (800, 2 * made, made)
    assert len({manifest.rows for manifest in manifests}) > 6


def lines(archive: Archive, table: TableEntry) -> list[list[bytes]]:
    text = b"".join(part for ref in table.objects for part in archive.read_data(ref))
    return [line.split(b"\t") for line in text.splitlines()]


@contextmanager
def unsynced(server: Server) -> Iterator[None]:
    """Many commits a second, so that one slips into any hole there is."""
    script(server, ["SET GLOBAL sync_binlog = 0", "SET GLOBAL innodb_flush_log_at_trx_commit = 0"])
    yield
    script(server, ["SET GLOBAL sync_binlog = 1", "SET GLOBAL innodb_flush_log_at_trx_commit = 1"])


def transactions(server: Server, gtids: str | None = None) -> int:
    """How many transactions a GTID set holds; on MariaDB the last one's number counts them."""
    if gtids is None:
        with server.connect() as connection, connection.cursor() as cursor:
            name = "gtid_executed" if server.flavour == "mysql" else "gtid_binlog_pos"
            cursor.execute(f"SELECT @@GLOBAL.{name}")
            gtids = cursor.fetchone()[0]
    if server.flavour == "mariadb":
        return int(gtids.rpartition("-")[2] or 0)
    return sum(1 + int(last or first) - int(first) for first, last in intervals(gtids))


def intervals(gtids: str) -> Iterator[tuple[str, str]]:
    for source in filter(None, gtids.replace("\n", "").split(",")):
        for run in source.split(":")[1:]:
            first, _, last = run.partition("-")
            yield first, last


def count(server: Server, table: str) -> int:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {table}")
        return int(cursor.fetchone()[0])


@FLAVOURS
def test_the_views_time_lies_between_the_commits_around_it(flavour: str, request: Any, tmp_path: Path) -> None:
    source, _ = pair(request, flavour)
    script(source, BANK)
    before = time.time()
    manifest = back_up(source_config(source, tls="off"), archive_in(tmp_path))
    assert before * 1e6 <= manifest.view_us <= time.time() * 1e6
    assert manifest.started_us <= manifest.view_us <= manifest.finished_us


@FLAVOURS
def test_a_large_table_is_several_objects_cut_between_rows(
    flavour: str, request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = pair(request, flavour)
    monkeypatch.setattr(reading, "OBJECT", 1 << 20)
    script(source, ["CREATE DATABASE big", "CREATE TABLE big.t (id INT AUTO_INCREMENT PRIMARY KEY, v LONGTEXT)"])
    script(source, ["INSERT INTO big.t (v) VALUES (REPEAT('a\\tb', 100000))"] * 20)
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(source, tls="off"), archive)
    assert len(manifest.schemas[0].tables[0].objects) >= 4
    put_back(target_config(target, tls="off"), target, archive, manifest)
    assert compare(dump_all(source.connect()), dump_all(target.connect())) == []


@FLAVOURS
def test_a_large_table_is_read_in_ranges_of_its_key(
    flavour: str, request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its numbers are, and in the order of the key: a table without such a key is read as a whole."""
    source, target = pair(request, flavour)
    monkeypatch.setattr(ranges, "RANGE", 1 << 13)
    monkeypatch.setattr(ranges, "SMALL", 1 << 13)
    keys = {"few": (1, 2), "odd": (-(2**63), -5, 0, 7, 2**63 - 1), "same": (9,), "many": range(0, 99, 3), "none": ()}
    script(source, ["CREATE DATABASE big"])
    for name, numbers in keys.items():
        script(source, [f"CREATE TABLE big.{name} (a BIGINT, b CHAR(1), v TEXT, PRIMARY KEY (a, b))"])
        script(source, [f"INSERT INTO big.{name} VALUES ({n}, 'x', 'v'), ({n}, 'y', NULL)" for n in numbers])
    script(source, ["CREATE TABLE big.words (a CHAR(3) PRIMARY KEY)", "INSERT INTO big.words VALUES ('a'), ('b')"])
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(source, tls="off"), archive, threads=3)
    tables = {table.name: table for table in manifest.schemas[0].tables}
    assert len(tables["many"].objects) > 1 and len(tables["words"].objects) == 1
    assert [int(row[0]) for row in lines(archive, tables["many"])] == [n for n in keys["many"] for _ in "xy"]
    put_back(target_config(target, tls="off"), target, archive, manifest)
    assert compare(dump_all(source.connect()), dump_all(target.connect())) == []


class Watch:
    """A clock that stands still but for who sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_limited_backup_waits_for_as_long_as_its_bytes_take(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, stops = Watch(), []
    monkeypatch.setattr(reading, "time", watch)
    pace = reading.Pace(1000)
    for _ in range(3):
        pace.take(500, lambda: stops.append(watch.now))
    assert watch.now == pytest.approx(1.5) and len(stops) > 3
    watch.now = 60  # what was not used is not saved up
    pace.take(1000, lambda: None)
    assert watch.now == pytest.approx(61)


def test_every_byte_of_a_limited_backup_is_counted(
    mysql_source: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[int, int]] = []
    monkeypatch.setattr(reading.Pace, "take", lambda pace, size, poll: taken.append((pace.rate, size)))
    script(mysql_source, BANK)
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(mysql_source, tls="off"), archive, rate=7)
    rows = [part for table in manifest.schemas[0].tables for ref in table.objects for part in archive.read_data(ref)]
    assert {rate for rate, _ in taken} == {7} and sum(size for _, size in taken) == sum(map(len, rows))


@FLAVOURS
def test_values_larger_than_a_packet_come_back(flavour: str, request: Any, tmp_path: Path) -> None:
    source, target = pair(request, flavour)
    for server in (source, target):
        script(server, ["SET GLOBAL max_allowed_packet = 134217728"])
    script(source, ["CREATE DATABASE big", "CREATE TABLE big.t (id INT PRIMARY KEY, j JSON, b LONGBLOB)"])
    # A row of 16777201 bytes fills a packet to the last byte, and an empty packet follows.
    for size in (16777200, 16777201, 16777202):
        script(source, [f"INSERT INTO big.t (id, b) VALUES ({size}, REPEAT('\\\\', {size}))"])
    script(source, ["INSERT INTO big.t (id, j) VALUES (1, JSON_QUOTE(REPEAT('x', 17000000)))"])
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(source, tls="off"), archive)
    put_back(target_config(target, tls="off"), target, archive, manifest)
    assert sums(target) == sums(source)


def sums(server: Server) -> tuple[Any, ...]:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, LENGTH(b), SHA2(b, 256), SHA2(j, 256) FROM big.t ORDER BY id")
        return tuple(cursor.fetchall())


def test_ddl_waits_for_the_backup_and_writers_do_not(mysql_source: Server, tmp_path: Path) -> None:
    """Not even the table that the waiting ALTER wants is kept from readers and writers."""
    script(mysql_source, BANK)
    config = source_config(mysql_source, tls="off")
    altered = threading.Thread(target=script, args=(mysql_source, ["ALTER TABLE bank.transfers ADD COLUMN c INT"]))

    class Watches(Told):
        def progress(self, *step: Any, **more: Any) -> None:
            if not self.steps:
                altered.start()
                wait_for(lambda: running(mysql_source, "ALTER TABLE bank", "Waiting for backup lock"))
                script(mysql_source, ["SET lock_wait_timeout = 1", "INSERT INTO bank.transfers (v) VALUES ('during')"])
                self.waiting = running(mysql_source, "ALTER TABLE bank", "Waiting for backup lock")
            super().progress(*step, **more)

    run = Watches()
    manifest = back_up(config, archive_in(tmp_path), run=run)
    altered.join()
    assert run.waiting and manifest.rows == 8


def test_ddl_that_comes_while_the_view_is_being_opened_does_not_fail(
    mysql_source: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DDL that waits for the backup lock holds what the global lock wants: MySQL would end it with error 1213."""
    script(mysql_source, BANK)
    original, create = view._lock, "CREATE TABLE bank.came (id INT PRIMARY KEY)"

    def create_table(over: threading.Event) -> None:
        script(mysql_source, [create, "INSERT INTO bank.came VALUES (1)"])

    def lock(*values: Any) -> bool:
        waits = lambda: running(mysql_source, create, "Waiting for backup lock")  # noqa: E731
        wait_for(lambda: waits() or there(mysql_source, "bank", "came"))
        return original(*values)

    monkeypatch.setattr(view, "_lock", lock)
    with background(create_table):
        manifest = back_up(source_config(mysql_source, tls="off"), archive_in(tmp_path))
    assert [table.name for table in manifest.schemas[0].tables] == ["a", "b", "came", "transfers"]


def there(server: Server, schema: str, table: str) -> bool:
    with server.connect() as connection, connection.cursor() as cursor:
        sql = "SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"
        return bool(cursor.execute(sql, (schema, table)))


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE bank.a ADD COLUMN c INT",
        "TRUNCATE TABLE bank.a",
        "RENAME TABLE bank.a TO bank.old, bank.other TO bank.a",
        "DROP TABLE bank.a",
    ],
)
@FLAVOURS
def test_ddl_that_does_not_wait_starts_the_backup_again(
    flavour: str, change: str, request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = pair(request, flavour)
    script(source, [*BANK, "CREATE TABLE bank.other LIKE bank.a"])
    monkeypatch.setattr(view, "hold_definitions", lambda *_: False)
    original, changed = reading.Reading.read, []

    def read(job: Any, readers: Any, schemas: Any, places: Any, *rest: Any) -> None:
        if places and not changed:
            changed.append(True)
            script(source, [change])
        original(job, readers, schemas, places, *rest)

    monkeypatch.setattr(reading.Reading, "read", read)
    archive, run = archive_in(tmp_path), Told()
    manifest = back_up(source_config(source, tls="off"), archive, run=run)
    assert any("starts again" in line for line in run.lines)
    put_back(target_config(target, tls="off"), target, archive, manifest)
    assert compare(dump_all(source.connect()), dump_all(target.connect())) == []


@FLAVOURS
def test_an_event_comes_back_though_its_sql_mode_does_not_parse_what_the_server_prints(
    flavour: str, request: Any, tmp_path: Path
) -> None:
    source, target = pair(request, flavour)
    event = "CREATE EVENT shop.`e` ON SCHEDULE EVERY 2 HOUR STARTS '2037-01-01' COMMENT ' ON COMPLETION NOT PRESERVE'"
    script(source, ["CREATE DATABASE shop", "SET sql_mode = 'HIGH_NOT_PRECEDENCE'", f"{event} DO SET @x = 1"])
    archive = archive_in(tmp_path)
    put_back(target_config(target, tls="off"), target, archive, back_up(source_config(source, tls="off"), archive))
    assert compare(dump_all(source.connect()), dump_all(target.connect())) == []


@FLAVOURS
def test_a_prepared_xa_branch_is_waited_for_then_refused_by_name(
    flavour: str, request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = pair(request, flavour)
    script(source, BANK)
    prepared = ["XA START 'branch-7'", "INSERT INTO bank.transfers (v) VALUES ('xa')", "XA END 'branch-7'"]
    script(source, [*prepared, "XA PREPARE 'branch-7'"])
    monkeypatch.setattr(view, "PATIENCE", 1.0)
    config, archive = source_config(source, tls="off"), archive_in(tmp_path)
    with pytest.raises(Refused, match="branch-7"):
        back_up(config, archive)
    assert list(archive.manifests()) == []
    monkeypatch.setattr(view, "PATIENCE", 30.0)

    class Ends(Told):
        def log(self, line: str) -> None:
            super().log(line)
            if "branch-7" in line:
                script(source, ["XA COMMIT 'branch-7'"])

    run = Ends()
    assert back_up(config, archive, run=run).rows == 9
    assert any("branch-7" in line for line in run.lines)


def test_a_long_query_delays_the_backup_and_no_writer(
    mysql_source: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLUSH TABLES waits for the query; after a second it gives up, and must let go of the writers it stopped."""
    script(mysql_source, BANK)
    monkeypatch.setattr(view, "PATIENCE", 1.0)
    config, waits = source_config(mysql_source, tls="off"), []

    def slow_query(over: threading.Event) -> None:
        script(mysql_source, ["SELECT COUNT(*) FROM bank.a WHERE SLEEP(1.25) = 0"])

    def writer(over: threading.Event) -> None:
        while not over.is_set():
            started = time.monotonic()
            script(mysql_source, ["INSERT INTO bank.transfers (v) VALUES ('w')"])
            waits.append(time.monotonic() - started)

    with background(slow_query):
        wait_for(lambda: running(mysql_source, "SLEEP(1.25)"))
        with background(writer), pytest.raises(Transient, match="No lock was had"):
            back_up(config, archive_in(tmp_path))
        assert running(mysql_source, "SLEEP(1.25)")
    assert 0.5 < max(waits) < 2.5


def running(server: Server, text: str, state: str = "%") -> bool:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST"
            " WHERE INFO LIKE %s AND STATE LIKE %s AND ID <> CONNECTION_ID()",
            (f"%{text}%", state),
        )
        return bool(cursor.fetchone()[0])


@FLAVOURS
def test_texts_of_other_sessions_do_not_matter(flavour: str, request: Any, tmp_path: Path) -> None:
    """MySQL's older list of sessions fails as soon as one runs a text with an emoji."""
    source, _ = pair(request, flavour)
    script(source, BANK)
    config = source_config(source, tls="off")
    with background(lambda over: script(source, ["SELECT SLEEP(4), '😀'"])):
        wait_for(lambda: shown(source, "SELECT SLEEP"))
        assert [check for check in preflight_source(config) if check.name == "Server"] == []
        assert back_up(config, archive_in(tmp_path)).rows


def shown(server: Server, text: str) -> bool:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW PROCESSLIST")
        return any(str(row[7] or "").startswith(text) for row in cursor.fetchall())


def without(server: Server, config: Any, *names: str) -> None:
    script(server, [f"REVOKE {', '.join(names)} ON *.* FROM '{config.user}'@'%'"])


@FLAVOURS
def test_lock_tables_takes_the_place_of_a_lock_that_is_not_granted(flavour: str, request: Any, tmp_path: Path) -> None:
    source, target = pair(request, flavour)
    script(source, BANK)
    config = source_config(source, tls="off")
    without(source, config, *(("FLUSH_TABLES", "BACKUP_ADMIN") if flavour == "mysql" else ("RELOAD",)))
    archive = archive_in(tmp_path)
    with background(*(transfer_money(source, account) for account in (1, 2))):
        wait_for(lambda: count(source, "bank.transfers") > 5)
        manifest = back_up(config, archive)
    put_back(target_config(target, tls="off"), target, archive, manifest)
    with target.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT SUM(balance), SUM(writes) FROM (SELECT * FROM bank.a UNION ALL SELECT * FROM bank.b) x")
        assert cursor.fetchone() == (800, 2 * count(target, "bank.transfers"))


@FLAVOURS
def test_no_lock_at_all_is_refused_with_what_to_grant(flavour: str, request: Any, tmp_path: Path) -> None:
    source, _ = pair(request, flavour)
    script(source, BANK)
    config = source_config(source, tls="off")
    without(source, config, "LOCK TABLES", "FLUSH_TABLES" if flavour == "mysql" else "RELOAD")
    archive = archive_in(tmp_path)
    with pytest.raises(Refused, match=rf"GRANT RELOAD ON \*\.\* TO '{config.user}'@'%'"):
        back_up(config, archive)
    assert list(archive.manifests()) == []


def test_no_backup_lies_where_numbers_have_gone_back(mariadb_source: Server, tmp_path: Path) -> None:
    """Its position would stand for an earlier moment than its rows do."""
    script(mariadb_source, BANK)
    archive, config = archive_in(tmp_path), source_config(mariadb_source, tls="off")
    with mariadb_source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@GLOBAL.gtid_binlog_pos")
        number = int(cursor.fetchone()[0].rpartition("-")[2])
    script(mariadb_source, ["SET server_id = 4242", f"SET gtid_seq_no = {number}", "DELETE FROM bank.a WHERE id = 1"])
    with pytest.raises(Refused, match="out of order"):
        back_up(config, archive)
    assert list(archive.manifests()) == []
    script(mariadb_source, ["DELETE FROM bank.a WHERE id = 2"])
    assert back_up(config, archive).rows == 6


@FLAVOURS
def test_a_stop_ends_a_backup_and_leaves_no_manifest(flavour: str, request: Any, tmp_path: Path) -> None:
    source, _ = pair(request, flavour)
    script(source, BANK)
    archive = archive_in(tmp_path)
    with pytest.raises(Stopped):
        back_up(source_config(source, tls="off"), archive, run=Told(stop_at="read view is open"))
    assert list(archive.manifests()) == []


@FLAVOURS
def test_counters_are_those_of_the_view(
    flavour: str, request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids that were used and deleted between the reading of definitions and the view are not given out again.

    InnoDB's own list of counters knows names in ASCII only, and no partitioned tables.
    """
    source, target = pair(request, flavour)
    used, names = [f"bank.{name}" for name in ("transfers", "`日ü`", "parts", "isam")], ["bank.fresh"]
    script(
        source,
        [
            *BANK,
            "CREATE TABLE bank.`日ü` LIKE bank.transfers",
            "CREATE TABLE bank.fresh LIKE bank.transfers",
            "CREATE TABLE bank.parts (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(10)) PARTITION BY HASH (id)",
            "CREATE TABLE bank.isam (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(10)) ENGINE = MyISAM",
            *(f"INSERT INTO {name} (v) VALUES ('a')" for name in used),
        ],
    )

    def last_moment(*_: Any) -> None:
        for name in used + names:
            script(source, [f"INSERT INTO {name} (v) VALUES ('b'), ('c')", f"DELETE FROM {name}"])

    monkeypatch.setattr(view, "_wait_for_queries", last_moment)
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(source, tls="off"), archive)
    put_back(target_config(target, tls="off"), target, archive, manifest)
    found = {}
    with target.connect() as connection, connection.cursor() as cursor:
        for name in used + names:
            cursor.execute(f"INSERT INTO {name} (v) VALUES ('d')")
            found[name] = cursor.lastrowid
    assert found == dict.fromkeys(used, 4) | dict.fromkeys(names, 3)


def test_a_server_without_gtids_gives_file_and_offset(mysql_files: Server, tmp_path: Path) -> None:
    script(mysql_files, BANK)
    manifest = back_up(source_config(mysql_files, tls="off"), archive_in(tmp_path))
    assert manifest.position["gtids"] is None
    assert manifest.position["file"].startswith("binlog.") and manifest.position["pos"] > 157


def test_the_position_is_the_set_of_executed_transactions(mysql_source: Server, tmp_path: Path) -> None:
    script(mysql_source, BANK)
    manifest = back_up(source_config(mysql_source, tls="off"), archive_in(tmp_path))
    with mysql_source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@GLOBAL.gtid_executed")
        assert executed(manifest.position["gtids"]) == executed(cursor.fetchone()[0])


@FLAVOURS
def test_a_server_without_schemas_has_a_backup_too(flavour: str, request: Any, tmp_path: Path) -> None:
    source, target = pair(request, flavour)
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(source, tls="off"), archive)
    script(target, ["CREATE DATABASE old"])
    put_back(target_config(target, tls="off"), target, archive, manifest, replace=True)
    assert manifest.schemas == () and dump_all(target.connect()) == {}


@pytest.mark.parametrize("name", ["SELECT", "TRIGGER", "EVENT"])
@FLAVOURS
def test_what_the_account_cannot_see_is_not_left_out_silently(
    flavour: str, name: str, request: Any, tmp_path: Path
) -> None:
    """Without EVENT a server answers as if there were no events, without SELECT as if there were no schema."""
    source, _ = pair(request, flavour)
    script(source, [*BANK, "CREATE EVENT bank.e ON SCHEDULE EVERY 1 DAY DO DO 1"])
    config = source_config(source, tls="off")
    without(source, config, name)
    script(source, [f"GRANT {name} ON bank.a TO '{config.user}'@'%'"] if name != "EVENT" else [])
    with pytest.raises(Refused, match=rf"GRANT {name} ON \*\.\* TO"):
        back_up(config, archive_in(tmp_path))


def test_a_schema_that_partial_revokes_hide_is_not_left_out_silently(mysql_source: Server, tmp_path: Path) -> None:
    config = source_config(mysql_source, tls="off")
    hidden = ["SET GLOBAL partial_revokes = ON", f"REVOKE SELECT ON bank.* FROM '{config.user}'@'%'"]
    try:
        script(mysql_source, [*BANK, *hidden])
        with pytest.raises(Refused, match="SELECT"):
            back_up(config, archive_in(tmp_path))
    finally:
        script(mysql_source, [f"DROP USER '{config.user}'@'%'", "SET GLOBAL partial_revokes = OFF"])
