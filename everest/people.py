"""Who may do what: three groups, each of which may do all that the one before it may."""

from functools import wraps

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.core.exceptions import PermissionDenied
from django.dispatch import receiver
from django.http import HttpResponse

VIEWER, OPERATOR, ADMINISTRATOR = "Viewer", "Operator", "Administrator"
RANKS = {VIEWER: 1, OPERATOR: 2, ADMINISTRATOR: 3}


def make_groups(sender=None, **kwargs):
    """After each migration: the three groups exist."""
    from django.contrib.auth.models import Group

    for name in RANKS:
        Group.objects.get_or_create(name=name)


def rank(user) -> int:
    """0 for a person in none of the groups, who sees nothing; a superuser is an administrator."""
    if not user.is_authenticated:
        return 0
    if user.is_superuser:
        return RANKS[ADMINISTRATOR]
    if not hasattr(user, "_everest_rank"):
        names = user.groups.values_list("name", flat=True)
        user._everest_rank = max((RANKS.get(name, 0) for name in names), default=0)
    return user._everest_rank


class May:
    """What templates ask before they show a button: `may.look`, `may.operate`, `may.administer`."""

    def __init__(self, user):
        level = rank(user)
        self.look = level >= RANKS[VIEWER]
        self.operate = level >= RANKS[OPERATOR]
        self.administer = level >= RANKS[ADMINISTRATOR]


def needs(role):
    """Let a view be used by people of this role and above; the others read why not."""

    def wrap(view):
        @login_required
        @wraps(view)
        def checked(request, *args, **kwargs):
            require(request.user, role)
            return view(request, *args, **kwargs)

        @wraps(view)
        def asked(request, *args, **kwargs):
            if request.headers.get("HX-Request") and not request.user.is_authenticated:
                # A poll of a page whose session is over: the page stays as it is, and stops asking.
                return HttpResponse(status=286, headers={"HX-Reswap": "none"})
            return checked(request, *args, **kwargs)

        return asked

    return wrap


def require(user, role):
    if rank(user) < RANKS[role]:
        raise PermissionDenied(f"This needs the role {role}. An administrator can give it to you.")


def address_of(request):
    """Where a person is; behind a proxy, what it says: the last hop, as whatever stands before can be made up."""
    said = request.headers.get("X-Forwarded-For", "") if settings.EVEREST_BEHIND_PROXY else ""
    return said.rpartition(",")[2].strip() or request.META.get("REMOTE_ADDR") or None


def note(request, action, subject, detail=""):
    """Leave an Event of what this person just did."""
    from everest.models import Event

    return Event.note(request.user.get_username(), action, subject, detail, address_of(request))


@receiver(user_logged_in)
def note_sign_in(sender, request, user, **kwargs):
    from everest.models import Event

    Event.note(user.get_username(), "signed in", f"user {user}", "", address_of(request))


@receiver(user_logged_out)
def note_sign_out(sender, request, user, **kwargs):
    if user is not None:
        note(request, "signed out", f"user {user}")


@receiver(user_login_failed)
def note_failed_sign_in(sender, request=None, **kwargs):
    """Not the name that was typed: people type passwords there."""
    from everest.models import Event

    address = address_of(request) if request else None
    Event.note("nobody", "failed to sign in", "sign-in page", "", address)


def context(request):
    """For every template: what this person may do, and whether the workers are seen."""
    from backups.queue import workers_seen

    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {}
    return {"may": May(user), "theme": user.theme, "workers_missing": not workers_seen()}
