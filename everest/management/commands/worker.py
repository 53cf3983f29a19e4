from django.core.management.base import BaseCommand

from everest import worker


class Command(BaseCommand):
    help = "Run the workers of this machine: backups, shipping, restores and schedules. End it with SIGTERM or Ctrl-C."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser):
        parser.add_argument("--cluster", help="For the worker's own use: be the cluster of one queue.")

    def handle(self, *args, cluster=None, **options):
        if cluster:
            worker.run_cluster()
        else:
            worker.Worker().run()
