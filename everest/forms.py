"""Forms about people, and what every form of the pages shares."""

import zoneinfo
from functools import cache

from crispy_forms.helper import FormHelper
from django import forms
from django.core.exceptions import ValidationError

from everest.models import User


def helper(layout=None):
    """Fields only: the page's template holds the form tag, the token and the buttons."""
    made = FormHelper()
    made.form_tag = False
    made.disable_csrf = True
    made.layout = layout
    return made


def posted(request):
    """What a form is bound to: also a POST that holds nothing."""
    return request.POST if request.method == "POST" else None


@cache
def zone_names():
    """Sorted; read once, as they are the names of hundreds of files."""
    return sorted(zoneinfo.available_timezones())


def valid_zone(name):
    """An IANA name that the machine's time-zone data knows; ValidationError with a sentence otherwise."""
    if name not in zone_names():
        raise ValidationError(f"“{name}” is not a time zone. Use a name such as Europe/Berlin.")
    return name


class ZoneField(forms.CharField):
    """A time zone by name, with suggestions (the tag {% zones %})."""

    def __init__(self, **kwargs):
        kwargs.setdefault("label", "Time zone")
        kwargs.setdefault("max_length", 64)
        super().__init__(
            widget=forms.TextInput(attrs={"list": "zones", "autocomplete": "off", "spellcheck": "false"}), **kwargs
        )

    def clean(self, value):
        return valid_zone(super().clean(value))


class SecretInput(forms.PasswordInput):
    """Never shows what is stored or what was typed; browsers are told not to offer a login."""

    def __init__(self, attrs=None):
        super().__init__({"autocomplete": "new-password", **(attrs or {})}, render_value=False)


class PreferencesForm(forms.ModelForm):
    time_zone = ZoneField(help_text="Times are shown and read in this zone, with UTC on hover.")

    class Meta:
        model = User
        fields = ["time_zone", "theme"]
        widgets = {"theme": forms.RadioSelect}

    helper = helper()


class TypedNameForm(forms.Form):
    """A name typed to confirm what cannot be taken back."""

    typed = forms.CharField(
        label="Type the name to confirm",
        max_length=64,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    helper = helper()

    def __init__(self, *args, name, **kwargs):
        super().__init__(*args, **kwargs)
        self.name = name
        self.fields["typed"].label = f"Type {name} to confirm"

    def clean_typed(self):
        if self.cleaned_data["typed"] != self.name:
            raise ValidationError(f"This is not the name. Type {self.name} exactly.")
        return self.name
