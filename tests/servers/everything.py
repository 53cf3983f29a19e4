"""Schemas with every column type, charset and kind of object, for the round trip from server to server."""

from __future__ import annotations

from everest.demo.servers import Server
from tests.servers.backups import script

SCHEMAS = (
    "CREATE DATABASE shop CHARACTER SET utf8mb4",
    "CREATE DATABASE `odd ``name`` – ü` CHARACTER SET latin1 COLLATE latin1_german1_ci",
    "CREATE DATABASE nothing",
    "SET time_zone = '+00:00', sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'",
)

NUMBERS = (
    """CREATE TABLE shop.numbers (
        id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
        t TINYINT, tu TINYINT UNSIGNED, s SMALLINT, m MEDIUMINT, i INT, iz INT(8) UNSIGNED ZEROFILL, b BIGINT,
        d DECIMAL(65,30), d0 DECIMAL(5,0), f FLOAT, fd FLOAT(7,4), dd DOUBLE, d2 DOUBLE(12,3),
        bit1 BIT(1), bit10 BIT(10), bit64 BIT(64), flag BOOL)""",
    "INSERT INTO shop.numbers VALUES (0, -128, 255, -32768, -8388608, -2147483648, 42, -9223372036854775808,"
    " -12345678901234567890123456789012345.123456789012345678901234567891, 99999, 1.17549e-38, 123.4567, 5e-324,"
    " 123456789.125, b'1', b'1000001010', b'1000000000000000000000000000000000000000000000000000000000001010', 1)",
    "INSERT INTO shop.numbers VALUES (18446744073709551614, 127, 0, 32767, 8388607, 2147483647, 0,"
    " 9223372036854775807, 0, -1, 3.40282e38, -999.9999, -1.7976931348623157e308, -0.001, b'0', b'1001', b'0', 0)",
    "INSERT INTO shop.numbers (id, f, dd) VALUES (7, 0.1, 0.1), (8, 16777217, 1.2345678901234567e-123),"
    " (9, 1e0/3, 1e0/3), (10, -0e0, -0e0), (11, 123456.789, 2.2250738585072014e-308)",
    "INSERT INTO shop.numbers (id) VALUES (12)",
)

TIMES = (
    """CREATE TABLE shop.times (
        id INT PRIMARY KEY, d DATE, t TIME, t6 TIME(6), dt DATETIME, dt6 DATETIME(6),
        ts TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, ts6 TIMESTAMP(6) NULL, y YEAR)""",
    "INSERT INTO shop.times VALUES"
    " (1, '0000-00-00', '-838:59:59', '838:59:58.999999', '0000-00-00 00:00:00', '9999-12-31 23:59:59.999999',"
    "  '0000-00-00 00:00:00', '2038-01-19 03:14:07.999999', 0),"
    " (2, '2020-00-00', '00:00:00', '-00:00:00.000001', '2020-02-00 00:00:00', '2020-02-30 12:00:00.000001',"
    "  '1970-01-01 00:00:01', '2023-03-26 01:30:00.5', 2155),"
    " (3, '2020-02-31', NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
)

ALL_BYTES = "0x" + "".join(f"{n:02x}" for n in range(256))

TEXTS = (
    """CREATE TABLE shop.texts (
        id INT PRIMARY KEY, c CHAR(10), v VARCHAR(300), vl VARCHAR(300) CHARACTER SET latin1,
        v16 VARCHAR(100) CHARACTER SET utf16, v32 TEXT CHARACTER SET utf32, ucs VARCHAR(50) CHARACTER SET ucs2,
        sj VARCHAR(50) CHARACTER SET sjis, gb VARCHAR(50) CHARACTER SET gbk, b5 VARCHAR(50) CHARACTER SET big5,
        eu VARCHAR(50) CHARACTER SET ujis, kr VARCHAR(50) CHARACTER SET euckr, a VARCHAR(50) CHARACTER SET ascii,
        cp VARCHAR(50) CHARACTER SET cp1251, k8 VARCHAR(50) CHARACTER SET koi8r,
        tt TINYTEXT, x TEXT, mt MEDIUMTEXT, lt LONGTEXT)""",
    r"INSERT INTO shop.texts (id, c, v, tt, x, mt, lt) VALUES (1, '', '', '', '', '', ''),"
    r" (2, NULL, '\\N', '\\', '\t', '\n', '\\\\N'), (3, '\\N', 'a\tb\nc\\d\re\0f', '\'\"', '\\t', '\\n', '\0'),"
    r" (4, 'é–😀', '😀\\', 'NULL', 'a\\', '\t\t', '\n\n'), (5, ' a ', ' ', ' \t', '\r\n', '\Z', ',')",
    "INSERT INTO shop.texts (id, vl, v16, v32, ucs) VALUES"
    " (10, 'äöüß\\\\\\t', 'a\\\\\\t\\né–😀', 'x\\\\\\t\\n😀', 'ü\\\\\\t\\n')",
    "INSERT INTO shop.texts (id, vl) VALUES (11, CONVERT(" + ALL_BYTES + " USING latin1))",
    # 0x815C, 0x835C, 0xA45C, 0x8E5C, 0x5C5C: characters whose second byte is a backslash
    "INSERT INTO shop.texts (id, sj, gb, b5, eu, kr, a, cp, k8) VALUES"
    " (12, '表ソ能', '誠\\\\t', '功許', '日本', '한국', 'plain', 'Привет', 'Привет')",
)

