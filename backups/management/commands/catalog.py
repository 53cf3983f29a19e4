"""Rebuild the rows from a bucket."""

from dataclasses import asdict

from backups import catalog
from backups.management.command import EverestCommand, note, storage_named


class Command(EverestCommand):
    help = "Bring back every Database, Timeline, Backup and Slice that STORAGE holds. What is known already stays."

    def arguments(self, parser):
        parser.add_argument("storage")

    def work(self, options):
        storage = storage_named(options["storage"])
        report = catalog.rebuild(storage, self.run)
        note("rebuilt catalogue", storage)
        return {"storage": storage.name} | asdict(report)

    def text(self, result):
        counts = ", ".join(f"{result[name]:,} {name}" for name in ("databases", "timelines", "backups", "slices"))
        yield f"{result['storage']} holds {counts}."
