"""Features: changes of definitions, and what is made of them: partitions, foreign keys, views, programs."""

from __future__ import annotations

from tests.torture.changes import change
from tests.torture.history import Column, Step, Table, World, feature, quoted
from tests.torture.tables import TYPES, column, columns, insert, make


def named(world: World, kind: str, schema: str = "") -> str:
    return f"{quoted(schema or world.schema())}.{quoted(world.name(kind))}"


# Tables that change


@feature("add columns", definitions=True, repeatable=True)
def add_columns(world: World) -> list[Step]:
    table, more = world.pick(plain=True), columns(world, 2)
    place = world.chance.choice(("", " FIRST", " AFTER n"))
    table.columns += more
    clauses = ", ".join(f"ADD COLUMN {quoted(one.name)} {one.type}{place}" for one in more)
    return [f"ALTER TABLE {table} {clauses}", insert(world, table)]


@feature("add a column instantly", definitions=True, repeatable=True)
def add_instantly(world: World) -> list[Step]:
    table, one = world.pick(plain=True), Column(world.name("c"), "INT DEFAULT 7", lambda chance: "8")
    steps = [f"ALTER TABLE {table} ADD COLUMN {quoted(one.name)} {one.type}", insert(world, table)]
    table.columns.append(one)
    return [*steps, insert(world, table), f"UPDATE {table} SET {quoted(one.name)} = 9 WHERE n % 3 = 1"]


@feature("drop a column", definitions=True, repeatable=True)
def drop_column(world: World) -> list[Step]:
    one = column(world, world.chance.choice(("INT ZEROFILL", "VARCHAR", "BLOB", "DATETIME")))
    table = world.pick(plain=True)
    add = f"ALTER TABLE {table} ADD COLUMN {quoted(one.name)} {one.type} FIRST"
    fill = f"UPDATE {table} SET {quoted(one.name)} = {one.value(world.chance)}"
    return [add, fill, f"ALTER TABLE {table} DROP COLUMN {quoted(one.name)}", insert(world, table)]


@feature("change a column's type", definitions=True, repeatable=True)
def modify(world: World) -> list[Step]:
    steps = make(world, columns=[Column("v", "INT", lambda chance: str(chance.randint(0, 99)))])
    table = world.tables[-1]
    wider = world.chance.choice(("BIGINT", "VARCHAR(50)", "DECIMAL(20,5)", "DOUBLE"))
    return [*steps, f"ALTER TABLE {table} MODIFY v {wider}", insert(world, table)]


@feature("rename a column", definitions=True, repeatable=True)
def rename_column(world: World) -> list[Step]:
    steps, one = make(world, columns=columns(world, 2)), world.tables[-1].columns[0]
    old, one.name = one.name, world.name("renamed")
    table = world.tables[-1]
    return [*steps, f"ALTER TABLE {table} RENAME COLUMN {quoted(old)} TO {quoted(one.name)}", insert(world, table)]


@feature("add and drop keys", definitions=True, repeatable=True)
def change_keys(world: World) -> list[Step]:
    table, name = world.pick(plain=True), quoted(world.name("k"))
    return [
        f"ALTER TABLE {table} ADD KEY {name} (n)",
        f"CREATE INDEX {quoted(world.name('k'))} ON {table} (n DESC)",
        *((f"ALTER TABLE {table} ALTER INDEX {name} INVISIBLE",) if world.flavour == "mysql" else ()),
        *((f"DROP INDEX {name} ON {table}",) if world.chance.random() < 0.5 else ()),
    ]


@feature("rebuild a table", definitions=True, repeatable=True)
def rebuild(world: World) -> list[Step]:
    how = world.chance.choice(("FORCE", "ENGINE = InnoDB", "ROW_FORMAT = DYNAMIC, ALGORITHM = COPY"))
    table = world.pick(plain=True)
    return [f"ALTER TABLE {table} {how}", f"OPTIMIZE TABLE {table}", f"ANALYZE TABLE {table}"]


@feature("convert a table's charset", definitions=True, repeatable=True)
def convert(world: World) -> list[Step]:
    steps = make(world, "v VARCHAR(60) DEFAULT 'abc'", "w TEXT")
    return [*steps, f"ALTER TABLE {world.tables[-1]} CONVERT TO CHARACTER SET latin1", insert(world, world.tables[-1])]


