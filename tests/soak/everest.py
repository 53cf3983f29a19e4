"""Everest as the soak uses it: its rows, its page, its queue.  Imported once Django is set up for the installation."""

from __future__ import annotations

import re
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from http.cookiejar import CookieJar
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.utils import timezone

from backups import queue
from backups.models import Backup, Database, Job, Restore, Schedule, Timeline
from storages.models import BackupStorage
from tests.helpers import wait_for
from tests.soak.stand import PATIENCE, Stand

PASSWORD = "a password for a soak"
STUCK = timedelta(seconds=60)  # beyond its lease that a running Job may go unnoticed
NEVER = timedelta(seconds=300)  # that a Job may wait for somebody to take it
ENDS = 240.0  # seconds in which a restore ends, whatever goes wrong


# Ends of traces.  A full disk keeps metadata from being written, and cuts records of the log off in mid-trace.
# libfaketime makes time.sleep() of a constant fail when the clock is set: django-q's own sleeps die of it, too.
OF_FAULTS = (
    r"\n\s[^\n]*\Z",
    r"\n(django\.db|sqlite3)\.[^\n]*\Z",
    r"OSError: \[Errno 27\][^\n]*\Z",
    r"sleep\([^\n]*\)\nOSError: \[Errno 22\][^\n]*\Z",
)


