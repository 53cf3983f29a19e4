"""Sign-in, preferences, events and health: pages that belong to no single app."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import PasswordChangeView
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse_lazy

from backups import queue
from everest.forms import PreferencesForm, posted
from everest.models import Event
from everest.people import VIEWER, needs, note

PAGE = 100
FOUND = 10_000  # events that a search shows: a word may be in all of them


def workers_seen() -> bool:
    return queue.workers_seen()


def home(request):
    return redirect("databases")


def health(request):
    """For monitoring: 200 while workers are at work, 503 when none was seen for three minutes."""
    seen = workers_seen()
    return JsonResponse({"workers": "seen" if seen else "not seen"}, status=200 if seen else 503)


class PasswordView(PasswordChangeView):
    success_url = reverse_lazy("preferences")

    def form_valid(self, form):
        note(self.request, "changed password", f"user {self.request.user}")
        messages.success(self.request, "The password is changed.")
        return super().form_valid(form)


@login_required
def preferences(request):
    form = PreferencesForm(posted(request), instance=request.user)
    if request.method == "POST" and form.is_valid():
        form.save()
        note(request, "changed preferences", f"user {request.user}", ", ".join(form.changed_data))
        messages.success(request, "Saved.")
        return redirect("preferences")
    return render(request, "everest/preferences.html", {"form": form})


@needs(VIEWER)
def events(request):
    words = request.GET.get("q", "").strip()
    found = Event.objects.order_by("-pk")
    if words:  # read through once, and as rows lie: to count what matches would take as long again
        found = list(found.filter(matching(words)).values_list("pk", flat=True)[:FOUND])
    page = Paginator(found, PAGE).get_page(request.GET.get("page"))
    if words:
        page.object_list = Event.objects.filter(pk__in=page.object_list).order_by("-pk")
    newest = bool(words) and len(found) == FOUND
    return render(request, "everest/events.html", {"page": page, "q": words, "newest": newest})


def matching(words) -> Q:
    """Every word must occur somewhere in the line."""
    found = Q()
    for word in words.split():
        found &= (
            Q(who__icontains=word)
            | Q(action__icontains=word)
            | Q(subject__icontains=word)
            | Q(detail__icontains=word)
            | Q(address__icontains=word)
        )
    return found


def forbidden(request, exception=None):
    return render(request, "403.html", {"reason": str(exception or "")}, status=403)
