"""Whether rows are exact as text: what a later LOAD DATA would refuse or alter is found out while they are read."""

from __future__ import annotations

import re
from collections.abc import Sequence

from backups.engine.errors import Refused
from backups.engine.mysql import tsv
from backups.engine.mysql.schema import Column, Table
from backups.engine.mysql.server import Connection, Identity, quote, rows

UTF8 = ("utf8mb4", "utf8mb3", "utf8")
# A JSON number that SQL made of a DECIMAL may print like this; parsed from text it is a DOUBLE, 19.90 becomes 19.9.
DECIMAL = re.compile(rb"\.\d+0(?!\d)|\d{17}")
# Those besides UTF-8 whose text can be wrong.  Only the servers know how: they convert what is right to itself.
OTHERS = ["sjis", "cp932", "gbk", "gb18030", "gb2312", "big5", "ujis", "eucjpms", "euckr", "utf16", "utf16le", "utf32"]
UNIQUE = re.compile(rb"^  UNIQUE KEY [^\n]*?\(((?:`(?:[^`]|``)+`(?:\(\d+\))?(?: DESC)?,?)+)\)", re.MULTILINE)
NAME = re.compile(rb"`(?:[^`]|``)+`")
LARGE = 1 << 16  # bytes of a document in which MySQL would need gigabytes to look at each value by itself
OF_TEXT = "'OBJECT','ARRAY','STRING','INTEGER','UNSIGNED INTEGER','DOUBLE','BOOLEAN','NULL'"  # types that JSON text has


def finds_rows(definition: bytes) -> bool:
    """Whether a logged change finds its row by a key alone: else every value is compared, down to a JSON's bytes."""
    if b"\n  PRIMARY KEY (" in definition:
        return True
    lines = definition.split(b"\n")
    keys = [NAME.findall(match[1]) for match in UNIQUE.finditer(definition)]
    return any(
        all(any(line.startswith(b"  " + name + b" ") and b" NOT NULL" in line for line in lines) for name in key)
        for key in keys
    )


class Look:
    """Looks at one table's rows as they pass by."""

    def __init__(self, schema: str, table: Table, identity: Identity) -> None:
        self.schema = schema
        self.table = table
        numbered = list(enumerate(table.columns))
        self.texts = [n for n, column in numbered if column.charset in UTF8 and column.type not in ("enum", "set")]
        self.jsons = [n for n, column in numbered if column.type == "json" and identity.flavour == "mysql"]
        self.others = [c for c in table.columns if c.charset in OTHERS and c.type not in ("enum", "set")]
        self.decimals = False

    def __call__(self, block: bytes, fields: tsv.Column) -> None:
        """Raise Refused for text that is none in its column's character set."""
        if self.texts and not _is_text(block):  # as a whole first: most blocks hold nothing but UTF-8
            for n in self.texts:
                if not _is_text(b"\0".join(fields(n))):
                    self._refuse(n, fields(n))
        if not self.decimals:
            self.decimals = any(DECIMAL.search(b"\0".join(fields(n))) for n in self.jsons)

    def _refuse(self, n: int, found: Sequence[bytes]) -> None:
        value = next(field for field in found if not _is_text(field))
        raise self._refused(self.table.columns[n], value)

    def _refused(self, column: Column, value: bytes) -> Refused:
        return Refused(
            f"{self.schema}.{self.table.name}: column {column.name} holds bytes that are no {column.charset} text"
            f" (0x{value[:40].hex()}).",
            meaning="No server takes them back into such a column, so no backup is taken.",
            next_step=f"Mend the value, or make the column binary: ALTER TABLE {quote(self.schema)}."
            f"{quote(self.table.name)} MODIFY {quote(column.name)} with VARBINARY or BLOB.",
        )

    def require_text(self, connection: Connection) -> None:
        """Raise Refused for text that is none in a character set other than UTF-8; asked of the same view."""
        name = f"{quote(self.schema)}.{quote(self.table.name)}"
        for column in self.others:
            data = f"CAST({quote(column.name)} AS BINARY)"
            # MySQL's EUC-JP lets a character that is cut short at the end go through.
            ended = f"CONCAT({data}, X'0A')" if column.charset == "eucjpms" else data
            wrong = f"HEX({ended}) <> HEX(CONVERT({ended} USING {column.charset}))"
            for (value,) in rows(connection, f"SELECT {data} FROM {name} WHERE {wrong} LIMIT 1"):
                raise self._refused(column, value)

    def inexact(self, connection: Connection) -> list[str]:
        """Sentences about rows that come back differently; asked of the same view that the rows were read in."""
        told = self._lost(connection) if self.jsons and not finds_rows(self.table.definition) else []
        if not self.decimals:
            return told
        count = self._count(
            connection, "CAST({c} AS CHAR) COLLATE utf8mb4_bin <> CAST(CAST(CAST({c} AS CHAR) AS JSON) AS CHAR)"
        )
        if count:
            told.append(
                f"{count:,} rows of {self.schema}.{self.table.name} hold JSON numbers of type DECIMAL. From this backup"
                " they come back as DOUBLE, with other digits: 19.90 as 19.9. What slices change after it is exact."
            )
        return told

    def _lost(self, connection: Connection) -> list[str]:
        """Not by EXISTS: MySQL 9.7 looks at the first row's document only, and takes its answer for every row."""
        count = self._count(
            connection,
            f"IF(JSON_STORAGE_SIZE({{c}}) > {LARGE}, {{c}} <> CAST(CAST({{c}} AS CHAR) AS JSON)"
            " OR JSON_STORAGE_SIZE({c}) <> JSON_STORAGE_SIZE(CAST(CAST({c} AS CHAR) AS JSON)), (SELECT COUNT(*) FROM"
            " JSON_TABLE(JSON_EXTRACT({c}, '$', '$**.*', '$**[*]'), '$[*]' COLUMNS (v JSON PATH '$')) one"
            f" WHERE JSON_TYPE(v) NOT IN ({OF_TEXT})) > 0)",
        )
        if not count:
            return []
        return [
            f"{count:,} rows of {self.schema}.{self.table.name}, which has no primary key, hold JSON values of a type"
            " that JSON text does not have: DECIMAL, a date or bytes. A restore from this backup to a moment after one"
            " of these rows was changed or deleted stops there, as the change does not find its row. Give the table a"
            " primary key, then take a backup."
        ]

    def _count(self, connection: Connection, differs: str) -> int:
        columns = [quote(self.table.columns[n].name) for n in self.jsons]
        condition = " OR ".join(differs.replace("{c}", column) for column in columns)
        name = f"{quote(self.schema)}.{quote(self.table.name)}"
        return int(rows(connection, f"SELECT COUNT(*) FROM {name} WHERE {condition}")[0][0])


def _is_text(data: bytes) -> bool:
    if data.isascii():  # makes no string of it
        return True
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True
