"""A world of rows in every state, and a client for each role."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.utils import timezone

from backups.models import Backup
from tests.web import story

ROLES = ["nobody", "Viewer", "Operator", "Administrator"]


@pytest.fixture
def local_root(settings, tmp_path):
    settings.EVEREST_LOCAL_ROOT = tmp_path
    return tmp_path


@pytest.fixture
def world(db, local_root):
    """One of everything that a page can show."""
    story.workers_at_work()
    (local_root / "demo").mkdir()
    storage = story.storage("disk", type="local", bucket="demo", region="", endpoint="")
    spare = story.storage("spare")
    source, target = story.database(), story.database("staging")
    story.history(source, storage)
    running = story.backup(source, storage, "running", state=Backup.RUNNING, view_at=None, finished_at=None)
    failed = story.backup(source, storage, "failed", state=Backup.FAILED, view_at=None, error="No privilege RELOAD.")
    now = timezone.now()
    drafts = {
        "draft": story.restore(source, target),
        "resolving": story.restore(source, target, plan=None),
        "refused": story.restore(source, target, plan=None, error="That moment is not covered."),
        "running": story.restore(source, target, "running", started_at=now),
        "succeeded": story.restore(source, target, "succeeded", started_at=now - timedelta(minutes=2), finished_at=now,
                                   result={"transactions": 12}),
        "failed": story.restore(source, target, "failed", error="staging is incomplete.", finished_at=now),
        "cancelled": story.restore(source, target, "cancelled", error="Cancelled by olga."),
    }  # fmt: skip
    story.job("resolve", database=source, restore=drafts["resolving"])
    return SimpleNamespace(
        storage=storage, spare=spare, source=source, target=target, running=running, failed=failed, restores=drafts,
        backup=source.backups.get(name="after-the-gap"), schedule=story.schedule(source, storage),
        backup_job=story.job("backup", database=source, backup=running),
        restore_job=story.job("restore", database=target, restore=drafts["running"]),
        verify_job=story.job("verify", "succeeded", database=source, result={"slices": 40}),
        list_job=story.listed(source), rows_job=story.rows_shown(source),
    )  # fmt: skip


@pytest.fixture
def people(db, settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast
    return {role: story.person(role.lower(), "" if role == "nobody" else role) for role in ROLES}


@pytest.fixture
def sign_in(client, people):
    """A function that gives the client of one role."""

    def as_role(role):
        client.force_login(people[role])
        return client

    return as_role


@pytest.fixture
def admin(sign_in):
    return sign_in("Administrator")
