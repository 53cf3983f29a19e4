"""Which statements a restore leaves out: accounts, and what lies in the server's own schemas.

A backup holds no accounts; replaying what the log says of them would drop the account that the replay runs under,
or give another one a password.
"""

from __future__ import annotations

import re

from backups.engine.mysql.server import SYSTEM_SCHEMAS
from backups.engine.mysql.statements import Query

# Spaces and comments in front; of /*!50001 ... */ only its opening, since what it holds is executed.
_LEAD = re.compile(rb"(?s)(?:\s+|/\*M?!\d*|/\*(?!M?!).*?\*/|--[\s][^\n]*(?:\n|$)|#[^\n]*(?:\n|$))*")
_ACCOUNT = re.compile(
    rb"(?is)(?:(?:CREATE|ALTER|DROP|RENAME)\s+(?:OR\s+REPLACE\s+)?(?:USER|ROLE)\b|GRANT\b|REVOKE\b"
    rb"|SET\s+(?:DEFAULT\s+ROLE|PASSWORD)\b|FLUSH\s+(?:(?:LOCAL|NO_WRITE_TO_BINLOG)\s+)?PRIVILEGES\b)"
)
_WORD = rb"(`(?:[^`]|``)+`|\w+)"
_TARGET = re.compile(
    rb"(?is)(?:(?:INSERT|REPLACE|DELETE|UPDATE)(?:\s+(?:LOW_PRIORITY|DELAYED|HIGH_PRIORITY|IGNORE|QUICK|INTO|FROM))*"
    rb"|(?:CREATE|ALTER|DROP|TRUNCATE|ANALYZE|OPTIMIZE|REPAIR)(?:\s+(?:OR|REPLACE|NO_WRITE_TO_BINLOG|LOCAL))*"
    rb"(?:\s+TABLE)?(?:\s+IF\s+(?:NOT\s+)?EXISTS)?)\s+" + _WORD + rb"(?:\s*\.\s*" + _WORD + rb")?"
)
_SYSTEM = frozenset(name.encode() for name in SYSTEM_SCHEMAS)


def is_skipped(query: Query) -> bool:
    """True for account statements, and for statements whose (first) table lies in a system schema."""
    lead = _LEAD.match(query.sql)
    at = lead.end() if lead else 0
    if _ACCOUNT.match(query.sql, at):
        return True
    target = _TARGET.match(query.sql, at)
    if not target or b"TEMPORARY" in target[0].upper():
        return False
    named = target[1].strip(b"`").lower() if target[2] else query.schema.encode()
    return named in _SYSTEM
