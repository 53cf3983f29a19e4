"""What can be restored."""

from backups.management.command import EverestCommand, database_named, utc


class Command(EverestCommand):
    help = "Show what DATABASE can be restored to: ranges, gaps, backups."

    def arguments(self, parser):
        parser.add_argument("database")

    def work(self, options):
        database = database_named(options["database"])
        gap = database.gap()
        return {
            "database": database.name,
            "ranges": [
                {"timeline": one.timeline.number, "first": one.first, "last": one.last, "live": one.live}
                for one in database.ranges()
            ],
            "ended": [
                {"timeline": one.number, "at": one.ended_at, "reason": one.end_reason, "detail": one.end_detail}
                for one in database.timelines.exclude(ended_at=None).order_by("number")
            ],
            "gap": gap.end_detail if gap else None,
            "backups": [
                {"name": one.name, "state": one.state, "consistent_at": one.view_at, "storage": one.storage.name}
                for one in database.backups.select_related("storage").order_by("created_at")
            ],
        }

    def text(self, result):
        if not result["ranges"]:
            yield f"Nothing of {result['database']} can be restored yet: take a backup first."
        for one in result["ranges"]:
            now = " and on, up to now" if one["live"] else ""
            yield f"Timeline {one['timeline']}: {exact(one['first'])} to {exact(one['last'])}{now}"
        for one in result["ended"]:
            yield f"Timeline {one['timeline']} ended {utc(one['at'])} ({one['reason']}): {one['detail']}"
        if result["gap"]:
            yield "There is a gap: take a backup now to mend it."
        for one in result["backups"]:
            yield f"Backup {one['name']} ({one['state']}) of {utc(one['consistent_at'])} in {one['storage']}"


def exact(moment):
    return f"{moment:%Y-%m-%d %H:%M:%S.%f} UTC"