class Everest:
    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.started = timezone.now()
        self.page = Page(stand.url)

    def set_up(self) -> None:
        call_command("migrate", verbosity=0)
        get_user_model().objects.create_superuser("soak", password=PASSWORD)
        s3 = self.stand.ceph
        storage = BackupStorage(
            name="s3", bucket=s3.new_bucket(), region=s3.region, path_style=True,
            endpoint=f"http://127.0.0.1:{self.stand.to_s3.port}", access_key=s3.access_key, secret_key=s3.secret_key,
        )  # fmt: skip
        assert storage.probe().ok
        storage.save()
        (user, password), (writer, secret) = self.stand.accounts
        local = {"host": "127.0.0.1"}
        self.source = Database.objects.create(
            name="soak", port=self.stand.to_source.port, user=user, password=password, pitr=True,
            pitr_storage=storage, pitr_interval=1, **local,
        )  # fmt: skip
        self.target = Database.objects.create(
            name="copy", port=self.stand.to_target.port, user=writer, password=secret, **local
        )
        self.back_up("first")

    def begin_schedule(self) -> None:
        storage = BackupStorage.objects.get()
        Schedule.objects.create(
            database=self.source, storage=storage, name="minutely", cron="* * * * *", retention_copies=3
        )

    def correct_schedule(self) -> None:
        """A clock that ran ahead has taken the backups of the coming time: they are not taken twice."""
        for schedule in Schedule.objects.all():
            schedule.save()

    @property
    def now(self) -> Database:
        """The source's row as it is now."""
        return Database.objects.get(pk=self.source.pk)

    def end_schedule(self) -> None:
        for schedule in Schedule.objects.all():
            schedule.pause()

    # By hand

    def back_up(self, name: str = "") -> None:
        with suppress(ValidationError):
            self.now.backup_now(name, alone=True)

    def back_up_on_page(self) -> None:
        """As a person does; the page may be away."""
        with suppress(OSError, AttributeError):
            self.page.press(f"/databases/{self.source.pk}/backups/now/")
            return
        self.back_up()

    def verify(self) -> None:
        self.now.verify()

    def delete_a_backup(self) -> None:
        """The oldest that somebody took by hand, while there are some."""
        own = Backup.objects.filter(database=self.source, schedule=None, state=Backup.SUCCEEDED, pinned=False)
        if own.count() > 3:
            with suppress(ValidationError):
                own.order_by("created_at").first().request_delete()

    def page_answers(self) -> bool:
        with suppress(OSError):
            return self.page.get("/health") is not None
        return False

    # The queue

    def ring_everything_twice(self) -> None:
        for job in Job.objects.filter(state__in=Job.OPEN):
            for _ in range(2):
                queue.ring("backups.tasks.run", job.pk, queue=job.queue)
        for _ in range(2):
            queue.ring("backups.tasks.tick", queue=Job.SHORT)

    def ring_ship_twice(self) -> None:
        for _ in range(2):
            queue.ring("backups.tasks.ship", queue=Job.SHORT)

    def release_ship_lease(self) -> None:
        with suppress(ValidationError):
            self.now.release_ship_lease()

    # What it says

    def shipped_to(self) -> dict[str, Any] | None:
        return Database.objects.values_list("ship_position", flat=True).get(pk=self.source.pk)

    def restore_runs(self) -> bool:
        return Restore.objects.filter(state=Restore.RUNNING).exists()

    def begin_anew_after_loss(self) -> None:
        """The end of the timeline is told; then somebody takes a backup, and the next one begins."""
        before = Timeline.objects.filter(database=self.source, ended_at=None).first()
        if before:
            wait_for(lambda: Timeline.objects.get(pk=before.pk).ended_at, 2 * PATIENCE, 0.5)
        self.back_up_on_page()
        wait_for(self._begun, 2 * PATIENCE, 0.5)

    def _begun(self) -> bool:
        found = Timeline.objects.filter(database=self.source, ended_at=None, backups__state=Backup.SUCCEEDED).exists()
        if not found and not Backup.objects.filter(state__in=[Backup.PENDING, Backup.RUNNING]).exists():
            self.back_up()
        return found

    def stuck_jobs(self) -> list[str]:
        now = timezone.now()
        dead = Job.objects.filter(state=Job.RUNNING, lease_until__lt=now - STUCK)
        unheard = Job.objects.filter(state=Job.PENDING, created_at__lt=now - NEVER, started_at=None)
        return [f"{job} is {job.state} since {job.created_at:%H:%M:%S}: {job.log[-200:]}" for job in [*dead, *unheard]]

    def idle(self) -> bool:
        return not Job.objects.filter(state__in=Job.OPEN).exists()

    def jobs_by_outcome(self) -> Counter[str]:
        return Counter(f"{kind} {state}" for kind, state in Job.objects.values_list("kind", "state"))

    def wrong_errors(self) -> list[str]:
        """Errors that tell of a fault of Everest, or of damage where none was done."""
        failed = Job.objects.filter(state=Job.FAILED)
        wrong = failed.filter(error__contains="unexpectedly") | failed.filter(result__error="Corrupt")
        return [f"{job}: {job.error}" for job in wrong]

    def unforeseen(self) -> list[str]:
        """Traces in the workers' logs, but for what the faults themselves do."""
        found = []
        for path in sorted(self.stand.data.glob("*.log")):
            for record in re.split(r"^(?=20\d\d-)", path.read_text(errors="replace"), flags=re.M):
                trace = record.partition("\nProcess Process-")[0].strip()  # what dies besides is django-q's own
                traced = " ERROR everest." in trace and "Traceback" in trace
                if traced and not any(re.search(one, trace) for one in OF_FAULTS):
                    found.append(f"{path.name}: {trace[:100]!r} ... {trace[-1500:]}")
        return found

    def request_restore(self, moment: str, **details: Any) -> Restore:
        return Restore.request(self.source, self.target, moment, "soak", **details)

    def carry_out(self, restore: Restore) -> str:
        """Through the queue; "" once it has succeeded, else why it did not."""
        deadline = time.monotonic() + ENDS
        if not self._ended(restore.job, deadline):
            return "stuck"
        restore.refresh_from_db()
        if restore.plan is None:
            return restore.error or "not resolved"
        try:
            job = restore.start(replace=self.target.name)
        except ValidationError as error:
            return " ".join(error.messages)
        if not self._ended(job, deadline):
            return "stuck"
        restore.refresh_from_db()
        return "" if restore.state == Restore.SUCCEEDED else restore.error or restore.state

    def _ended(self, job: Job, deadline: float) -> bool:
        while time.monotonic() < deadline:
            job.refresh_from_db()
            if job.state not in Job.OPEN:
                return True
            time.sleep(0.2)
        return False


class Page:
    """A person's browser, as far as buttons are pressed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.lock = threading.Lock()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def get(self, path: str) -> str:
        with self.opener.open(self.url + path, timeout=20) as answer:
            return str(answer.read().decode())

    def press(self, path: str) -> None:
        """Sign in and send the form of a page as it stands."""
        with self.lock:
            self._send("/sign-in/", {"username": "soak", "password": PASSWORD})
            self._send(path, {})

    def _send(self, path: str, values: dict[str, str]) -> None:
        page = self.get(path)
        form = page[page.rfind("<form", 0, page.rfind("csrfmiddlewaretoken")) :]
        fields = dict(re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form.partition("</form>")[0]))
        for name, options in re.findall(r'<select[^>]*name="([^"]+)"[^>]*>(.*?)</select>', form, re.S):
            chosen = re.findall(r'<option value="([^"]+)"[^>]*?(selected)?', options)
            fields[name] = next((value for value, selected in chosen if selected), chosen[0][0] if chosen else "")
        data = urllib.parse.urlencode(fields | values).encode()
        self.opener.open(self.url + path, data, timeout=20).close()
