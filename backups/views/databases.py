"""Databases: the list, adding one, and the tabs Overview and Settings."""

from datetime import timedelta

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import Case, Count, Exists, OuterRef, Q, Subquery, When
from django.db.models.functions import Coalesce
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST

from backups.forms import DatabaseForm, HoursForm, PitrForm
from backups.models import Backup, Database, Job, Schedule, Slice
from backups.models.database import troubled
from backups.picture import draw
from everest.forms import TypedNameForm, posted
from everest.people import ADMINISTRATOR, OPERATOR, VIEWER, needs, note
from storages.models import BackupStorage

PAGE = 50
WINDOWS = {"day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=30), "all": None}


@needs(VIEWER)
def databases(request):
    return render(request, "backups/databases.html", {**matching(request), **first_steps()})


@needs(VIEWER)
def databases_part(request):
    """The polled rows of the list, filtered as the page is."""
    return render(request, "backups/_databases.html", matching(request))


def matching(request):
    words, state = request.GET.get("q", "").strip(), request.GET.get("status", "")
    newest = Backup.objects.filter(database=OuterRef("pk"), state=Backup.SUCCEEDED).order_by("-view_at")
    active = Schedule.objects.filter(database=OuterRef("pk"), active=True).order_by().values("database")
    found = Database.objects.annotate(
        last_backup=Subquery(newest.values("view_at")[:1]),
        active_schedules=Coalesce(Subquery(active.annotate(count=Count("pk")).values("count")), 0),
    )
    # Trouble first: it must not hide on a later page.
    found = found.order_by(Case(When(troubled(), then=0), default=1), "name")
    for word in words.split():
        found = found.filter(Q(name__icontains=word) | Q(host__icontains=word) | Q(version__icontains=word))
    if state:
        found = found.filter(status=state)
    page = Paginator(found.defer("checks", "verified"), PAGE).get_page(request.GET.get("page"))
    Database.look_up(page)
    return {"page": page, "q": words, "state": state, "states": ["up", "down", "restoring", "unknown"]}


def first_steps():
    """What a new installation still lacks, for the checklist of the empty page."""
    return {
        "any_database": Database.objects.exists(),
        "any_storage": BackupStorage.objects.exists(),
        "any_backup": Backup.objects.exists(),
        "any_pitr": Database.objects.filter(pitr=True).exists(),
    }


@needs(ADMINISTRATOR)
def add(request):
    return save(request, Database(), "added database")


@needs(ADMINISTRATOR)
def edit(request, pk):
    return save(request, get_object_or_404(Database, pk=pk), "changed database")


def save(request, database, action):
    """A failed must-have explains its fix and saves nothing; a warning does not block."""
    form = DatabaseForm(posted(request), instance=database)
    checks = failed = None
    adding = database._state.adding
    if request.method == "POST" and form.is_valid():
        checks = form.instance.preflight()
        failed = [check for check in checks if check["state"] == "fail"]
        if not failed and "check" not in request.POST:
            database = form.save()
            note(request, action, database, ", ".join(form.changed_data))
            messages.success(request, saved_sentence(database, checks))
            return redirect("database-settings" if warned(checks) else "database", database.pk)
    context = {"form": form, "checks": checks, "failed": failed, "adding": adding, "database": database}
    return render(request, "backups/database_form.html", context)


def warned(checks):
    return [check for check in checks if check["state"] == "warn"]


def saved_sentence(database, checks):
    count = len(warned(checks))
    if not count:
        return f"{database} is saved. It passed every check."
    return f"{database} is saved. {count} check{'s' if count > 1 else ''} warned: see below."


def tab(request, pk, name):
    """What every tab of a Database shows in its header."""
    database = get_object_or_404(Database.objects.select_related("pitr_storage"), pk=pk)
    return {
        "database": database,
        "tab": name,
        **gap_of(database),
        "backup_count": database.backups.count(),
        "restore_count": database.restores.exclude(state="draft").count(),
    }


def gap_of(database):
    """The gap that no backup has mended, and the last moment before it."""
    gap = database.gap()
    before = [one.last for one in database.ranges_of(gap)] if gap else []
    return {"gap": gap, "gap_since": max(before, default=gap.ended_at) if gap else None}


@needs(VIEWER)
def overview(request, pk):
    context = tab(request, pk, "overview")
    database, window = context["database"], request.GET.get("window", "all")
    ranges = database.ranges()
    since = timezone.now() - WINDOWS[window] if WINDOWS.get(window) else None
    context |= {
        "ranges": ranges[::-1],
        "picture": draw(database, ranges, since),
        "window": window,
        "windows": WINDOWS,
        "schedules": database.schedules.filter(active=True).select_related("storage"),
        **moving(database),
        "any_storage": BackupStorage.objects.exists(),
    }
    return render(request, "backups/overview.html", context)


def moving(database):
    """What the overview shows that changes by itself."""
    return {
        "last_backups": database.backups.select_related("storage")[:5],
        "jobs": open_jobs(database),
        "last_slice": last_slice(database),
    }


def open_jobs(database):
    jobs = database.jobs.filter(state__in=Job.OPEN).exclude(kind__in=[*Job.UPKEEP, *Job.LOOKS])
    return jobs.select_related("backup", "restore").defer("log", "result", "arguments")


def last_slice(database):
    shipped = Exists(Slice.objects.filter(timeline=OuterRef("pk"), level=0))
    line = database.timelines.filter(shipped).order_by("-number").first()
    return line and line.slices.filter(level=0).order_by("-sequence").first()


@needs(VIEWER)
def jobs(request, pk):
    """The polled part of the overview."""
    database = get_object_or_404(Database, pk=pk)
    context = {"database": database, "oob": True, **moving(database)}
    return render(request, "backups/_overview_poll.html", context)


@needs(VIEWER)
def settings(request, pk):
    context = tab(request, pk, "settings")
    context["hours"] = HoursForm(instance=context["database"])
    return render(request, "backups/settings.html", context)


@require_POST
@needs(ADMINISTRATOR)
def hours(request, pk):
    context = tab(request, pk, "settings")
    form = HoursForm(request.POST, instance=context["database"])
    if form.is_valid():
        form.save()
        note(request, "changed production hours", context["database"], form.cleaned_data["production_hours"])
        return redirect("database-settings", pk)
    return render(request, "backups/settings.html", {**context, "hours": form})


@require_POST
@needs(OPERATOR)
def check(request, pk):
    """Ask the server now; the answer stands on the Settings tab."""
    database = get_object_or_404(Database, pk=pk)
    database.check_server()
    note(request, "checked database", database, database.status_detail or database.status)
    return redirect("database-settings", pk)


@needs(ADMINISTRATOR)
def pitr(request, pk):
    """Switch point-in-time recovery, its storage and interval; switching it off asks first."""
    context = tab(request, pk, "overview")
    database = context["database"]
    form = PitrForm(posted(request), initial=pitr_initial(database))
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        if database.pitr and not data["pitr"] and "confirmed" not in request.POST:
            return render(request, "backups/pitr_off.html", {**context, "form": form})
        try:
            database.set_pitr(data["pitr"], data["storage"], data["interval"], who=request.user.username)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            note(
                request,
                f"switched PITR {'on' if data['pitr'] else 'off'}",
                database,
                f"{data['storage']}, every {data['interval']} s" if data["pitr"] else "",
            )
            messages.success(request, pitr_sentence(database))
            return redirect("database", pk)
    return render(
        request, "backups/pitr.html", {**context, "form": form, "any_storage": BackupStorage.objects.exists()}
    )


def pitr_initial(database):
    storage = database.pitr_storage or BackupStorage.objects.first()
    return {
        "pitr": True if not database.pitr else database.pitr,
        "storage": storage,
        "interval": database.pitr_interval,
    }


def pitr_sentence(database):
    if not database.pitr:
        return "Point-in-time recovery is off. What was stored so far stays restorable."
    if database.backups.filter(state__in=[Backup.PENDING, Backup.RUNNING, Backup.SUCCEEDED]).exists():
        return "Point-in-time recovery is on."
    return "Point-in-time recovery is on. Slices are saved as soon as a backup has been started."


@needs(ADMINISTRATOR)
def delete(request, pk):
    """Type the name; the stored data stays unless told otherwise."""
    context = tab(request, pk, "settings")
    database = context["database"]
    form = TypedNameForm(posted(request), name=database.name)
    keep = "keep_data" in request.POST or request.method == "GET"
    if request.method == "POST" and form.is_valid():
        try:
            database.remove(keep_data=keep, who=request.user.username)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            note(request, "deleted database", database.name, "stored data kept" if keep else "stored data deleted too")
            messages.success(
                request,
                f"{database.name} is deleted." if keep else f"{database.name} and its stored data are being deleted.",
            )
            return redirect("databases")
    return render(
        request,
        "backups/database_delete.html",
        {**context, "form": form, "keep": keep, "ranges": database.ranges(), "stored": database.stored()},
    )
