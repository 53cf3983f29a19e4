"""A database that was rebuilt from a bucket rests until somebody saves it with its credentials."""

import pytest
from django.urls import reverse

from backups import leases
from backups.forms import DatabaseForm
from backups.models import Database

pytestmark = pytest.mark.django_db


def test_the_page_says_so_and_leads_to_the_form(world, admin):
    page = reverse("database", args=[world.source.pk])
    assert "and rests" not in admin.get(page).content.decode()
    Database.objects.update(paused=True)
    text = admin.get(page).content.decode()
    assert "and rests" in text and reverse("database-edit", args=[world.source.pk]) in text


def test_saving_its_form_takes_it_over(world):
    Database.objects.update(paused=True, pitr=True, pitr_storage=world.storage, client_key="")
    assert not leases.due().exists()
    database = Database.objects.get(pk=world.source.pk)
    values = {"name": "shop", "host": "127.0.0.1", "port": 1, "user": "everest", "password": "x", "tls": "off"}
    form = DatabaseForm(values, instance=database)
    assert form.is_valid(), form.errors
    form.save()
    assert leases.due().get() == database
