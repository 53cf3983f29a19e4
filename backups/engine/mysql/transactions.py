"""From events to transactions: where each ends, and what an index keeps of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from backups.engine.errors import Corrupt
from backups.engine.mysql import events, rows, statements
from backups.engine.mysql.events import Event, FormatDescription
from backups.engine.mysql.gtid_events import STANDALONE, Gtid, gtid
from backups.engine.mysql.wrapped import payload_events, uncompressed
from backups.engine.types import Change, Transaction

TEXT_KEPT = 4096  # characters of statements
_SILENT = re.compile(r"BEGIN$|COMMIT$|ROLLBACK$|SAVEPOINT\b|ROLLBACK TO\b|RELEASE SAVEPOINT\b|XA (START|BEGIN|END)\b")
_PLAIN = frozenset({b"BEGIN", b"COMMIT", b"ROLLBACK"})
_XA_END = re.compile(r"XA (COMMIT|ROLLBACK) (.*?)(?: ONE PHASE)?$", re.DOTALL)
# MariaDB: what may stand in a standalone group before the statement that ends it.
_NO_END = frozenset({events.INTVAR, events.RAND, events.USER_VAR, events.TABLE_MAP, events.MARIA_ANNOTATE_ROWS})


class Summary:
    """What one transaction does, gathered event by event with bounded memory."""

    def __init__(self, begin: Gtid, identity: str, offset: int, replicated: bool) -> None:
        self.begin = begin
        self.identity = identity
        self.offset = offset
        self.time_us = begin.time_us(replicated)
        self.tables: dict[int, rows.TableMap] = {}
        self.counts: dict[tuple[str, str], list[int]] = {}
        self.text = ""
        self.xa = ""

    def add(self, event: Event) -> None:
        kind = event.type
        if kind in events.ROWS:
            self._rows(uncompressed(event))
        elif kind == events.TABLE_MAP:
            table = rows.table_map(event)
            self.tables[table.table_id] = table
        elif kind in (events.QUERY, events.MARIA_QUERY_COMPRESSED):
            if statements.sql(event) not in _PLAIN:
                self._statement(statements.query(event))
        elif kind == events.TRANSACTION_PAYLOAD:
            for inner in payload_events(event):
                self.add(inner)
        elif kind == events.XA_PREPARE:
            self._prepared(statements.xa_prepare(event))
        elif kind == events.EXECUTE_LOAD_QUERY:
            self._statement(statements.load_query(event).query)

    def _rows(self, event: Event) -> None:
        head = rows.rows_header(event)
        table = self.tables.get(head.table_id)
        if table is None:
            if head.flags & rows.STATEMENT_END and head.width == 0:
                return  # a dummy that only says that the statement is over
            raise Corrupt("A row event comes without the table map that it needs.")
        counts = self.counts.setdefault((table.schema, table.table), [0, 0, 0])
        counts[rows.kind(event)] += rows.count(event, table, head)

    def _statement(self, query: statements.Query) -> None:
        text = decode(query.sql)
        if ended := _XA_END.match(text):
            self.xa = f"{ended[1].lower()} {ended[2]}"
        elif not _SILENT.match(text):
            self.text = f"{self.text};\n{text}"[:TEXT_KEPT] if self.text else text[:TEXT_KEPT]
            for schema, table in tables_of(text):
                self.counts.setdefault((schema or query.schema, table), [0, 0, 0])

    def _prepared(self, branch: statements.XaPrepare) -> None:
        if not branch.one_phase:
            self.xa = f"prepare X'{branch.gtrid.hex()}',X'{branch.bqual.hex()}',{branch.format_id}"

    def transaction(self, length: int) -> Transaction:
        changes = tuple(Change(*name, *counts) for name, counts in self.counts.items())
        return Transaction(self.time_us, self.identity, self.offset, length, changes, self.text, self.xa)


class Grouper:
    """Is fed the events of one log file in order and tells when a transaction is whole.

    A transaction ends where its GTID event's length says; on MariaDB, which has no length, with its group.
    """

    def __init__(self, description: FormatDescription, server_id: int, *, by_place: bool = False) -> None:
        """server_id: the format description's; by_place: identities are places in the log, even if there are GTIDs."""
        self.by_place = by_place
        self.mariadb = description.mariadb
        self.server_id = server_id
        self.summary: Summary | None = None
        self.size = 0
        self._left = 0

    def feed(self, event: Event, offset: int, place: str) -> Transaction | None:
        """The transaction that ends with this event.  offset: of the event in the slice; place: "file:position"."""
        if event.type in events.GTIDS:
            self._begin(event, offset, place)
            return None
        if self.summary is None:
            return None  # an event that belongs to no transaction: a later server's; kept as data
        self.summary.add(event)
        self.size += event.size
        return self._end() if self._ends(event) else None

    def rebase(self, offset: int) -> None:
        """The open transaction begins at another offset: it went over into the next slice."""
        if self.summary:
            self.summary.offset = offset

    def _begin(self, event: Event, offset: int, place: str) -> None:
        if self.summary is not None:
            raise Corrupt("A transaction begins before the one before it has ended.")
        begin = gtid(event)
        replicated = event.server_id != self.server_id
        identity = place if self.by_place else begin.identity or place
        self.summary = Summary(begin, identity, offset, replicated)
        self.size, self._left = event.size, begin.length - event.size
        if not self.mariadb and self._left <= 0:
            raise Corrupt(f"A transaction says that it has {begin.length} bytes, of which its first event takes more.")

    def _ends(self, event: Event) -> bool:
        if not self.mariadb:
            self._left -= event.size
            if self._left < 0:
                raise Corrupt("A transaction is longer than it says.")
            return self._left == 0
        assert self.summary is not None
        if self.summary.begin.flags & STANDALONE:
            return event.type not in _NO_END
        if event.type in (events.QUERY, events.MARIA_QUERY_COMPRESSED):
            return statements.sql(event) in (b"COMMIT", b"ROLLBACK")
        return event.type in (events.XID, events.XA_PREPARE)

    def _end(self) -> Transaction:
        assert self.summary is not None
        done = self.summary.transaction(self.size)
        self.summary = None
        return done


