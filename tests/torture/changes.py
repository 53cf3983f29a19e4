"""Features: changes of rows, and the many ways in which sessions make them.

What a replica itself may get wrong is not made: in STATEMENT format no LIMIT without ORDER BY, no UUID(), no tables
that several sessions share, no INSERT ... SELECT into keys that others draw from at the same time.
"""

from __future__ import annotations

from tests.torture.history import AfterBackup, Load, Reconnect, Step, Table, World, feature, quoted, text
from tests.torture.tables import insert

SHARED = "shared"


def assignment(world: World, table: Table) -> str:
    if not table.columns or world.chance.random() < 0.2:
        return "n = n + 1000000"
    one = world.chance.choice(table.columns)
    return f"{quoted(one.name)} = {one.value(world.chance)}"


def some(world: World) -> str:
    """A condition that holds for some of a table's rows."""
    of = world.chance.randint(2, 4)
    return f"n % {of} = {world.chance.randrange(of)}"


def update(world: World, table: Table) -> str:
    return f"UPDATE {table} SET {assignment(world, table)} WHERE {some(world)}"


def delete(world: World, table: Table) -> str:
    return f"DELETE FROM {table} WHERE {some(world)} AND n % 3 = 0"


def change(world: World) -> str:
    """Any one statement on any transactional table."""
    return world.chance.choice((insert, update, update, delete))(world, world.pick())


@feature("insert", repeatable=True)
def inserts(world: World) -> list[Step]:
    return [insert(world, world.pick(transactional=False)) for _ in range(3)]


@feature("update", repeatable=True)
def updates(world: World) -> list[Step]:
    return [update(world, world.pick(transactional=False)) for _ in range(3)]


@feature("delete", repeatable=True)
def deletes(world: World) -> list[Step]:
    return [delete(world, world.pick(transactional=False)) for _ in range(2)]


@feature("transaction over several tables", repeatable=True)
def transaction(world: World) -> list[Step]:
    return ["BEGIN", *(change(world) for _ in range(world.chance.randint(2, 8))), "COMMIT"]


@feature("change of a key", repeatable=True)
def key_change(world: World) -> list[Step]:
    table = world.pick(key=True)
    return [
        insert(world, table, rows=3),
        f"UPDATE {table} SET id = id + 100000 WHERE {some(world)} ORDER BY id DESC",
        insert(world, table),
    ]


@feature("replace", avoid=("partial",))
def replacing(world: World) -> list[Step]:
    """In a minimal image MariaDB logs only the named columns of the row that took another's place."""
    table = world.pick(key=True)
    return [insert(world, table), f"REPLACE INTO {table} (id, n) VALUES (1, {world.number()}), (2, {world.number()})"]


@feature("insert on duplicate key update")
def upsert(world: World) -> list[Step]:
    table = world.pick(key=True)
    values = f"(1, {world.number()}), (2, {world.number()}), (99999, {world.number()})"
    return [f"INSERT INTO {table} (id, n) VALUES {values} ON DUPLICATE KEY UPDATE n = n + 1000000"]


@feature("insert ignore")
def ignoring(world: World) -> list[Step]:
    table = world.pick(key=True)
    return [f"INSERT IGNORE INTO {table} (id, n) VALUES (1, {world.number()}), (77777, {world.number()})"]


@feature("insert select in order")
def insert_select(world: World) -> list[Step]:
    source, table = world.pick(), world.pick(key=True)
    return [f"INSERT INTO {table} (n) SELECT n + 2000000 FROM {source} ORDER BY n DESC LIMIT 7"]


@feature("update of several tables", repeatable=True)
def update_many(world: World) -> list[Step]:
    first, second = world.pick(), world.pick()
    if first is second:
        return [update(world, first)]
    return [f"UPDATE {first} a JOIN {second} b ON a.n % 3 = b.n % 3 SET a.n = a.n + 5000000, b.n = b.n + 6000000"]


@feature("delete from several tables", repeatable=True)
def delete_many(world: World) -> list[Step]:
    first, second = world.pick(), world.pick()
    if first is second:
        return [delete(world, first)]
    return [
        f"USE {quoted(first.schema)}",
        f"DELETE a, b FROM {first} a JOIN {second} b ON a.n % 7 = b.n % 7 WHERE a.n % 7 = 3",
    ]


