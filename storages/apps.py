from django.apps import AppConfig


class StoragesConfig(AppConfig):
    name = "storages"
    default_auto_field = "django.db.models.BigAutoField"
