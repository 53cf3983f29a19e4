"""The admin: for looking, and for getting stuck work going again.

People and groups are changed here, everything else on the pages that know its rules.
"""

from functools import wraps

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.shortcuts import render
from django.utils.functional import cached_property

from everest.models import Event, User
from everest.people import note

MOST = 10_000  # rows that a list counts and pages through; a search or a filter finds the others


class Newest(Paginator):
    """Counting millions of rows costs more than anybody learns from it, and so does sorting them whole."""

    @cached_property
    def count(self):
        return self.object_list.order_by()[:MOST].count()

    def page(self, number):
        page = super().page(number)
        keys = list(page.object_list.values_list("pk", flat=True))  # MySQL takes no LIMIT within IN
        page.object_list = self.object_list.filter(pk__in=keys)
        return page


class Shown(admin.ModelAdmin):
    """A model that support staff look at: every staff member may, nobody changes it here.

    Secrets are excluded by each model's own class, and a test walks all of them.
    """

    paginator = Newest
    list_per_page = 50
    show_full_result_count = False

    def has_view_permission(self, request, obj=None):
        return request.user.is_active and request.user.is_staff

    def has_module_permission(self, request):
        return self.has_view_permission(request)

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def has_delete_permission(self, request, obj=None):
        return False


def confirmed(question):
    """An admin action, method(self, request, row), that asks first and leaves an Event for every row it changed.

    The method raises ValidationError with the reason why not.
    """

    def wrap(method):
        @admin.action(description=method.__name__.replace("_", " ").capitalize())
        @wraps(method)
        def asked(self, request, queryset):
            if "confirmed" not in request.POST:
                context = {
                    **self.admin_site.each_context(request), "title": question, "rows": queryset,
                    "action": method.__name__, "opts": self.model._meta,
                }  # fmt: skip
                return render(request, "admin/confirm.html", context)
            for row in queryset:
                try:
                    method(self, request, row)
                except ValidationError as error:
                    self.message_user(request, " ".join(error.messages), messages.WARNING)
                else:
                    note(request, method.__name__.replace("_", " "), row)
                    self.message_user(request, f"{row}: done.")
            return None

        return asked

    return wrap


@admin.register(User)
class PersonAdmin(UserAdmin):
    list_display = ["username", "email", "is_staff", "is_active", "last_login"]
    fieldsets = [*UserAdmin.fieldsets, ("Preferences", {"fields": ["time_zone", "theme"]})]


@admin.register(Event)
class EventAdmin(Shown):
    list_display = ["at", "who", "action", "subject", "address"]
    ordering = ["-pk"]
    search_fields = ["who", "action", "subject", "detail"]
    list_filter = ["action"]


def hide_django_q():
    """Resubmitting a task there would be a second door to restores."""
    import django_q.admin  # noqa: F401  registers them, if it has not yet
    from django_q.models import Failure, OrmQ, Schedule, Success

    for model in (Failure, OrmQ, Schedule, Success):
        if admin.site.is_registered(model):  # OrmQ only is where the broker is the ORM
            admin.site.unregister(model)


hide_django_q()
admin.site.site_header = admin.site.site_title = "Everest administration"
admin.site.index_title = "For support staff"