@feature("savepoints", repeatable=True)
def savepoints(world: World) -> list[Step]:
    return [
        "BEGIN", change(world), "SAVEPOINT a", change(world), "SAVEPOINT `b c`", change(world), "ROLLBACK TO a",
        change(world), "SAVEPOINT a", change(world), "RELEASE SAVEPOINT a", change(world), "COMMIT",
    ]  # fmt: skip


@feature("rollback", repeatable=True)
def rollback(world: World) -> list[Step]:
    return ["BEGIN", change(world), change(world), "ROLLBACK", change(world)]


@feature("empty transaction", repeatable=True)
def empty(world: World) -> list[Step]:
    return ["BEGIN", f"DELETE FROM {world.pick()} WHERE n < -5", "COMMIT", "BEGIN", "COMMIT"]


@feature("temporary table")
def temporary(world: World) -> list[Step]:
    """In STATEMENT format it is in the log, and lives in the session over everything between."""
    name, table = quoted(world.name("tmp")), world.pick(key=True)
    return [
        f"USE {quoted(table.schema)}", "SET SESSION binlog_format = STATEMENT",
        f"CREATE TEMPORARY TABLE {name} (a INT)",
        f"INSERT INTO {name} VALUES ({world.number()}), ({world.number()})", change(world),
        f"INSERT INTO {table} (n) SELECT a FROM {name} ORDER BY a", f"DROP TEMPORARY TABLE {name}",
        "SET SESSION binlog_format = DEFAULT",
    ]  # fmt: skip


@feature("temporary table of a row session")
def temporary_rows(world: World) -> list[Step]:
    name, table = f"{quoted(world.schema())}.{quoted(world.name('tmp'))}", world.pick(key=True)
    return [
        f"CREATE TEMPORARY TABLE {name} (a INT)", "BEGIN", f"INSERT INTO {name} VALUES ({world.number()})",
        f"INSERT INTO {table} (n) SELECT a FROM {name}", "COMMIT", f"DROP TEMPORARY TABLE {name}",
    ]  # fmt: skip


@feature("temporary table that ends with its session")
def temporary_left(world: World) -> list[Step]:
    name, table = quoted(world.name("tmp")), world.pick(key=True)
    return [
        f"USE {quoted(table.schema)}", "SET SESSION binlog_format = STATEMENT",
        f"CREATE TEMPORARY TABLE {name} (a INT)",
        f"INSERT INTO {name} VALUES ({world.number()})", f"INSERT INTO {table} (n) SELECT a FROM {name}", Reconnect(),
    ]  # fmt: skip


@feature("load data", repeatable=True)
def load_data(world: World) -> list[Step]:
    table = world.pick(key=True)
    lines = "".join(f"{world.number()}|x\n" for _ in range(world.chance.choice((3, 3000))))
    options = "CHARACTER SET latin1 FIELDS TERMINATED BY '|' (n, @x)"
    return [Load(f"LOAD DATA LOCAL INFILE '<file>' IGNORE INTO TABLE {table} {options}", lines)]


@feature("large transaction")
def large(world: World) -> list[Step]:
    table = world.pick(key=True)
    lines = ", ".join(f"({world.number()})" for _ in range(1500))
    return ["BEGIN", f"INSERT INTO {table} (n) VALUES {lines}", update(world, table), change(world), "COMMIT"]


@feature("large row")
def large_row(world: World) -> list[Step]:
    name = f"{quoted(world.schema())}.{quoted(world.name('big'))}"
    value = f"REPEAT({text('0123456789ü')}, {world.chance.choice((30_000, 300_000))})"
    return [
        f"CREATE TABLE {name} (id INT PRIMARY KEY, v LONGTEXT)", f"INSERT INTO {name} VALUES (1, {value}), (2, 'x')",
        f"UPDATE {name} SET v = CONCAT(v, 'y')", f"DELETE FROM {name} WHERE id = 2",
    ]  # fmt: skip


