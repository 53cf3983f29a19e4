"""A storage's encryption keys on its form: entered, added to, never shown."""

import base64
import os

import pytest
from django.urls import reverse

from storages.forms import StorageForm
from storages.models import BackupStorage

pytestmark = pytest.mark.django_db
FIRST, SECOND = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))


def saved(keys, storage=None):
    values = {"name": "disk", "type": "local", "bucket": "disk", "encryption_keys": keys}
    form = StorageForm(values, instance=storage or BackupStorage())
    assert form.is_valid(), form.errors
    form.save()
    return BackupStorage.objects.get()


def test_a_key_is_entered_kept_and_joined_by_a_newer_one(local_root):
    storage = saved(FIRST)
    assert storage.secret("encryption_keys") == FIRST
    storage = saved("", storage)
    assert storage.secret("encryption_keys") == FIRST
    storage = saved(SECOND, storage)
    assert storage.secret("encryption_keys").split() == [SECOND, FIRST]
    storage = saved(FIRST, storage)
    assert storage.secret("encryption_keys").split() == [FIRST, SECOND]


@pytest.mark.parametrize("text", ["secret", "!", base64.b64encode(bytes(16)).decode()])
def test_what_is_no_key_is_refused(text, local_root):
    form = StorageForm({"name": "disk", "type": "local", "bucket": "disk", "encryption_keys": text})
    assert not form.is_valid() and "32 random bytes" in str(form.errors["encryption_keys"])


def test_no_page_shows_a_key(local_root, admin):
    storage = saved(FIRST)
    for url in (reverse("storages"), reverse("storage-edit", args=[storage.pk])):
        page = admin.get(url).content.decode()
        assert FIRST not in page and storage.encryption_keys.stored not in page
    assert "before anything leaves this machine" in admin.get(reverse("storages")).content.decode()


def test_a_key_whose_own_encryption_is_lost_says_so(local_root):
    storage = saved(FIRST)
    BackupStorage.objects.filter(pk=storage.pk).update(encryption_keys=type(storage.encryption_keys)("gone.token"))
    values = {"name": "disk", "type": "local", "bucket": "disk", "encryption_keys": SECOND}
    form = StorageForm(values, instance=BackupStorage.objects.get())
    assert not form.is_valid() and "EVEREST_SECRET_KEYS" in str(form.errors)
