"""Backup Storages: where bytes go."""

from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from everest.secrets import SecretField
from storages.stores import ObjectStore, ProbeResult, StoreConfig, open_store, probe


def local_folder(path: str) -> Path:
    """The absolute folder of a Local-folder storage; ValidationError where it is not below the root."""
    if not settings.EVEREST_LOCAL_ROOT:
        raise ValidationError("Local folders are switched off: EVEREST_LOCAL_ROOT is not set.")
    root = Path(settings.EVEREST_LOCAL_ROOT).resolve()
    folder = (root / path).resolve()
    if folder == root or not folder.is_relative_to(root):
        raise ValidationError(f"The folder must lie below {root}.")
    return folder


class BackupStorage(models.Model):
    S3, LOCAL = "s3", "local"

    name = models.CharField(max_length=22, unique=True)
    description = models.CharField(max_length=200, blank=True)
    type = models.CharField(max_length=8, choices=[(S3, "S3 Compatible"), (LOCAL, "Local folder")], default=S3)
    bucket = models.CharField(
        "Bucket Name", max_length=255, help_text="For a local folder: its path below EVEREST_LOCAL_ROOT"
    )
    region = models.CharField(max_length=64, blank=True)
    endpoint = models.CharField(max_length=255, blank=True)
    access_key = SecretField(blank=True, default="")
    secret_key = SecretField(blank=True, default="")
    verify_tls = models.BooleanField("Verify TLS certificate", default=True)
    ca_certificate = models.TextField("CA certificate", blank=True)
    path_style = models.BooleanField("Force path-style URL access", default=False)
    prefix = models.CharField(max_length=200, blank=True)
    encryption_keys = SecretField(blank=True, default="")  # one a line: the first encrypts, all decrypt
    conditional_put = models.BooleanField(default=False, editable=False, help_text="Remembered by Test connection")
    checked_at = models.DateTimeField(null=True, blank=True, editable=False)
    check_error = models.TextField(blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["type", "endpoint", "bucket", "prefix"], name="one_storage_a_place")
        ]

    def __str__(self):
        return self.name

    def config(self) -> StoreConfig:
        """Raise SecretLost where the keys cannot be decrypted any more."""
        local = self.type == self.LOCAL
        return StoreConfig(
            type=self.type,
            name=self.name,
            bucket=str(local_folder(self.bucket)) if local else self.bucket,
            region=self.region,
            endpoint=self.endpoint,
            access_key=self.secret("access_key"),
            secret_key=self.secret("secret_key"),
            verify_tls=self.verify_tls,
            ca_certificate=self.ca_certificate,
            path_style=self.path_style,
            prefix=self.prefix,
            conditional_put=self.conditional_put,
        )

    def secret(self, field) -> str:
        """A fresh instance may still hold a plain string."""
        return self._meta.get_field(field).to_python(getattr(self, field)).reveal()

    def open_store(self) -> ObjectStore:
        return open_store(self.config())

    def probe(self, save=True) -> ProbeResult:
        """Try every operation that backups need, within a time limit, and remember the outcome on this row.

        A new storage is probed before it is saved; its local folder is made.  An old one's never is: where that is
        missing, a disk is not mounted.
        """
        config = self.config()
        if self._state.adding and self.type == self.LOCAL:
            with suppress(OSError):  # the probe says it better
                Path(config.bucket).mkdir(parents=True, exist_ok=True)
        result = probe(config)
        if result.ok:  # else it was not asked, and what was known stands
            self.conditional_put = result.conditional_put
        self.checked_at = timezone.now()
        failed = (step for step in result.steps if step.required and not step.ok)
        self.check_error = next((f"{step.name}: {step.message}" for step in failed), "")
        if save and not self._state.adding:
            self.save(update_fields=["conditional_put", "checked_at", "check_error"])
        return result

    def used_by(self) -> dict[str, list[str]]:
        """What uses this storage: {database's name: ["backups", "schedules", ...]}."""
        return users([self])[self.pk]

    @property
    def health(self) -> str:
        if self.checked_at is None:
            return "untested"
        return "down" if self.check_error else "healthy"


def users(storages) -> dict[int, dict[str, list[str]]]:
    """As `used_by`, of several storages in as many queries.

    storages knows nothing of backups, so it follows whatever relations point here.
    """
    found: dict[int, dict[str, set[str]]] = {storage.pk: {} for storage in storages}
    used = [one for relation in BackupStorage._meta.related_objects for one in uses(relation, list(found))]
    names = names_of({owner for _, owner, _ in used})
    for storage, owner, kind in used:
        found[storage].setdefault(names[owner], set()).add(kind)
    return {pk: {name: sorted(kinds) for name, kinds in sorted(of.items())} for pk, of in found.items()}


def uses(relation, storages):
    """(storage, (owner's model, its key), kind of use) of all whose rows point to storages by this relation.

    What belongs to a timeline alone is told by the timeline: those rows come by the million.
    """
    model, here = relation.related_model, relation.field.name
    owned = has_field(model, "database")
    if has_field(model, "timeline") and not owned:
        return []
    rows = model.objects.filter(**{f"{here}__in": storages}).order_by()
    owner = model._meta.get_field("database").related_model if owned else model
    kind = str(model._meta.verbose_name_plural if owned else relation.field.verbose_name)
    pairs = rows.values_list(here, "database" if owned else "pk").distinct()
    return [(storage, (owner, key), kind) for storage, key in pairs]


def names_of(owners):
    """{(model, key): name} in one query for each model."""
    keys = {}
    for model, key in owners:
        keys.setdefault(model, []).append(key)
    rows = {model: model.objects.filter(pk__in=of).order_by().values_list("pk", "name") for model, of in keys.items()}
    return {(model, key): name for model, named in rows.items() for key, name in named}


def has_field(model, name) -> bool:
    return any(field.name == name for field in model._meta.fields)
