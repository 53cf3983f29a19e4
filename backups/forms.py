"""Forms of Databases, backups, schedules and point-in-time recovery."""

import re
from zoneinfo import ZoneInfo

from crispy_forms.layout import HTML, Div, Layout
from django import forms
from django.core.exceptions import ValidationError

from backups import schedules
from backups.models import Database, Schedule
from backups.when import from_us, read_moment
from everest.forms import SecretInput, ZoneField, helper
from storages.models import BackupStorage

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._ -]*[A-Za-z0-9._-])?")
HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")
NO_TLS = (
    '<div class="banner banner-warn" data-when="tls=off"><div class="text"><p>Password and data would cross '
    "the network in the clear. Leave this to servers on this machine.</p></div></div>"
)
UNCHECKED = (
    '<div class="banner banner-info" data-when="tls=required"><div class="text"><p>Encrypted, but any certificate is '
    "accepted. With the server's CA certificate nobody can stand in between.</p></div></div>"
)


def valid_name(name):
    if not NAME.fullmatch(name):
        raise ValidationError("Use letters, digits, dots, hyphens and underscores; begin with a letter or digit.")
    return name


def pem(text, kind):
    text = text.strip()
    if text and f"-----BEGIN {kind}" not in text and not (kind == "PRIVATE KEY" and "PRIVATE KEY-----" in text):
        raise ValidationError(f"This is not in PEM form (it begins with -----BEGIN {kind}-----).")
    return text


class DatabaseForm(forms.ModelForm):
    """Password and key are never shown again; left empty on an edit, the stored ones stay."""

    password = forms.CharField(required=False, max_length=200, widget=SecretInput, strip=False)
    client_key = forms.CharField(
        label="Client key",
        required=False,
        help_text="PEM. Never shown again.",
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "autocomplete": "off"}),
    )

    class Meta:
        model = Database
        fields = [
            "name",
            "host",
            "port",
            "user",
            "password",
            "tls",
            "ca_certificate",
            "client_certificate",
            "client_key",
            "connections",
            "rate_limit",
        ]
        labels = {"tls": "TLS", "ca_certificate": "CA certificate", "client_certificate": "Client certificate"}
        help_texts = {
            "host": "Name or address, without the port; or the path of a socket on this machine.",
            "user": "An account with the privileges that the checks ask for.",
            "ca_certificate": "PEM. Where one is given, the server's certificate is verified.",
            "connections": "How many read at once while a backup is taken. One is gentlest.",
            "rate_limit": "Of all rows that a backup reads, before they are compressed. Empty for no limit.",
        }
        widgets = {
            "ca_certificate": forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
            "client_certificate": forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
            "user": forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        }

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["tls"].choices = [
            (Database.VERIFY, "Verify with CA"),
            (Database.REQUIRED, "Required"),
            (Database.OFF, "Off"),
        ]
        if not self.instance._state.adding:
            self.fields["password"].help_text = "Leave empty to keep the stored one."
        self.helper = helper(
            Layout(
                "name",
                Div("host", "port", css_class="pair"),
                Div("user", "password", css_class="pair"),
                "tls",
                HTML(NO_TLS),
                HTML(UNCHECKED),
                "ca_certificate",
                HTML("<details class='mb-3'><summary>Client certificate</summary><div class='pt-2'>"),
                "client_certificate",
                "client_key",
                HTML("</div></details>"),
                HTML("<details class='mb-3'><summary>Advanced</summary><div class='pt-2'>"),
                Div("connections", "rate_limit", css_class="pair"),
                HTML("</div></details>"),
            )
        )
        self.fields["connections"].required = False
        self.initial.pop("client_key", None)

    def save(self, commit=True):
        """Whoever saves it takes it over: what was rebuilt from a bucket begins to work again."""
        self.instance.paused = False
        return super().save(commit)

    def clean_name(self):
        return valid_name(self.cleaned_data["name"])

    def clean_host(self):
        host = self.cleaned_data["host"].strip()
        if not host.startswith("/") and ("/" in host or " " in host or host.count(":") == 1):
            raise ValidationError("Only a host name or an address; the port has a field of its own.")
        return host

    def clean_port(self):
        port = self.cleaned_data["port"]
        if not 1 <= port <= 65535:
            raise ValidationError("A port is a number from 1 to 65535.")
        return port

    def clean_connections(self):
        connections = self.cleaned_data["connections"]
        return self.instance.connections if connections is None else connections

    def clean_rate_limit(self):
        return self.cleaned_data["rate_limit"] or None  # 0 would stand still

    def clean_ca_certificate(self):
        return pem(self.cleaned_data["ca_certificate"], "CERTIFICATE")

    def clean_client_certificate(self):
        return pem(self.cleaned_data["client_certificate"], "CERTIFICATE")

    def clean_client_key(self):
        return pem(self.cleaned_data["client_key"], "PRIVATE KEY")

    def clean(self):
        data = super().clean()
        if data.get("ca_certificate") and "tls" not in self.changed_data and self.instance._state.adding:
            data["tls"] = Database.VERIFY  # the default where a CA is given
        if (
            data.get("tls") == Database.VERIFY
            and not data.get("ca_certificate")
            and "ca_certificate" not in self.errors
        ):
            self.add_error(
                "ca_certificate", "Verifying needs the certificate of the authority that signed the server's."
            )
        if not self.instance._state.adding:
            for name in ("password", "client_key"):
                data[name] = data.get(name) or getattr(self.instance, name)
        has_key = bool(data.get("client_key"))
        if bool(data.get("client_certificate")) != has_key and "client_certificate" not in self.errors:
            self.add_error(
                "client_key" if not has_key else "client_certificate", "Certificate and key belong together: give both."
            )
        return data


