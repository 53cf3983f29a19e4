"""Prove what is stored."""

from backups.management.command import WHO, EverestCommand, Exit, Failure, database_named, note


class Command(EverestCommand):
    help = "Read everything that is stored of DATABASE again and prove hashes, chain and coverage."

    def arguments(self, parser):
        parser.add_argument("database")
        parser.add_argument("--backup", metavar="NAME", help="Only this backup's timeline")

        parser.add_argument(
            "--every", metavar="N", type=int, default=1, help="Read one data object in N, by chance which"
        )

    def work(self, options):
        database = database_named(options["database"])
        backup = database.backups.filter(name=options["backup"]).first() if options["backup"] else None
        if options["backup"] and backup is None:
            raise Failure(f"{database} has no backup named {options['backup']}.", Exit.USAGE)
        if options["every"] < 1:
            raise Failure("--every is a number from 1 on.", Exit.USAGE)
        job = database.verify(WHO, ring=False, backup=backup, every=options["every"])
        note("started verify", database)
        job = self.execute_job(job)
        return {"database": database.name} | (job.result or {})

    def text(self, result):
        objects = f"{result['objects']:,} objects ({result['size']:,} bytes)"
        yield f"{result['database']}: {objects} are what their hashes say."