@feature("set AUTO_INCREMENT and comment", definitions=True, repeatable=True)
def set_options(world: World) -> list[Step]:
    table = world.pick(plain=True, key=True)
    return [f"ALTER TABLE {table} AUTO_INCREMENT = {5000 + world.number()}, COMMENT 'now''s'", insert(world, table)]


@feature("rename a table", definitions=True, repeatable=True)
def rename(world: World) -> list[Step]:
    table = world.pick(plain=True)
    old = str(table)
    table.schema, table.name = world.schema(), world.name("moved")
    return [f"RENAME TABLE {old} TO {table}", insert(world, table)]


@feature("exchange tables by renaming", definitions=True, repeatable=True)
def swap(world: World) -> list[Step]:
    """As gh-ost and pt-online-schema-change end."""
    table, ghost, old = world.pick(plain=True, key=True), named(world, "ghost"), named(world, "old")
    return [
        f"CREATE TABLE {ghost} LIKE {table}", f"ALTER TABLE {ghost} ADD COLUMN g{world.number()} INT DEFAULT 1",
        f"INSERT INTO {ghost} (n) SELECT n FROM {table} ORDER BY id",
        f"RENAME TABLE {table} TO {old}, {ghost} TO {table}", insert(world, table), f"DROP TABLE {old}",
    ]  # fmt: skip


@feature("truncate", definitions=True, repeatable=True)
def truncate(world: World) -> list[Step]:
    table = world.pick(plain=True)
    return [f"TRUNCATE TABLE {table}", insert(world, table)]


@feature("drop several tables", definitions=True, repeatable=True)
def drop(world: World) -> list[Step]:
    steps = make(world) + make(world)
    first, second = world.tables[-2:]
    world.forget(first)
    world.forget(second)
    return [*steps, f"DROP TABLE {first}, {second}", f"DROP TABLE IF EXISTS {first}"]


@feature("create like", definitions=True, repeatable=True)
def create_like(world: World) -> list[Step]:
    table = world.pick(plain=True)
    copy = Table(world.schema(), world.name("like"), list(table.columns), table.key, bytes_default=table.bytes_default)
    world.tables.append(copy)
    return [f"CREATE TABLE {copy} LIKE {table}", insert(world, copy)]


@feature("create from select", definitions=True, avoid=("names",))
def create_select(world: World) -> list[Step]:
    """MariaDB logs the columns' names in UTF-8, whatever the session's charset: its replicas read them wrongly.

    An ENUM beyond U+FFFF is logged with question marks, by both; so is a default that is no text, by MariaDB.
    """
    fit = [table for table in world.tables if table.transactional and _logged_as_it_is(table, world.flavour)]
    steps = [] if fit else make(world)
    table = world.chance.choice(fit or world.tables[-1:])
    copies = named(world, "copy"), named(world, "copy")
    return [
        *steps,
        f"CREATE TABLE {copies[0]} AS SELECT * FROM {table}",
        f"CREATE TABLE {copies[1]} (n INT, PRIMARY KEY (n)) AS SELECT DISTINCT n FROM {table}",
        f"INSERT INTO {copies[1]} VALUES (-5)",
    ]


def _logged_as_it_is(table: Table, flavour: str) -> bool:
    emoji = any("😀" in one.type for one in table.columns)
    return not emoji and not (table.bytes_default and flavour == "mariadb")


@feature("create or replace", only="mariadb", definitions=True, repeatable=True)
def create_or_replace(world: World) -> list[Step]:
    name = named(world, "again")
    return [
        f"CREATE TABLE {name} (a INT)", f"INSERT INTO {name} VALUES (1)",
        f"CREATE OR REPLACE TABLE {name} (a INT, b VARCHAR(9) DEFAULT 'x')", f"INSERT INTO {name} (a) VALUES (2)",
    ]  # fmt: skip


