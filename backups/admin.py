from django.contrib import admin

from backups.models import Backup, Database, Job, Restore, Schedule, Slice, Timeline, WorkerState
from everest.admin import Shown


@admin.register(Database)
class DatabaseAdmin(Shown):
    list_display = ["name", "flavour", "version", "host", "port", "status", "checked_at", "pitr"]
    list_filter = ["status", "pitr", "flavour"]
    search_fields = ["name", "host", "version"]
    exclude = ["password", "client_key"]


@admin.register(Timeline)
class TimelineAdmin(Shown):
    list_display = ["database", "number", "started_at", "ended_at", "end_reason"]
    list_filter = ["end_reason"]
    search_fields = ["database__name"]


@admin.register(Schedule)
class ScheduleAdmin(Shown):
    list_display = ["name", "database", "cron", "time_zone", "active", "next_run", "last_run"]
    list_filter = ["active"]
    search_fields = ["name", "database__name"]


@admin.register(Backup)
class BackupAdmin(Shown):
    list_display = ["name", "database", "storage", "state", "view_at", "size", "rows", "created_at"]
    list_filter = ["state"]
    search_fields = ["name", "database__name", "error"]
    list_select_related = ["database", "storage"]


@admin.register(Slice)
class SliceAdmin(Shown):
    list_display = ["key", "level", "sequence", "count", "size", "written_at"]
    search_fields = ["key"]
    show_full_result_count = False


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
    list_select_related = ["database"]


@admin.register(WorkerState)
class WorkerStateAdmin(Shown):
    list_display = ["name", "seen_at"]
