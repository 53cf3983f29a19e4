"""Schedules: add, edit, pause, delete, and the live sentence."""

from django.contrib import messages
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from backups.advice import warnings
from backups.forms import ScheduleForm
from backups.models import Schedule
from backups.views.databases import tab
from everest.forms import posted
from everest.people import OPERATOR, needs, note
from storages.models import BackupStorage


@needs(OPERATOR)
def add(request, pk):
    context = tab(request, pk, "backups")
    database = context["database"]
    initial = {
        "name": default_name(database),
        "storage": BackupStorage.objects.first(),
        "time_zone": request.user.time_zone,
    }
    form = ScheduleForm(posted(request), database=database, initial=initial)
    return save(request, form, context, "added schedule")


@needs(OPERATOR)
def edit(request, pk):
    schedule = get_object_or_404(Schedule.objects.select_related("database"), pk=pk)
    context = tab(request, schedule.database_id, "backups")
    form = ScheduleForm(posted(request), instance=schedule, database=schedule.database)
    return save(request, form, {**context, "schedule": schedule}, "changed schedule")


def save(request, form, context, action):
    if request.method == "POST" and form.is_valid():
        schedule = form.save()
        note(request, action, f"{schedule.database} / {schedule}", schedule.describe())
        messages.success(request, f"{schedule.name}: {schedule.describe()}.")
        for sentence in warnings(schedule):
            messages.warning(request, sentence)
        return redirect("backups", schedule.database_id)
    more = {"form": form, "any_storage": BackupStorage.objects.exists()}
    return render(request, "backups/schedule_form.html", {**context, **more})


def default_name(database):
    taken = set(database.schedules.values_list("name", flat=True))
    return next(name for n in range(1, len(taken) + 2) if (name := f"schedule-{n}") not in taken)


@require_POST
@needs(OPERATOR)
def preview(request, pk):
    """What the form says so far: the sentence and the next three runs.  Changes nothing."""
    database = tab(request, pk, "backups")["database"]
    schedule = database.schedules.filter(pk=request.POST.get("schedule") or None).first()
    form = ScheduleForm(request.POST, database=database, instance=schedule)
    form.is_valid()
    useful = not {"repeats", "minute", "time", "cron_text", "time_zone", "start", "day", "weekday"} & set(form.errors)
    draft = form.instance if useful else None
    context = {"draft": draft, "errors": form.errors, "advice": warnings(draft) if draft else []}
    return render(request, "backups/_schedule_preview.html", context)


@require_POST
@needs(OPERATOR)
def switch(request, pk):
    """Pause or resume; the form says which, so that two people who press the same button do the same."""
    schedule = get_object_or_404(Schedule, pk=pk)
    if request.POST.get("active") == "1":
        schedule.resume(request.user.username)
    else:
        schedule.pause(request.user.username)
    note(request, "resumed schedule" if schedule.active else "paused schedule", f"{schedule.database} / {schedule}")
    return redirect("backups", schedule.database_id)


@needs(OPERATOR)
def delete(request, pk):
    schedule = get_object_or_404(Schedule.objects.select_related("database"), pk=pk)
    context = tab(request, schedule.database_id, "backups")
    if request.method == "POST":
        schedule.delete()
        note(request, "deleted schedule", f"{schedule.database} / {schedule}")
        messages.success(request, f"The schedule {schedule.name} is deleted; its backups stay.")
        return redirect("backups", schedule.database_id)
    return render(request, "backups/schedule_delete.html", {**context, "schedule": schedule})
