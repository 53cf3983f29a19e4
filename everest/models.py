"""People, and what they did."""

from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    time_zone = models.CharField(max_length=64, default="UTC", help_text="IANA name, such as Europe/Berlin")
    THEMES = [("auto", "Auto"), ("light", "Light"), ("dark", "Dark")]
    theme = models.CharField(max_length=8, default="auto", choices=THEMES)


class Event(models.Model):
    """Who did what, when, from where, to what.  Append-only."""

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    who = models.CharField(max_length=150, help_text="User name, or 'command line' or 'schedule'")
    address = models.GenericIPAddressField(null=True, blank=True)
    action = models.CharField(max_length=64)
    subject = models.CharField(max_length=200)
    detail = models.TextField(blank=True)

    class Meta:
        ordering = ["-at", "-id"]

    def __str__(self):
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.who} {self.action} {self.subject}"

    def save(self, *args, **kwargs):
        if self.pk:
            raise TypeError("Events are append-only.")
        super().save(*args, **kwargs)

    def delete(self, *args, **kwargs):
        raise TypeError("Events are append-only.")

    @classmethod
    def note(cls, who, action, subject, detail="", address=None):
        return cls.objects.create(who=str(who), action=action, subject=str(subject), detail=detail, address=address)
