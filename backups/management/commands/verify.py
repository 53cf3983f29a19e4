"""Prove what is stored."""

from backups.management.command import WHO, EverestCommand, Exit, Failure, database_named, note


class Command(EverestCommand):
    help = "Read everything that is stored of DATABASE again and prove hashes, chain and coverage."

    def arguments(self, parser):
        parser.add_argument("database")
        parser.add_argument("--backup", metavar="NAME", help="Only this backup's timeline")

    def work(self, options):
        database = database_named(options["database"])
        backup = database.backups.filter(name=options["backup"]).first() if options["backup"] else None
        if options["backup"] and backup is None:
            raise Failure(f"{database} has no backup named {options['backup']}.", Exit.USAGE)
        job = database.verify(WHO, ring=False, backup=backup)
        note("started verify", database)
        job = self.execute_job(job)
        return {"database": database.name} | (job.result or {})

    def text(self, result):
        objects = f"{result['objects']:,} objects ({result['size']:,} bytes)"
        yield f"{result['database']}: {objects} are what their hashes say."