BINARIES = (
    "CREATE TABLE shop.binaries (id INT PRIMARY KEY, b BINARY(8), v VARBINARY(300), t TINYBLOB, x BLOB, m MEDIUMBLOB,"
    " l LONGBLOB)",
    f"INSERT INTO shop.binaries VALUES (1, 0x00, {ALL_BYTES}, '', {ALL_BYTES}, NULL, {ALL_BYTES}),"
    r" (2, 'a ', 'a ', '\\N', '\t', '\n', '\\'), (3, NULL, NULL, NULL, NULL, REPEAT('x', 65536), REPEAT('\t', 70000))",
)

CHOICES = (
    "CREATE TABLE shop.choices (id INT PRIMARY KEY, e ENUM('', 'a', 'b,c', 'é', '1', '2'), s SET('x', 'y', 'ü z'),"
    " eu ENUM('ä', 'b\\\\t') CHARACTER SET utf16, es ENUM('表', '0') CHARACTER SET sjis,"
    " sl SET('ä', 'ö') CHARACTER SET latin1)",
    "INSERT INTO shop.choices VALUES (1, '', '', 'ä', '表', 'ä,ö'), (2, 'b,c', 'x,ü z', 'b\\\\t', '0', ''),"
    " (3, '2', 'y', NULL, NULL, NULL), (4, NULL, NULL, NULL, NULL, 'ö')",
    "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'",
)

JSONS = (
    "CREATE TABLE shop.jsons (id INT PRIMARY KEY, j JSON)",
    r"""INSERT INTO shop.jsons VALUES (1, '{"a": [1, 2.5, null, true], "é😀": "tab\\tline\\nback\\\\slash"}'),"""
    r""" (2, NULL), (3, 'null'), (4, '""'), (5, '"\\\\N"')""",
)

SHAPES = (
    "CREATE TABLE shop.shapes (id INT PRIMARY KEY, g GEOMETRY, p POINT, l LINESTRING, y POLYGON, m MULTIPOINT,"
    " c GEOMETRYCOLLECTION)",
    "INSERT INTO shop.shapes VALUES (1, ST_GeomFromText('POINT(9 10)'), ST_GeomFromText('POINT(92 -0.5)'),"
    " ST_GeomFromText('LINESTRING(0 0,9 9,10 10)'), ST_GeomFromText('POLYGON((0 0,0 9,9 9,0 0))'),"
    " ST_GeomFromText('MULTIPOINT(1 1,2 2)'), ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1))')),"
    " (2, NULL, NULL, NULL, NULL, NULL, NULL)",
)