@feature("general tablespaces", only="mysql", definitions=True, repeatable=True)
def tablespaces(world: World) -> list[Step]:
    """Their names are of the server, not of a schema."""
    schema, space = world.schema(), quoted(f"space {world.session} {world.number()}")
    name, other = (f"{quoted(schema)}.{quoted(world.name(kind))}" for kind in ("in", "out"))
    return [
        f"CREATE TABLESPACE {space} ADD DATAFILE 'space{world.session}_{world.number()}.ibd'",
        f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT) TABLESPACE {space}",
        f"INSERT INTO {name} VALUES (1, 1), (2, 2)",
        f"CREATE TABLE {other} (a INT) TABLESPACE innodb_system", f"INSERT INTO {other} VALUES (3)",
        f"UPDATE {name} SET v = v + 1", f"ALTER TABLE {other} TABLESPACE {space}",
        *((f"ALTER TABLE {name} TABLESPACE innodb_file_per_table",) if world.chance.random() < 0.5 else ()),
    ]  # fmt: skip


@feature("schemas made and dropped", definitions=True, repeatable=True)
def schemas(world: World) -> list[Step]:
    gone, kept = quoted(world.name("gone")), quoted(world.name("kept"))
    return [
        f"CREATE DATABASE {gone}", f"CREATE TABLE {gone}.t (a INT)", f"USE {gone}", "INSERT INTO t VALUES (1)",
        f"CREATE DATABASE {kept} CHARACTER SET latin1", f"CREATE TABLE {kept}.t (a VARCHAR(9))", "DROP TABLE t",
        f"DROP DATABASE {gone}", f"ALTER DATABASE {kept} CHARACTER SET utf8mb4", f"CREATE TABLE {kept}.u LIKE {kept}.t",
        f"USE {quoted(world.schemas[0])}",
    ]  # fmt: skip


@feature("statements that fail", definitions=True)
def failing(world: World) -> list[Step]:
    """One that did a part before it failed is in the log with its error."""
    name = named(world, "fails")
    return [
        f"CREATE TABLE {name} (a INT PRIMARY KEY) ENGINE = MyISAM", f"INSERT INTO {name} VALUES (5)",
        f"INSERT IGNORE INTO {name} VALUES (1), (5), (6)",
        "SET SESSION binlog_format = STATEMENT", f"CREATE TABLE IF NOT EXISTS {name} (b INT)",
        f"DROP TABLE IF EXISTS {named(world, 'nothing')}, {name}", "SET SESSION binlog_format = DEFAULT",
    ]  # fmt: skip


# Partitions


def partitioned(world: World, kind: str, schema: str = "") -> str:
    """MariaDB 10.11 loses a table with a slash in its name when it reorganises its partitions."""
    return named(world, kind, schema).replace("/", "|")


@feature("range partitions", definitions=True, repeatable=True)
def by_range(world: World) -> list[Step]:
    schema = world.schema()
    name, other = partitioned(world, "part", schema), partitioned(world, "ex", schema)
    rows = ", ".join(f"({n}, {world.number()})" for n in range(0, 40, 3))
    return [
        f"CREATE TABLE {name} (a INT, b INT, KEY (b)) PARTITION BY RANGE (a) (PARTITION p0 VALUES LESS THAN (10),"
        " PARTITION p1 VALUES LESS THAN (20), PARTITION p2 VALUES LESS THAN MAXVALUE)",
        f"INSERT INTO {name} VALUES {rows}", f"UPDATE {name} SET a = a + 10 WHERE a < 20",
        f"CREATE TABLE {other} (a INT, b INT, KEY (b))", f"INSERT INTO {other} VALUES (12, 5), (13, 6)",
        f"ALTER TABLE {name} EXCHANGE PARTITION p1 WITH TABLE {other}",
        f"ALTER TABLE {name} TRUNCATE PARTITION p0",
        f"ALTER TABLE {name} REORGANIZE PARTITION p2 INTO (PARTITION p3 VALUES LESS THAN (30),"
        " PARTITION p4 VALUES LESS THAN MAXVALUE)",
        f"INSERT INTO {name} VALUES (25, 1), (35, 2), (5, 3)", f"DELETE FROM {name} WHERE a % 2",
        f"ALTER TABLE {name} DROP PARTITION p1", f"UPDATE {name} SET b = b + 1",
    ]  # fmt: skip


