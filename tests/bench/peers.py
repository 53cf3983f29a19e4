"""What a DBA would reach for instead, each at its best: no TLS, no binary log on the target, nothing to start twice.

Functions that `measures.measure` runs: they prepare, and return the work.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pymysql
from botocore.config import Config

from backups.engine.mysql.server import ServerConfig
from everest.demo.servers import Installation
from storages.stores.base import StoreConfig

LOOK_SECONDS = 0.005
FOLLOWER = "bench_follower"
PASSWORD = "Follow-1"
WORKERS = 4
DUMP = ("--single-transaction", "--routines", "--triggers", "--events", "--set-gtid-purged=OFF")


def run(argv: Sequence[str], **streams: Any) -> None:
    ran = subprocess.run(argv, stderr=subprocess.PIPE, text=True, **streams)
    if ran.returncode:
        raise RuntimeError(f"{argv[0]} ended with {ran.returncode}: {ran.stderr[-800:]}")


def piped(first: Sequence[str], second: Sequence[str], out: Any = subprocess.DEVNULL) -> None:
    """first | second, and both must succeed."""
    left = subprocess.Popen(first, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    right = subprocess.Popen(second, stdin=left.stdout, stdout=out, stderr=subprocess.PIPE)
    assert left.stdout
    left.stdout.close()
    said = right.communicate()[1], left.communicate()[1]
    if left.returncode or right.returncode:
        raise RuntimeError(f"{first[0]} | {second[0]}: {said!r:.800}")


# Programs


def by_network(installation: Installation, program: str, config: ServerConfig) -> list[str]:
    """A program that signs in as Everest does: over TCP, with a password, without TLS."""
    return [
        *installation.command(program), "--no-defaults", f"--host={config.host}", f"--port={config.port}",
        f"--user={config.user}", f"--password={config.password}", "--ssl-mode=DISABLED", "--get-server-public-key",
    ]  # fmt: skip


def client(installation: Installation, config: ServerConfig) -> list[str]:
    """The server's client, which logs nothing on the target, as Everest does not."""
    argv = by_network(installation, "mysql", config)
    return [*argv, "--binary-mode", "--max-allowed-packet=1G", "--init-command=SET sql_log_bin=0"]


# Capture


def binlog_raw(
    config: ServerConfig, installation: Installation, files: Sequence[str], folder: Path
) -> Callable[[], None]:
    """mysqlbinlog --read-from-remote-server --raw"""
    folder.mkdir()
    argv = [*by_network(installation, "mysqlbinlog", config), "--read-from-remote-server", "--raw",
            "--connection-server-id=4711", f"--result-file={folder}/", *files]  # fmt: skip
    return lambda: run(argv)


def binlog_shipped(
    config: ServerConfig, installation: Installation, files: Sequence[str], folder: Path, store: StoreConfig
) -> Callable[[], None]:
    """mysqlbinlog --raw, zstd -1 and a copy to S3, the three at once: a file goes on as soon as the next begins."""
    fetch = binlog_raw(config, installation, files, folder)
    s3 = bucket(store)
    s3.head_bucket(Bucket=store.bucket)

    def compress(name: str, whole: Callable[[], bool]) -> str:
        while not whole():
            time.sleep(LOOK_SECONDS)
        run(["zstd", "-1", "-q", "--rm", str(folder / name)])
        return name

    def copy(compressed: Future[str]) -> None:
        name = f"{compressed.result()}.zst"
        s3.upload_file(str(folder / name), store.bucket, f"{folder.name}/{name}")

    def work() -> None:
        with ThreadPoolExecutor(1) as fetching, ThreadPoolExecutor(1) as packing, ThreadPoolExecutor(1) as copying:
            fetched = fetching.submit(fetch)
            copies = []
            for name, after in zip(files, [*files[1:], ""], strict=True):
                packed = packing.submit(compress, name, _whole(folder / after if after else None, fetched))
                copies.append(copying.submit(copy, packed))
            for copied in copies:
                copied.result()

    return work


def _whole(after: Path | None, fetched: Future[None]) -> Callable[[], bool]:
    """Whether a log file has arrived: the one after it has begun, or all have."""

    def whole() -> bool:
        if fetched.done():
            fetched.result()
            return True
        return after is not None and after.exists()

    return whole


def bucket(store: StoreConfig) -> Any:
    config = Config(s3={"addressing_style": "path"}, max_pool_connections=16)
    keys = {"aws_access_key_id": store.access_key, "aws_secret_access_key": store.secret_key}
    return boto3.client("s3", endpoint_url=store.endpoint, region_name=store.region, config=config, **keys)


# Replay


