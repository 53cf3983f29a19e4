"""Backup Storages: where bytes go."""

from django.db import models

from everest.secrets import SecretField


class BackupStorage(models.Model):
    S3, LOCAL = "s3", "local"

    name = models.CharField(max_length=22, unique=True)
    description = models.CharField(max_length=200, blank=True)
    type = models.CharField(max_length=8, choices=[(S3, "S3 Compatible"), (LOCAL, "Local folder")], default=S3)
    bucket = models.CharField("Bucket Name", max_length=255, help_text="For a local folder: its path below EVEREST_LOCAL_ROOT")
    region = models.CharField(max_length=64, blank=True)
    endpoint = models.CharField(max_length=255, blank=True)
    access_key = SecretField(blank=True, default="")
    secret_key = SecretField(blank=True, default="")
    verify_tls = models.BooleanField("Verify TLS certificate", default=True)
    ca_certificate = models.TextField("CA certificate", blank=True)
    path_style = models.BooleanField("Force path-style URL access", default=False)
    prefix = models.CharField(max_length=200, blank=True)
    conditional_put = models.BooleanField(default=False, editable=False, help_text="Remembered by Test connection")
    checked_at = models.DateTimeField(null=True, blank=True, editable=False)
    check_error = models.TextField(blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["type", "endpoint", "bucket", "prefix"], name="one_storage_a_place")]

    def __str__(self):
        return self.name
