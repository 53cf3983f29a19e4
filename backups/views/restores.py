"""Restores: the wizard on one page, the running page, the result."""

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST

from backups.models import Job, Restore
from backups.picture import draw
from backups.restore_forms import MomentForm, StartForm
from backups.views.databases import tab
from everest.forms import posted
from everest.people import ADMINISTRATOR, OPERATOR, VIEWER, May, needs, note, require

PAGE = 50


@needs(VIEWER)
def restores(request, pk):
    context = tab(request, pk, "restores")
    rows = context["database"].restores.select_related("target", "backup").exclude(state=Restore.DRAFT)
    context["page"] = Paginator(rows, PAGE).get_page(request.GET.get("page"))
    context["into"] = (
        context["database"].restores_into.exclude(source=pk).exclude(state=Restore.DRAFT).select_related("source")[:20]
    )
    return render(request, "backups/restores.html", context)


@needs(OPERATOR)
def wizard(request, pk):
    """Steps Moment and Target; Review follows once a worker has resolved the moment."""
    context = tab(request, pk, "restores")
    database, ranges = context["database"], context["database"].ranges()
    form = MomentForm(posted(request), source=database, ranges=ranges, initial=asked(request), user=request.user)
    if request.method == "POST" and form.is_valid():
        if form.cleaned_data["target"].pk == database.pk:
            require(request.user, ADMINISTRATOR)
        try:
            restore = form.request(request.user.username)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            note(
                request,
                "asked for a restore plan",
                f"{restore.source} into {restore.target}",
                restore.get_moment_display(),
            )
            return redirect("restore", restore.pk)
    more = {
        "form": form,
        "ranges": ranges,
        "picture": draw(database, ranges),
        "zone": timezone.get_current_timezone_name(),
    }
    return render(request, "backups/restore_wizard.html", {**context, **more})


def asked(request):
    """What a link asked for: ?moment=backup&backup=…&target=…"""
    return {
        name: request.GET[name]
        for name in ("moment", "backup", "target", "time", "gtid", "before", "picked")
        if name in request.GET
    }


def get_restore(pk):
    return get_object_or_404(Restore.objects.select_related("source", "target", "backup"), pk=pk)


@needs(VIEWER)
def restore(request, pk):
    restore = get_restore(pk)
    context = tab(request, restore.source_id, "restores")
    return render(request, "backups/restore.html", {**context, **state_of(request, restore)})


@needs(VIEWER)
def row(request, pk):
    """The polled cells of one row of the table."""
    return render(request, "backups/_restore_poll.html", {"restore": get_restore(pk)})


@needs(VIEWER)
def part(request, pk):
    """The polled part: the review while it is being resolved, then the running restore.

    Once there is something to type, the whole page is loaded anew and polls no more.
    """
    restore = get_restore(pk)
    response = render(request, "backups/_restore.html", state_of(request, restore))
    if not polls(restore):
        response["HX-Refresh"] = "true"
    return response


def polls(restore):
    """Whether something on the page still moves by itself."""
    resolving = restore.state == Restore.DRAFT and restore.plan is None and not restore.error
    return resolving or restore.state in (Restore.PENDING, Restore.RUNNING)


def state_of(request, restore, form=None):
    in_place = (restore.plan or {}).get("in_place") or restore.source_id == restore.target_id
    return {
        "restore": restore,
        "job": restore.job,
        "polls": polls(restore),
        "in_place": in_place,
        "blocked": [one for one in (restore.plan or {}).get("checks", []) if one["state"] == "fail"],
        "warned": [one for one in (restore.plan or {}).get("checks", []) if one["state"] == "warn"],
        "form": form or StartForm(restore=restore, may=May(request.user)),
        "empty": [],
    }


@require_POST
@needs(OPERATOR)
def start(request, pk):
    restore = get_restore(pk)
    shown = state_of(request, restore)
    if shown["in_place"]:
        require(request.user, ADMINISTRATOR)
    form = StartForm(request.POST, restore=restore, may=May(request.user))
    form.is_valid()  # what does not fit is not what is asked for: start() says so
    try:
        restore.start(who=request.user.username, **form.asked())
    except ValidationError as error:
        restore.refresh_from_db()
        if restore.state != Restore.DRAFT:  # someone else pressed the button first
            messages.warning(request, "This restore was started already.")
            return redirect("restore", pk)
        form.errors["typed" if restore.loses and not restore.error else "__all__"] = form.error_class(error.messages)
        context = tab(request, restore.source_id, "restores")
        return render(request, "backups/restore.html", {**context, **state_of(request, restore, form)})
    note(request, "started restore", f"{restore.source} into {restore.target}", restore_detail(restore))
    return redirect("restore", pk)


def restore_detail(restore):
    lost = ", ".join(one["schema"] for one in restore.loses)
    return f"{restore.get_moment_display()}; replaces {lost}" if lost else restore.get_moment_display()


@require_POST
@needs(OPERATOR)
def cancel(request, pk):
    restore = get_restore(pk)
    if restore.state == Restore.DRAFT:
        for job in restore.jobs.filter(state__in=Job.OPEN):
            job.cancel(request.user.username)
        Restore.objects.filter(pk=pk, state=Restore.DRAFT).delete()
        note(request, "put a restore plan away", f"{restore.source} into {restore.target}")
        return redirect("restores", restore.source_id)
    if restore.cancel(request.user.username):
        note(request, "cancelled restore", f"{restore.source} into {restore.target}")
        messages.success(request, "The restore is being cancelled: it ends at the next safe place, within seconds.")
    else:
        messages.warning(request, "The restore had finished already.")
    return redirect("restore", pk)
