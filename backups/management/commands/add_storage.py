"""Register a Backup Storage, after a probe has passed."""

from pathlib import Path

from backups.management.command import EverestCommand, Exit, Failure, note
from backups.management.secret import checked, secret
from storages.forms import StorageForm


class Command(EverestCommand):
    help = (
        "Add a Backup Storage after trying every operation that backups need. The keys come from "
        "EVEREST_STORAGE_ACCESS_KEY and EVEREST_STORAGE_SECRET_KEY, else from standard input, a line each."
    )

    def arguments(self, parser):
        parser.add_argument("name")
        parser.add_argument("--type", choices=["s3", "local"], default="s3")
        parser.add_argument("--bucket", required=True, help="For a local folder: its path below EVEREST_LOCAL_ROOT")
        parser.add_argument("--region", default="")
        parser.add_argument("--endpoint", default="", help="Such as https://s3.eu-central-1.amazonaws.com")
        parser.add_argument("--prefix", default="")
        parser.add_argument("--description", default="")
        parser.add_argument("--path-style", action="store_true", help="The bucket stands in the path, not in the host")
        parser.add_argument("--no-verify-tls", action="store_true", help="Accept any certificate: not for real use")
        parser.add_argument(
            "--encrypt",
            action="store_true",
            help="Encrypt what is written, with the key in EVEREST_STORAGE_ENCRYPTION_KEY, else on standard input",
        )
        parser.add_argument("--ca-certificate", type=Path, metavar="FILE")

    def work(self, options):
        names = ("name", "type", "bucket", "region", "endpoint", "prefix", "description", "path_style")
        data = {name: options[name] for name in names} | {"verify_tls": not options["no_verify_tls"]}
        if options["ca_certificate"]:
            data["ca_certificate"] = options["ca_certificate"].read_text()
        if options["type"] == "s3":
            data["access_key"] = secret("EVEREST_STORAGE_ACCESS_KEY", "Access Key")
            data["secret_key"] = secret("EVEREST_STORAGE_SECRET_KEY", "Secret Key")
        if options["encrypt"]:
            data["encryption_keys"] = secret("EVEREST_STORAGE_ENCRYPTION_KEY", "Encryption key")
            if not data["encryption_keys"].strip():
                raise Failure("The encryption key is empty. `openssl rand -base64 32` makes one.", Exit.USAGE)
        form = checked(StorageForm(data))
        probe = form.instance.probe()
        steps = [{"name": step.name, "ok": step.ok, "message": step.message} for step in probe.steps]
        if not probe.ok:
            failed = "; ".join(f"{step['name']}: {step['message']}" for step in steps if not step["ok"])
            raise Failure(f"The storage was not added. {failed}", Exit.REFUSED, {"steps": steps})
        storage = form.save()
        note("added storage", storage)
        return {"storage": storage.name, "conditional_put": probe.conditional_put, "steps": steps}

    def text(self, result):
        for step in result["steps"]:
            yield f"{'passed' if step['ok'] else 'FAILED'}  {step['name']} {step['message']}".rstrip()
        yield f"{result['storage']} works and is saved."
