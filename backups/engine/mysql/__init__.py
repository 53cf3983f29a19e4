"""Everest for MySQL, Percona Server and MariaDB: the functions that the rest of the engine's users call."""

from backups.engine.mysql.changes import changed_rows, declared_in
from backups.engine.mysql.dump import anchored, prove_same
from backups.engine.mysql.grants import grant_statements
from backups.engine.mysql.gtid import at_or_before, contains, position_after
from backups.engine.mysql.idle import Idle
from backups.engine.mysql.joining import may_follow, prove, split_head
from backups.engine.mysql.load import LoadedCounts, load
from backups.engine.mysql.preflight import preflight_source, preflight_target
from backups.engine.mysql.replay import ReplayResult, replay
from backups.engine.mysql.restore import RestoreResult, restore
from backups.engine.mysql.server import Identity, ServerConfig, connect, current_position, identify
from backups.engine.mysql.snapshot import snapshot
from backups.engine.mysql.stream import capture
from backups.engine.mysql.target import TargetState, put_back
from backups.engine.mysql.target import inspect as inspect_target
from backups.engine.mysql.target import prepare as prepare_target

__all__ = [
    "Identity",
    "Idle",
    "LoadedCounts",
    "ReplayResult",
    "RestoreResult",
    "ServerConfig",
    "TargetState",
    "anchored",
    "at_or_before",
    "capture",
    "changed_rows",
    "connect",
    "contains",
    "current_position",
    "declared_in",
    "grant_statements",
    "identify",
    "inspect_target",
    "load",
    "may_follow",
    "position_after",
    "preflight_source",
    "preflight_target",
    "prepare_target",
    "prove",
    "prove_same",
    "put_back",
    "replay",
    "restore",
    "snapshot",
    "split_head",
]
