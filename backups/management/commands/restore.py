"""Bring a target to a moment, in the foreground."""

from backups.management.command import WHO, EverestCommand, Exit, Failure, database_named, note, time_us, utc_us
from backups.models import Restore


class Command(EverestCommand):
    help = "Restore DATABASE to a moment, into another Database or itself. --plan shows everything and touches nothing."

    def arguments(self, parser):
        parser.add_argument("database")
        parser.add_argument("--target", required=True, metavar="DATABASE", help="Where to; its schemas are replaced")
        moment = parser.add_mutually_exclusive_group(required=True)
        moment.add_argument("--to", metavar="TIME", help="Up to and with this time, such as 2026-11-22T18:30:05.25Z")
        moment.add_argument("--to-gtid", metavar="GTID", help="Up to and with this transaction")
        moment.add_argument("--before-gtid", metavar="GTID", help="Just before this transaction")
        moment.add_argument("--latest", action="store_true", help="The last moment that there is")
        moment.add_argument("--backup", metavar="NAME", help="The moment of this backup")
        parser.add_argument("--plan", action="store_true", help="Show what would happen, and touch nothing")
        parser.add_argument("--replace", default="", metavar="NAME", help="The target's name, where it holds schemas")
        parser.add_argument("--accounts", action="store_true", help="Make the backup's accounts that are missing, too")
        parser.add_argument("--verbatim", action="store_true", help="Replay every change one by one, without shortcuts")

    def work(self, options):
        source, target = database_named(options["database"]), database_named(options["target"])
        moment, details = self.moment(source, options)
        restore = Restore.request(source, target, moment, WHO, ring=False, **details)
        try:
            self.execute_job(restore.job)
            restore.refresh_from_db()
            result = {"source": source.name, "target": target.name, "plan": restore.plan, "done": False}
            if options["plan"]:
                return result
            return result | self.carry_out(restore, options)
        finally:
            Restore.objects.filter(pk=restore.pk, state=Restore.DRAFT).delete()

    def moment(self, source, options):
        if options["latest"]:
            return Restore.LATEST, {}
        if options["to"]:
            return Restore.TIME, {"moment_us": time_us(options["to"])}
        if options["to_gtid"]:
            return Restore.GTID, {"moment_gtid": options["to_gtid"]}
        if options["before_gtid"]:
            return Restore.BEFORE, {"moment_gtid": options["before_gtid"]}
        backup = source.backups.filter(name=options["backup"]).first()
        if backup is None:
            names = ", ".join(source.backups.values_list("name", flat=True)) or "none yet"
            raise Failure(f"{source} has no backup named {options['backup']}. It has: {names}.", Exit.USAGE)
        return Restore.BACKUP, {"backup": backup}

    def carry_out(self, restore, options):
        for line in describe(restore.plan):
            self.run.log(line)
        wanted = {name: options[name] for name in ("replace", "accounts", "verbatim")}
        job = restore.start(**wanted, who=WHO, ring=False)
        note("started restore", f"{restore.source} into {restore.target}")
        self.execute_job(job)
        restore.refresh_from_db()
        return {"done": True, "restore": restore.pk, "result": restore.result}

    def text(self, result):
        if result["done"]:
            yield f"{result['target']} is restored."
            return
        yield from describe(result["plan"])
        yield "Nothing was touched."


def describe(plan):
    """The plan in sentences, as the review page has them."""
    backup = plan["backup"]
    yield f"Base backup: {backup['name']} of {utc_us(backup['view_us'])}"
    yield f"Slices to replay: {plan['slices']:,} ({plan['bytes']:,} bytes)"
    yield f"Last transaction applied: {transaction(plan['last'])}"
    yield f"First one not applied: {transaction(plan['next'])}"
    for one in plan["loses"]:
        yield f"Will be replaced or dropped: schema {one['schema']}, about {one['rows']:,} rows."
    for check in plan["checks"]:
        if check["state"] != "pass":
            yield f"{check['state']}  {check['name']}: {check['message']} {check['fix']}".rstrip()


def transaction(one):
    if one is None:
        return "none"
    parts = (utc_us(one["time_us"]), one["identity"], ", ".join(one["tables"]), one["ddl"])
    return "  ".join(part for part in parts if part)
