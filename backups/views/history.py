"""The list of transactions, for a person who looks for the moment of a mistake, and the rows that one changed.

A search is a POST that starts a short Job; its page polls until the Job is done.
"""

from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from backups.models import Job
from backups.restore_forms import HistoryForm
from backups.views.databases import tab
from everest.forms import posted
from everest.people import OPERATOR, needs, note

PAGE = 100  # rows at a time


@needs(OPERATOR)
def transactions(request, pk):
    """The filters; what they find is a page of its own."""
    context = tab(request, pk, "restores")
    target = request.POST.get("target", "") or request.GET.get("target", "")
    form = HistoryForm(posted(request))
    if request.method == "POST" and form.is_valid():
        job = context["database"].list_transactions(request.user.username, **form.asked(), target=target)
        return redirect("transactions-found", job.pk)
    return render(request, "backups/transactions.html", {**context, "form": form, "target": target})


def get_job(pk, kind):
    return get_object_or_404(Job.objects.select_related("database"), pk=pk, kind=kind)


@needs(OPERATOR)
def found(request, pk):
    job = get_job(pk, Job.TRANSACTIONS)
    context = tab(request, job.database_id, "restores")
    form = HistoryForm(initial=HistoryForm.shown(job.arguments))
    more = {"form": form, "job": job, "target": job.arguments.get("target", "")}
    return render(request, "backups/transactions.html", {**context, **more})


@needs(OPERATOR)
def found_part(request, pk):
    """The polled part: what was found, and not the filters that a person may be changing."""
    job = get_job(pk, Job.TRANSACTIONS)
    context = {"job": job, "database": job.database, "target": job.arguments.get("target", "")}
    return render(request, "backups/_transactions.html", context)


@require_POST
@needs(OPERATOR)
def older(request, pk):
    """The next page of a list."""
    job = get_job(pk, Job.TRANSACTIONS)
    if not (job.result or {}).get("next"):
        return redirect("transactions-found", pk)
    asked = {**job.arguments, "after": job.result["next"]}
    return redirect("transactions-found", job.database.list_transactions(request.user.username, **asked).pk)


@require_POST
@needs(OPERATOR)
def show_rows(request, pk):
    """Rows of one transaction of a list; that a person looked at data leaves an Event."""
    job = get_job(pk, Job.TRANSACTIONS)
    listed = (job.result or {}).get("transactions", [])
    number = request.POST.get("number", "")
    if not number.isdigit() or int(number) >= len(listed):
        return redirect("transactions-found", pk)
    one = listed[int(number)]
    shown = job.database.show_rows(one, request.user.username, list=pk, target=job.arguments.get("target", ""))
    note(request, "looked at rows", job.database, one["identity"])
    return redirect("rows", shown.pk)


@require_POST
@needs(OPERATOR)
def more_rows(request, pk):
    """The next hundred, or the ones before."""
    job = get_job(pk, Job.ROWS)
    first = request.POST.get("first", "")
    asked = {**job.arguments, "first": int(first) if first.isdigit() and len(first) < 16 else 0}
    return redirect("rows", job.database.show_rows(who=request.user.username, **asked).pk)


@needs(OPERATOR)
def rows(request, pk):
    job = get_job(pk, Job.ROWS)
    context = tab(request, job.database_id, "restores")
    return render(request, "backups/rows.html", {**context, **rows_context(job)})


@needs(OPERATOR)
def rows_part(request, pk):
    return render(request, "backups/_rows.html", rows_context(get_job(pk, Job.ROWS)))


def rows_context(job):
    shown = (job.result or {}).get("rows", [])
    first, total = job.arguments["first"], job.arguments["transaction"]["rows"]
    last = first + len(shown)
    return {
        "job": job,
        "one": job.arguments["transaction"],
        "target": job.arguments.get("target", ""),
        "rows": shown,
        "first": first + 1,
        "last": last,
        "total": total,
        "next": last if last < total and shown else None,
        "before": max(first - PAGE, 0) if first else None,
    }
