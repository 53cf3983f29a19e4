"""What foreign keys did to other rows is in the log of MySQL 9.6 and newer: the target must not do it once more.

A replica does it once more, and is wrong where a REPLACE puts a row in the place of another with the same referenced
key: its children stay on the source (nothing is logged of them), while the replica sees a delete and an insert, and
deletes them, sets them to NULL, or stops.  Each row that changed has an event of its own, so that one way is right:
change the rows that are named, and check nothing.
"""

from __future__ import annotations

from backups.engine.mysql.events import ROWS
from backups.engine.mysql.plain import HEAD
from backups.engine.mysql.rowbuffer import FLAGS, add_flag
from backups.engine.mysql.rows import CASCADES_LOGGED, NO_FOREIGN_KEY_CHECKS

_BOTH = CASCADES_LOGGED | NO_FOREIGN_KEY_CHECKS


def without_cascades(raw: bytes, trailer: int) -> bytes:
    """Table maps and row events; those whose log holds cascades are told to check no foreign keys."""
    found: bytearray | None = None
    at = 0
    while at < len(raw):
        kind, size = HEAD.unpack_from(raw, at)
        stop = at + size
        if kind in ROWS and raw[at + FLAGS] & _BOTH == CASCADES_LOGGED:
            if found is None:
                found = bytearray(raw)
            add_flag(found, at, stop, NO_FOREIGN_KEY_CHECKS, trailer)
        at = stop
    return raw if found is None else bytes(found)
