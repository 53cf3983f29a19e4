"""A random history: what several sessions run on a server, made up from a seed and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

# Neither server takes characters beyond U+FFFF in names.
ODD = (" ", "`", "'", '"', ".", "–", "ü", "日本", "\\", "%", "$", "/", "@", "-", ";", "select")


@dataclass(frozen=True)
class Load:
    """LOAD DATA LOCAL of this content; the statement has <file> where the file's name belongs."""

    sql: str
    content: str


@dataclass(frozen=True)
class Reconnect:
    """The session goes away; the next statement runs in a new one."""


@dataclass(frozen=True)
class AfterBackup:
    """Wait until no backup runs any more."""


Step = str | bytes | Load | Reconnect | AfterBackup


@dataclass(frozen=True)
class Unit:
    """What one session runs in one go; the smallest part that a history can be shortened by.

    features: what it holds, and the contexts it runs in.
    """

    session: int
    features: tuple[str, ...]
    steps: tuple[Step, ...]
    definitions: bool = False  # changes definitions: on MariaDB a backup under way starts again


@dataclass(frozen=True)
class History:
    """snapshot: how many units have ended when the backup begins.  cuts: between 0 and 1, places after it.

    verbatim: of each cut, whether changes are replayed one by one.  merged: how many slices become one, 0 for none.
    """

    flavour: str
    seed: str
    units: tuple[Unit, ...]
    snapshot: int
    max_bytes: int
    cuts: tuple[float, ...]
    verbatim: tuple[bool, ...] = ()
    merged: int = 0


@dataclass
class Column:
    """value: makes a literal.  Text is given as hexadecimal: it means the same in every session."""

    name: str
    type: str
    value: Callable[[Random], str]