def decode(sql: bytes) -> str:
    """Statement text for reading; replay takes the bytes."""
    try:
        return sql.decode()
    except UnicodeDecodeError:
        return sql.decode("latin-1")


_LEAD = re.compile(r"(?:\s+|/\*(?!M?!).*?\*/|--\s[^\n]*\n|#[^\n]*\n)*", re.DOTALL)
_WORD = r"(?:`(?:[^`]|``)+`|\"(?:[^\"]|\"\")+\"|[^\s`\"'.,;()=/]+)"
_NAME = re.compile(rf"\s*({_WORD})(?:\s*\.\s*({_WORD}))?\s*")
_TABLE_DDL = re.compile(
    r"(?:CREATE\s+(?:OR\s+REPLACE\s+)?(?:TEMPORARY\s+)?TABLE|DROP\s+(?:TEMPORARY\s+)?TABLE|RENAME\s+TABLES?"
    r"|ALTER\s+(?:ONLINE\s+)?(?:IGNORE\s+)?TABLE|TRUNCATE(?:\s+TABLE)?)\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?",
    re.IGNORECASE,
)
_NEXT = re.compile(r"(?:,|TO(?=[\s`\"]))", re.IGNORECASE)


def tables_of(sql: str) -> Iterator[tuple[str, str]]:
    """(schema or "", table) of each table that a CREATE, ALTER, DROP, RENAME or TRUNCATE TABLE names at its head."""
    lead = _LEAD.match(sql)
    verb = _TABLE_DDL.match(sql, lead.end() if lead else 0)
    if not verb:
        return
    several = verb[0][:1].upper() in "DR"
    name = _NAME.match(sql, verb.end())
    while name:
        first, second = name[1], name[2]
        yield (_unquoted(first), _unquoted(second)) if second else ("", _unquoted(first))
        more = _NEXT.match(sql, name.end()) if several else None
        name = _NAME.match(sql, more.end()) if more else None


def _unquoted(word: str) -> str:
    return word[1:-1].replace(word[0] * 2, word[0]) if word[0] in '`"' else word
