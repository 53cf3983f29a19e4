"""How much of everything a run measures, and the settings of its servers."""

from __future__ import annotations

from dataclasses import dataclass

# All servers; the full size has the buffer pool that the targets are meant for.
SETTINGS = (
    "--sync-binlog=0",
    "--innodb-flush-log-at-trx-commit=2",
    "--local-infile=1",
    "--innodb-buffer-pool-dump-pct=100",  # a copy of a server begins as warm as the one it was made of
    "--max-allowed-packet=1G",
)


@dataclass(frozen=True)
class Size:
    """rows: of each of the four sysbench tables.  seconds: of sysbench.  transactions: of the other workloads.

    log_file: bytes at which the source begins another log file.  commit_seconds, impact_seconds: of these two rows.
    installation: how much of what the pages show.  worker: what one worker serves, and for how many minutes.
    """

    name: str
    rows: int
    seconds: int
    threads: int
    transactions: int
    tables: int
    large_rows: int
    buffer_pool: str
    log_file: str
    commit_seconds: int
    impact_seconds: int
    rounds: int
    installation: tuple[tuple[str, int], ...]
    worker: tuple[tuple[str, float], ...]

    @property
    def settings(self) -> tuple[str, ...]:
        return (*SETTINGS, f"--innodb-buffer-pool-size={self.buffer_pool}", f"--max-binlog-size={self.log_file}")

    def __str__(self) -> str:
        return (
            f"{self.name}: sysbench oltp_write_only, 4 tables x {self.rows:,} rows, {self.threads} threads,"
            f" {self.seconds} s; {self.transactions:,} transactions of other workloads, {self.tables:,} small tables,"
            f" {self.large_rows:,} rows in the large transaction; servers with {' '.join(self.settings)}"
        )


def _installation(databases: int) -> tuple[tuple[str, int], ...]:
    return ("databases", databases), ("backups", databases * 100), ("slices", databases * 1_000)


SMALL = Size(
    name="small", rows=10_000, seconds=3, threads=16, transactions=800, tables=500, large_rows=50_000,
    buffer_pool="256M", log_file="4M", commit_seconds=8, impact_seconds=2, rounds=1,
    installation=_installation(20), worker=(("databases", 20), ("minutes", 0.5)),
)  # fmt: skip
FULL = Size(
    name="full", rows=300_000, seconds=37, threads=16, transactions=20_000, tables=2_000, large_rows=1_000_000,
    buffer_pool="2G", log_file="32M", commit_seconds=60, impact_seconds=15, rounds=3,
    installation=_installation(1_000), worker=(("databases", 100), ("minutes", 3)),
)  # fmt: skip
SIZES = {size.name: size for size in (SMALL, FULL)}