TABLES = (
    "CREATE TABLE shop.computed (id INT AUTO_INCREMENT PRIMARY KEY, a INT, twice INT AS (a * 2) VIRTUAL,"
    " thrice INT AS (a * 3) STORED, last INT DEFAULT (1 + 2), KEY (thrice))",
    "INSERT INTO shop.computed (a) VALUES (1), (2), (NULL)",
    "DELETE FROM shop.computed WHERE id = 3",
    "CREATE TABLE shop.hidden (id INT PRIMARY KEY, secret VARCHAR(10) DEFAULT 'x' INVISIBLE)",
    "INSERT INTO shop.hidden (id, secret) VALUES (1, 'found')",
    "CREATE TABLE shop.no_key (a INT, b INT)",
    "INSERT INTO shop.no_key VALUES (1, 1), (1, 1), (NULL, NULL)",
    "CREATE TABLE shop.one_column (v VARCHAR(10))",
    "INSERT INTO shop.one_column VALUES (''), (NULL), ('x')",
    "CREATE TABLE shop.zero_id (id INT AUTO_INCREMENT PRIMARY KEY) AUTO_INCREMENT = 1000",
    "INSERT INTO shop.zero_id VALUES (0), (5)",
    "CREATE TABLE shop.counter_only (id INT AUTO_INCREMENT PRIMARY KEY) AUTO_INCREMENT = 77 COMMENT 'AUTO_INCREMENT=3'",
    "CREATE TABLE shop.parts (id INT AUTO_INCREMENT, at DATE, PRIMARY KEY (id, at)) AUTO_INCREMENT = 9"
    " PARTITION BY RANGE (YEAR(at)) (PARTITION p0 VALUES LESS THAN (2020), PARTITION p1 VALUES LESS THAN MAXVALUE)",
    "INSERT INTO shop.parts (at) VALUES ('2019-01-01'), ('2021-01-01')",
    "CREATE TABLE shop.parent (id INT PRIMARY KEY)",
    "CREATE TABLE shop.a_child (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES parent (id)"
    " ON DELETE CASCADE)",
    "INSERT INTO shop.parent VALUES (1)",
    "INSERT INTO shop.a_child VALUES (1, 1)",
    "CREATE TABLE shop.compressed (id INT PRIMARY KEY, v VARCHAR(20), KEY (v)) ROW_FORMAT = COMPRESSED"
    " KEY_BLOCK_SIZE = 8",
    "CREATE TABLE shop.searched (id INT PRIMARY KEY, v TEXT, FULLTEXT (v))",
    "INSERT INTO shop.searched VALUES (1, 'find me')",
    "CREATE TABLE shop.isam (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(10)) ENGINE = MyISAM AUTO_INCREMENT = 12",
    "INSERT INTO shop.isam (v) VALUES ('a'), ('b')",
    "CREATE TABLE shop.memory (id INT PRIMARY KEY) ENGINE = MEMORY",
    "INSERT INTO shop.memory VALUES (1)",
    "CREATE TABLE shop.checked (a INT, CONSTRAINT positive CHECK (a > 0))",
    "CREATE TABLE `odd ``name`` – ü`.`tab\\le – ``x``` (`col ``umn``` INT, `ü` VARCHAR(10)) COMMENT 'it''s ü'",
    "INSERT INTO `odd ``name`` – ü`.`tab\\le – ``x``` VALUES (1, 'ü')",
)

PROGRAMS = (
    "USE shop",
    "CREATE FUNCTION later(a INT) RETURNS INT DETERMINISTIC RETURN a + 1",
    "CREATE VIEW z_base AS SELECT id, later(id) AS following FROM parent",
    "CREATE VIEW a_over AS SELECT following AS `the ``next``` FROM z_base",
    "CREATE ALGORITHM = MERGE DEFINER = nobody@nowhere SQL SECURITY INVOKER VIEW strict AS SELECT * FROM parent"
    " WHERE id > 0 WITH CHECK OPTION",
    "CREATE DEFINER = nobody@nowhere PROCEDURE talk(IN a VARCHAR(10), OUT b INT) COMMENT 'it''s'"
    " BEGIN -- don't stop; here\n SET b = LENGTH(a); SELECT 'x;y', \"q\"; END",
    "SET SESSION sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES'",
    "CREATE FUNCTION ansi() RETURNS VARCHAR(20) DETERMINISTIC RETURN 'a' || '\\' || 'b'",
    "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
    "SET NAMES latin1",
    "CREATE FUNCTION umlaut() RETURNS VARCHAR(20) CHARSET utf8mb4 DETERMINISTIC RETURN 'ä'",
    "CREATE VIEW umlaut_view AS SELECT 'ä' AS `ä`",
    "SET NAMES utf8mb4",
    "CREATE TABLE noted (id INT AUTO_INCREMENT PRIMARY KEY, what TEXT)",
    "CREATE TRIGGER second BEFORE INSERT ON parent FOR EACH ROW INSERT INTO noted (what) VALUES ('second')",
    "CREATE TRIGGER first BEFORE INSERT ON parent FOR EACH ROW PRECEDES second"
    " INSERT INTO noted (what) VALUES ('first')",
    "CREATE TRIGGER after_all AFTER INSERT ON parent FOR EACH ROW INSERT INTO noted (what) VALUES ('after; all')",
    "CREATE EVENT daily ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DISABLE COMMENT 'c' DO DELETE FROM noted",
    "CREATE EVENT once ON SCHEDULE AT CURRENT_TIMESTAMP + INTERVAL 1 DAY DO DELETE FROM noted",
    "USE `odd ``name`` – ü`",
    "CREATE VIEW across AS SELECT following, shop.later(1) AS f FROM shop.z_base",
    "CREATE FUNCTION `f ü`() RETURNS CHAR(1) DETERMINISTIC RETURN 'x'",
    "ALTER DATABASE COLLATE latin1_swedish_ci",
)