@feature("value above 16 MB", rare=True, avoid=("names",))
def huge_value(world: World) -> list[Step]:
    """More than one packet of the protocol holds."""
    name = f"{quoted(world.schema())}.{quoted(world.name('huge'))}"
    size = world.chance.choice((16_777_210, 16_777_216, 20_000_000))
    return [
        f"CREATE TABLE {name} (id INT PRIMARY KEY, b LONGBLOB, v LONGTEXT)",
        f"INSERT INTO {name} VALUES (1, REPEAT(X'00FF5C09', {size // 4 + 1}), 'x')",
        f"INSERT INTO {name} (id) VALUES (2)",
        f"UPDATE {name} SET v = REPEAT('y\t', 50) WHERE id = 1", f"UPDATE {name} SET b = NULL, id = 9 WHERE id = 1",
        f"INSERT INTO {name} VALUES (3, X'5C', REPEAT({text('ü')}, {size // 2}))",
    ]  # fmt: skip


@feature("transaction above 32 MiB", rare=True, avoid=("names",))
def huge_transaction(world: World) -> list[Step]:
    name = f"{quoted(world.schema())}.{quoted(world.name('huge'))}"
    rows = ", ".join(f"({n}, REPEAT(X'{n:02x}E9', 500000))" for n in range(40))
    return [
        f"CREATE TABLE {name} (id INT PRIMARY KEY, b LONGBLOB)", "BEGIN",
        f"INSERT INTO {name} VALUES {rows}", change(world),
        f"UPDATE {name} SET id = id + 100 WHERE id % 3 = 0", f"DELETE FROM {name} WHERE id % 2", "COMMIT",
    ]  # fmt: skip


@feature("user variables and random numbers", repeatable=True)
def variables(world: World) -> list[Step]:
    table = world.pick()
    return [
        f"SET @u = {world.number()}, @d = 12.340, @n = NULL, @f = 1e0 / 3, @s = _latin1 X'e9', @neg = -5",
        f"UPDATE {table} SET n = n + 7000000 WHERE n % 5 = @u % 5 OR n = @neg OR n = @f OR n = @d",
        f"INSERT INTO {table} (n) VALUES (100000 + FLOOR(RAND() * 1000000) * 100)",
        f"INSERT INTO {table} (n) VALUES (200000000 + @u + LENGTH(@s) + LAST_INSERT_ID() % 10000 * 10000)",
    ]


@feature("rows of the moment", repeatable=True)
def clock(world: World) -> list[Step]:
    name = f"{quoted(world.schema())}.{quoted(world.name('now'))}"
    return [
        f"CREATE TABLE {name} (id INT AUTO_INCREMENT PRIMARY KEY, d DATETIME(6), ts TIMESTAMP(3) NULL, v VARCHAR(90))",
        f"INSERT INTO {name} (d, ts, v) VALUES (NOW(6), NOW(), CONNECTION_ID())",
        f"INSERT INTO {name} (d, ts, v) VALUES (UTC_TIMESTAMP(), NULL, DAYNAME(NOW()))",
        f"INSERT INTO {name} (d, v) VALUES (CURDATE(), LENGTH(CURTIME()))",
    ]


@feature("partial JSON update", only="mysql")
def partial_json(world: World) -> list[Step]:
    name = f"{quoted(world.schema())}.{quoted(world.name('j'))}"
    return [
        f"CREATE TABLE {name} (id INT PRIMARY KEY, j JSON)",
        f"""INSERT INTO {name} VALUES (1, JSON_OBJECT('a', REPEAT('x', 500), 'b', 1)), (2, '[1, 2, 3]')""",
        "SET SESSION binlog_row_value_options = PARTIAL_JSON, binlog_row_image = MINIMAL",
        f"UPDATE {name} SET j = JSON_SET(j, '$.b', {world.number()}) WHERE id = 1",
        f"UPDATE {name} SET j = JSON_ARRAY_APPEND(j, '$', 4), j = JSON_REMOVE(j, '$[0]') WHERE id = 2",
        "SET SESSION binlog_row_value_options = DEFAULT, binlog_row_image = DEFAULT",
    ]


def branch(world: World) -> str:
    name = f"b{world.session}-{world.number()}"
    return world.chance.choice((f"'{name}'", f"'{name}','q',7", f"X'{name.encode().hex()}00ff27'"))


def prepared(world: World, name: str) -> list[Step]:
    """No AUTO_INCREMENT is drawn: a replica does that at XA PREPARE, and keeps it after XA ROLLBACK."""
    keyless = world.pick(key=False)
    steps = insert(world, keyless), update(world, world.pick()), delete(world, world.pick())
    return [f"XA START {name}", *steps, f"XA END {name}", f"XA PREPARE {name}"]