@feature("list and hash partitions", definitions=True, repeatable=True)
def by_list(world: World) -> list[Step]:
    listed, hashed = partitioned(world, "list"), partitioned(world, "hash")
    return [
        f"CREATE TABLE {listed} (a VARCHAR(9), b INT) PARTITION BY LIST COLUMNS (a)"
        " (PARTITION p0 VALUES IN ('x', NULL), PARTITION p1 VALUES IN ('y', 'z'))",
        f"INSERT INTO {listed} VALUES ('x', 1), ('y', 2), (NULL, 3)", f"UPDATE {listed} SET a = 'z' WHERE a = 'x'",
        f"CREATE TABLE {hashed} (a INT PRIMARY KEY, b INT) PARTITION BY HASH (a) PARTITIONS 4",
        f"INSERT INTO {hashed} VALUES (1, 1), (2, 2), (3, 3), (6, 6)", f"ALTER TABLE {hashed} COALESCE PARTITION 2",
        f"UPDATE {hashed} SET a = a + 10", f"ALTER TABLE {hashed} ADD PARTITION PARTITIONS 1",
    ]  # fmt: skip


@feature("subpartitions", definitions=True, repeatable=True)
def subpartitions(world: World) -> list[Step]:
    name = partitioned(world, "sub")
    return [
        f"CREATE TABLE {name} (a INT, d DATE) PARTITION BY RANGE (YEAR(d)) SUBPARTITION BY HASH (TO_DAYS(d))"
        " SUBPARTITIONS 2 (PARTITION p0 VALUES LESS THAN (2000), PARTITION p1 VALUES LESS THAN MAXVALUE)",
        f"INSERT INTO {name} VALUES (1, '1999-01-01'), (2, '2020-02-02'), (3, '2021-03-03')",
        f"UPDATE {name} SET d = '1990-05-05' WHERE a = 2", f"DELETE FROM {name} WHERE a = 1",
    ]  # fmt: skip


@feature("partitioning taken off", definitions=True, repeatable=True)
def unpartition(world: World) -> list[Step]:
    name = partitioned(world, "un")
    return [
        f"CREATE TABLE {name} (a INT, b INT)", f"INSERT INTO {name} VALUES (1, 1), (2, 2), (7, 7)",
        f"ALTER TABLE {name} PARTITION BY KEY (a) PARTITIONS 3", f"UPDATE {name} SET a = a + 1, b = 0",
        f"ALTER TABLE {name} REMOVE PARTITIONING", f"INSERT INTO {name} VALUES (9, 9)",
    ]  # fmt: skip


# Foreign keys


@feature("foreign keys with every action", definitions=True, repeatable=True)
def foreign_keys(world: World) -> list[Step]:
    parent, child, other = named(world, "parent"), named(world, "child"), named(world, "loose")
    actions = world.chance.choice(("ON DELETE CASCADE ON UPDATE CASCADE", "ON UPDATE CASCADE ON DELETE SET NULL"))
    rows = ", ".join(f"({n}, {n % 5})" for n in range(1, 12))
    return [
        f"CREATE TABLE {parent} (id INT PRIMARY KEY)", f"INSERT INTO {parent} VALUES (0), (1), (2), (3), (4), (5)",
        f"CREATE TABLE {child} (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES {parent} (id) {actions})",
        f"CREATE TABLE {other} (id INT PRIMARY KEY, p INT, CONSTRAINT {quoted(world.name('fk'))} FOREIGN KEY (p)"
        f" REFERENCES {child} (id) ON DELETE SET NULL)",
        f"INSERT INTO {child} VALUES {rows}", f"INSERT INTO {other} VALUES (1, 1), (2, 2), (3, 6)",
        f"DELETE FROM {parent} WHERE id = 1", f"UPDATE {parent} SET id = 12 WHERE id = 2",
        "BEGIN", f"DELETE FROM {parent} WHERE id = 3", f"INSERT INTO {parent} VALUES (33)", "COMMIT",
    ]  # fmt: skip