class HoursForm(forms.ModelForm):
    """What is only advice: schedules warn when they fall into these hours."""

    class Meta:
        model = Database
        fields = ["production_hours"]
        labels = {"production_hours": "Production hours"}
        help_texts = {
            "production_hours": "Such as 08:00-18:00; a schedule that falls into them warns. Leave empty for none."
        }

    helper = helper()

    def clean_production_hours(self):
        hours = self.cleaned_data["production_hours"].replace(" ", "")
        if hours and not HOURS.fullmatch(hours):
            raise ValidationError("Write them as 08:00-18:00.")
        return hours


class StorageChoice(forms.ModelChoiceField):
    """Backup storage: the first one is chosen."""

    def __init__(self, **kwargs):
        super().__init__(BackupStorage.objects.all(), label="Backup storage", empty_label=None, **kwargs)


class BackupNowForm(forms.Form):
    name = forms.CharField(label="Backup name", max_length=64)
    storage = StorageChoice()
    helper = helper()

    def __init__(self, *args, database, **kwargs):
        super().__init__(*args, **kwargs)
        self.database = database

    def clean_name(self):
        name = valid_name(self.cleaned_data["name"])
        if self.database.backups.filter(name=name).exists():
            raise ValidationError(f"There is a backup {name} already. Choose another name.")
        return name


class PitrForm(forms.Form):
    pitr = forms.BooleanField(label="Point-in-time recovery", required=False)
    storage = StorageChoice()
    interval = forms.IntegerField(
        label="Upload interval, seconds",
        min_value=1,
        max_value=3600,
        initial=60,
        help_text="How much may be lost at most if the server dies: 1 to 3600.",
    )
    helper = helper()


