"""Register a server, after its preflight has passed."""

from pathlib import Path

from backups.forms import DatabaseForm
from backups.management.command import EverestCommand, Exit, Failure, note, storage_named
from backups.management.secret import checked, secret


class Command(EverestCommand):
    help = (
        "Add a Database after checking what a backup needs of its server and account. The password comes from "
        "EVEREST_SERVER_PASSWORD, else from standard input."
    )

    def arguments(self, parser):
        parser.add_argument("name")
        parser.add_argument("--host", required=True)
        parser.add_argument("--port", type=int, default=3306)
        parser.add_argument("--user", required=True)
        parser.add_argument("--tls", choices=["verify", "required", "off"])
        parser.add_argument("--ca-certificate", type=Path, metavar="FILE", help="The server's certificate is verified")
        parser.add_argument("--client-certificate", type=Path, metavar="FILE")
        parser.add_argument("--client-key", type=Path, metavar="FILE")
        parser.add_argument("--pitr", metavar="STORAGE", help="Switch point-in-time recovery on, to this storage")
        parser.add_argument("--interval", type=int, metavar="SECONDS", help="Upload interval of the slices (60)")

        parser.add_argument("--connections", type=int, metavar="N", help="Connections that a backup reads with (4)")
        parser.add_argument("--rate-limit", type=int, metavar="MB", help="MB a second that a backup reads at most")

    def work(self, options):
        storage = storage_named(options["pitr"]) if options["pitr"] else None
        database = self.checked_database(options)
        if storage:
            database.set_pitr(True, storage, options["interval"], who="command line")
            note("switched PITR on", database, f"to {storage}")
        server = f"{database.flavour} {database.version}"
        return {"database": database.name, "id": str(database.pk), "server": server, "checks": database.checks}

    def checked_database(self, options):
        data = {name: options[name] for name in ("name", "host", "port", "user")}
        data["tls"] = options["tls"] or ("verify" if options["ca_certificate"] else "required")
        data |= {name: options[name] for name in ("connections", "rate_limit")}
        for name in ("ca_certificate", "client_certificate", "client_key"):
            if options[name]:
                data[name] = options[name].read_text()
        data["password"] = secret("EVEREST_SERVER_PASSWORD", "Password")
        form = checked(DatabaseForm(data))
        checks = form.instance.preflight()
        failed = [f"{one['name']}: {one['message']} {one['fix']}".strip() for one in checks if one["state"] == "fail"]
        if failed:
            code = Exit.UNREACHABLE if form.instance.status == form.instance.DOWN else Exit.REFUSED
            raise Failure(f"The database was not added. {' '.join(failed)}", code, {"checks": checks})
        database = form.save()
        note("added database", database)
        return database

    def text(self, result):
        for check in result["checks"]:
            yield f"{check['state']}  {check['name']}: {check['message']} {check['fix']}".rstrip()
        yield f"{result['database']} ({result['server']}) is saved."