MYSQL_ONLY = (
    "CREATE TABLE shop.vectors (id INT PRIMARY KEY, v VECTOR(3))",
    "INSERT INTO shop.vectors VALUES (1, STRING_TO_VECTOR('[1.5, -2, 3e-10]')), (2, NULL)",
    "CREATE TABLE shop.world (id INT PRIMARY KEY, p POINT NOT NULL SRID 4326, SPATIAL KEY (p))",
    "INSERT INTO shop.world VALUES (1, ST_GeomFromText('POINT(52.5 13.4)', 4326))",
    "CREATE TABLE shop.functional (id INT PRIMARY KEY, a INT, j JSON, KEY ((a + 1)),"
    " KEY ((CAST(j->'$.x' AS UNSIGNED ARRAY))))",
    "INSERT INTO shop.functional VALUES (1, 2, '{\"x\": [1, 2]}')",
    "SET SESSION sql_generate_invisible_primary_key = ON",
    "CREATE TABLE shop.made_key (a INT)",
    "SET SESSION sql_generate_invisible_primary_key = OFF",
    "INSERT INTO shop.made_key VALUES (1), (1)",
    "CREATE TABLE shop.defaults (v VARCHAR(10) DEFAULT '😀', b BINARY(3) DEFAULT 0xFF00FE)",
)

MARIADB_ONLY = (
    "CREATE SEQUENCE shop.numbering START WITH 5 INCREMENT BY 3 CACHE 10",
    "SELECT NEXTVAL(shop.numbering)",
    "CREATE TABLE shop.numbered (id INT DEFAULT NEXTVAL(shop.numbering), a INT)",
    "INSERT INTO shop.numbered (a) VALUES (1), (2)",
    "CREATE TABLE shop.versions (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING",
    "INSERT INTO shop.versions VALUES (1, 1), (2, 2)",
    "UPDATE shop.versions SET v = 9 WHERE id = 1",
    "DELETE FROM shop.versions WHERE id = 2",
    "CREATE TABLE shop.named_versions (id INT PRIMARY KEY, v INT, s TIMESTAMP(6) GENERATED ALWAYS AS ROW START,"
    " e TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING",
    "INSERT INTO shop.named_versions (id, v) VALUES (1, 1)",
    "UPDATE shop.named_versions SET v = 2",
    "CREATE TABLE shop.addresses (id UUID PRIMARY KEY, six INET6, four INET4)",
    "INSERT INTO shop.addresses VALUES ('123e4567-e89b-12d3-a456-426655440000', '2001:db8::ff00:42:8329', '10.0.0.1'),"
    " ('123e4567-e89b-12d3-a456-426655440001', NULL, NULL)",
    "CREATE TABLE shop.squeezed (id INT PRIMARY KEY, v TEXT COMPRESSED)",
    "INSERT INTO shop.squeezed VALUES (1, REPEAT('squeeze', 100))",
    "CREATE TABLE shop.aria (id INT PRIMARY KEY) ENGINE = Aria",
    "INSERT INTO shop.aria VALUES (1)",
    "SET SESSION sql_mode = 'ORACLE'",
    "CREATE PACKAGE shop.pack AS FUNCTION one RETURN INT; END",
    "CREATE PACKAGE BODY shop.pack AS FUNCTION one RETURN INT AS BEGIN RETURN 1; END; END",
    "SET SESSION sql_mode = ''",
)

COMMON = (*SCHEMAS, *NUMBERS, *TIMES, *TEXTS, *BINARIES, *CHOICES, *JSONS, *SHAPES, *TABLES, *PROGRAMS)


def fill(server: Server) -> None:
    script(server, (*COMMON, *(MYSQL_ONLY if server.flavour == "mysql" else MARIADB_ONLY)))
