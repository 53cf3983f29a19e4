from django.core.management.base import BaseCommand

from everest import worker


class Command(BaseCommand):
    help = "Run the workers of this machine: backups, shipping, restores and schedules. End it with SIGTERM or Ctrl-C."
    requires_system_checks: list[str] = []

    def handle(self, *args, **options):
        worker.become_worker()
        worker.Worker().run()
