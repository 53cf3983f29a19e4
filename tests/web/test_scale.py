"""Every page asks as many questions of the metadata, however much there is."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from backups.models import Database
from everest.admin import Shown
from storages.models import BackupStorage
from tests.scale import addresses, rows


@pytest.fixture
def counted(settings, monkeypatch):
    """A function that seeds anew, asks for every page, and says how many queries each took."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast
    client = Client()

    def count(page, **sizes):
        monkeypatch.setattr(Shown, "list_per_page", page)  # lists of the admin have several, whatever the size
        rows.seed(**sizes)
        return {name: queries(client, url) for name, url in addresses.every().items()}

    client.force_login(rows.administrator())
    return count


def queries(client, url):
    client.get(url)
    with CaptureQueriesContext(connection) as asked:
        assert client.get(url).status_code == 200, url
    return len(asked)


@pytest.mark.django_db
def test_ten_times_the_rows_take_no_more_queries(counted):
    few = counted(page=3, databases=4, backups=16, slices=80, storages=2)
    for database in Database.objects.all():
        database.forget()
    BackupStorage.objects.all().delete()
    many = counted(page=30, databases=40, backups=160, slices=800, storages=20)
    assert {name: (few[name], many[name]) for name in few if many[name] > few[name]} == {}
