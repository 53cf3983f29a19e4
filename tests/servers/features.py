"""Features of tables, names and programs, each a few statements in a schema of its own: what a backup tool must meet.

`used` runs on source and target after a restore: a definition that only looks the same gives itself away there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """made: the statements, `{s}` being the schema.  only: "", one flavour, or that and its major version."""

    made: tuple[str, ...]
    used: tuple[str, ...] = ()
    only: str = ""


LONGEST = "n" * 64
MANY = 1000
WIDEST = 16_777_300  # bytes: more than a packet's 16 MiB - 1
ELEMENTS = ", ".join(f"'e{n}'" for n in range(1000))
MEMBERS = ", ".join(f"'m{n}'" for n in range(64))

NAMES = {
    f"name {label}": Feature(
        (
            f"CREATE TABLE {{s}}.{q} ({q} INT, b INT, PRIMARY KEY ({q}), KEY {k} (b))",
            f"INSERT INTO {{s}}.{q} VALUES (1, 2)",
            f"CREATE VIEW {{s}}.{v} AS SELECT {q} FROM {{s}}.{q}",
            f"CREATE TRIGGER {{s}}.{q} BEFORE INSERT ON {{s}}.{q} FOR EACH ROW SET NEW.b = 3",
            f"CREATE PROCEDURE {{s}}.{q}() SELECT {q} FROM {{s}}.{q}",
            f"CREATE EVENT {{s}}.{q} ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM {{s}}.{q}",
            f"UPDATE {{s}}.{q} SET b = 5 WHERE {q} = 1",
        ),
        (f"INSERT INTO {{s}}.{q} ({q}) VALUES (7)", f"CALL {{s}}.{q}()"),
    )
    for label, q, v, k in (
        ("of a reserved word", "`select`", "`from`", "`where`"),
        ("with spaces and dots", "`a b.c`", "`v w.x`", "`k .`"),
        ("with quotes", "`it's \"q\"`", "`v's`", "`k's \"k\"`"),
        ("with backticks and backslashes", "`a``b\\c`", "`v``w\\`", "`k``\\`"),
        ("beyond ASCII", "`ünïcode 日本`", "`sicht ü`", "`schlüssel 鍵`"),
        ("of 64 characters", f"`{LONGEST}`", f"`{LONGEST[1:]}v`", f"`{LONGEST[1:]}k`"),
        ("that looks like a part", "`t#P#p0`", "`v#p#p0`", "`k#x`"),
        ("of digits", "`123`", "`1e5`", "`0x1`"),
    )
}

DEFINITIONS = {
    "1,000 columns": Feature(
        (
            f"CREATE TABLE {{s}}.t ({', '.join(f'c{n} INT DEFAULT {n}' for n in range(MANY))})",
            "INSERT INTO {s}.t (c1) VALUES (1)",
            "UPDATE {s}.t SET c999 = 5",
        ),
        ("INSERT INTO {s}.t (c0) VALUES (0)",),
    ),
    "ENUM of 1,000, SET of 64": Feature(
        (
            f"CREATE TABLE {{s}}.t (e ENUM({ELEMENTS}), m SET({MEMBERS}))",
            "INSERT INTO {s}.t VALUES ('e999', 18446744073709551615), (1, 'm63'), (NULL, 0)",
        ),
        ("INSERT INTO {s}.t VALUES ('e500', 'm0,m31')",),
    ),
    "characters beyond the BMP in definitions": Feature(
        (
            "CREATE TABLE {s}.t (id INT PRIMARY KEY, e ENUM('😀', '?', 'b''\\\\\\n,q') DEFAULT '😀',"
            " m SET('x', '?', '😀é') DEFAULT 'x,😀é', v VARCHAR(20) DEFAULT '😀?''\\\\x' COMMENT '?',"
            " g VARCHAR(30) AS (CONCAT(v, '😀')) STORED, d VARCHAR(9) DEFAULT (CONCAT('😀', 'y')),"
            " w ENUM('😀', '?') CHARACTER SET utf16 COLLATE utf16_bin DEFAULT '😀',"
            " `a ``?` ENUM('?', '😀') COLLATE utf8mb4_bin NOT NULL, CHECK (v <> '😀z'))",
            "INSERT INTO {s}.t (id, `a ``?`) VALUES (1, 1)",
            "CREATE VIEW {s}.v AS SELECT '😀?' AS x",
            "CREATE FUNCTION {s}.f() RETURNS VARCHAR(9) CHARSET utf8mb4 DETERMINISTIC RETURN '😀?'",
        ),
        (
            "INSERT INTO {s}.t (id, e, m, `a ``?`) VALUES (2, 1, 7, 2), (3, 3, 2, 1)",
            "INSERT IGNORE INTO {s}.t (id) VALUES (4)",
        ),
    ),
    "columns of other charsets than their table": Feature(
        (
            "CREATE TABLE {s}.t (a VARCHAR(9) COLLATE utf8mb4_bin, b VARCHAR(9) CHARACTER SET latin1,"
            " c VARCHAR(9) CHARACTER SET sjis DEFAULT '表', d CHAR(9) CHARACTER SET binary, e TEXT,"
            " f VARCHAR(9) COLLATE utf8mb4_unicode_ci) CHARACTER SET latin2",
            "INSERT INTO {s}.t VALUES ('ß😀', 'é', 'ソ', X'00FF', 'ł', 'x')",
        ),
        ("INSERT INTO {s}.t (a) VALUES ('A')",),
    ),
    "defaults and attributes": Feature(
        (
            "CREATE TABLE {s}.t (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, a INT DEFAULT (1 + 2),"
            " c TIMESTAMP(6) NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),"
            " b VARBINARY(9) DEFAULT X'00FF',"
            " d DATE DEFAULT '2020-01-01', e BIT(3) DEFAULT b'101', f DOUBLE DEFAULT 0.1, g TEXT DEFAULT ('x'),"
            " h INT INVISIBLE DEFAULT 4, i DECIMAL(5,2) DEFAULT -0.05, j VARCHAR(5) DEFAULT '')",
            "INSERT INTO {s}.t (id, c) VALUES (18446744073709551000, '2020-01-01 00:00:00.123456'), (1, NULL)",
        ),
        ("INSERT INTO {s}.t (c) VALUES (NULL)",),
    ),
    "gaps in AUTO_INCREMENT": Feature(
        (
            "CREATE TABLE {s}.t (id INT AUTO_INCREMENT PRIMARY KEY, v INT) AUTO_INCREMENT = 100",
            "INSERT INTO {s}.t (v) VALUES (1), (2), (3)",
            "DELETE FROM {s}.t WHERE id > 100",
            "CREATE TABLE {s}.second (k INT, id INT AUTO_INCREMENT, PRIMARY KEY (k, id), KEY (id)) AUTO_INCREMENT = 50",
        ),
        ("INSERT INTO {s}.t (v) VALUES (9)", "INSERT INTO {s}.second (k) VALUES (1)"),
    ),
    "keys": Feature(
        (
            "CREATE TABLE {s}.t (a INT, b VARCHAR(50), c TEXT, UNIQUE KEY u (a), KEY p (b(5), a DESC), FULLTEXT f (c),"
            " KEY o (b) COMMENT 'it''s')",
            "INSERT INTO {s}.t VALUES (1, 'b', 'find me'), (NULL, NULL, NULL), (NULL, 'x', 'y')",
        ),
        ("INSERT IGNORE INTO {s}.t VALUES (1, 'twice', 'z')",),
    ),
    "checks": Feature(
        (
            "CREATE TABLE {s}.t (a INT CHECK (a > 0), b INT, CONSTRAINT `both` CHECK (a < b))",
            "INSERT INTO {s}.t VALUES (1, 2)",
        ),
        ("INSERT IGNORE INTO {s}.t VALUES (-1, 2), (3, 1), (4, 5)",),
    ),
    "foreign keys of every action, and cycles": Feature(
        (
            "CREATE TABLE {s}.p (id INT PRIMARY KEY, next INT, KEY (next))",
            *(
                f"CREATE TABLE {{s}}.c{n} (id INT PRIMARY KEY, p INT, CONSTRAINT `fk {n}` FOREIGN KEY (p)"
                f" REFERENCES {{s}}.p (id) ON DELETE {action} ON UPDATE {action})"
                for n, action in enumerate(("CASCADE", "SET NULL", "RESTRICT", "NO ACTION"))
            ),
            "INSERT INTO {s}.p VALUES (1, NULL), (2, 1), (3, 2), (4, 3), (5, 5)",
            "ALTER TABLE {s}.p ADD CONSTRAINT self FOREIGN KEY (next) REFERENCES {s}.p (id) ON DELETE SET NULL",
            "ALTER TABLE {s}.p ADD COLUMN back INT, ADD CONSTRAINT cycle FOREIGN KEY (back) REFERENCES {s}.c0 (id)",
            *(f"INSERT INTO {{s}}.c{n} VALUES (1, {n + 1}), (2, {n + 2})" for n in range(4)),
            "UPDATE {s}.p SET back = 1 WHERE id = 4",
            "DELETE FROM {s}.c2 WHERE p = 3",
        ),
        ("DELETE IGNORE FROM {s}.p WHERE id IN (2, 3)", "UPDATE IGNORE {s}.p SET id = 10 WHERE id = 1"),
    ),
    "partitions of every kind": Feature(
        (
            "CREATE TABLE {s}.h (a INT) PARTITION BY HASH (a) PARTITIONS 3",
            "CREATE TABLE {s}.k (a VARCHAR(9)) PARTITION BY KEY (a) PARTITIONS 2",
            "CREATE TABLE {s}.l (a VARCHAR(9)) PARTITION BY LIST COLUMNS (a) (PARTITION p0 VALUES IN ('😀', 'b'),"
            " PARTITION p1 VALUES IN ('?', NULL))",
            "CREATE TABLE {s}.r (a INT, d DATE) PARTITION BY RANGE (YEAR(d)) SUBPARTITION BY HASH (TO_DAYS(d))"
            " SUBPARTITIONS 2 (PARTITION p0 VALUES LESS THAN (2000),"
            " PARTITION `p 1` VALUES LESS THAN MAXVALUE COMMENT 'c')",
            *(f"INSERT INTO {{s}}.h VALUES ({n})" for n in range(4)),
            "INSERT INTO {s}.k VALUES ('a'), ('b'), (NULL)",
            "INSERT INTO {s}.l VALUES ('😀'), ('?'), (NULL)",
            "INSERT INTO {s}.r VALUES (1, '1999-12-31'), (2, '2020-02-29')",
            "UPDATE {s}.r SET d = '2021-01-01' WHERE a = 1",
        ),
        ("INSERT INTO {s}.r VALUES (3, '1970-01-01')", "DELETE FROM {s}.l WHERE a = '😀'"),
    ),
    "values of 16 MiB": Feature(
        (
            "CREATE TABLE {s}.t (id INT PRIMARY KEY, b LONGBLOB, t LONGTEXT)",
            f"INSERT INTO {{s}}.t VALUES (1, REPEAT('\\\\', {WIDEST}), 'x'), (2, '', NULL)",
            "UPDATE {s}.t SET t = REPEAT('\t', 70000) WHERE id = 2",
        )
    ),
    "views on views, with checks": Feature(
        (
            "CREATE TABLE {s}.t (a INT)",
            "CREATE VIEW {s}.z AS SELECT a FROM {s}.t WHERE a > 0 WITH LOCAL CHECK OPTION",
            "CREATE VIEW {s}.a AS SELECT a FROM {s}.z WHERE a < 100 WITH CASCADED CHECK OPTION",
            "CREATE ALGORITHM = TEMPTABLE VIEW {s}.m AS SELECT x.a, y.a AS b FROM {s}.a x JOIN {s}.z y",
            "INSERT INTO {s}.a VALUES (5)",
        ),
        ("INSERT IGNORE INTO {s}.a VALUES (50), (-1), (500)",),
    ),
    "several triggers of one event": Feature(
        (
            "CREATE TABLE {s}.t (a INT)",
            "CREATE TABLE {s}.seen (n INT AUTO_INCREMENT PRIMARY KEY, who CHAR(1))",
            *(
                f"CREATE TRIGGER {{s}}.{name} AFTER INSERT ON {{s}}.t FOR EACH ROW {place}"
                f" INSERT INTO {{s}}.seen (who) VALUES ('{name}')"
                for name, place in (("m", ""), ("a", "FOLLOWS m"), ("z", "PRECEDES m"), ("k", "FOLLOWS z"))
            ),
            "INSERT INTO {s}.t VALUES (1)",
        ),
        ("INSERT INTO {s}.t VALUES (2)",),
    ),
    "functional keys and multi-valued keys": Feature(
        (
            "CREATE TABLE {s}.t (id INT PRIMARY KEY, a INT, j JSON, v VARCHAR(9), KEY ((a + 1)),"
            " KEY ((CONCAT(v, '😀'))), KEY ((CAST(j->'$.x' AS UNSIGNED ARRAY))), KEY hidden (a) INVISIBLE)",
            "INSERT INTO {s}.t VALUES (1, 2, '{{\"x\": [1, 2]}}', 'v')",
        ),
        ("INSERT INTO {s}.t VALUES (2, 3, '{{\"x\": [3]}}', 'w')",),
        "mysql",
    ),
    "spatial types with SRIDs": Feature(
        (
            "CREATE TABLE {s}.t (id INT PRIMARY KEY, p POINT NOT NULL SRID 4326, g GEOMETRY SRID 0, a GEOMETRY,"
            " SPATIAL KEY (p))",
            "INSERT INTO {s}.t VALUES (1, ST_GeomFromText('POINT(52.5 13.4)', 4326), ST_GeomFromText('POINT(1 2)'),"
            " ST_GeomFromText('LINESTRING(1 2,3 4)', 3857))",
        ),
        ("INSERT INTO {s}.t VALUES (2, ST_GeomFromText('POINT(1 1)', 4326), NULL, NULL)",),
        "mysql",
    ),
    "checks that are not enforced": Feature(
        ("CREATE TABLE {s}.t (a INT, CONSTRAINT c CHECK (a > 0) NOT ENFORCED)", "INSERT INTO {s}.t VALUES (-1)"),
        only="mysql",
    ),
    "literals of other charsets in expressions": Feature(
        (
            "CREATE TABLE {s}.t (l VARCHAR(9) CHARACTER SET latin1, g VARCHAR(9) AS (CONCAT(l, _latin1 X'E9')) STORED,"
            " j VARCHAR(9) CHARACTER SET sjis AS (CONCAT(_sjis X'835C', _sjis 'a')),"
            " b VARBINARY(9) AS (CONCAT(X'FF', 'a')))",
            "INSERT INTO {s}.t (l) VALUES ('a')",
        ),
        ("INSERT INTO {s}.t (l) VALUES ('é')",),
        "mysql",
    ),
    "libraries": Feature(
        (
            "CREATE LIBRARY {s}.`l 1` COMMENT 'ü' LANGUAGE JAVASCRIPT AS $$ export function f() {{ return 'é😀' }} $$",
            "CREATE LIBRARY {s}.w LANGUAGE WASM AS X'0061736d01000000'",
            "CREATE FUNCTION {s}.g(a INT) RETURNS INT DETERMINISTIC LANGUAGE JAVASCRIPT USING ({s}.`l 1` AS x)"
            " AS $$ return a $$",
        ),
        only="mysql",
    ),
    "duality and materialized views": Feature(
        (
            "CREATE TABLE {s}.t (id INT PRIMARY KEY, v VARCHAR(9))",
            "INSERT INTO {s}.t VALUES (1, 'é')",
            "CREATE JSON RELATIONAL DUALITY VIEW {s}.d AS SELECT JSON_DUALITY_OBJECT(WITH (INSERT, UPDATE, DELETE)"
            " '_id': id, 'v': v) FROM {s}.t",
            "CREATE MATERIALIZED VIEW {s}.m AS SELECT v FROM {s}.t",
        ),
        ("INSERT INTO {s}.d VALUES ('{{\"_id\": 2, \"v\": \"x\"}}')",),
        "mysql",
    ),
    "general tablespaces": Feature(
        (
            "CREATE TABLESPACE `{s} ``ts`",
            "CREATE TABLESPACE `{s} unused`",
            "CREATE TABLE {s}.t (a INT) TABLESPACE `{s} ``ts`",
            "CREATE TABLE {s}.u (a INT) TABLESPACE innodb_system",
            "INSERT INTO {s}.t VALUES (1)",
        ),
        ("INSERT INTO {s}.t VALUES (2)", "CREATE TABLE {s}.v (a INT) TABLESPACE `{s} unused`"),
        "mysql",
    ),
    "JSON of a megabyte": Feature(
        (
            "CREATE TABLE {s}.t (id INT PRIMARY KEY, j JSON)",
            "INSERT INTO {s}.t VALUES (1, JSON_OBJECT('a', REPEAT('é\"\\\\', 300000),"
            " 'b', JSON_ARRAY(1e0, -0e0, 0.1e0, NULL)))",
            "UPDATE {s}.t SET j = JSON_SET(j, '$.b[0]', 7)",
        )
    ),
    "history in partitions and of some columns": Feature(
        (
            "CREATE TABLE {s}.p (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING"
            " PARTITION BY SYSTEM_TIME (PARTITION p0 HISTORY, PARTITION pc CURRENT)",
            "CREATE TABLE {s}.c (id INT PRIMARY KEY, v INT WITHOUT SYSTEM VERSIONING, w INT) WITH SYSTEM VERSIONING",
            *(
                statement
                for table, values in (("p", "(1, 1), (2, 2)"), ("c", "(1, 1, 1), (2, 2, 2)"))
                for statement in (
                    f"INSERT INTO {{s}}.{table} VALUES {values}",
                    f"UPDATE {{s}}.{table} SET v = 9 WHERE id = 1",
                    f"DELETE FROM {{s}}.{table} WHERE id = 2",
                )
            ),
        ),
        only="mariadb",
    ),
    "names that a client's charset prints otherwise": Feature(
        (
            "CREATE TABLE {s}.t (a INT)",
            "SET NAMES sjis",
            "CREATE TRIGGER {s}.`a\\b` BEFORE INSERT ON {s}.t FOR EACH ROW SET NEW.a = 5",
            "CREATE FUNCTION {s}.`c\\d`() RETURNS INT DETERMINISTIC RETURN 5",
            "SET NAMES utf8mb4",
        ),
        ("INSERT INTO {s}.t VALUES (1)",),
    ),
    "rows deleted in the microsecond they were made in": Feature(
        (
            "CREATE TABLE {s}.t (id INT PRIMARY KEY, b BIT(9), u UUID, v VARCHAR(9) CHARACTER SET latin1 UNIQUE,"
            " j JSON, d BLOB, f FLOAT CHECK (f < 9), g INT AS (id * 2) STORED) WITH SYSTEM VERSIONING",
            "CREATE TABLE {s}.own (a INT, s TIMESTAMP(6) GENERATED ALWAYS AS ROW START,"
            " e TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING",
            "SET timestamp = 1700000000.000003",
            "INSERT INTO {s}.t (id, b, u, v, j, d, f) VALUES"
            " (1, b'101010101', UUID(), 'ü\\\t\n', '[1]', X'00FF5C090A', 1.1), (2, NULL, NULL, NULL, NULL, NULL, 2)",
            "INSERT INTO {s}.own (a) VALUES (1), (1), (2)",
            "DELETE FROM {s}.t",
            "DELETE FROM {s}.own WHERE a = 1",
            "SET timestamp = 1700000001.5",
            "INSERT INTO {s}.t (id, v) VALUES (1, 'ü')",
            "DELETE FROM {s}.t",
            "INSERT INTO {s}.t (id, v) VALUES (1, 'ü')",
            "SET timestamp = DEFAULT",
            "UPDATE {s}.t SET v = 'later'",
        ),
        ("UPDATE {s}.t SET b = 1",),
        "mariadb",
    ),
    "aggregate functions": Feature(
        (
            "CREATE AGGREGATE FUNCTION {s}.total(x INT) RETURNS INT DETERMINISTIC BEGIN DECLARE s INT DEFAULT 0;"
            " DECLARE CONTINUE HANDLER FOR NOT FOUND RETURN s; LOOP FETCH GROUP NEXT ROW; SET s = s + x; END LOOP; END",
        ),
        only="mariadb",
    ),
    "vectors with an index, and types of a newer series": Feature(
        (
            "CREATE TABLE {s}.v (id INT PRIMARY KEY, e VECTOR(3) NOT NULL, VECTOR INDEX (e) M=6 DISTANCE=cosine)",
            "INSERT INTO {s}.v VALUES (1, VEC_FromText('[1,2,3]')), (2, VEC_FromText('[0.1,-2e-10,3]'))",
            "UPDATE {s}.v SET e = VEC_FromText('[5,5,5]') WHERE id = 1",
            "CREATE TABLE {s}.t (a UUID DEFAULT UUID_v7(), b TIMESTAMP(6) NULL)",
            "INSERT INTO {s}.t (b) VALUES ('2100-01-01 00:00:00')",
            "CREATE SEQUENCE {s}.s AS TINYINT UNSIGNED START WITH 3",
            "CREATE PACKAGE {s}.p FUNCTION f() RETURNS INT; END",
            "CREATE PACKAGE BODY {s}.p FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1; END",
        ),
        only="mariadb 11",
    ),
    "sequences": Feature(
        (
            "CREATE SEQUENCE {s}.up START WITH 5 INCREMENT BY 3 CACHE 10",
            "CREATE SEQUENCE {s}.down INCREMENT BY -1 MINVALUE -5 CYCLE NOCACHE",
            "DO NEXTVAL({s}.up), NEXTVAL({s}.down)",
            "CREATE TABLE {s}.t (id INT DEFAULT NEXTVAL({s}.down), a INT)",
            "INSERT INTO {s}.t (a) VALUES (1), (2)",
        ),
        ("INSERT INTO {s}.t (a) VALUES (3)",),
        "mariadb",
    ),
    "ignored keys, WITHOUT OVERLAPS, application periods": Feature(
        (
            "CREATE TABLE {s}.t (id INT, a DATE, b DATE, PERIOD FOR p (a, b), PRIMARY KEY (id, p WITHOUT OVERLAPS),"
            " KEY k (b) IGNORED)",
            "INSERT INTO {s}.t VALUES (1, '2020-01-01', '2021-01-01')",
            "DELETE FROM {s}.t FOR PORTION OF p FROM '2020-03-01' TO '2020-04-01'",
        ),
        ("INSERT IGNORE INTO {s}.t VALUES (1, '2020-02-01', '2020-02-02')",),
        "mariadb",
    ),
}  # fmt: skip

FEATURES = {**NAMES, **DEFINITIONS}


def of(flavour: str, version: str) -> dict[str, tuple[str, Feature]]:
    """This server's features, each with its schema."""
    known = ("", flavour, f"{flavour} {version.partition('.')[0]}")
    chosen = {name: one for name, one in FEATURES.items() if one.only in known}
    return {name: (f"f{number}", one) for number, (name, one) in enumerate(chosen.items())}
