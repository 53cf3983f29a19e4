"""Settings > Backup Storages."""

from django.contrib import messages
from django.db.models import ProtectedError
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from everest.forms import posted
from everest.people import ADMINISTRATOR, VIEWER, needs, note
from everest.secrets import SecretLost
from storages.forms import StorageForm
from storages.models import BackupStorage, users


@needs(VIEWER)
def storages(request):
    found = list(BackupStorage.objects.all())
    by = users(found)
    rows = [(storage, list(by[storage.pk].items())) for storage in found]
    return render(request, "storages/storages.html", {"rows": rows})


@needs(ADMINISTRATOR)
def add(request):
    return save(request, BackupStorage(), "added storage", locked=False)


@needs(ADMINISTRATOR)
def edit(request, pk):
    storage = get_object_or_404(BackupStorage, pk=pk)
    return save(request, storage, "changed storage", locked=bool(storage.used_by()))


def save(request, storage, action, locked):
    """Nothing is saved before the probe has passed; what it found stands beside the form."""
    form = StorageForm(posted(request), instance=storage, locked=locked)
    probe = None
    if request.method == "POST" and form.is_valid():
        probe, problem = try_out(form.instance)
        if problem:
            form.add_error(None, problem)
        elif probe.ok:
            form.save()
            note(request, action, storage, ", ".join(form.changed_data))
            messages.success(request, f"{storage.name} works and is saved.")
            return redirect("storages")
    return render(
        request,
        "storages/form.html",
        {"form": form, "probe": probe, "storage": storage, "adding": storage._state.adding},
    )


def try_out(storage):
    """The probe's result, or a sentence why there is none; an edited storage is probed before it is saved."""
    try:
        return storage.probe(save=False), None
    except SecretLost as error:
        return None, str(error)


@require_POST
@needs(ADMINISTRATOR)
def test(request, pk):
    storage = get_object_or_404(BackupStorage, pk=pk)
    try:
        probe, problem = storage.probe(), None
    except SecretLost as error:
        probe, problem = None, str(error)
    note(request, "tested storage", storage, problem or storage.check_error or "passed")
    return render(request, "storages/test.html", {"storage": storage, "probe": probe, "problem": problem})


@needs(ADMINISTRATOR)
def delete(request, pk):
    storage = get_object_or_404(BackupStorage, pk=pk)
    users = storage.used_by()
    if request.method == "POST" and not users:
        try:
            storage.delete()
        except ProtectedError:  # someone began to use it just now
            return redirect("storage-delete", pk=pk)
        note(request, "deleted storage", storage)
        messages.success(request, f"{storage.name} is deleted. Its bucket was not touched.")
        return redirect("storages")
    return render(
        request,
        "storages/delete.html",
        {"storage": storage, "users": users},
        status=409 if request.method == "POST" else 200,
    )
