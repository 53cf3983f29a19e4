from django.apps import AppConfig
from django.db.models.signals import post_migrate


class EverestConfig(AppConfig):
    name = "everest"

    def ready(self):
        from everest.people import make_groups

        post_migrate.connect(make_groups, sender=self)
