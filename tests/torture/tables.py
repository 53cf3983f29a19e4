"""Features: tables of every kind, each with rows; and the values that go into columns of every type."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.torture.history import Column, Step, Table, World, feature, quoted, text

Value = Callable[[Random], str]
WORDS = ("", "a", "A ", "ß", "éü", "日本ソ", "😀", "tab\there", "line\nbreak", "back\\slash", "quo'te", "\0nul", "\\N")


def number(low: int, high: int) -> Value:
    return lambda chance: str(chance.choice((low, high, 0, 1, chance.randint(low, high))))


def words(most: int, charset: str = "utf-8") -> Value:
    def value(chance: Random) -> str:
        made = "".join(chance.choice(WORDS) for _ in range(chance.randint(0, 4)))
        return text(made.encode(charset, "ignore").decode(charset)[:most])

    return value


def data(most: int) -> Value:
    return lambda chance: f"X'{chance.randbytes(chance.choice((0, 1, most // 2, most))).hex()}'"


def one_of(*literals: str) -> Value:
    return lambda chance: chance.choice(literals)


def moment(digits: int, first: int = 1971, last: int = 2037) -> Value:
    def value(chance: Random) -> str:
        date = f"{chance.randint(first, last)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
        fraction = f".{chance.randint(0, 10**digits - 1):0{digits}}" if digits else ""
        return f"'{date} {chance.randint(4, 23):02}:{chance.randint(0, 59):02}:{chance.randint(0, 59):02}{fraction}'"

    return value


def document(chance: Random) -> str:
    inner = ", ".join(f'"k{n}": {chance.choice(("1", "-2.5", "null", "true"))}' for n in range(chance.randint(0, 4)))
    return f"""'{{"a": "{"x" * chance.choice((0, 10, 400))}", "b": [{chance.randint(0, 9)}, {{{inner}}}]}}'"""


def vector(chance: Random) -> str:
    return f"STRING_TO_VECTOR('[{chance.random()}, -1e-10, {chance.randint(-9, 9)}]')"


TYPES: dict[str, tuple[str, Value, str]] = {
    "TINYINT": ("TINYINT", number(-128, 127), ""),
    "TINYINT UNSIGNED": ("TINYINT UNSIGNED", number(0, 255), ""),
    "SMALLINT": ("SMALLINT", number(-32768, 32767), ""),
    "MEDIUMINT UNSIGNED": ("MEDIUMINT UNSIGNED", number(0, 2**24 - 1), ""),
    "INT ZEROFILL": ("INT(8) UNSIGNED ZEROFILL", number(0, 2**32 - 1), ""),
    "BIGINT": ("BIGINT", number(-(2**63), 2**63 - 1), ""),
    "BIGINT UNSIGNED": ("BIGINT UNSIGNED", number(0, 2**64 - 1), ""),
    "DECIMAL": ("DECIMAL(40,20)", lambda c: f"{c.randint(-(10**18), 10**18)}.{c.randint(0, 10**20 - 1):020}", ""),
    "FLOAT": ("FLOAT", lambda c: repr(c.uniform(-1e30, 1e30)), ""),
    "DOUBLE": ("DOUBLE", lambda c: repr(c.choice((5e-324, -1.7e308, c.random(), -0.0))), ""),
    "BIT": ("BIT(10)", lambda c: f"b'{c.randint(0, 1023):b}'", ""),
    "BIT(64)": ("BIT(64)", lambda c: f"b'{c.getrandbits(64):b}'", ""),
    "DATE": ("DATE", one_of("'0000-00-00'", "'2020-02-29'", "'9999-12-31'", "'1000-01-01'"), ""),
    "TIME": ("TIME(3)", one_of("'-838:59:59'", "'00:00:00.001'", "'838:59:58.999'", "'-00:00:00.5'"), ""),
    "DATETIME": ("DATETIME(6)", moment(6, 1000, 9999), ""),
    "TIMESTAMP": ("TIMESTAMP(6) NULL", moment(6), ""),
    "TIMESTAMP ON UPDATE": (
        "TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP",
        moment(0),
        "",
    ),
    "YEAR": ("YEAR", one_of("0", "1901", "2155"), ""),
    "CHAR": ("CHAR(30)", words(30), ""),
    "CHAR binary": ("CHAR(30) COLLATE utf8mb4_bin", words(30), ""),
    "VARCHAR": ("VARCHAR(200)", words(200), ""),
    "VARCHAR latin1": ("VARCHAR(100) CHARACTER SET latin1", words(100, "latin1"), ""),
    "VARCHAR sjis": ("VARCHAR(100) CHARACTER SET sjis", words(100, "shift_jis"), ""),
    "VARCHAR utf16": ("VARCHAR(100) CHARACTER SET utf16", words(100), ""),
    "VARCHAR ucs2": ("VARCHAR(100) CHARACTER SET ucs2", words(100, "latin1"), ""),
    "TINYTEXT": ("TINYTEXT", words(40), ""),
    "TEXT utf32": ("TEXT CHARACTER SET utf32", words(90), ""),
    "MEDIUMTEXT": ("MEDIUMTEXT", lambda c: f"REPEAT({words(9)(c)}, {c.choice((1, 90, 9000))})", ""),
    "BINARY": ("BINARY(8)", data(8), ""),
    "VARBINARY": ("VARBINARY(300)", data(300), ""),
    "TINYBLOB": ("TINYBLOB", data(200), ""),
    "BLOB": ("BLOB", data(2000), ""),
    "LONGBLOB": ("LONGBLOB", lambda c: f"REPEAT({data(9)(c)}, {c.choice((1, 90, 9000))})", ""),
    "ENUM": ("ENUM('', 'a', 'b,c', '0', '1')", one_of("''", "'a'", "'b,c'", "'1'"), ""),
    "ENUM beyond U+FFFF": ("ENUM('😀', '?', 'b😀')", one_of("1", "2", "3"), ""),
    "SET": ("SET('x', 'y', 'u z')", one_of("''", "'x'", "'x,u z'", "'y'"), ""),
    "ENUM utf16": ("ENUM('a', 'bb') CHARACTER SET utf16", one_of("'a'", "'bb'"), ""),
    "JSON": ("JSON", document, ""),
    "GEOMETRY": ("GEOMETRY", one_of("ST_GeomFromText('POINT(9 10)')", "ST_GeomFromText('LINESTRING(0 0,9 9)')"), ""),
    "POLYGON": ("POLYGON", one_of("ST_GeomFromText('POLYGON((0 0,0 9,9 9,0 0))')"), ""),
    "VECTOR": ("VECTOR(3)", vector, "mysql"),
    "POINT SRID 4326": ("POINT SRID 4326", one_of("ST_GeomFromText('POINT(52.5 13.4)', 4326)"), "mysql"),
    "UUID": ("UUID", lambda c: f"'{c.getrandbits(128):032x}'", "mariadb"),
    "INET6": ("INET6", one_of("'::1'", "'2001:db8::ff00:42:8329'", "'::ffff:10.0.0.1'"), "mariadb"),
    "INET4": ("INET4", one_of("'10.0.0.1'", "'255.255.255.255'"), "mariadb"),
    "TEXT COMPRESSED": ("TEXT COMPRESSED", lambda c: f"REPEAT('squeeze', {c.randint(0, 99)})", "mariadb"),
}


def columns(world: World, count: int, everywhere: bool = False) -> list[Column]:
    """everywhere: only types that every storage engine takes."""
    names = [name for name, (_, _, only) in TYPES.items() if not only or (only == world.flavour and not everywhere)]
    return [column(world, world.chance.choice(names)) for _ in range(count)]


def column(world: World, kind: str) -> Column:
    return Column(world.name("c"), TYPES[kind][0], TYPES[kind][1])


def make(
    world: World,
    *more: str,
    columns: list[Column] | None = None,
    options: str = "",
    key: bool = True,
    transactional: bool = True,
    plain: bool = True,
    rows: int = 4,
) -> list[Step]:
    """A new table with rows; `more` are clauses of its definition besides id, n and the columns."""
    table = Table(world.schema(), world.name(), columns or [], key, transactional, plain)
    parts = ["id INT NOT NULL AUTO_INCREMENT PRIMARY KEY"] if key else []
    parts += ["n INT NOT NULL DEFAULT 0", *(f"{quoted(one.name)} {one.type}" for one in table.columns), *more]
    world.tables.append(table)
    return [f"CREATE TABLE {table} ({', '.join(parts)}) {options}", *(insert(world, table) for _ in range(rows))]


def insert(world: World, table: Table, rows: int = 0, verb: str = "INSERT") -> str:
    """n is unique over the session, so that it can carry a unique key."""
    names = ["n", *(quoted(one.name) for one in table.columns)]
    lines = []
    for _ in range(rows or world.chance.randint(1, 3)):
        values = [one.value(world.chance) if world.chance.random() < 0.85 else "DEFAULT" for one in table.columns]
        lines.append(f"({', '.join([str(world.number()), *values])})")
    return f"{verb} INTO {table} ({', '.join(names)}) VALUES {', '.join(lines)}"


def _type(kind: str) -> Callable[[World], list[Step]]:
    def with_type(world: World) -> list[Step]:
        steps = make(world, columns=[column(world, kind), *columns(world, world.chance.randint(0, 3))])
        table = world.tables[-1]
        own = table.columns[0]
        change = f"UPDATE {table} SET {quoted(own.name)} = {own.value(world.chance)} WHERE n % 2 = 0"
        return [*steps, change, insert(world, table)]

    return with_type


for _name, (_, _, _only) in TYPES.items():
    feature(f"type {_name}", only=_only, repeatable=True)(_type(_name))


@feature("plain table", repeatable=True)
def plain(world: World) -> list[Step]:
    return make(world, columns=columns(world, world.chance.randint(1, 5)))


@feature("table without primary key")
def no_key(world: World) -> list[Step]:
    steps = make(world, columns=columns(world, 2), key=False)
    return [*steps, *steps[-1:]]  # the same row twice


@feature("table of a composite key", repeatable=True)
def composite(world: World) -> list[Step]:
    return make(world, "k VARCHAR(20) NOT NULL DEFAULT ''", "PRIMARY KEY (n, k)", key=False, plain=False)


@feature("table with unique and prefix keys", repeatable=True)
def keys(world: World) -> list[Step]:
    more = ("UNIQUE KEY (n)", "v VARCHAR(100) DEFAULT 'x'", "x TEXT", "KEY (v(10), n)", "KEY `odd ``key` (x(7))")
    return make(world, *more, columns=columns(world, 1))


@feature("table with a descending key", repeatable=True)
def descending(world: World) -> list[Step]:
    return make(world, "v INT DEFAULT 3", "KEY (v DESC, n ASC)")


@feature("table with a functional key", only="mysql", repeatable=True)
def functional(world: World) -> list[Step]:
    more = ("j JSON", "KEY ((n + 1))", "KEY ((CAST(j->'$.x' AS UNSIGNED ARRAY)))")
    return make(world, *more, plain=False)


@feature("table with a fulltext key", repeatable=True)
def fulltext(world: World) -> list[Step]:
    return make(world, "FULLTEXT (v)", columns=[Column("v", "TEXT", words(60))], plain=False, rows=2)


@feature("table with a spatial key", repeatable=True)
def spatial(world: World) -> list[Step]:
    srid = " SRID 0" if world.flavour == "mysql" else ""
    point = Column("p", f"POINT NOT NULL{srid}", one_of("ST_GeomFromText('POINT(1 2)')"))
    steps = make(world, "SPATIAL KEY (p)", columns=[point], plain=False, rows=0)
    table = world.tables[-1]
    world.forget(table)
    rows = ", ".join(f"({world.number()}, ST_GeomFromText('POINT({x} {x})'))" for x in range(4))
    return [*steps, f"INSERT INTO {table} (n, p) VALUES {rows}", f"DELETE FROM {table} WHERE id = 2"]


@feature("table with generated columns", repeatable=True)
def generated(world: World) -> list[Step]:
    more = ("twice INT AS (n * 2) VIRTUAL", "thrice INT AS (n * 3) STORED", "KEY (thrice)", "KEY (twice)")
    return make(world, *more, columns=columns(world, 1), plain=False)


@feature("table with an invisible column", repeatable=True)
def invisible(world: World) -> list[Step]:
    return make(world, "secret VARCHAR(10) DEFAULT 'hidden' INVISIBLE", columns=columns(world, 1))


@feature("table with default expressions", repeatable=True)
def defaults(world: World) -> list[Step]:
    more = ("d INT DEFAULT (1 + 2)", "b VARBINARY(4) DEFAULT X'FF00FE'", "e VARCHAR(9) DEFAULT 'it''s'")
    steps = make(world, *more, columns=columns(world, 1))
    world.tables[-1].bytes_default = True
    return steps


@feature("table with a check", repeatable=True)
def checked(world: World) -> list[Step]:
    return make(world, f"CONSTRAINT {quoted(world.name('check'))} CHECK (n >= 0)", columns=columns(world, 1))


@feature("table of another charset", repeatable=True)
def charset(world: World) -> list[Step]:
    name = world.chance.choice(("latin1", "ucs2", "binary", "utf8mb4 COLLATE utf8mb4_bin", "utf8mb3", "cp1251"))
    more = ("v VARCHAR(50) DEFAULT 'x'", "w VARCHAR(50) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
    return make(world, *more, columns=columns(world, 1), options=f"CHARACTER SET {name}")


@feature("table with comments", repeatable=True)
def comments(world: World) -> list[Step]:
    odd = world.chance.choice(("it''s", "AUTO_INCREMENT=3", "semi;colon", ") ENGINE=x", "ü 😀"))
    return make(world, f"v INT COMMENT '{odd}'", options=f"COMMENT '{odd}'")


@feature("table in a compressed row format", repeatable=True)
def compressed(world: World) -> list[Step]:
    return make(world, columns=columns(world, 2), options="ROW_FORMAT = COMPRESSED KEY_BLOCK_SIZE = 8")


@feature("table with a gap in AUTO_INCREMENT", repeatable=True)
def gap(world: World) -> list[Step]:
    steps = make(world, columns=columns(world, 1), options="AUTO_INCREMENT = 1000")
    return [*steps, f"DELETE FROM {world.tables[-1]} ORDER BY id DESC LIMIT 1"]


@feature("table of 300 columns", repeatable=True)
def wide(world: World) -> list[Step]:
    more = (f"w{n} VARCHAR(4) DEFAULT '{n}'" if n % 3 else f"w{n} INT" for n in range(300))
    return make(world, *more, plain=False, rows=1)


@feature("table with a generated invisible key", only="mysql")
def made_key(world: World) -> list[Step]:
    """Its key is drawn, which an XA branch must not do: nobody else touches it.

    The server logs the definition that it made, in which an ENUM beyond U+FFFF has question marks.
    """
    kind = world.chance.choice([name for name, (what, _, only) in TYPES.items() if not only and "😀" not in what])
    steps = make(world, columns=[column(world, kind)], key=False, plain=False)
    world.forget(world.tables[-1])
    setting = "SET SESSION sql_generate_invisible_primary_key = %s"
    return [setting % "ON", steps[0], setting % "OFF", *steps[1:]]


@feature("MyISAM table")
def isam(world: World) -> list[Step]:
    return make(
        world, columns=columns(world, 2, everywhere=True), options="ENGINE = MyISAM", transactional=False, plain=False
    )


@feature("MEMORY table")
def memory(world: World) -> list[Step]:
    return make(world, "v VARCHAR(20) DEFAULT 'x'", options="ENGINE = MEMORY", transactional=False, plain=False)


@feature("Aria table", only="mariadb")
def aria(world: World) -> list[Step]:
    return make(
        world, columns=columns(world, 2, everywhere=True), options="ENGINE = Aria", transactional=False, plain=False
    )


@feature("sequence", only="mariadb")
def sequence(world: World) -> list[Step]:
    name = f"{quoted(world.schema())}.{quoted(world.name('s'))}"
    create = f"CREATE SEQUENCE {name} START WITH 5 INCREMENT BY {world.chance.choice((1, 3, -2))} CACHE 3"
    steps = make(world, f"s BIGINT DEFAULT NEXT VALUE FOR {name}", plain=False)
    return [create.replace("START WITH 5 ", "") if "-2" in create else create, *steps, f"DO NEXT VALUE FOR {name}"]


@feature("system-versioned table", only="mariadb", avoid=("partial",))
def versioned(world: World) -> list[Step]:
    """A replica's history rows are empty in the columns that images leave out."""
    steps = make(world, columns=columns(world, 1), options="WITH SYSTEM VERSIONING", plain=False)
    table = world.tables[-1]
    world.forget(table)
    return [*steps, f"UPDATE {table} SET n = n + 100000 WHERE id = 1", f"DELETE FROM {table} WHERE id = 2"]