@feature("foreign keys to themselves and in a cycle", definitions=True, repeatable=True)
def cycles(world: World) -> list[Step]:
    tree, a, b = named(world, "tree"), named(world, "a"), named(world, "b")
    return [
        f"CREATE TABLE {tree} (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES {tree} (id) ON DELETE CASCADE)",
        f"INSERT INTO {tree} VALUES (1, NULL), (2, 1), (3, 2), (4, 1), (5, NULL)", f"DELETE FROM {tree} WHERE id = 2",
        f"CREATE TABLE {a} (id INT PRIMARY KEY, other INT)", f"CREATE TABLE {b} (id INT PRIMARY KEY, other INT,"
        f" FOREIGN KEY (other) REFERENCES {a} (id) ON DELETE SET NULL)",
        f"ALTER TABLE {a} ADD CONSTRAINT {quoted(world.name('fk'))} FOREIGN KEY (other) REFERENCES {b} (id)"
        " ON DELETE CASCADE",
        f"INSERT INTO {a} VALUES (1, NULL), (2, NULL)", f"INSERT INTO {b} VALUES (1, 1), (2, 2)",
        f"UPDATE {a} SET other = 3 - id", f"DELETE FROM {b} WHERE id = 1",
    ]  # fmt: skip


# Views and programs


@feature("views", definitions=True, repeatable=True)
def views(world: World) -> list[Step]:
    table, first, second = named(world, "base"), named(world, "z"), named(world, "a")
    return [
        f"CREATE TABLE {table} (id INT PRIMARY KEY, n INT)", f"INSERT INTO {table} VALUES (1, 1), (2, 2), (3, 3)",
        f"CREATE VIEW {first} AS SELECT id, n * 2 AS `dou``ble` FROM {table}",
        f"CREATE ALGORITHM = MERGE DEFINER = nobody@nowhere SQL SECURITY INVOKER VIEW {second} (`x y`) AS"
        f" SELECT id FROM {first} WHERE id > 1",
        f"CREATE VIEW {named(world, 'checked')} AS SELECT id, n FROM {table} WHERE id > 0 WITH CHECK OPTION",
        f"ALTER VIEW {first} AS SELECT id, n * 3 AS `dou``ble`, 'it''s' AS s FROM {table}",
        f"UPDATE {first} SET id = id + 10 WHERE id > 1", f"CREATE OR REPLACE VIEW {second} AS SELECT 1 AS one",
        f"RENAME TABLE {second} TO {second[:-1]}_moved`",
    ]  # fmt: skip


@feature("procedures", definitions=True)
def procedures(world: World) -> list[Step]:
    table, name = world.pick(key=True), named(world, "proc")
    return [
        f"CREATE DEFINER = nobody@nowhere PROCEDURE {named(world, 'p')} (IN a VARCHAR(9), OUT b INT) COMMENT 'it''s'"
        " BEGIN -- don't; stop\n SET b = LENGTH(a); SELECT 'x;y'; END",
        f"CREATE PROCEDURE {name} (IN a INT) BEGIN DECLARE i INT DEFAULT 0; WHILE i < a DO"
        f" INSERT INTO {table} (n) VALUES (300000000 + {world.number()} * 10 + i); SET i = i + 1; END WHILE;"
        f" UPDATE {table} SET n = n + 8000000 WHERE n % 3 = a; END",
        f"CALL {name}(3)", f"ALTER PROCEDURE {name} SQL SECURITY INVOKER COMMENT 'changed'", f"CALL {name}(2)",
    ]  # fmt: skip


@feature("functions with side effects", definitions=True)
def functions(world: World) -> list[Step]:
    log, name = named(world, "log"), named(world, "f")
    return [
        f"CREATE TABLE {log} (id INT AUTO_INCREMENT PRIMARY KEY, a INT)",
        f"CREATE FUNCTION {name} (a INT) RETURNS INT DETERMINISTIC MODIFIES SQL DATA"
        f" BEGIN INSERT INTO {log} (a) VALUES (a); RETURN a + 1; END",
        f"SELECT {name}(5)", f"DO {name}(8)",
        f"CREATE FUNCTION {named(world, 'g')} () RETURNS VARCHAR(20) CHARSET utf8mb4 DETERMINISTIC RETURN 'x'",
    ]  # fmt: skip


