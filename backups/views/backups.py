"""Backups, their schedules, and jobs."""

import json

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import OuterRef
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from backups.forms import BackupNowForm
from backups.models import Backup, Job
from backups.views.databases import tab
from everest.forms import TypedNameForm, posted
from everest.people import ADMINISTRATOR, OPERATOR, VIEWER, needs, note, require
from storages.models import BackupStorage

PAGE = 50


@needs(VIEWER)
def backups(request, pk):
    context = tab(request, pk, "backups")
    database = context["database"]
    rows = database.backups.select_related("storage", "schedule")
    schedules = with_last_results(database.schedules.select_related("storage"))
    context |= {
        "page": Paginator(rows, PAGE).get_page(request.GET.get("page")),
        "schedules": schedules,
        "active_count": sum(one.active for one in schedules),
        "any_storage": BackupStorage.objects.exists(),
    }
    return render(request, "backups/backups.html", context)


def with_last_results(schedules):
    newest = Backup.objects.filter(schedule=OuterRef("pk")).order_by("-created_at")
    found = list(schedules.annotate(last_pk=newest.values("pk")[:1]))
    lasts = Backup.objects.in_bulk([one.last_pk for one in found if one.last_pk])
    for one in found:
        one.last_backup = lasts.get(one.last_pk)
    return found


def get_backup(pk):
    return get_object_or_404(Backup.objects.select_related("database", "storage", "schedule", "timeline"), pk=pk)


@needs(OPERATOR)
def now(request, pk):
    context = tab(request, pk, "backups")
    database = context["database"]
    initial = {"name": database.default_backup_name(), "storage": BackupStorage.objects.first()}
    form = BackupNowForm(posted(request), database=database, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            backup = database.backup_now(who=request.user.username, alone=True, **form.cleaned_data)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            note(request, "started backup", f"{database} / {backup}", f"to {backup.storage}")
            return redirect("backups", pk)
    return render(
        request, "backups/backup_now.html", {**context, "form": form, "any_storage": BackupStorage.objects.exists()}
    )


@needs(VIEWER)
def backup(request, pk):
    backup = get_backup(pk)
    context = tab(request, backup.database_id, "backups")
    return render(
        request, "backups/backup.html", {**context, "backup": backup, "jobs": backup.jobs.all(), "job": backup.job}
    )


@needs(VIEWER)
def row(request, pk):
    """The polled cells of one row of the table; nothing that a person opened is touched."""
    return render(request, "backups/_backup_poll.html", {"backup": get_backup(pk), "poll": True})


@require_POST
@needs(OPERATOR)
def cancel(request, pk):
    backup = get_backup(pk)
    if backup.cancel(request.user.username):
        note(request, "cancelled backup", f"{backup.database} / {backup}")
        messages.success(request, f"{backup} is being cancelled.")
    else:
        messages.warning(request, f"{backup} had finished already.")
    return redirect("backups", backup.database_id)


@require_POST
@needs(OPERATOR)
def verify(request, pk):
    backup = get_backup(pk)
    job = backup.request_verify(request.user.username)
    note(request, "started verify", f"{backup.database} / {backup}")
    return redirect("job", job.pk)


@require_POST
@needs(OPERATOR)
def pin(request, pk):
    """Keep it, or no longer, whatever retention says; the form says which, so pressing twice is pressing once."""
    backup = get_backup(pk)
    pinned = request.POST.get("pinned") == "1"
    backup.pin(pinned)
    note(request, "pinned backup" if pinned else "unpinned backup", f"{backup.database} / {backup}")
    messages.success(request, f"{backup} is {'kept until the pin is removed' if pinned else 'no longer pinned'}.")
    return redirect("backups", backup.database_id)


@needs(VIEWER)
def manifest(request, pk):
    backup = get_backup(pk)
    try:
        text = json.dumps(backup.manifest(), indent=2, default=str)
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))
        return redirect("backup", pk)
    response = HttpResponse(text, content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="{backup.database_id}-{backup.pk}-manifest.json"'
    return response


@needs(ADMINISTRATOR)
def delete(request, pk):
    """The name is typed where restore points would be lost."""
    backup = get_backup(pk)
    context = tab(request, backup.database_id, "backups")
    losses = backup.losses()
    form = TypedNameForm(posted(request), name=backup.name)
    if request.method == "POST" and (not losses or form.is_valid()):
        try:
            backup.request_delete(request.user.username)
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
            return redirect("backup", pk)
        note(request, "deleted backup", f"{backup.database} / {backup}", " ".join(losses))
        return redirect("backups", backup.database_id)
    others = backup.database.backups.filter(state=Backup.SUCCEEDED).exclude(pk=pk).exists()
    return render(
        request,
        "backups/backup_delete.html",
        {**context, "backup": backup, "form": form, "losses": losses, "freed": backup.freed(), "last": not others},
    )


@needs(VIEWER)
def job(request, pk):
    job = get_object_or_404(Job.objects.select_related("database", "backup", "restore"), pk=pk)
    if job.restore_id:
        return redirect("restore", job.restore_id)
    if job.kind in Job.LOOKS:  # data of the database: pages of their own, for those who may restore it
        return redirect("rows" if job.kind == Job.ROWS else "transactions-found", pk)
    context = tab(request, job.database_id, "backups") if job.database_id else {}
    template = "backups/job.html" if job.database_id else "backups/job_alone.html"
    return render(request, template, {**context, "job": job})


@needs(VIEWER)
def job_part(request, pk):
    """The polled panel of one Job; once it is over, the page around it is loaded anew, as more has changed."""
    job = get_object_or_404(Job.objects.exclude(kind__in=Job.LOOKS), pk=pk)
    response = render(request, "backups/_job.html", {"job": job})
    if job.state not in Job.OPEN:
        response["HX-Refresh"] = "true"
    return response


@require_POST
@needs(ADMINISTRATOR)
def rebuild(request, pk):
    """Bring rows for everything that a storage holds: after the loss of the metadata, or from another installation."""
    storage = get_object_or_404(BackupStorage, pk=pk)
    job = Job.rebuild_catalogue(storage, request.user.username)
    note(request, "reads the catalogue of storage", storage)
    return redirect("job", job.pk)


@require_POST
@needs(OPERATOR)
def job_cancel(request, pk):
    job = get_object_or_404(Job, pk=pk)
    if job.kind in (Job.DELETE, Job.CHECK):
        require(request.user, ADMINISTRATOR)
    if job.cancel(request.user.username):
        note(request, f"cancelled {job.kind}", job.database or job)
        messages.success(request, f"{job} is being cancelled.")
    else:
        messages.warning(request, f"{job} had finished already.")
    if job.restore_id:
        return redirect("restore", job.restore_id)
    return redirect("database", job.database_id) if job.database_id else redirect("databases")
