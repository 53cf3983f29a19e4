from django.contrib import admin
from django.core.exceptions import ValidationError

from backups.models import Backup, Database, Job, Restore, Schedule, Slice, Span, Timeline, WorkerState
from everest.admin import Shown, confirmed


@admin.register(Database)
class DatabaseAdmin(Shown):
    list_display = ["name", "flavour", "version", "host", "port", "status", "checked_at", "pitr"]
    list_filter = ["status", "pitr", "flavour"]
    search_fields = ["name", "host", "version"]
    exclude = ["password", "client_key"]
    actions = ["release_ship_lease"]

    @confirmed("Let another worker ship these databases?")
    def release_ship_lease(self, request, database):
        database.release_ship_lease()


@admin.register(Timeline)
class TimelineAdmin(Shown):
    list_display = ["database", "number", "started_at", "ended_at", "end_reason"]
    list_filter = ["end_reason"]
    search_fields = ["database__name"]
    list_select_related = ["database"]


@admin.register(Schedule)
class ScheduleAdmin(Shown):
    list_display = ["name", "database", "cron", "time_zone", "active", "next_run", "last_run"]
    list_filter = ["active"]
    search_fields = ["name", "database__name"]
    list_select_related = ["database"]


@admin.register(Backup)
class BackupAdmin(Shown):
    list_display = ["name", "database", "storage", "state", "view_at", "size", "rows", "created_at"]
    list_filter = ["state"]
    search_fields = ["name", "database__name", "error"]
    list_select_related = ["database", "storage"]


@admin.register(Slice)
class SliceAdmin(Shown):
    list_display = ["key", "level", "sequence", "count", "size", "written_at"]
    search_fields = ["timeline__database__name__exact"]
    ordering = ["-pk"]


@admin.register(Span)
class SpanAdmin(Shown):
    list_display = ["__str__", "timeline", "floor"]
    search_fields = ["timeline__database__name"]
    ordering = ["-pk"]
    list_select_related = ["timeline__database", "floor"]


@admin.register(Restore)
class RestoreAdmin(Shown):
    list_display = ["id", "source", "target", "moment", "state", "who", "created_at", "finished_at"]
    list_filter = ["state", "moment"]
    search_fields = ["source__name", "target__name", "who", "error"]
    list_select_related = ["source", "target"]


@admin.register(Job)
class JobAdmin(Shown):
    list_display = ["id", "kind", "state", "database", "who", "attempts", "heartbeat", "created_at", "finished_at"]
    list_filter = ["state", "kind", "queue"]
    search_fields = ["database__name", "who", "error"]
    ordering = ["-pk"]
    list_select_related = ["database"]
    actions = ["retry", "cancel", "release_lease"]

    def get_queryset(self, request):
        return super().get_queryset(request).defer("log", "result", "arguments")  # long, and not in the list

    def get_exclude(self, request, obj=None):
        """Lists and rows that a person looked at are data of a database."""
        return ["result", "arguments"] if obj and obj.kind in Job.LOOKS else None

    @confirmed("Do this work again?")
    def retry(self, request, job):
        job.retry(request.user.username)

    @confirmed("Cancel this work?")
    def cancel(self, request, job):
        if not job.cancel(request.user.username):
            raise ValidationError(f"{job} had finished already.")

    @confirmed("Take this work from its silent worker, for another to do?")
    def release_lease(self, request, job):
        job.release_lease()


@admin.register(WorkerState)
class WorkerStateAdmin(Shown):
    list_display = ["name", "seen_at"]
