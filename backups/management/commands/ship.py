"""Ship what the server's log holds until now, and exit."""

from backups import shipping
from backups.management.command import EverestCommand, database_named, utc


class Command(EverestCommand):
    help = "Ship every slice of DATABASE's log up to now, and exit."

    def arguments(self, parser):
        parser.add_argument("database")

    def work(self, options):
        database = database_named(options["database"])
        slices = shipping.drain(database, self.run)
        database.refresh_from_db()
        return {"database": database.name, "slices": slices, "recoverable_to": database.recoverable_to()}

    def text(self, result):
        yield f"{result['slices']} new slices; {result['database']} is recoverable to {utc(result['recoverable_to'])}."
