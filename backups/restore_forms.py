"""The restore wizard's fields."""

from contextlib import suppress

from django import forms
from django.core.exceptions import ValidationError
from django.forms.utils import flatatt
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe

from backups.models import Backup, Database, Restore
from backups.when import read_moment
from everest.people import May
from everest.templatetags.show import exact, typed

CHECK = forms.CheckboxInput(attrs={"class": "form-check-input", "form": "start"})  # they stand above that form
MOST = 200  # backups to choose from
ORDER = [Restore.LATEST, Restore.TIME, Restore.BACKUP, Restore.GTID, Restore.BEFORE]


class ManyOptions(forms.Select):
    """A select of hundreds of options: they are joined, as a template for each would take a tenth of a second."""

    def render(self, name, value, attrs=None, renderer=None):
        chosen = set(self.format_value(value))
        rows = ((key, mark_safe(" selected") if str(key) in chosen else "", text) for key, text in self.choices)
        options = format_html_join("", '<option value="{}"{}>{}</option>', rows)
        said = flatatt(self.build_attrs({**self.attrs, "name": name}, attrs))
        return format_html("<select{}>{}</select>", said, options)


class MomentForm(forms.Form):
    """Which moment, and into which Database: another one by default."""

    moment = forms.ChoiceField(
        choices=sorted(Restore.MOMENTS, key=lambda one: ORDER.index(one[0])),
        initial=Restore.LATEST,
        widget=forms.RadioSelect(attrs={"class": "form-check-input"}),
    )
    time = forms.CharField(
        label="Date and time",
        required=False,
        max_length=40,
        widget=forms.TextInput(attrs={"placeholder": "2026-11-22 18:30:05", "autocomplete": "off"}),
    )
    backup = forms.ModelChoiceField(Backup.objects.none(), required=False, empty_label=None, widget=ManyOptions)
    gtid = forms.CharField(
        label="GTID",
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    before = forms.CharField(
        label="GTID",
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    # Which timeline a GTID was picked on: "<timeline> <GTID>", as after a restore in place it may lie on two.
    picked = forms.CharField(required=False, max_length=240, widget=forms.HiddenInput)
    target = forms.ModelChoiceField(Database.objects.none(), empty_label=None, widget=ManyOptions)

    def __init__(self, *args, source, ranges, user, **kwargs):
        super().__init__(*args, **kwargs)
        self.source, self.ranges = source, ranges
        self.fields["backup"].queryset = source.backups.filter(state=Backup.SUCCEEDED)
        self.fields["backup"].choices = self.backup_choices()
        targets = Database.objects.all()
        if not May(user).administer:
            targets = targets.exclude(pk=source.pk)
        self.fields["target"].queryset = targets
        shown = targets.values_list("pk", "name", "host", "port", named=True)
        self.fields["target"].choices = [(one.pk, self.target_label(one)) for one in shown]
        for name, field in self.fields.items():
            kind = "form-select" if isinstance(field.widget, forms.Select) else "form-control"
            if name != "moment":
                field.widget.attrs["class"] = kind
        self.initial.setdefault("target", targets.exclude(pk=source.pk).first())

    def backup_choices(self):
        """The newest, and an older one that a link or a person chose already."""
        field = self.fields["backup"]
        newest = field.queryset.order_by("-view_at").values_list("pk", "name", "view_at", named=True)[:MOST]
        shown = {one.pk: one for one in newest}
        if len(shown) == MOST:
            field.help_text = f"The newest {MOST}. An older one has Restore in its menu under Backups."
        with suppress(ValidationError):  # the field itself refuses what is no backup
            if chosen := field.clean(self["backup"].value()):
                shown.setdefault(chosen.pk, chosen)
        return [(one.pk, f"{one.name}, consistent at {exact(one.view_at)}") for one in shown.values()]

    def target_label(self, database):
        place = f"{database.name} ({database.host}:{database.port})"
        return f"{place} – in place: replaces what this Database holds now" if database.pk == self.source.pk else place

    def clean(self):
        data = super().clean()
        filled = [name for name in ("time", "gtid", "before") if data.get(name)]
        if data.get("moment") == Restore.LATEST and filled:
            # Without JavaScript nothing chooses the moment whose field is typed into.
            self.add_error(filled[0], "Choose this above, or empty the field for the latest possible moment.")
        needed = {"time": "time", "gtid": "gtid", "before": "before", "backup": "backup"}.get(data.get("moment"))
        if needed and not data.get(needed) and needed not in self.errors:
            self.add_error(needed, "Say which one.")
        elif needed == "time" and data.get("time"):
            self.check_time(data)
        return data

    def check_time(self, data):
        try:
            data["moment_us"] = read_moment(data["time"], timezone.get_current_timezone())
            covered(data["moment_us"], self.ranges)
        except ValidationError as error:
            self.add_error("time", error)

    def request(self, who):
        data = self.cleaned_data
        gtid = {Restore.GTID: data["gtid"], Restore.BEFORE: data["before"]}.get(data["moment"], "")
        return Restore.request(
            self.source,
            data["target"],
            data["moment"],
            who,
            moment_us=data.get("moment_us"),
            moment_gtid=gtid,
            backup=data["backup"] if data["moment"] == Restore.BACKUP else None,
            timeline=self.picked_timeline(gtid.strip()),
        )

    def picked_timeline(self, gtid):
        known = {f"{one.pk} {gtid}": one for one in self.source.timelines.all()} if gtid else {}
        return known.get(self.cleaned_data["picked"])


def covered(moment_us, ranges):
    """Raise ValidationError naming the good ranges where the moment lies in none of them."""
    if any(one.first_us <= moment_us <= one.last_us for one in ranges):
        return
    if not ranges:
        raise ValidationError("Nothing is recoverable yet: a backup has to succeed first.")
    good = "; ".join(f"{exact(one.first, True)} to {exact(one.last, True)}" for one in ranges[-5:])
    raise ValidationError(f"That moment is not recoverable. Recoverable: {good}.")


class HistoryForm(forms.Form):
    """Filters of the list of transactions; all of them may be empty."""

    KINDS = [
        ("", "Any kind"),
        ("ddl", "Statements (DDL)"),
        ("insert", "Inserts"),
        ("update", "Updates"),
        ("delete", "Deletes"),
        ("xa", "XA"),
    ]
    since = forms.CharField(label="From", required=False, max_length=40)
    until = forms.CharField(label="To", required=False, max_length=40)
    table = forms.CharField(label="Table", required=False, max_length=129)
    kind = forms.ChoiceField(label="Kind", required=False, choices=KINDS)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            field.widget.attrs |= {"class": "form-select" if name == "kind" else "form-control", "autocomplete": "off"}
        for name in ("since", "until"):
            self.fields[name].widget.attrs["placeholder"] = "2026-11-22 18:30:05"
        self.fields["table"].widget.attrs |= {"placeholder": "table or schema.table", "spellcheck": "false"}

    def clean_since(self):
        return self.moment("since")

    def clean_until(self):
        return self.moment("until")

    def moment(self, name):
        text = self.cleaned_data[name]
        return read_moment(text, timezone.get_current_timezone()) if text else None

    def clean_table(self):
        return self.cleaned_data["table"].replace("`", "")

    def asked(self):
        data = self.cleaned_data
        return {
            "since_us": data["since"],
            "until_us": data["until"],
            "table": data["table"],
            "kind": data["kind"],
        }

    @staticmethod
    def shown(asked):
        """What was asked, as the fields hold it."""
        times = {name: typed(asked[f"{name}_us"]) if asked.get(f"{name}_us") else "" for name in ("since", "until")}
        return times | {name: asked.get(name, "") for name in ("table", "kind")}


class StartForm(forms.Form):
    """The target's name, where the target holds something, and how else the restore is to go."""

    typed = forms.CharField(
        required=False,
        max_length=64,
        widget=forms.TextInput(attrs={"class": "form-control", "autocomplete": "off", "spellcheck": "false"}),
    )

    accounts = forms.BooleanField(
        label="Restore accounts, too",
        required=False,
        widget=CHECK,
        help_text="Makes the accounts and roles of the backup that the target does not have. "
        "The target's own stay as they are.",
    )
    verbatim = forms.BooleanField(
        label="Replay every change one by one",
        required=False,
        widget=CHECK,
        help_text="Slower, with the same result: no changes of the same row are combined.",
    )

    def __init__(self, *args, restore, may, **kwargs):
        super().__init__(*args, **kwargs)
        if not may.administer:
            del self.fields["accounts"]
        self.fields["typed"].label = f"Type {restore.target.name} to confirm"

    def choices(self):
        return [self[name] for name in ("accounts", "verbatim") if name in self.fields]

    def asked(self):
        """Arguments of Restore.start."""
        data = self.cleaned_data
        return {"replace": data.get("typed", ""), "accounts": data.get("accounts", False), "verbatim": data["verbatim"]}