class ScheduleForm(forms.ModelForm):
    """The five Repeats choices compile to one cron expression."""

    storage = StorageChoice()
    repeats = forms.ChoiceField(label="Repeats", choices=schedules.REPEATS, initial="daily")
    minute = forms.IntegerField(label="Minute", min_value=0, max_value=59, initial=0, required=False)
    time = forms.TimeField(
        label="Time",
        initial="01:00",
        required=False,
        input_formats=["%H:%M"],
        help_text="24 hours, such as 01:00.",
        widget=forms.TimeInput(format="%H:%M"),
    )
    weekday = forms.TypedChoiceField(
        label="Day", choices=list(enumerate(schedules.DAYS, 1)), coerce=int, required=False
    )
    day = forms.ChoiceField(
        label="Day of the month",
        required=False,
        choices=[(str(day), str(day)) for day in range(1, 32)] + [("last", "Last day")],
    )
    cron_text = forms.CharField(
        label="Cron expression",
        max_length=100,
        required=False,
        help_text="Minute, hour, day of month, month, day of week.",
    )
    time_zone = ZoneField()
    start = forms.CharField(
        label="Start from",
        max_length=40,
        required=False,
        help_text="Optional, such as 2026-12-01 00:00: no run before it.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    class Meta:
        model = Schedule
        fields = ["name", "storage", "retention_copies", "time_zone"]
        labels = {"name": "Backup name", "retention_copies": "Retention copies"}
        help_texts = {"retention_copies": "How many of its backups are kept; 0 keeps all."}

    def __init__(self, *args, database, **kwargs):
        super().__init__(*args, **kwargs)
        self.instance.database = database
        if not self.instance._state.adding:
            self.initial.update(shown(self.instance))
        self.helper = helper(
            Layout(
                Div("name", "storage", css_class="pair"),
                "retention_copies",
                "repeats",
                Div(
                    Div("minute", data_when="repeats=hourly"),
                    Div("weekday", data_when="repeats=weekly"),
                    Div("day", data_when="repeats=monthly"),
                    Div("time", data_when="repeats=daily,weekly,monthly"),
                    css_class="pair",
                ),
                Div("cron_text", data_when="repeats=cron"),
                Div("start", "time_zone", css_class="pair"),
            )
        )

    def clean_name(self):
        name = valid_name(self.cleaned_data["name"])
        if Schedule.objects.filter(database=self.instance.database, name=name).exclude(pk=self.instance.pk).exists():
            raise ValidationError(f"There is a schedule {name} already. Choose another name.")
        return name

    def clean(self):
        data = super().clean()
        self.clean_start_from(data)
        repeats = data.get("repeats")
        needed = {"hourly": "minute", "cron": "cron_text"}.get(repeats, "time")
        if repeats and needed not in self.errors:
            if data.get(needed) in (None, ""):
                self.add_error(needed, "This field is required.")
            else:
                self.compile(repeats, data, needed)
        return data

    def _update_errors(self, errors):
        """What Schedule.clean says of these two is said beside the form's own fields already."""
        for name in ("cron", "time_zone"):
            errors.error_dict.pop(name, None)
        super()._update_errors(errors)

    def clean_start_from(self, data):
        """Read in the schedule's own zone."""
        self.instance.start_from = None
        if data.get("start") and data.get("time_zone"):
            try:
                self.instance.start_from = from_us(read_moment(data["start"], ZoneInfo(data["time_zone"])))
            except ValidationError as error:
                self.add_error("start", error)

    def compile(self, repeats, data, field):
        time = data.get("time")
        day = data.get("day") or "1"
        try:
            self.instance.cron = schedules.compile(
                repeats,
                minute=data["minute"] or 0 if repeats == "hourly" else time.minute if time else 0,
                hour=time.hour if time else 0,
                weekday=data.get("weekday") or 1,
                day=day if day == schedules.LAST else int(day),
                cron=data.get("cron_text", ""),
            )
        except ValueError as error:
            self.add_error(field, str(error))


def shown(schedule):
    """A stored expression and start as the fields that they came from."""
    repeats, parts = schedules.parse(schedule.cron)
    initial = {"repeats": repeats, "cron_text": parts.get("cron", ""), "minute": parts.get("minute", 0)}
    if "hour" in parts:
        initial["time"] = f"{parts['hour']:02d}:{parts['minute']:02d}"
    if schedule.start_from:
        initial["start"] = f"{schedule.start_from.astimezone(ZoneInfo(schedule.time_zone)):%Y-%m-%d %H:%M}"
    return initial | {name: str(parts[name]) for name in ("weekday", "day") if name in parts}
