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
    installation: how much of what the pages show.
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


SMALL = Size("small", 10_000, 3, 16, 800, 500, 50_000, "256M", "4M", 8, 2, 1, _installation(50))
FULL = Size("full", 300_000, 60, 16, 20_000, 2_000, 1_000_000, "2G", "32M", 60, 15, 3, _installation(1_000))
SIZES = {size.name: size for size in (SMALL, FULL)}
