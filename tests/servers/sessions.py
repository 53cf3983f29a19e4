"""Sessions whose statements only mean the same again in the same context: run on a source, replayed on a target.

Each group has the schema `shop` with the table `t`; each session of a group is a connection of its own.
"""
# ruff: noqa: E501

from __future__ import annotations

SESSIONS: dict[str, list[list[str | bytes]]] = {
    "sql_mode": [
        ["SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'", """CREATE TABLE "q" (a VARCHAR(9) DEFAULT 'x')"""],
        ["SET sql_mode = ''", "CREATE TABLE loose (d DATE DEFAULT '0000-00-00', n TINYINT)", "INSERT INTO loose (n) VALUES (999)"],
        ["SET sql_mode = 'ANSI_QUOTES'", """CREATE VIEW vq AS SELECT "a" FROM "q" """],
        ["SET sql_mode = 'NO_BACKSLASH_ESCAPES'", r"CREATE TABLE slash (a VARCHAR(9) DEFAULT '\x') COMMENT 'a\b'"],
    ],
    "latin1": [["SET NAMES latin1", b"CREATE TABLE `caf\xe9` (a VARCHAR(9) DEFAULT '\xe9' COMMENT '\xe9t\xe9')"]],
    "sjis": [
        [
            "SET NAMES sjis",
            b"CREATE TABLE sj (a VARCHAR(9) CHARACTER SET sjis DEFAULT '\x83\x5c\x83\x5c' COMMENT '\x95\x5c')",
            b"CREATE PROCEDURE sp() SELECT '\x83\x5c'",
        ]
    ],
    "utf8 names": [["SET NAMES utf8mb4", "CREATE DATABASE `ümläut`", "USE `ümläut`", "CREATE TABLE `tä ble` (a INT) COMMENT '\U0001f600'"]],
    "time zones": [
        ["SET time_zone = '+05:00'", "INSERT INTO t (at) VALUES ('2020-01-01 12:00:00')"],
        ["SET time_zone = '+05:00'", "ALTER TABLE t MODIFY at TIMESTAMP(6) NULL"],
        ["SET time_zone = '-03:30'", "CREATE TABLE z (a TIMESTAMP DEFAULT '2020-06-01 00:00:00')"],
        ["ALTER TABLE t MODIFY at DATETIME(6)"],
    ],
    "collation of the server": [
        ["SET collation_server = utf8mb4_bin", "CREATE DATABASE other", "CREATE TABLE other.x (a VARCHAR(3))"],
        ["SET collation_connection = latin1_german1_ci", "CREATE VIEW lv AS SELECT 'a' AS a, 'b' = 'B' AS b"],
    ],
    "foreign keys": [
        ["SET foreign_key_checks = 0", "CREATE TABLE child (p INT, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)"],
        ["CREATE TABLE parent (id INT PRIMARY KEY)", "INSERT INTO parent VALUES (1), (2), (3)"],
        ["INSERT INTO child VALUES (1), (1), (2)", "DELETE FROM parent WHERE id = 1"],
        ["SET foreign_key_checks = 0", "INSERT INTO child VALUES (77)", "DROP TABLE parent"],
    ],
    "auto increment": [
        ["SET auto_increment_increment = 10, auto_increment_offset = 3", "INSERT INTO t (v) VALUES ('a'), ('b')"],
        ["SET binlog_format = STATEMENT, auto_increment_increment = 10, auto_increment_offset = 3", "INSERT INTO t (v) VALUES ('a'), ('b')"],
        ["BEGIN", "INSERT INTO t (v) VALUES ('burns an id')", "ROLLBACK"],
        ["SET binlog_format = STATEMENT", "INSERT INTO t (v) VALUES ('after the burnt one')"],
        ["SET binlog_format = STATEMENT", "SELECT LAST_INSERT_ID(77)", "INSERT INTO t (v) VALUES (LAST_INSERT_ID())"],
        ["INSERT INTO t (v) VALUES ('c')", "DELETE FROM t WHERE v = 'c'"],
        ["ALTER TABLE t AUTO_INCREMENT = 500"],
    ],
    "savepoints": [
        [
            "BEGIN", "INSERT INTO t (v) VALUES ('kept')", "SAVEPOINT a", "INSERT INTO t (v) VALUES ('undone')",
            "SAVEPOINT `b c`", "UPDATE t SET v = 'undone too'", "ROLLBACK TO a", "INSERT INTO t (v) VALUES ('after')",
            "COMMIT",
        ]
    ],
    "not transactional": [
        ["CREATE TABLE m (a INT) ENGINE=MyISAM", "INSERT INTO m VALUES (1), (2)", "UPDATE m SET a = 5 WHERE a = 1"],
        ["BEGIN", "INSERT INTO m VALUES (9)", "ROLLBACK"],
    ],
    "xa": [
        ["XA START 'one','b',7", "INSERT INTO t (v) VALUES ('xa one')", "XA END 'one','b',7", "XA PREPARE 'one','b',7"],
        ["INSERT INTO t (v) VALUES ('between')", "XA COMMIT 'one','b',7"],
        ["XA START X'00ff27'", "INSERT INTO t (v) VALUES ('gone')", "XA END X'00ff27'", "XA PREPARE X'00ff27'", "XA ROLLBACK X'00ff27'"],
        ["XA START 'p'", "INSERT INTO t (v) VALUES ('one phase')", "XA END 'p'", "XA COMMIT 'p' ONE PHASE"],
    ],
    "create select": [
        ["INSERT INTO t (v) VALUES ('a'), ('b')", "CREATE TABLE copy1 SELECT * FROM t", "CREATE TABLE copy2 (PRIMARY KEY (id)) AS SELECT id, v FROM t"],
        ["CREATE TABLE empty_copy SELECT * FROM t WHERE id < 0", "CREATE TABLE alike LIKE t"],
    ],
    "many tables": [
        ["CREATE TABLE a (id INT, v INT)", "CREATE TABLE b (id INT, v INT)", "INSERT INTO a VALUES (1,1),(2,2)", "INSERT INTO b VALUES (1,1),(2,2)"],
        ["UPDATE a, b SET a.v = 10, b.v = 20 WHERE a.id = b.id", "DELETE a, b FROM a JOIN b ON a.id = b.id WHERE a.id = 2"],
        ["RENAME TABLE a TO a2, b TO a", "DROP TABLE a, a2"],
    ],
    "programs": [
        ["CREATE TABLE log (a INT)", "CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW INSERT INTO log VALUES (NEW.id)"],
        ["INSERT INTO t (v) VALUES ('fires'), ('twice')"],
        ["CREATE PROCEDURE p() BEGIN INSERT INTO t (v) VALUES ('from p'); UPDATE t SET n = 1; END", "CALL p()"],
        ["CREATE FUNCTION f() RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO log VALUES (-1); RETURN 5; END", "SELECT f()"],
        ["CREATE DEFINER = nobody@nowhere VIEW dv AS SELECT 1 AS one", "ALTER VIEW dv AS SELECT 2 AS two"],
        ["CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO INSERT INTO log VALUES (1)"],
        ["ALTER EVENT e ON SCHEDULE EVERY 2 DAY STARTS '2031-01-01 00:00:00'", "ALTER PROCEDURE p COMMENT 'c'"],
        ["CREATE TRIGGER tr0 AFTER INSERT ON t FOR EACH ROW PRECEDES tr SET @x = 1", "DROP FUNCTION f"],
    ],
    "partitions": [
        ["CREATE TABLE part (a INT, b INT) PARTITION BY RANGE (a) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20))"],
        ["INSERT INTO part VALUES (1,1), (11,2)", "UPDATE part SET a = 12 WHERE a = 1", "ALTER TABLE part ADD PARTITION (PARTITION p2 VALUES LESS THAN (30))"],
        ["CREATE TABLE ex (a INT, b INT)", "INSERT INTO ex VALUES (12, 5)", "ALTER TABLE part EXCHANGE PARTITION p1 WITH TABLE ex", "ALTER TABLE part TRUNCATE PARTITION p1"],
        ["INSERT INTO part VALUES (25, 25)"],
    ],
    "ddl": [
        ["ALTER TABLE t ADD COLUMN c INT DEFAULT 7 FIRST, ALGORITHM=INSTANT", "ALTER TABLE t ADD KEY (v), ADD COLUMN g INT AS (n * 2) STORED"],
        ["INSERT INTO t (n) VALUES (4)", "TRUNCATE TABLE t", "INSERT INTO t (n) VALUES (6)", "ALTER TABLE t DROP COLUMN c", "UPDATE t SET n = 8"],
        ["CREATE DATABASE second", "RENAME TABLE t TO second.moved", "USE second", "INSERT INTO moved (n) VALUES (5)", "DROP DATABASE shop"],
    ],
    "schema gone": [["CREATE DATABASE gone", "USE gone", "CREATE TABLE x (a INT)", "DROP DATABASE gone", "CREATE TABLE shop.after_it (a INT)"]],
    "minimal images": [
        ["SET binlog_row_image = MINIMAL", "INSERT INTO t (v) VALUES ('m'), ('n')", "UPDATE t SET n = 3 WHERE v = 'm'", "DELETE FROM t WHERE v = 'n'"],
        ["SET binlog_row_image = NOBLOB", "UPDATE t SET v = 'o' WHERE n = 3"],
    ],
    "statement format": [
        ["SET binlog_format = STATEMENT", "INSERT INTO t (v, at, ts) VALUES ('now', NOW(6), NOW())", "INSERT INTO t (v) VALUES (LAST_INSERT_ID())", "UPDATE t SET n = RAND() * 1000"],
        ["SET binlog_format = STATEMENT", "SET TIMESTAMP = 1234567890.123456", "INSERT INTO t (v, at) VALUES ('then', NOW(6))", "SET @u = 18446744073709551615, @d = 12.340, @n = NULL, @f = 1e0 / 3, @s = _latin1 X'e9', @neg = -5, @dd = -1234567890123.000000001"],
        [
            "SET binlog_format = STATEMENT", "SET @u = 18446744073709551615, @d = 12.340, @n = NULL, @f = 1e0 / 3, @s = _latin1 X'e9', @neg = -5, @dd = -1234567890123.000000001",
            "CREATE TABLE vars (a VARCHAR(60), b VARCHAR(60), c VARCHAR(60), d DOUBLE, e VARCHAR(9), f BIGINT, g DECIMAL(40,20))",
            "INSERT INTO vars VALUES (@u, @d, @n, @f, @s, @neg, @dd)", "INSERT INTO vars (a, b) VALUES (@u - 1, @dd * 3)",
        ],
        ["SET binlog_format = STATEMENT, lc_time_names = 'de_DE'", "INSERT INTO t (v) VALUES (DAYNAME('2024-01-01'))"],
        ["SET binlog_format = STATEMENT", "CREATE TEMPORARY TABLE tmp (a INT)", "INSERT INTO tmp VALUES (1), (2)", "INSERT INTO t (n) SELECT a FROM tmp", "DROP TEMPORARY TABLE tmp"],
        ["SET binlog_format = STATEMENT", "INSERT INTO t (v) VALUES (CONNECTION_ID())"],
        ["SET binlog_format = STATEMENT, sql_mode = ''", "INSERT INTO t (v, n) VALUES ('bad', 'not a number')"],
        ["SET binlog_format = STATEMENT, foreign_key_checks = 0, unique_checks = 0, sql_auto_is_null = 1", "INSERT INTO t (v) VALUES ('flags')"],
    ],
    "accounts": [
        ["CREATE USER someone IDENTIFIED BY 'secret-word'", "GRANT SELECT ON shop.* TO someone", "/* hi */ ALTER USER someone ACCOUNT LOCK", "INSERT INTO t (v) VALUES ('x')", "DROP USER someone"],
    ],
}  # fmt: skip