def binlog_replayed(config: ServerConfig, installation: Installation, files: Sequence[Path]) -> Callable[[], None]:
    """mysqlbinlog | mysql, from files that were fetched before."""
    argv = [*installation.command("mysqlbinlog"), "--no-defaults", "--skip-gtids"]
    return lambda: piped([*argv, *map(str, files)], client(installation, config))


def applied(_: ServerConfig, socket: Path, source_port: int, gtids: str, until: str) -> Callable[[], None]:
    """The server's own applier with 4 workers; its relay log is fetched before.  gtids: what the target holds."""
    connection = pymysql.connect(unix_socket=str(socket), user="root", autocommit=True)
    cursor = connection.cursor(pymysql.cursors.DictCursor)
    for statement in (
        "RESET BINARY LOGS AND GTIDS",
        f"SET GLOBAL gtid_purged = '{gtids}'",
        f"SET GLOBAL replica_parallel_workers = {WORKERS}",
        f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={source_port}, SOURCE_USER='{FOLLOWER}',"
        f" SOURCE_PASSWORD='{PASSWORD}', GET_SOURCE_PUBLIC_KEY=1, SOURCE_AUTO_POSITION=1",
        "START REPLICA IO_THREAD",
    ):
        cursor.execute(statement)
    _until(cursor, lambda: _subset(cursor, until, _status(cursor)["Retrieved_Gtid_Set"] + "," + gtids))

    def work() -> None:
        cursor.execute("START REPLICA SQL_THREAD")
        _until(cursor, lambda: _reached(cursor, until))

    return work


def _until(cursor: Any, condition: Callable[[], bool]) -> None:
    while not condition():
        status = _status(cursor)
        if status["Last_SQL_Errno"] or status["Last_IO_Errno"]:
            raise RuntimeError(f"The replica stopped: {status['Last_SQL_Error']}{status['Last_IO_Error']}")
        time.sleep(0.02)


def _reached(cursor: Any, until: str) -> bool:
    cursor.execute("SELECT @@GLOBAL.gtid_executed AS done")
    return _subset(cursor, until, cursor.fetchone()["done"])


def _subset(cursor: Any, small: str, large: str) -> bool:
    cursor.execute("SELECT GTID_SUBSET(%s, %s) AS yes", (small, large.strip(",")))
    return bool(cursor.fetchone()["yes"])


def _status(cursor: Any) -> dict[str, Any]:
    cursor.execute("SHOW REPLICA STATUS")
    return dict(cursor.fetchone())


# Snapshot and load


def dumped(config: ServerConfig, installation: Installation, schemas: Sequence[str], file: Path) -> Callable[[], int]:
    """mysqldump --single-transaction | zstd -1, into a file; returns its bytes."""
    argv = [*by_network(installation, "mysqldump", config), *DUMP, "--databases", *schemas]

    def work() -> int:
        with open(file, "wb") as out:
            piped(argv, ["zstd", "-1", "-q", "-c"], out)
        return file.stat().st_size

    return work


def mydumped(config: ServerConfig, schemas: Sequence[str], folder: Path, threads: int, gzip: bool) -> Callable[[], int]:
    """mydumper into a folder, compressed by itself (gzip), or by zstd -1 on all cores after it; returns its bytes.

    Debian's mydumper knows no zstd.  Newer ones pipe each file through the zstd program: the same work in all.
    """
    argv = [
        "mydumper", *_signing_in(config), f"--outputdir={folder}", f"--threads={threads}", "--trx-consistency-only",
        "--routines", "--triggers", "--events", "--regex", f"^({'|'.join(schemas)})[.]", *(["--compress"] * gzip),
    ]  # fmt: skip

    def work() -> int:
        run(argv, stdout=subprocess.DEVNULL)
        if not gzip:
            run(["zstd", "-1", "-q", "--rm", "-T0", *map(str, folder.glob("*.sql"))])
        return sum(path.stat().st_size for path in folder.iterdir())

    return work


def sourced(config: ServerConfig, installation: Installation, file: Path) -> Callable[[], None]:
    """mysql < dump.sql"""

    def work() -> None:
        with open(file, "rb") as dump:
            run(client(installation, config), stdin=dump, stdout=subprocess.DEVNULL)

    return work


def myloaded(config: ServerConfig, folder: Path, threads: int) -> Callable[[], None]:
    argv = ["myloader", *_signing_in(config), f"--directory={folder}", f"--threads={threads}"]
    return lambda: run(argv, stdout=subprocess.DEVNULL)


def _signing_in(config: ServerConfig) -> list[str]:
    return [f"--host={config.host}", f"--port={config.port}", f"--user={config.user}", f"--password={config.password}"]
