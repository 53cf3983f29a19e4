"""Captures tests/golden/*.binlog from real servers: python -m tests.golden.make

The tests know what is in them; run it again only to add to the history below, and read what the tests then say.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from everest.demo import servers

HERE = Path(__file__).parent
COLUMNS = """
    id INT PRIMARY KEY AUTO_INCREMENT, ti TINYINT, si SMALLINT UNSIGNED, mi MEDIUMINT, bi BIGINT, f FLOAT, d DOUBLE,
    de DECIMAL(23,7), de2 DECIMAL(5,0), b1 BIT(1), b12 BIT(12), y YEAR, da DATE, t TIME, t3 TIME(3), dt DATETIME,
    dt6 DATETIME(6), ts TIMESTAMP NULL, ts5 TIMESTAMP(5) NULL, c CHAR(10), cu CHAR(255) CHARACTER SET utf8mb4,
    vb VARBINARY(20), v VARCHAR(63) CHARACTER SET utf8mb4, vl VARCHAR(300) CHARACTER SET utf8mb4, bin BINARY(7),
    e ENUM('a','b'), s SET('x','y','z'), tt TINYTEXT, tx TEXT, mb MEDIUMBLOB, lb LONGBLOB, j JSON, g GEOMETRY"""
NAMES = "ti,si,mi,bi,f,d,de,de2,b1,b12,y,da,t,t3,dt,dt6,ts,ts5,c,cu,vb,v,vl,bin,e,s,tt,tx,mb,lb,j,g"  # all but id
VALUES = (
    "1,2,3,4,1.5,2.5,12345.678,99,b'1',b'101010101010',2024,'2024-01-02','-10:11:12','10:11:12.123',"
    "'2024-01-02 03:04:05','2024-01-02 03:04:05.123456','2024-01-02 03:04:05','2024-01-02 03:04:05.12345','ab','äöü',"
    "'vb','vvv',REPEAT('x',290),'b','a','x,z','tt',REPEAT('t',300),'mb','lb',"
    """'{"a":[1,2,3],"b":"cccccccccccccccccccccccc"}',ST_GeomFromText('POINT(1 2)')"""
)
MYSQL = (
    "ve VECTOR(4), gv INT GENERATED ALWAYS AS (ti+1) VIRTUAL, gs INT GENERATED ALWAYS AS (ti+2) STORED,"
    " inv INT INVISIBLE DEFAULT 7, KEY mv ((CAST(j->'$.a' AS UNSIGNED ARRAY)))",
    "ve",
    "STRING_TO_VECTOR('[1,2,3,4]')",
)
MARIADB = (
    "u UUID, i6 INET6, i4 INET4, vc VARCHAR(100) COMPRESSED, tc TEXT COMPRESSED",
    "u,i6,i4,vc,tc",
    "'123e4567-e89b-12d3-a456-426655440000','::1','1.2.3.4',REPEAT('z',90),REPEAT('q',500)",
)


def history(ask: Any, extra: tuple[str, str, str]) -> None:
    """Every kind of event that both flavours have."""
    columns, names, values = extra
    row = f"({VALUES},{values})"
    ask(f"CREATE DATABASE g; USE g; CREATE TABLE t ({COLUMNS},{columns})")
    ask(f"INSERT INTO t ({NAMES},{names}) VALUES {row},{row},{row}")
    ask("INSERT INTO t (id) VALUES (100),(101); UPDATE t SET ti=ti+1, v='k' WHERE id<=2")
    ask("SET binlog_row_image=MINIMAL; UPDATE t SET ti=ti+1 WHERE id<=3; DELETE FROM t WHERE id=100")
    ask("SET binlog_row_image=NOBLOB; UPDATE t SET ti=ti+1 WHERE id<=3; SET binlog_row_image=FULL")
    for branch, end in (("'xa1','b',7", "COMMIT"), ("'xa2'", "ROLLBACK")):
        ask(
            f"XA START {branch}; INSERT INTO t (ti) VALUES (1); XA END {branch}; XA PREPARE {branch}; XA {end} {branch}"
        )
    ask("XA START 'xa3'; INSERT INTO t (ti) VALUES (1); XA END 'xa3'; XA COMMIT 'xa3' ONE PHASE")
    ask("BEGIN; INSERT INTO t (ti) VALUES (1); SAVEPOINT a; INSERT INTO t (ti) VALUES (2),(3); ROLLBACK TO a; COMMIT")
    ask("CREATE TABLE cs (a INT) SELECT 1 AS a; TRUNCATE cs; CREATE TABLE my (a INT) ENGINE=MyISAM")
    ask("INSERT INTO my VALUES (1),(2); DROP TABLE cs, my; CREATE USER IF NOT EXISTS zz; DROP USER zz")
    ask("SET @x='abc', time_zone='+02:00', sql_mode='ANSI', auto_increment_increment=5, auto_increment_offset=2")
    ask("SET binlog_format=STATEMENT; INSERT INTO t (ti, v) VALUES (RAND()*10, @x); SET binlog_format=ROW")


def mysql(ask: Any) -> None:
    row = f"({VALUES},{MYSQL[2]})"
    ask("SET auto_increment_increment=1, auto_increment_offset=1, sql_mode=''")
    ask("SET binlog_row_value_options=PARTIAL_JSON; UPDATE t SET j=JSON_SET(j,'$.b','dd') WHERE id<=3")
    ask("SET binlog_row_value_options=''; SET binlog_transaction_compression=ON")
    ask(f"INSERT INTO t ({NAMES},{MYSQL[1]}) VALUES {row},{row}")
    ask("BEGIN; UPDATE t SET si=9 WHERE id<4; DELETE FROM t WHERE id=2; COMMIT; SET binlog_transaction_compression=OFF")
    ask("CREATE TABLE p (id INT PRIMARY KEY, v INT) PARTITION BY HASH(id) PARTITIONS 3")
    ask("INSERT INTO p VALUES (1,1),(2,2),(3,3),(4,4); UPDATE p SET id=id+10")


def tagged(ask: Any) -> None:
    ask("SET gtid_next='AUTOMATIC:a_tag'; INSERT INTO p VALUES (100,1); DELETE FROM p; SET gtid_next='AUTOMATIC'")


def mariadb(ask: Any) -> None:
    row = f"({VALUES},{MARIADB[2]})"
    ask("SET auto_increment_increment=1, auto_increment_offset=1, sql_mode=''")
    ask(f"INSERT INTO t ({NAMES},{MARIADB[1]}) VALUES {row},{row}; UPDATE t SET v='fghij'; DELETE FROM t WHERE id<3")
    ask(f"CREATE TABLE long_text (a INT COMMENT '{'a' * 100}')")


def capture(installation: servers.Installation, name: str, gtid: bool, *options: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = servers.start(installation, Path(folder), gtid=gtid, options=["--server-id=7", *options])
        try:
            write(server, gtid)
            first = "binlog.000001"
            (HERE / f"{name}.binlog").write_bytes((Path(folder) / "data" / first).read_bytes())
        finally:
            server.kill()


def write(server: servers.Server, gtid: bool) -> None:
    def ask(text: str) -> None:
        with connection.cursor() as cursor:
            for statement in text.split("; "):
                cursor.execute(statement)

    connection = server.connect()
    ask("RESET MASTER" if server.flavour == "mariadb" else "RESET BINARY LOGS AND GTIDS")
    if server.flavour == "mariadb":
        history(ask, MARIADB)
        ask("SET GLOBAL log_bin_compress=1; SET GLOBAL log_bin_compress_min_len=10")
        connection = server.connect(database="g")
        mariadb(ask)
    else:
        history(ask, MYSQL)
        mysql(ask)
        if gtid:
            tagged(ask)
    ask("FLUSH BINARY LOGS")


if __name__ == "__main__":
    for version, stem in ((servers.mysql(), "mysql-9.7"), (servers.mariadb(), "mariadb-10.11")):
        capture(version, stem, True)
        capture(version, f"{stem}-plain", False, "--binlog-checksum=NONE")
