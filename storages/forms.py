"""The form of a Backup Storage."""

import base64
import binascii
import ipaddress
import re
from urllib.parse import urlsplit

from crispy_forms.layout import HTML, Div, Field, Layout
from django import forms
from django.core.exceptions import ValidationError

from everest.forms import SecretInput, helper
from everest.secrets import SecretLost
from storages.models import BackupStorage, local_folder

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
PLACE = ["name", "type", "bucket", "region", "prefix"]
S3_ONLY = ["region", "endpoint", "access_key", "secret_key", "ca_certificate"]
KEYS_HELP = (
    "Optional: what is written is then encrypted before it leaves this machine. A key is 32 random bytes in base64, "
    "such as `openssl rand -base64 32` prints. Keep a copy elsewhere: without it nobody can read the backups."
)
INSECURE = (
    '<div class="banner banner-warn" data-when="verify_tls=false"><div class="text"><p>Anyone between Everest and '
    "the storage could read keys and backups. Give the CA certificate instead, where there is one.</p></div></div>"
)


class StorageForm(forms.ModelForm):
    access_key = forms.CharField(label="Access Key", required=False, max_length=200, widget=SecretInput)
    secret_key = forms.CharField(label="Secret Key", required=False, max_length=200, widget=SecretInput)

    encryption_keys = forms.CharField(
        label="Encryption keys",
        required=False,
        max_length=2000,
        help_text=KEYS_HELP,
        widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false", "autocomplete": "off"}),
    )

    class Meta:
        model = BackupStorage
        fields = [
            "name",
            "description",
            "type",
            "bucket",
            "region",
            "endpoint",
            "access_key",
            "secret_key",
            "verify_tls",
            "ca_certificate",
            "path_style",
            "prefix",
            "encryption_keys",
        ]
        labels = {"type": "Type", "name": "Name", "region": "Region", "endpoint": "Endpoint", "prefix": "Prefix"}
        help_texts = {
            "name": "Lowercase letters, digits and hyphens; at most 22.",
            "bucket": "3 to 63 of a-z 0-9 . - (for a local folder: its path below the root that the settings name)",
            "endpoint": "The regional address, such as https://s3.eu-central-1.amazonaws.com",
            "ca_certificate": "PEM, where the storage's certificate is not signed by a public authority.",
            "path_style": "Needed by many self-hosted stores: the bucket stands in the path instead of the host name.",
            "prefix": "Optional folder in the bucket, so that it can be shared.",
        }
        widgets = {"ca_certificate": forms.Textarea(attrs={"rows": 4, "spellcheck": "false"})}

    def __init__(self, *args, locked=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.locked = locked
        if locked:
            for name in PLACE:
                self.fields[name].disabled = True
                self.fields[name].help_text = "Fixed, as backups are stored here."
        chosen = self.data.get("type") if self.is_bound else self.instance.type
        for name in S3_ONLY[:4]:
            self.fields[name].required = (chosen or self.instance.type) != BackupStorage.LOCAL and not self.kept(name)
        self.initial.pop("encryption_keys", None)
        if self.kept("encryption_keys"):
            text = (
                "A key that you enter encrypts from now on; those that are stored go on decrypting. Never shown again."
            )
            self.fields["encryption_keys"].help_text = text
        if self.kept("secret_key"):
            for name in ("access_key", "secret_key"):
                self.fields[name].help_text = "Leave empty to keep the stored one."
        self.helper = helper(
            Layout(
                Div("name", "type", css_class="pair"),
                "description",
                Div("bucket", Field("prefix"), css_class="pair"),
                Div(
                    Div("region", "endpoint", css_class="pair"),
                    Div("access_key", "secret_key", css_class="pair"),
                    "path_style",
                    "verify_tls",
                    HTML(INSECURE),
                    "ca_certificate",
                    data_when="type=s3",
                ),
                "encryption_keys",
            )
        )

    def kept(self, field):
        return bool(self.instance.pk and "key" in field and getattr(self.instance, field))

    def clean_name(self):
        name = self.cleaned_data["name"]
        if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name):
            raise ValidationError(
                "Use lowercase letters, digits and hyphens; begin with a letter and do not end with a hyphen."
            )
        return name

    def clean_endpoint(self):
        endpoint = self.cleaned_data["endpoint"].strip().rstrip("/")
        if endpoint:
            check_endpoint(endpoint)
        return endpoint

    def clean_prefix(self):
        prefix = self.cleaned_data["prefix"].strip("/")
        if prefix and (not re.fullmatch(r"[A-Za-z0-9._/-]+", prefix) or ".." in prefix or "//" in prefix):
            raise ValidationError("Use letters, digits, dots, underscores, hyphens and single slashes.")
        return prefix

    def clean_ca_certificate(self):
        text = self.cleaned_data["ca_certificate"].strip()
        if text and "-----BEGIN CERTIFICATE-----" not in text:
            raise ValidationError("This is not a certificate in PEM form (it begins with -----BEGIN CERTIFICATE-----).")
        return text

    def clean_encryption_keys(self):
        """New keys go in front of the stored ones, which stay: what they encrypted has to be read for ever."""
        entered = self.cleaned_data["encryption_keys"].split()
        if not all(map(is_key, entered)):
            raise ValidationError("Each line is 32 random bytes in base64, as `openssl rand -base64 32` prints them.")
        if not entered and self.kept("encryption_keys"):
            return self.instance.encryption_keys
        try:
            stored = self.instance.secret("encryption_keys").split()
        except SecretLost as error:
            raise ValidationError(str(error)) from error
        return "\n".join(dict.fromkeys([*entered, *stored]))

    def clean(self):
        data = super().clean()
        if data.get("type") == BackupStorage.LOCAL:
            self.clean_local(data)
        elif data.get("type") == BackupStorage.S3:
            self.clean_s3(data)
        for name in ("access_key", "secret_key"):
            if not data.get(name) and self.kept(name) and data.get("type") == BackupStorage.S3:
                data[name] = getattr(self.instance, name)
        if not self.errors:
            self.clean_place(data)
        return data

    def clean_local(self, data):
        data.update(dict.fromkeys(S3_ONLY, ""), path_style=False, verify_tls=True)
        for name in S3_ONLY:  # hidden on the page, so nothing there can be wrong
            self.errors.pop(name, None)
        try:
            if "bucket" in data:
                local_folder(data["bucket"])
        except ValidationError as error:
            self.add_error("bucket", error)

    def clean_s3(self, data):
        bucket = data.get("bucket", "")
        if bucket and not valid_bucket(bucket):
            self.add_error(
                "bucket", "A bucket's name has 3 to 63 of a-z 0-9 . - and begins and ends with a letter or digit."
            )

    def clean_place(self, data):
        """The same place twice would be two storages that delete each other's backups."""
        place = {name: data.get(name) for name in ("type", "endpoint", "bucket", "prefix")}
        other = BackupStorage.objects.filter(**place).exclude(pk=self.instance.pk).first()
        if other:
            self.add_error("bucket", f"The storage {other} uses this endpoint, bucket and prefix already.")

    def validate_constraints(self):
        """clean_place has said it in words already."""


def is_key(text) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except binascii.Error:
        return False


def valid_bucket(name) -> bool:
    if not BUCKET.fullmatch(name) or ".." in name:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return True
    return False


def check_endpoint(endpoint):
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        raise ValidationError("This is not an address. Write it as https://host or https://host:port.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValidationError("Write the endpoint as https://host or https://host:port.")
    if parts.path or parts.query or parts.fragment:
        raise ValidationError("Leave out what follows the host: the bucket's name has a field of its own.")
    if parts.username or parts.password:
        raise ValidationError("Put the keys into their own fields, not into the address.")
