"""What happened when, from the indexes of the slices."""

import json
from dataclasses import asdict

from backups import moments
from backups.management.command import EverestCommand, database_named, time_us, utc_us

END_OF_TIME = 2**62


class Command(EverestCommand):
    help = "List transactions of DATABASE: time, GTID, tables, row counts, DDL text. With --json, one object a line."

    def arguments(self, parser):
        parser.add_argument("database")
        parser.add_argument("--from", dest="since", metavar="TIME", help="Such as 2026-11-22T18:30:05Z; default: all")
        parser.add_argument("--to", dest="until", metavar="TIME")
        parser.add_argument("--table", default="", help="TABLE or SCHEMA.TABLE")
        parser.add_argument("--kind", default="", choices=["", "insert", "update", "delete", "ddl", "xa"])

    def work(self, options):
        database = database_named(options["database"])
        since = time_us(options["since"]) if options["since"] else 0
        until = time_us(options["until"]) if options["until"] else END_OF_TIME
        count = 0
        for timeline, one in moments.transactions(database, since, until, options["table"], options["kind"]):
            count += 1
            self.stdout.write(as_json(timeline, one) if options["json"] else line(one))
        return {"count": count}

    def print_json(self, value):
        """The lines are the result; only an error is one more."""
        if "error" in value:
            super().print_json(value)

    def text(self, result):
        yield f"{result['count']} transactions"


def as_json(timeline, one):
    return json.dumps({"time": utc_us(one.time_us), "timeline": timeline.number} | asdict(one), ensure_ascii=False)


def line(one):
    parts = [utc_us(one.time_us), one.identity, *map(counts, one.changes), " ".join(one.ddl.split()), one.xa]
    return "  ".join(part for part in parts if part)


def counts(change):
    numbers = {"+": change.inserts, "~": change.updates, "-": change.deletes}
    return f"{change.schema}.{change.table} " + " ".join(f"{sign}{n}" for sign, n in numbers.items() if n)