@dataclass
class Table:
    """Every table has n, by which rows are chosen.  key: it has an AUTO_INCREMENT id."""

    schema: str
    name: str
    columns: list[Column] = field(default_factory=list)
    key: bool = True
    transactional: bool = True
    bytes_default: bool = False
    plain: bool = True  # may be altered, renamed, copied: nothing else hangs on it

    def __str__(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"


@dataclass(frozen=True)
class Feature:
    """avoid: kinds of contexts in which the server's own replica is wrong, or its log does not hold what was done.

    gtids: it needs them.  rare: it takes long, so that few histories have it.  last: it ends its session's work.
    """

    name: str
    make: Callable[[World], list[Step]]
    only: str = ""
    definitions: bool = False
    avoid: tuple[str, ...] = ()
    gtids: bool = False
    rare: bool = False
    last: bool = False


@dataclass(frozen=True)
class Context:
    """Session settings that a unit runs under, and how they end.

    kind: "statement" (only for what is `repeatable`: gives the same rows on a replica), "names" (a charset in which
    only ASCII is understood), "partial" (less than whole rows are logged), "clock" (time stands still), or "".
    """

    before: str
    after: str
    only: str = ""
    kind: str = ""
    gtids: bool = False


FEATURES: dict[str, Feature] = {}
CONTEXTS: dict[str, Context] = {}


def feature(name: str, *, repeatable: bool = False, **settings: Any) -> Callable[..., Any]:
    """Register a function that makes one unit's statements in a world; repeatable: in STATEMENT format too."""
    settings["avoid"] = (*settings.get("avoid", ()), *(() if repeatable else ("statement",)))

    def register(make: Callable[[World], list[Step]]) -> Callable[[World], list[Step]]:
        assert name not in FEATURES, name
        FEATURES[name] = Feature(name, make, **settings)
        return make

    return register


class World:
    """What a session knows of its own schemas: nobody else changes these, so what is made up here is there."""

    def __init__(self, chance: Random, flavour: str, session: int) -> None:
        self.chance, self.flavour, self.session = chance, flavour, session
        self.counter = 0
        self.schemas = [f"plain{session}", f"odd 日ü `' {session}"]
        self.tables: list[Table] = []

    def number(self) -> int:
        self.counter += 1
        return self.counter

    def name(self, kind: str = "t") -> str:
        """A name that nobody has yet, odd every third time."""
        name = f"{kind}{self.session}_{self.number()}"
        if self.chance.random() < 0.3:
            name = f"{name}{self.chance.choice(ODD)}{self.chance.choice(ODD)}x"
        return name

    def schema(self) -> str:
        return self.chance.choice(self.schemas)

    def pick(self, *, plain: bool = False, key: bool | None = None, transactional: bool = True) -> Table:
        fit = [
            table
            for table in self.tables
            if (table.plain or not plain)
            and (key is None or table.key == key)
            and (table.transactional or not transactional)
        ]
        return self.chance.choice(fit)

    def forget(self, table: Table) -> None:
        self.tables.remove(table)


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def text(value: str) -> str:
    """A literal of this text that no session's character set or sql_mode changes."""
    return f"_utf8mb4 X'{value.encode().hex()}'"


SESSIONS = 3


RARE = 4  # histories to one that has a rare feature


def generate(seed: str, flavour: str, number: int = 0, extra: int = 60, gtids: bool = True) -> History:
    """Every feature and context at least once (a rare one in every fourth number), some more, over several sessions."""
    chance = Random(f"{seed}/{number} {flavour}")
    worlds = [World(chance, flavour, session) for session in range(SESSIONS)]
    units = [Unit(world.session, ("schemas",), tuple(prologue(world)), True) for world in worlds]
    known = [one for one in FEATURES.values() if one.only in ("", flavour) and gtids >= one.gtids]
    usual = [one for one in known if not one.rare and not one.last]
    rare = [one for one in known if one.rare]
    its_turn = [one for turn, one in enumerate(rare, 1) if number % RARE == turn]
    chosen = usual + chance.choices(usual, k=extra) + its_turn
    chance.shuffle(chosen)
    deck = _Deck(chance, flavour, gtids)
    for world in worlds:  # something to work on
        names = ("plain table", "plain table", "table without primary key")
        units += [_unit(world, FEATURES[name], deck) for name in names]
    units += [_unit(chance.choice(worlds), one, deck, chance.choice((0, 1, 1, 2))) for one in chosen]
    units += [_unit(world, one, deck) for one, world in zip([one for one in known if one.last], worlds, strict=False)]
    cuts = (0.0, *sorted(chance.random() for _ in range(chance.randint(1, 2))), 1.0)
    return History(
        flavour,
        f"{seed}/{number}",
        tuple(units),
        snapshot=chance.randint(len(units) // 10, len(units) * 6 // 10),
        max_bytes=chance.choice((2_000, 20_000, 1 << 20)),
        cuts=cuts,
        verbatim=tuple(chance.random() < 0.4 for _ in cuts),
        merged=chance.choice((0, 2, 7)),
    )


def prologue(world: World) -> Iterator[str]:
    for name, charset in zip(world.schemas, ("utf8mb4", "latin1"), strict=True):
        yield f"CREATE DATABASE {quoted(name)} CHARACTER SET {charset}"


class _Deck:
    """Contexts, shuffled, so that each has its turn."""

    def __init__(self, chance: Random, flavour: str, gtids: bool) -> None:
        self.chance = chance
        self.all = [name for name, one in CONTEXTS.items() if one.only in ("", flavour) and gtids >= one.gtids]
        self.left: list[str] = []

    def draw(self, one: Feature, steps: list[Step], count: int) -> list[str]:
        """Names of the next contexts that fit these steps."""
        if len(self.left) < len(self.all):
            self.left += self.chance.sample(self.all, len(self.all))
        fit = [name for name in dict.fromkeys(self.left) if _fits(CONTEXTS[name], one, steps)][:count]
        for name in fit:
            self.left.remove(name)
        return fit


def _fits(context: Context, one: Feature, steps: list[Step]) -> bool:
    if context.kind in one.avoid:
        return False
    return context.kind != "names" or all(isinstance(step, str) and step.isascii() for step in steps)


def _unit(world: World, one: Feature, deck: _Deck, count: int = 0) -> Unit:
    steps = one.make(world)
    names = deck.draw(one, steps, count)
    before = [CONTEXTS[name].before for name in names]
    after = [CONTEXTS[name].after for name in reversed(names)]
    return Unit(world.session, (one.name, *names), (*before, *steps, *after), one.definitions)


def without(history: History, dropped: set[int]) -> History:
    """The history without the units of these numbers."""
    units = tuple(unit for number, unit in enumerate(history.units) if number not in dropped)
    before = sum(number not in dropped for number in range(history.snapshot))
    return replace(history, units=units, snapshot=before)
