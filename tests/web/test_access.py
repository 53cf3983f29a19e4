"""Every URL x role x method."""

import pytest
from django.db import transaction
from django.urls import get_resolver, reverse

ANYONE, SIGNED_IN, VIEWER, OPERATOR, ADMINISTRATOR = "anyone", "nobody", "Viewer", "Operator", "Administrator"
ORDER = [ANYONE, SIGNED_IN, VIEWER, OPERATOR, ADMINISTRATOR]
NEVER = None  # this method is refused to all with 405

# name: (what its address takes, who may GET, who may POST)
PAGES = {
    "home": ((), ANYONE, ANYONE),
    "sign-in": ((), ANYONE, ANYONE),
    "sign-out": ((), NEVER, ANYONE),
    "favicon": ((), ANYONE, ANYONE),
    "health": ((), ANYONE, ANYONE),
    "password": ((), SIGNED_IN, SIGNED_IN),
    "preferences": ((), SIGNED_IN, SIGNED_IN),
    "events": ((), VIEWER, VIEWER),
    "storages": ((), VIEWER, VIEWER),
    "storage-add": ((), ADMINISTRATOR, ADMINISTRATOR),
    "storage-edit": (("storage",), ADMINISTRATOR, ADMINISTRATOR),
    "storage-test": (("storage",), NEVER, ADMINISTRATOR),
    "storage-delete": (("storage",), ADMINISTRATOR, ADMINISTRATOR),
    "catalogue": (("storage",), NEVER, ADMINISTRATOR),
    "databases": ((), VIEWER, VIEWER),
    "databases-part": ((), VIEWER, VIEWER),
    "database-add": ((), ADMINISTRATOR, ADMINISTRATOR),
    "database": (("source",), VIEWER, VIEWER),
    "database-jobs": (("source",), VIEWER, VIEWER),
    "database-settings": (("source",), VIEWER, VIEWER),
    "database-edit": (("source",), ADMINISTRATOR, ADMINISTRATOR),
    "database-hours": (("source",), NEVER, ADMINISTRATOR),
    "database-check": (("source",), NEVER, OPERATOR),
    "database-pitr": (("source",), ADMINISTRATOR, ADMINISTRATOR),
    "database-delete": (("source",), ADMINISTRATOR, ADMINISTRATOR),
    "backups": (("source",), VIEWER, VIEWER),
    "backup-now": (("source",), OPERATOR, OPERATOR),
    "schedule-add": (("source",), OPERATOR, OPERATOR),
    "schedule-preview": (("source",), NEVER, OPERATOR),
    "restores": (("source",), VIEWER, VIEWER),
    "restore-wizard": (("source",), OPERATOR, OPERATOR),
    "transactions": (("source",), OPERATOR, OPERATOR),
    "transactions-found": (("list_job",), OPERATOR, OPERATOR),
    "transactions-part": (("list_job",), OPERATOR, OPERATOR),
    "transactions-older": (("list_job",), NEVER, OPERATOR),
    "transactions-rows": (("list_job",), NEVER, OPERATOR),
    "rows": (("rows_job",), OPERATOR, OPERATOR),
    "rows-part": (("rows_job",), OPERATOR, OPERATOR),
    "rows-more": (("rows_job",), NEVER, OPERATOR),
    "schedule-edit": (("schedule",), OPERATOR, OPERATOR),
    "schedule-switch": (("schedule",), NEVER, OPERATOR),
    "schedule-delete": (("schedule",), OPERATOR, OPERATOR),
    "backup": (("backup",), VIEWER, VIEWER),
    "backup-row": (("backup",), VIEWER, VIEWER),
    "backup-cancel": (("running",), NEVER, OPERATOR),
    "backup-verify": (("backup",), NEVER, OPERATOR),
    "backup-pin": (("backup",), NEVER, OPERATOR),
    "backup-manifest": (("backup",), VIEWER, VIEWER),
    "backup-delete": (("backup",), ADMINISTRATOR, ADMINISTRATOR),
    "restore": (("restore",), VIEWER, VIEWER),
    "restore-row": (("restore",), VIEWER, VIEWER),
    "restore-part": (("restore",), VIEWER, VIEWER),
    "restore-start": (("restore",), NEVER, OPERATOR),
    "restore-cancel": (("restore",), NEVER, OPERATOR),
    "job": (("verify_job",), VIEWER, VIEWER),
    "job-part": (("verify_job",), VIEWER, VIEWER),
    "job-cancel": (("backup_job",), NEVER, OPERATOR),
}


def names(patterns):
    for pattern in patterns:
        if hasattr(pattern, "url_patterns"):
            if pattern.namespace != "admin":
                yield from names(pattern.url_patterns)
        else:
            yield pattern.name


def test_every_address_is_in_the_table():
    assert set(names(get_resolver().url_patterns)) == set(PAGES)


def address(name, world):
    things = vars(world) | {"restore": world.restores["draft"]}
    return reverse(name, args=[things[one].pk for one in PAGES[name][0]])


@pytest.mark.parametrize("name", PAGES)
def test_each_role_may_do_what_the_table_says(name, world, people, client):
    url = address(name, world)
    _, may_get, may_post = PAGES[name]
    for role in ORDER:
        for method, needed in (("get", may_get), ("post", may_post)):
            with transaction.atomic():
                client.logout() if role == ANYONE else client.force_login(people[role])
                status, place = answer(client, method, url)
                assert expected(role, needed, status, place), f"{role} {method} {url}: {status} {place}"
                transaction.set_rollback(True)


def answer(client, method, url):
    response = getattr(client, method)(url)
    return response.status_code, response.headers.get("Location", "")


def expected(role, needed, status, place):
    if needed is NEVER:
        return status == 405
    if ORDER.index(role) >= ORDER.index(needed):
        return status in (200, 302, 409, 503) and "/sign-in/?next=" not in place
    if role == ANYONE:
        return status == 302 and place.startswith("/sign-in/?next=")
    return status == 403


def test_an_operator_restores_to_another_database_only(world, sign_in):
    client, url = sign_in("Operator"), reverse("restore-wizard", args=[world.source.pk])
    assert client.post(url, {"moment": "latest", "target": str(world.target.pk)}).status_code == 302
    page = client.post(url, {"moment": "latest", "target": str(world.source.pk)})
    assert page.status_code == 200 and "Select a valid choice" in page.content.decode()


def test_an_operator_cannot_start_what_turned_out_to_be_in_place(world, sign_in):
    restore = world.restores["draft"]
    restore.plan = restore.plan | {"in_place": True}
    restore.save()
    response = sign_in("Operator").post(reverse("restore-start", args=[restore.pk]), {"typed": "staging"})
    assert response.status_code == 403


@pytest.mark.parametrize(
    ("role", "present", "absent"),
    [
        ("Viewer", [], ["Create backup", "Check now", "Switch on", "restore/", "edit/"]),
        ("Operator", ["Create backup", "Check now"], ["/pitr/", "/edit/"]),
        ("Administrator", ["Create backup", "Check now", "/pitr/"], []),
    ],
)
def test_buttons_a_person_may_not_use_are_absent(role, present, absent, world, sign_in):
    page = sign_in(role).get(reverse("database", args=[world.source.pk])).content.decode()
    assert [word for word in present if word not in page] == []
    assert [word for word in absent if word in page] == []


def test_a_post_without_the_token_is_refused(world, people):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(people["Administrator"])
    assert client.post(reverse("database-check", args=[world.source.pk])).status_code == 403