@feature("triggers in order", definitions=True, repeatable=True)
def triggers(world: World) -> list[Step]:
    schema = world.schema()
    table, log = (f"{quoted(schema)}.{quoted(world.name(kind))}" for kind in ("trig", "log"))
    names = [quoted(world.name("tr")) for _ in range(4)]
    write = f"INSERT INTO {log} VALUES"
    return [
        f"USE {quoted(schema)}", f"CREATE TABLE {table} (id INT PRIMARY KEY, v INT)",
        f"CREATE TABLE {log} (what VARCHAR(20), id INT)",
        f"CREATE TRIGGER {names[0]} AFTER INSERT ON {table} FOR EACH ROW {write} ('second', NEW.id)",
        f"CREATE TRIGGER {names[1]} AFTER INSERT ON {table} FOR EACH ROW PRECEDES {names[0]} {write} ('first', NEW.id)",
        f"CREATE TRIGGER {names[2]} BEFORE UPDATE ON {table} FOR EACH ROW BEGIN SET NEW.v = NEW.v + 1;"
        f" {write} ('up', OLD.id); END",
        f"CREATE DEFINER = nobody@nowhere TRIGGER {names[3]} BEFORE DELETE ON {table} FOR EACH ROW SET @gone = 1",
        f"INSERT INTO {table} VALUES (1, 1), (2, 2)", f"UPDATE {table} SET v = 5", f"DROP TRIGGER {names[3]}",
        f"INSERT INTO {table} VALUES (3, 3)", f"DELETE FROM {table} WHERE id = 1",
    ]  # fmt: skip


@feature("events", definitions=True, repeatable=True)
def events(world: World) -> list[Step]:
    schema = world.schema()
    names = [quoted(world.name("ev")) for _ in range(3)]
    return [
        f"USE {quoted(schema)}",
        f"CREATE EVENT {names[0]} ON SCHEDULE EVERY 1 DAY STARTS '2036-01-01 00:00:00' ENABLE COMMENT 'c''s' DO"
        " BEGIN SET @x = 'a;b'; END",
        f"CREATE EVENT {names[1]} ON SCHEDULE AT '2037-05-05 05:05:05' ON COMPLETION PRESERVE DISABLE DO SET @y = 1",
        f"ALTER EVENT {names[0]} ON SCHEDULE EVERY 2 HOUR STARTS '2037-01-01 00:00:00'",
        f"CREATE EVENT {names[2]} ON SCHEDULE EVERY 3 DAY STARTS '2036-01-01 00:00:00' DO DELETE FROM nothing",
        f"ALTER EVENT {names[2]} RENAME TO {quoted(world.name('ev'))}", f"DROP EVENT {names[1]}",
    ]  # fmt: skip


@feature("programs dropped and made again", definitions=True, repeatable=True)
def made_again(world: World) -> list[Step]:
    schema = world.schema()
    name = f"{quoted(schema)}.{quoted(world.name('again'))}"
    return [
        f"CREATE FUNCTION {name} () RETURNS INT DETERMINISTIC RETURN 1", f"DROP FUNCTION {name}",
        f"CREATE FUNCTION {name} () RETURNS INT DETERMINISTIC RETURN 2", f"DROP PROCEDURE IF EXISTS {name}",
    ]  # fmt: skip


@feature("packages", only="mariadb", definitions=True)
def packages(world: World) -> list[Step]:
    name = named(world, "pack")
    return [
        "SET SESSION sql_mode = 'ORACLE'", f"CREATE PACKAGE {name} AS FUNCTION one RETURN INT; END",
        f"CREATE PACKAGE BODY {name} AS FUNCTION one RETURN INT AS BEGIN RETURN 1; END; END",
        "SET SESSION sql_mode = ''",
    ]  # fmt: skip


@feature("definitions of a shared table", definitions=True)
def shared_definitions(world: World) -> list[Step]:
    """While others write to it."""
    name = quoted(world.name("s"))
    return [
        f"ALTER TABLE shared.counted ADD COLUMN {name} INT DEFAULT 3", change(world),
        f"ALTER TABLE shared.counted DROP COLUMN {name}",
    ]  # fmt: skip


@feature("definitions inside a transaction", definitions=True, repeatable=True)
def implicit_commit(world: World) -> list[Step]:
    return ["BEGIN", change(world), *make(world, columns=[column(world, next(iter(TYPES)))]), change(world), "COMMIT"]
