"""Take a backup now, in the foreground."""

from backups.management.command import WHO, EverestCommand, database_named, note, storage_named, utc


class Command(EverestCommand):
    help = "Take a backup of DATABASE now."

    def arguments(self, parser):
        parser.add_argument("database")
        parser.add_argument("--name", default="", help="The backup's name (default: backup- and three characters)")
        parser.add_argument("--storage", help="Where to (default: the storage of the slices, else the first one)")

    def work(self, options):
        database = database_named(options["database"])
        storage = storage_named(options["storage"]) if options["storage"] else None
        backup = database.backup_now(options["name"], storage, who=WHO, ring=False)
        note("started backup", f"{database} / {backup}", f"to {backup.storage}")
        self.execute_job(backup.job)
        backup.refresh_from_db()
        return {
            "backup": backup.name,
            "id": str(backup.pk),
            "database": database.name,
            "storage": backup.storage.name,
            "consistent_at": backup.view_at,
            "position": backup.position,
            "rows": backup.rows,
            "bytes": backup.size,
        }

    def text(self, result):
        size = f"{result['rows']:,} rows, {result['bytes']:,} bytes"
        yield f"{result['backup']}: {size} in {result['storage']}, consistent at {utc(result['consistent_at'])}."