def elsewhere(world: World) -> str:
    """A row of nobody: what a branch of this session has locked is left alone."""
    return f"INSERT INTO {SHARED}.counted (who, n) VALUES ({world.session}, {world.number()})"


@feature("XA commit")
def xa_commit(world: World) -> list[Step]:
    name = branch(world)
    return [*prepared(world, name), Reconnect(), elsewhere(world), elsewhere(world), f"XA COMMIT {name}"]


@feature("XA rollback")
def xa_rollback(world: World) -> list[Step]:
    name = branch(world)
    return [*prepared(world, name), Reconnect(), elsewhere(world), f"XA ROLLBACK {name}"]


@feature("XA branch that stays open", last=True)
def xa_open(world: World) -> list[Step]:
    """It counts for nothing, on a replica and in a restore; a backup would wait for its end."""
    return [AfterBackup(), *prepared(world, branch(world)), Reconnect(), elsewhere(world)]


@feature("XA commit in one phase")
def xa_one_phase(world: World) -> list[Step]:
    name = branch(world)
    return [*prepared(world, name)[:-1], f"XA COMMIT {name} ONE PHASE"]


@feature("rows of other engines mixed in", only="mariadb")
def mixed_engines(world: World) -> list[Step]:
    """MySQL refuses it where GTIDs are on."""
    name = f"{quoted(world.schema())}.{quoted(world.name('mix'))}"
    return [
        f"CREATE TABLE {name} (a INT) ENGINE = MyISAM",
        "BEGIN", change(world), f"INSERT INTO {name} VALUES (1), (2)", change(world), "COMMIT",
        "BEGIN", change(world), f"INSERT INTO {name} VALUES (9)", f"UPDATE {name} SET a = 5 WHERE a = 1", "ROLLBACK",
    ]  # fmt: skip


@feature("other engines alone")
def other_engine(world: World) -> list[Step]:
    name = f"{quoted(world.schema())}.{quoted(world.name('isam'))}"
    return [
        f"CREATE TABLE {name} (id INT AUTO_INCREMENT PRIMARY KEY, a INT) ENGINE = MyISAM",
        f"INSERT INTO {name} (a) VALUES (1), (2), (3)", f"UPDATE {name} SET a = 5 WHERE a < 3",
        "BEGIN", f"DELETE FROM {name} WHERE a = 3", "ROLLBACK",
    ]  # fmt: skip


@feature("tables that all sessions write")
def shared(world: World) -> list[Step]:
    table = f"{SHARED}.counted"
    return [
        "BEGIN", elsewhere(world), f"UPDATE {table} SET n = n + 1 WHERE id % 5 = {world.session}", "COMMIT",
        f"INSERT INTO {SHARED}.counted (who, n) VALUES (9, 1) ON DUPLICATE KEY UPDATE n = n + 1",
        f"DELETE FROM {table} WHERE id % 11 = {world.chance.randrange(11)} AND who <> 9", elsewhere(world),
    ]  # fmt: skip


@feature("accounts", definitions=True)
def accounts(world: World) -> list[Step]:
    """Left out by a restore; nothing of a schema may change by that."""
    user = f"someone{world.session}_{world.number()}"
    return [
        f"CREATE USER {user} IDENTIFIED BY 'Sec-ret.1'", f"GRANT SELECT, TRIGGER ON shared.* TO {user}",
        elsewhere(world), f"/* hi */ ALTER USER {user} ACCOUNT LOCK", f"DROP USER {user}",
    ]  # fmt: skip


@feature("rotation of the log")
def rotation(world: World) -> list[Step]:
    return [change(world), "FLUSH BINARY LOGS", change(world)]


@feature("explicit GTID", only="mysql", gtids=True)
def explicit_gtid(world: World) -> list[Step]:
    """As after a failover: from another server, with a hole behind it."""
    foreign = f"{world.session}0000000-0000-4000-8000-{world.chance.randrange(10**12):012}"
    return [
        f"SET gtid_next = '{foreign}:{world.chance.randint(1, 99)}'", elsewhere(world), "SET gtid_next = 'AUTOMATIC'",
        change(world),
    ]  # fmt: skip
