"""Random histories of rows: few keys, so that everything happens to the same rows again and again."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

Session = list[str]

TEXTS = ("'a'", "'A'", "'á'", "'b'", "'B '", "'abcd'", "'abcD'", "'abce'", "''")
NUMBERS = ("0", "1", "2", "3", "5", "8", "-4", "300")
# Table: definition, by flavour where only one has it; and for each column what it may be set to ("" for an own id).
TABLES: dict[str, tuple[str, str, dict[str, tuple[str, ...]]]] = {
    "plain": ("", "(id INT PRIMARY KEY, u INT UNIQUE, v VARCHAR(20))", {"id": NUMBERS, "u": NUMBERS, "v": TEXTS}),
    "counted": (
        "",
        "(id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, u VARCHAR(9), n INT, UNIQUE (u, n))",
        {"id": ("", "", "", "3", "9"), "u": ("NULL", *TEXTS), "n": ("NULL", *NUMBERS)},
    ),
    "beside": (
        "",
        "(k VARCHAR(9) PRIMARY KEY, n BIGINT NOT NULL AUTO_INCREMENT, KEY (n))",
        {"k": TEXTS, "n": ("", "", "20")},
    ),
    "folded": (
        "",
        "(k VARCHAR(9) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT, UNIQUE (v))",
        {"k": TEXTS, "v": NUMBERS},
    ),
    "padded": ("", "(k CHAR(6) CHARACTER SET latin1, n INT, PRIMARY KEY (n, k))", {"k": TEXTS[3:], "n": ("1", "2")}),
    "prefix": ("", "(k TEXT, v INT, PRIMARY KEY (k(3)))", {"k": TEXTS, "v": NUMBERS}),
    "numbers": (
        "",
        "(a DECIMAL(5,2), b FLOAT, e ENUM('x', 'y'), v INT, PRIMARY KEY (a, b, e))",
        {"a": ("0", "-0.5", "1.5"), "b": ("0", "-0e0", "1.25"), "e": ("'x'", "'y'"), "v": NUMBERS},
    ),
    "zeros": ("", "(k DOUBLE PRIMARY KEY, v INT UNIQUE)", {"k": ("0e0", "-0e0", "1", "-1e300"), "v": NUMBERS}),
    "bytes": (
        "",
        "(k BINARY(3) PRIMARY KEY, at TIMESTAMP(3) NULL, x BLOB, b BIT(3), UNIQUE (x(2)))",
        {"k": ("'a'", "'b'", "X'00'"), "at": ("NULL", "NOW(3)"), "x": ("NULL", *TEXTS), "b": ("NULL", "b'101'")},
    ),
    "parts": (
        "",
        "(id INT, r INT, v TEXT, PRIMARY KEY (r, id)) PARTITION BY HASH (r) PARTITIONS 3",
        {"id": NUMBERS, "r": ("1", "2", "3"), "v": TEXTS},
    ),
    "made": (
        "",
        "(id INT AUTO_INCREMENT PRIMARY KEY, n INT, g INT AS (n * 2) VIRTUAL, s INT AS (n % 7) STORED, UNIQUE (g))",
        {"id": ("", "", "4"), "n": ("NULL", *NUMBERS)},
    ),
    "computed": ("mysql", "(id INT PRIMARY KEY, n INT, UNIQUE ((n % 5)))", {"id": NUMBERS, "n": ("NULL", *NUMBERS)}),
    "documents": (
        "",
        "(id INT PRIMARY KEY, j JSON, v TEXT)",
        {"id": NUMBERS, "j": ("""'{"a": 1}'""", """'[1, "x"]'""", "NULL"), "v": TEXTS},
    ),
    "wild": ("", "(a INT, v VARCHAR(9))", {"a": NUMBERS, "v": TEXTS}),
    "isam": ("", "(id INT PRIMARY KEY, v INT) ENGINE = MyISAM", {"id": NUMBERS, "v": NUMBERS}),
    "parent": ("", "(id INT PRIMARY KEY, v INT UNIQUE)", {"id": NUMBERS, "v": NUMBERS}),
    "child": (
        "",
        "(id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE)",
        {"id": NUMBERS, "p": ("NULL", *NUMBERS)},
    ),
    "kept": ("mariadb", "(id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING", {"id": NUMBERS, "v": NUMBERS}),
}
SETTINGS = {
    "mysql": ("binlog_row_image = MINIMAL", "binlog_row_image = NOBLOB", "binlog_row_value_options = PARTIAL_JSON"),
    "mariadb": ("binlog_row_image = MINIMAL", "binlog_row_image = NOBLOB"),
}
DEFAULTS = {
    "mysql": "binlog_row_image = FULL, binlog_row_value_options = '', binlog_format = ROW",
    "mariadb": "binlog_row_image = FULL, binlog_format = ROW",
}


class RowHistory:
    """flavour's tables, and sessions that change them: what a server refuses of it is left out."""

    def __init__(self, flavour: str, seed: int) -> None:
        self.flavour = flavour
        self.chance = Random(f"{flavour} {seed}")
        self.tables = {name: found for name, found in TABLES.items() if found[0] in ("", flavour)}
        self.busy = self.chance.sample(list(self.tables), 5)
        self.breaks = self.chance.choice((0.0, 0.02, 0.2))  # of sessions that do more than change rows

    def schema(self) -> Iterator[str]:
        yield "CREATE DATABASE shop"
        for name, (_, definition, _) in self.tables.items():
            yield f"CREATE TABLE shop.{name} {definition}"

    def sessions(self, count: int) -> Iterator[Session]:
        for _ in range(count):
            yield ["USE shop", *self._session()]

    def _session(self) -> Session:
        if self.chance.random() < self.breaks:
            return self._break()
        if self.chance.random() < 0.3:
            return [
                "BEGIN",
                *self._changes(4),
                *self._savepoint(),
                self.chance.choice(("COMMIT", "COMMIT", "ROLLBACK")),
            ]
        return self._changes(6)

    def _break(self) -> Session:
        branch = f"'{self.chance.random()}'"
        end = self.chance.choice(("COMMIT", "COMMIT", "ROLLBACK"))
        return self.chance.choice((
            [self._definition()],
            [f"SET {self.chance.choice(SETTINGS[self.flavour])}", *self._changes(3), self._back()],
            ["SET binlog_format = STATEMENT", *self._changes(2), self._back()],
            ["SET unique_checks = 0, foreign_key_checks = 0", *self._changes(3)],
            [f"XA START {branch}", *self._changes(2), f"XA END {branch}", f"XA PREPARE {branch}", f"XA {end} {branch}"],
        ))  # fmt: skip

    def _back(self) -> str:
        return f"SET {DEFAULTS[self.flavour]}"

    def _savepoint(self) -> Session:
        if self.chance.random() > self.breaks:
            return []
        end = self.chance.choice(("RELEASE SAVEPOINT s", "ROLLBACK TO s", "SAVEPOINT s"))
        return ["SAVEPOINT s", *self._changes(2), end, *self._changes(1)]

    def _changes(self, most: int) -> Session:
        return [self._change() for _ in range(self.chance.randint(1, most))]

    def _change(self) -> str:
        name = self.chance.choice(self.busy if self.chance.random() > self.breaks else list(self.tables))
        columns = self.tables[name][2]
        kind = self.chance.random()
        if kind < 0.45:
            verb = self.chance.choice(("INSERT", "INSERT IGNORE", "REPLACE"))
            return f"{verb} INTO {name} ({', '.join(columns)}) VALUES {self._rows(columns)}"
        if kind < 0.55:
            first, *_, last = columns
            return (
                f"INSERT INTO {name} ({', '.join(columns)}) VALUES {self._rows(columns)}"
                f" ON DUPLICATE KEY UPDATE {self.chance.choice((first, last))} = {self._value(columns, last)}"
            )
        if kind < 0.62:
            column = self.chance.choice(list(columns))
            return f"UPDATE {name} SET {column} = {column} + 1 ORDER BY {column} DESC LIMIT 3"
        if kind < 0.68:
            return f"DELETE FROM {name} ORDER BY {next(iter(columns))} DESC LIMIT 1"
        if kind < 0.78:
            return f"DELETE FROM {name} WHERE {self._some(columns)} LIMIT 2"
        column = self.chance.choice(list(columns))
        return f"UPDATE {name} SET {column} = {self._value(columns, column)} WHERE {self._some(columns)} LIMIT 1"

    def _rows(self, columns: dict[str, tuple[str, ...]]) -> str:
        made = (
            ", ".join(self._value(columns, name, "DEFAULT") for name in columns)
            for _ in range(self.chance.randint(1, 3))
        )
        return ", ".join(f"({row})" for row in made)

    def _some(self, columns: dict[str, tuple[str, ...]]) -> str:
        column = self.chance.choice(list(columns))
        return f"{column} {self.chance.choice(('=', '<=', '>='))} {self._value(columns, column)}"

    def _value(self, columns: dict[str, tuple[str, ...]], name: str, own: str = "7") -> str:
        return self.chance.choice(columns[name]) or own

    def _definition(self) -> str:
        name = self.chance.choice(list(self.tables))
        column = list(self.tables[name][2])[-1]
        return self.chance.choice((
            f"ALTER TABLE {name} ADD COLUMN more{self.chance.randint(1, 99)} INT DEFAULT 7",
            f"ALTER TABLE {name} ADD COLUMN first{self.chance.randint(1, 99)} VARCHAR(5) DEFAULT 'x' FIRST",
            f"ALTER TABLE {name} ADD UNIQUE KEY ({column})",
            f"ALTER TABLE {name} ENGINE = InnoDB",
            f"TRUNCATE TABLE {name}",
            "RENAME TABLE plain TO swap, zeros TO plain, swap TO zeros",
            "ALTER TABLE wild ADD PRIMARY KEY (a, v)",
            "ALTER TABLE counted AUTO_INCREMENT = 50",
        ))  # fmt: skip
