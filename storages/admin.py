from django.contrib import admin

from everest.admin import Shown
from storages.models import BackupStorage


@admin.register(BackupStorage)
class StorageAdmin(Shown):
    list_display = ["name", "type", "bucket", "region", "endpoint", "checked_at"]
    search_fields = ["name", "bucket", "endpoint"]
    exclude = ["access_key", "secret_key", "encryption_keys"]
